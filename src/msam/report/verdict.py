"""The verdict: what a comparison found, in plain sentences, and what to do about it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from msam.compare import Findings, Interval, MethodFindings
from msam.report.advice import give_advice
from msam.report.caveats import list_caveats
from msam.report.evidence import (
    Relation,
    asks_for_missing,
    best_of,
    gain_over_base,
    is_ahead,
    is_starved,
    judged,
    relate,
    relate_to_base,
    rivals,
    shown_difference,
    spoken,
)
from msam.report.units import Units, criterion_text, join_words, percent, probe_units, seeds_text, units_of


@dataclass(frozen=True)
class Verdict:
    """A comparison in words."""

    headline: str
    """What was found, in one sentence."""
    details: tuple[str, ...]
    """Modality-Aware SAM against each of its rivals, the dominant modality, starved branches, missing modalities."""
    advice: str
    """What to do."""
    caveats: tuple[str, ...]
    """What limits the conclusion."""


def state_verdict(findings: Findings) -> Verdict:
    """Put findings into words.

    Args:
        findings: Of a comparison.

    Returns:
        The verdict; every claim of a difference rests on an interval that excludes zero.
    """
    return Verdict(
        headline=_headline(findings),
        details=(
            *_modality_aware(findings),
            *_dominance(findings),
            *_starvation(findings),
            *_missing(findings),
        ),
        advice=give_advice(findings),
        caveats=list_caveats(findings),
    )


def _headline(findings: Findings) -> str:
    units, base = units_of(findings), findings.base
    if base.diverged:
        which = seeds_text(base.diverged)
        return f"{base.label} itself diverged with {which}: nothing can be told of any method {_where(findings)}."
    if not rivals(findings):
        return f"{base.label} alone was run: {units.name} {_absolute(units, base.metric)}, and nothing to compare it with."
    if base.unknown:
        seeds = seeds_text(base.unknown)
        where = _where(findings)
        return f"The {units.name} of {base.label} is not a number with {seeds}: no method can be compared with it {where}."
    left_out = _left_out(findings)
    if not judged(findings):
        return f"No method can be compared with {base.label} {_where(findings)}: {left_out}."
    return _headline_of_judged(findings) + (f" Not judged: {left_out}." if left_out else "")


def _where(findings: Findings) -> str:
    return "on this test set" if findings.has_fixed_test else "on this data"


def introduce(findings: Findings) -> str:
    """State the verdict beside those of other comparisons.

    Args:
        findings: Of a comparison.

    Returns:
        The headline, with the task and what was selected for before it.
    """
    task = findings.comparison["task"]["name"].split(" (")[0]
    control = "a control, " if findings.is_control else ""
    return f"{task} ({control}selected by {criterion_text(findings)}): {state_verdict(findings).headline}"


def _left_out(findings: Findings) -> str:
    """Name the methods that cannot be judged, beside a base that can."""
    diverged = [spoken(method) for method in rivals(findings) if method.diverged]
    unknown = [spoken(method) for method in rivals(findings) if method.unknown and not method.diverged]
    whys = ((diverged, "diverged"), (unknown, f"{units_of(findings).name} not a number"))
    return "; ".join(f"{join_words(names)} ({why})" for names, why in whys if names)


def _headline_of_judged(findings: Findings) -> str:
    base, known = findings.base, judged(findings)
    if math.isnan(shown_difference(known[0]).half_width):
        return f"One seed cannot tell methods apart: {_the_largest(findings, known)}, and how much of it is chance is unknown."
    better = [method for method in known if relate_to_base(findings, method) is Relation.BETTER]
    worse = [method for method in known if relate_to_base(findings, method) is Relation.WORSE]
    equivalent = [method for method in known if relate_to_base(findings, method) is Relation.EQUIVALENT]
    if better:
        return _headline_of_wins(findings, better)
    if worse:
        return _headline_of_losses(findings, worse)
    if len(equivalent) == len(known):
        return _headline_of_equals(findings, equivalent)
    detects = _detectable(findings, [method for method in known if method not in equivalent])
    if len(known) == 1:
        difference = _evidence(findings, shown_difference(known[0]))
        return (
            f"{spoken(known[0])} cannot be told apart from {base.label} {_where(findings)}: the paired difference is "
            f"{difference}{detects}."
        )
    told = f" {join_words([spoken(method) for method in equivalent])} {_within(findings, equivalent)} it." if equivalent else ""
    return f"No method can be told apart from {base.label} {_where(findings)}: {_the_largest(findings, known)}{detects}.{told}"


def _headline_of_equals(findings: Findings, methods: list[MethodFindings]) -> str:
    base, count = findings.base.label, len(methods)
    who = spoken(methods[0]) if count == 1 else f"All {count} methods"
    return f"{who} {_within(findings, methods)} {base} {_where(findings)}: {_the_largest(findings, methods)}."


def _within(findings: Findings, methods: list[MethodFindings]) -> str:
    assert findings.margin is not None
    verb = "is" if len(methods) == 1 else "are"
    return f"{verb} equivalent, within {units_of(findings).amount(findings.margin)}, to"


def _detectable(findings: Findings, methods: list[MethodFindings]) -> str:
    """The smallest difference that the design would have told, for the method with the widest interval."""
    known = [found for method in methods if math.isfinite(found := shown_difference(method).detectable)]
    return f"; one of {units_of(findings).amount(max(known))} would have been told in four of five cases" if known else ""


def _headline_of_wins(findings: Findings, better: list[MethodFindings]) -> str:
    ours = findings.method("modality_aware_sam")
    absent = ""
    if ours is not None and ours not in better:
        absent = f"; {ours.label} {relate_to_base(findings, ours).value} {findings.base.label}"
    best = max(better, key=lambda method: shown_difference(method).mean)
    if len(better) == 1:
        difference = _evidence(findings, shown_difference(best))
        return f"{spoken(best)} beats {findings.base.label} {_where(findings)}: {difference}{absent}."
    count = f"{len(better)} of {len(judged(findings))} methods beat"
    return f"{count} {findings.base.label} {_where(findings)}: {_the_largest(findings, better)}{absent}."


def _headline_of_losses(findings: Findings, worse: list[MethodFindings]) -> str:
    base = findings.base.label
    if len(judged(findings)) == 1:
        return f"{spoken(worse[0])} is worse than {base} {_where(findings)}: {_evidence(findings, shown_difference(worse[0]))}."
    who = spoken(worse[0]) if len(worse) == 1 else str(len(worse))
    verb = "is" if len(worse) == 1 else "are"
    return f"No method beats {base} {_where(findings)}, and {who} {verb} worse: {_the_largest(findings, worse)}."


def _the_largest(findings: Findings, methods: tuple[MethodFindings, ...] | list[MethodFindings]) -> str:
    largest = max(methods, key=lambda method: abs(shown_difference(method).mean))
    difference = _evidence(findings, shown_difference(largest))
    if len(methods) == 1:
        return f"the paired difference is {difference}"
    return f"the largest paired difference is that of {spoken(largest)}, {difference}"


def _evidence(findings: Findings, difference: Interval) -> str:
    """A corrected difference, with all that a reader needs to judge it."""
    units, count = units_of(findings), len(rivals(findings))
    mean = units.signed(difference.mean) + (" points" if units.percent else f" in {units.name}")
    if math.isnan(difference.half_width):
        return mean
    corrected = f", corrected for {count} comparisons" if count > 1 else ""
    return f"{mean} (95 % interval {units.span(difference)}{corrected})"


def _absolute(units: Units, interval: Interval) -> str:
    mean = units.value(interval.mean)
    if math.isnan(interval.half_width):
        return mean
    return f"{mean} (95 % interval {units.plain(interval.low)} to {units.plain(interval.high)})"


def _modality_aware(findings: Findings) -> Iterator[str]:
    """Modality-Aware SAM against the base, the base with equal passes, and tuned SAM; one sentence per known outcome."""
    ours, sam, units = findings.method("modality_aware_sam"), findings.method("sam"), units_of(findings)
    if ours is None or ours.to_base is None:
        return
    against = {findings.base.label: ours.to_base}
    if ours.to_equal_passes is not None:
        against[f"{findings.base.label} with twice the passes"] = ours.to_equal_passes
    if sam is not None:
        against["SAM at the radius chosen for it"] = findings.difference(ours, sam)
    for relation in (known for known in Relation if known is not Relation.NONE):
        margin = findings.margin
        chosen = [f"{name} ({units.difference(gap)})" for name, gap in against.items() if relate(gap, margin) is relation]
        if chosen:
            yield f"{ours.label} {relation.value} {join_words(chosen, 'or' if relation is Relation.TIE else 'and')}."


def _dominance(findings: Findings) -> Iterator[str]:
    shares = findings.base.contributions
    if len(shares) < 2 or findings.base.diverged or any(math.isnan(share) for share in shares.values()):
        return
    name = findings.dominant
    ours = findings.method("modality_aware_sam")
    told = ours is not None and not ours.diverged and not math.isnan(ours.contributions[name])
    change = f", and {percent(ours.contributions[name])} under {ours.label}" if ours is not None and told else ""
    held = f"its share of the contributions is {percent(shares[name])}{_share_span(findings, name)} under {findings.base.label}"
    if not is_ahead(findings, name):
        yield f"No modality measurably dominates: {name} contributes most, {held}{change}."
        return
    verb = "dominates" if shares[name] > 0.5 else "contributes most"
    yield f"{name} {verb}: {held}{change}."


def _share_span(findings: Findings, name: str) -> str:
    share = findings.share_interval(name)
    return "" if math.isnan(share.half_width) else f" ({percent(share.low)} to {percent(share.high)})"


def _starvation(findings: Findings) -> Iterator[str]:
    if not findings.starvation:
        return
    units = probe_units(findings)
    known = {name: fate for name, fate in findings.starvation.items() if not math.isnan(fate.loss.half_width)}
    if not known and findings.comparison["seeds"] == 1:
        yield "Whether joint training starves a branch takes more than one seed to tell."
    starved = [name for name, fate in known.items() if is_starved(fate.loss)]
    if len(starved) > 2:
        losses = [f"{name} ({units.amount(known[name].loss.mean)}, {_ends(units, known[name].loss)})" for name in starved]
        yield (
            f"The branches of {join_words(losses)} are starved in joint training: a linear probe reads that much less from "
            "them than from the same branch trained alone."
        )
    for name in starved if len(starved) <= 2 else ():
        fate = known[name]
        yield (
            f"The branch of {name} is starved in joint training: a linear probe reads {units.value(fate.joint.mean)} "
            f"from it, {units.amount(fate.loss.mean)} (95 % interval {_ends(units, fate.loss)}) less than from the same branch "
            "trained alone."
        )
    fed = [name for name in known if name not in starved]
    if fed:
        branches, verb = ("branch", "is") if len(fed) == 1 else ("branches", "are")
        yield (
            f"The {branches} of {join_words(fed)} {verb} not measurably starved: the probes of joint and lone training "
            "cannot be told apart, or joint training gives the better one."
        )


def _ends(units: Units, loss: Interval) -> str:
    return f"{units.plain(loss.low)} to {units.plain(loss.high)}"


def _missing(findings: Findings) -> Iterator[str]:
    """Who leaves most when a modality is missing; of many modalities, only the one that is missed most."""
    missed = {name: found.mean for name, found in findings.base.without.items() if not math.isnan(found.mean)}
    if findings.base.diverged or not missed:
        return
    if not asks_for_missing(findings):
        if rivals(findings):
            yield (
                f"Settings were selected by {criterion_text(findings)}, so that methods are not ranked here by what they do "
                "with a modality missing; --select-by one-missing compares methods that are tuned for that."
            )
        return
    for name in missed if len(missed) <= 3 else [min(missed, key=missed.__getitem__)]:
        best = best_of(findings, lambda method: method.without[name])  # noqa: B023
        if best is not None:
            yield _tell_missing(findings, best, name)


def _tell_missing(findings: Findings, best: MethodFindings, name: str) -> str:
    units = units_of(findings)
    gain = gain_over_base(findings, best, lambda run: run["test"]["without"][name])
    held = f"With {name} missing, {units.name} is highest under {spoken(best)}: {units.value(best.without[name].mean)}"
    reference = f"{units.value(findings.base.without[name].mean)} for {findings.base.label}"
    if gain.mean <= 0:
        return f"With {name} missing, no method is above the {reference}."
    if relate(gain) is Relation.BETTER:
        return f"{held}, against {reference} ({units.difference(gain)})."
    unsure = "in a single seed" if relate(gain) is Relation.UNKNOWN else "a difference that may be chance"
    return f"{held}, against {reference} ({units.difference(gain)}), {unsure}."
