"""Which remedy the evidence supports, or that nothing needs fixing."""

from msam.diagnosis.candidates import Evidence, name_candidates
from msam.diagnosis.measured import Measured
from msam.diagnosis.wording import SHARE, join_words, metric_units

WIDE = 0.05
"""A loss that its interval allows to be larger than this leaves the question of starvation open."""

_DECIDES = "`msam compare` tells which helps on your task, and at what cost"


def _candidates(evidence: Evidence) -> str:
    return f"candidates, {name_candidates(evidence)}; {_DECIDES}"


def suggest_remedy(diagnosis: Measured) -> list[str]:
    """Say what to do.

    Args:
        diagnosis: The numbers, of at least two modalities.

    Returns:
        Sentences.
    """
    return [_about_starvation(diagnosis), *_about_missing(diagnosis)]


def sufficient_modality(diagnosis: Measured) -> str | None:
    """Find a modality that is all the model needs, as far as can be measured, under every baseline.

    Args:
        diagnosis: The numbers.

    Returns:
        Its name: no other contributes above 0, and everything is not better than it alone. None if there is none.
    """
    for name in diagnosis.modalities:
        others = [other for other in diagnosis.modalities if other != name]
        if all(
            view.beyond[name].sign <= 0
            and view.contributions[name].sign > 0
            and all(view.contributions[other].sign <= 0 for other in others)
            for view in diagnosis.views.values()
        ):
            return name
    return None


def _about_starvation(diagnosis: Measured) -> str:
    enough, starved = sufficient_modality(diagnosis), diagnosis.starved
    if enough is not None and not starved:
        return _about_sufficient(diagnosis, enough)
    if starved:
        branches = f"{'branch' if len(starved) == 1 else 'branches'} of {join_words(starved)}"
        only = (
            f" As {enough} alone does as well as everything, this matters if {enough} can be missing, or if what was lost "
            f"would add to it."
            if enough is not None
            else ""
        )
        largest = max(lost.high for lost in (diagnosis.probes[name].lost for name in starved) if lost is not None)
        small = (
            f" What it can win there is small at best, up to {SHARE.number(largest)} points: a healthy branch can lose as much."
            if largest <= WIDE
            else ""
        )
        return f"Remedy: the {branches} lost information in training together; {_candidates('starved')}.{small}{only}"
    losses = [probe.lost for probe in diagnosis.probes.values()]
    known = [lost for lost in losses if lost is not None]
    if not known:
        return (
            "Whether a branch is starved cannot be told from this evidence: it takes a model that declares `encoders` and "
            "`fuse`, numeric inputs, and a `probe_loader`; or `msam diagnose`, which trains each modality alone."
        )
    if len(known) < len(losses):
        return "No branch that could be probed lost anything measurable; the others cannot be judged."
    if all(lost.high <= WIDE for lost in known):
        return "No branch reads measurably worse than its raw inputs: nothing needs fixing here."
    worst = max(diagnosis.probes, key=lambda name: found.high if (found := diagnosis.probes[name].lost) else 0.0)
    return (
        "No branch reads measurably worse than its raw inputs: nothing needs fixing as far as this tells, but a loss of up to "
        f"{SHARE.number(max(lost.high for lost in known))} points in {worst} is not excluded; use more samples to be sure."
    )


def _about_sufficient(diagnosis: Measured, enough: str) -> str:
    others = [name for name in diagnosis.modalities if name != enough]
    opening = f"{enough} suffices: everything is not measurably better than {enough} alone"
    probed = {name: diagnosis.probes[name].raw_above_chance for name in others if name in diagnosis.probes}
    unknown = [name for name in others if probed.get(name) is None]
    if unknown:
        return (
            f"{opening}. Whether {join_words(unknown)} could give more is not known here, as the raw inputs were not probed; "
            "nothing that was measured needs fixing."
        )
    able = [name for name, found in probed.items() if found is not None and found.sign > 0]
    if not able:
        return f"{opening}, and the raw inputs of {join_words(others)} read at chance: nothing needs fixing."
    return (
        f"{opening}, and no branch lost anything measurable: nothing needs fixing for the {diagnosis.metric} with everything "
        f"present, although {join_words(able)} can be read by itself. If it shall be of use all the same there are "
        f"{_candidates('redundant')}."
    )


def _about_missing(diagnosis: Measured) -> list[str]:
    """Name the modalities without which the model does worse than what the others know."""
    units, view, sentences = metric_units(diagnosis.metric), diagnosis.main, []
    for name in diagnosis.modalities:
        if view.cost[name].sign <= 0:
            continue
        if name in diagnosis.unused:
            gap = diagnosis.unused[name]
            if gap.sign > 0:
                sentences.append(
                    f"Without {name}, the model falls behind what the others know: {units.level(view.without[name])}, "
                    f"{SHARE.amount(gap)} less than a linear probe of one other modality. If {name} can be missing there are "
                    f"{_candidates('missing')}."
                )
        elif view.above_nothing[name].sign <= 0:
            sentences.append(
                f"Without {name}, {diagnosis.metric} is no better than with nothing at all. If {name} can be missing and the "
                f"others know something by themselves, which a `probe_loader` would tell, there are {_candidates('missing')}."
            )
    return sentences
