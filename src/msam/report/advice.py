"""Advice that follows from the intervals, and no further."""

import math

from msam.compare import Findings, MethodFindings, paired_interval
from msam.diagnosis.candidates import name_candidates
from msam.report.evidence import (
    Relation,
    asks_for_missing,
    best_of,
    gain_over_base,
    is_starved,
    judged,
    named,
    relate,
    relate_to_base,
    rivals,
    shown_difference,
    spoken,
)
from msam.report.units import join_words, units_of


def give_advice(findings: Findings) -> str:
    """Tell what to do.

    Args:
        findings: Of a comparison.

    Returns:
        A few sentences.
    """
    base = findings.base.label
    if findings.base.diverged:
        return _advise_mending(findings)
    if findings.is_control and findings.alone:
        return _advise_on_control(findings)
    if not rivals(findings):
        return f"Compare {base} with at least one method before choosing."
    if findings.base.unknown:
        name = units_of(findings).name
        return f"Mend the metric first: {name} must be a number on the test split of every seed. Then compare again."
    if not judged(findings):
        return f"Keep {base}: none of the others could be judged. Mend their runs first, if you want to compare them."
    if relate(shown_difference(judged(findings)[0])) is Relation.UNKNOWN:
        return f"Run more seeds, ten or more if you can, before choosing; until then keep {base}, the cheapest."
    better = [method for method in judged(findings) if relate_to_base(findings, method) is Relation.BETTER]
    sentences = [_advise_winner(findings, better) if better else _advise_base(findings), *_advise_starved(findings)]
    return " ".join(sentences)


def _advise_on_control(findings: Findings) -> str:
    """Whether the comparison found what is known to be there; methods are not recommended by it."""
    units, base = units_of(findings), findings.base
    name = max(findings.alone, key=lambda modality: findings.alone[modality].mean)
    runs, share = findings.runs_alone[name], findings.test_share
    gap = paired_interval(runs, base.records, lambda run: run["test"]["metric"], comparisons=1, test_share=share)
    held = (
        f"{base.label} with {name} only reaches {units.value(findings.alone[name].mean)}, with all modalities "
        f"{units.value(base.metric.mean)} ({units.difference(gap)})"
    )
    if relate(gap, findings.margin) is not Relation.BETTER:
        return (
            "Do not trust ties of such comparisons: something is known to be there to be found, and it was not told apart: "
            f"{held}. Run more seeds or train on more rows."
        )
    return (
        f"Choose no method by this control. It shows that such a comparison can tell: {held}; methods rank by how little they "
        "trust what misleads, which need not be what they have learned."
    )


def _advise_mending(findings: Findings) -> str:
    """What to look at where the base itself diverged."""
    settings = findings.comparison["task"]["optimizer"]
    rate = f" than {settings['lr']:g}" if "lr" in settings else ""
    told = [f"Mend the training first: check the data and the loss for NaN and infinity, or try a smaller learning rate{rate}."]
    if any(run["validation"]["metric"] is None and run["validation"]["loss"] is not None for run in findings.base.records):
        told.append(f"Check, too, that {units_of(findings).name} is a number on the validation split of every seed.")
    return " ".join([*told, "Then compare again; until then, nothing here speaks for a method or against it."])


def _advise_base(findings: Findings) -> str:
    units, base = units_of(findings), findings.base.label
    reach = max(shown_difference(method).high for method in judged(findings))
    is_small = all(relate_to_base(findings, method) is Relation.EQUIVALENT for method in judged(findings))
    compared = "was compared" if len(judged(findings)) == len(rivals(findings)) else "could be judged"
    keep = f"Keep {base}: it is the cheapest, and nothing that {compared} beats it."
    if reach <= 0 or is_small:
        return keep
    more = f"A gain of up to {units.amount(reach)} is not excluded; if one of that size matters to you, run more seeds"
    return f"{keep} {more} or use a larger test set."


def _advise_winner(findings: Findings, better: list[MethodFindings]) -> str:
    best = max(better, key=lambda method: method.metric.mean)
    equals = [method for method in better if _between(findings, best, method) is not Relation.BETTER]
    choice = min(equals, key=lambda method: (round(method.gradient_evaluations, 1), -method.metric.mean))
    base = findings.base.label
    if choice.name == "base_2x":
        others = [spoken(method) for method in equals if method is not choice]
        rest = f", and {join_words(others)} cannot be told apart from that" if others else ""
        return f"Train {base} longer: twice the passes are enough to beat {base}{rest}."
    cost = f"{choice.gradient_evaluations:.1f} x the gradient evaluations and {choice.seconds:.1f} x the time of {base}"
    advice = f"Use {named(choice)}; it costs {cost}."
    ties = [spoken(method) for method in better if _tied(findings, choice, method)]
    if ties:
        advice += f" It cannot be told apart from {join_words(ties, 'or')}."
    return advice + _equal_passes(findings, choice)


def _tied(findings: Findings, first: MethodFindings, second: MethodFindings) -> bool:
    others = first is not second and second.name != "base_2x"
    return others and _between(findings, first, second) is Relation.TIE


def _between(findings: Findings, first: MethodFindings, second: MethodFindings) -> Relation:
    return relate(findings.difference(first, second, comparisons=len(rivals(findings))))


def _equal_passes(findings: Findings, choice: MethodFindings) -> str:
    """The cheaper way to spend a method's extra passes, if it does as well; no matter where there are none."""
    if choice.to_equal_passes is None or choice.gradient_evaluations < 1.5:
        return ""
    longer = f"{findings.base.label} with twice the passes"
    relation = relate(choice.to_equal_passes)
    if relation is Relation.WORSE:
        return f" But it is worse than {longer}: train longer instead."
    return f" But it cannot be told apart from {longer}, which needs no new method." if relation is Relation.TIE else ""


def _advise_starved(findings: Findings) -> list[str]:
    """For the branch that is starved most: who has its modality alone answer best, if that is more than chance."""
    losses = {name: fate.loss.mean for name, fate in findings.starvation.items() if is_starved(fate.loss)}
    if not losses:
        return []
    more = name_candidates("starved", [method.name for method in findings.methods])
    told = [f"For a starved branch, {more}."] if more else []
    # What a modality answers alone is asked of those that were tuned for it only.
    branch = _advise_branch(findings, max(losses, key=losses.__getitem__)) if asks_for_missing(findings) else []
    return [*branch, *told]


def _advise_branch(findings: Findings, name: str) -> list[str]:
    units, best = units_of(findings), best_of(findings, lambda method: method.alone[name])
    if best is None or math.isnan(findings.base.alone[name].mean):
        return []
    if relate(gain_over_base(findings, best, lambda run: run["test"]["alone"][name])) is not Relation.BETTER:
        return [f"No method that was compared measurably helps {name} when it stands alone."]
    return [
        f"If {name} must also work alone, {named(best)} has the best {units.name} there: "
        f"{units.value(best.alone[name].mean)} against {units.value(findings.base.alone[name].mean)}."
    ]
