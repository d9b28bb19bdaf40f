"""What a diagnosis supports, in plain sentences."""

from msam.diagnosis.estimates import Estimate
from msam.diagnosis.measured import Measured
from msam.diagnosis.remedy import suggest_remedy
from msam.diagnosis.wording import PLAIN, SHARE, join_words, metric_units

_MEANINGS = {
    "complementary": "they are worth more together than one by one",
    "redundant": "what one gives, the other gives in part already",
}


def state_findings(diagnosis: Measured) -> list[str]:
    """Say what the numbers support.

    Args:
        diagnosis: The numbers.

    Returns:
        Sentences, the remedy and its limits last.
    """
    if len(diagnosis.modalities) == 1:
        return ["There is one modality only: nothing can be starved by another."]
    return [
        _state_dominance(diagnosis),
        *_state_nothing_added(diagnosis),
        *_state_pairs(diagnosis),
        *_state_costs(diagnosis),
        *_state_disagreements(diagnosis),
        *_state_probes(diagnosis),
        *suggest_remedy(diagnosis),
        *_state_limits(diagnosis),
    ]


def _basis(diagnosis: Measured) -> str:
    return f"absent as {next(iter(diagnosis.views))!r}"


def _state_dominance(diagnosis: Measured) -> str:
    view, first = diagnosis.main, diagnosis.main.first
    share, lead = SHARE.level(view.shares[first]), view.lead
    assert lead is not None
    if view.dominant is None:
        return (
            f"No modality dominates measurably: the largest contribution is that of {first}, {share} of all, and its lead over "
            f"the next is {PLAIN.amount(lead)} ({_basis(diagnosis)})."
        )
    return (
        f"{first} dominates: {share} of the contributions. Its Shapley value is "
        f"{PLAIN.amount(view.contributions[first])}, {PLAIN.amount(lead)} above the next ({_basis(diagnosis)})."
    )


def _state_nothing_added(diagnosis: Measured) -> list[str]:
    contributions = diagnosis.main.contributions
    sentences = []
    for name, found in contributions.items():
        if found.sign < 0:
            sentences.append(f"{name} misleads the model: its Shapley value is {PLAIN.amount(found)}, below 0.")
        elif found.sign == 0:
            sentences.append(f"{name} adds nothing measurable: its Shapley value is {PLAIN.amount(found)}.")
    return sentences


def _state_pairs(diagnosis: Measured) -> list[str]:
    """Say which pairs are complementary or redundant; contradictions are left to the disagreements."""
    sentences = []
    for index, first in enumerate(diagnosis.main.interactions):
        found = {name: view.interactions[index] for name, view in diagnosis.views.items()}
        words = {pair.word for pair in found.values()} - {"undecided"}
        if len(words) != 1:
            continue
        [word] = words
        sure = [repr(name) for name, pair in found.items() if pair.word == word]
        rest = [repr(name) for name, pair in found.items() if pair.word != word]
        number = next(pair.index for pair in found.values() if pair.word == word)
        where = f" under {join_words(sure)}, undecided under {join_words(rest)}" if rest else ""
        pair_names = join_words(list(first.pair))
        sentences.append(f"{pair_names} are {word}{where}: {_MEANINGS[word]}, interaction {PLAIN.amount(number)}.")
    return sentences


def _state_costs(diagnosis: Measured) -> list[str]:
    units, view = metric_units(diagnosis.metric), diagnosis.main
    return [
        f"With {name} missing, {diagnosis.metric} is {units.level(view.without[name])} instead of "
        f"{units.number(view.everything.value)}{' %' * units.percent}: a cost of {units.amount(found)}"
        f"{', not measurable' if found.sign == 0 else ''}."
        for name, found in view.cost.items()
    ]


def _state_disagreements(diagnosis: Measured) -> list[str]:
    """Say where baselines disagree: on who dominates, on a contribution's sign, or on a pair's word."""
    views = diagnosis.views
    if len(views) < 2:
        return []
    sentences = []
    if len({view.dominant for view in views.values()}) > 1:
        words = [f"{view.dominant or 'nobody'} under {name!r}" for name, view in views.items()]
        sentences.append(f"Baselines disagree about who dominates: {join_words(words)}.")
    for name in diagnosis.modalities:
        signs = {label: view.contributions[name] for label, view in views.items()}
        sentences += _disagreement(f"the sign of {name}'s contribution", signs)
    for index, found in enumerate(diagnosis.main.interactions):
        signs = {label: view.interactions[index].index for label, view in views.items()}
        sentences += _disagreement(f"whether {join_words(list(found.pair))} are complementary or redundant", signs)
    if sentences and "zeros" in views:
        sentences.append("Zeros may be far from any real input: where baselines disagree, believe none of them alone.")
    return sentences or ["The baselines agree about who dominates, and no sign is reversed between them."]


def _disagreement(about: str, found: dict[str, Estimate]) -> list[str]:
    if {1, -1} - {estimate.sign for estimate in found.values()}:
        return []
    words = [f"{PLAIN.amount(estimate)} under {name!r}" for name, estimate in found.items()]
    return [f"Baselines disagree about {about}: {join_words(words)}."]


def _state_probes(diagnosis: Measured) -> list[str]:
    sentences = []
    for name, probe in diagnosis.probes.items():
        if probe.starved:
            assert probe.branch is not None and probe.raw is not None and probe.lost is not None
            sentences.append(
                f"The branch of {name} has lost what was there: a linear probe reads {SHARE.level(probe.branch)} from its "
                f"features and {SHARE.level(probe.raw)} from its raw inputs, {SHARE.amount(probe.lost)} more."
            )
        if probe.raw_above_chance is not None and probe.raw_above_chance.sign <= 0:
            sentences.append(f"A linear probe reads nothing above chance from the raw inputs of {name}.")
    return sentences


def _state_limits(diagnosis: Measured) -> list[str]:
    sentences = []
    if any(probe.lost is not None for probe in diagnosis.probes.values()):
        sentences.append(
            "A branch next to its raw inputs is weaker evidence than a branch next to the same branch trained alone: a linear "
            "probe misses what raw inputs hold in other ways, so that a branch can be starved without a loss here, and a "
            "narrow branch can lose something without being starved. `msam diagnose` trains the branches alone."
        )
    return [*sentences, "All of this is one model's: intervals are over samples, and another training run may differ."]
