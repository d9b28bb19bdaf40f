"""Is a modality starved here at all? The answer in a few sentences and a table."""

import math

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from msam.compare import Findings
from msam.diagnosis import Diagnosis
from msam.report.advice import give_advice
from msam.report.caveats import list_caveats
from msam.report.doubts import tell_diverged, tell_unknown
from msam.report.units import percent, probe_units, units_of
from msam.report.verdict import Verdict

WIDE = 0.05
"""Intervals of a probe's loss that reach further than this many shares leave the question open."""

_REMEDY = "A remedy may pay: `msam compare` tells which one does on this task, and what it costs."


def print_diagnosis(findings: Findings, console: Console) -> None:
    """Print what each modality contributes, what its branch knows, what it could do alone, and what to do about it.

    Args:
        findings: Of a comparison that holds the base optimizer and the modalities alone.
        console: Where to print.
    """
    console.print(_table(findings))
    metric = units_of(findings).name
    told = (
        f"share: of the contributions on the test split, %. probe: {probe_units(findings).name} of a linear model on the "
        "branch's features, after joint training or with the branch trained alone; lost: the difference. trained alone: the "
        f"{metric} of the network trained with that modality only. without it: the {metric} of the joint network when it "
        "is missing. All with 95 % intervals."
    )
    console.print(Text(told, style="dim"))
    for sentence in diagnose_findings(findings):
        console.print(Text(sentence))


def print_model_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """Print what one trained model makes of each modality.

    Args:
        diagnosis: Of the base optimizer's model of the first seed.
        console: Where to print.
    """
    console.print()
    console.print("One model, the joint one of the first seed, looked at more closely:", style="bold", highlight=False)
    console.print(diagnosis.table())
    for sentence in diagnosis.findings():
        # This command has trained each modality alone, and said above what that shows.
        if not sentence.startswith("Whether a branch is starved cannot be told from this evidence"):
            console.print(Text(f"- {sentence}"))


def _table(findings: Findings) -> Table:
    base, units, probes = findings.base, units_of(findings), probe_units(findings)
    title = f"{findings.comparison['task']['name']}: {base.label}, seeds: {len(base.records)}"
    table = Table(title=Text(title, style="italic"), box=SIMPLE)
    table.add_column("modality", no_wrap=True)
    for column in ("share", "probe\njoint", "probe\nalone", "probe\nlost", "trained\nalone", "without\nit"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, share in base.contributions.items():
        fate = findings.starvation.get(name)
        table.add_row(
            Text(name),
            percent(share).removesuffix(" %"),
            probes.estimate(fate.joint) if fate else "none",
            probes.estimate(fate.alone) if fate else "none",
            probes.signed(fate.loss.mean) if fate else "",
            units.estimate(findings.alone[name]) if name in findings.alone else "",
            units.estimate(base.without[name]) if name in base.without else "",
        )
    return table


def diagnose_findings(findings: Findings) -> list[str]:
    """Say in sentences what the evidence supports.

    Args:
        findings: Of a comparison that holds the base optimizer and the modalities alone.

    Returns:
        Sentences: runs that diverged, which modality dominates, which branches are starved and by how much, and advice.
    """
    if len(findings.base.contributions) < 2:
        return ["There is one modality only: nothing can be starved."]
    doubts = [*tell_diverged(findings), *tell_unknown(findings)]
    if findings.base.diverged:
        return [*doubts, give_advice(findings)]
    sentences = [*doubts, *_tell_dominance(findings)]
    if not findings.starvation:
        why = findings.comparison["task"].get("no_probes")
        none = "The model declares no encoders, so that its branches cannot be probed."
        return [*sentences, none if why is None else f"Its branches are not probed: {why}."]
    if starved := _tell_starved(findings):
        return [*sentences, *starved, _REMEDY]
    return [*sentences, _tell_unstarved(findings)]


def state_diagnosis(findings: Findings) -> Verdict:
    """Put a diagnosis into the form of a verdict, for its page.

    Args:
        findings: Of a comparison that holds the base optimizer and the modalities alone.

    Returns:
        The headline says whether a modality is starved.
    """
    told = diagnose_findings(findings)
    starved = _tell_starved(findings) if findings.starvation and not findings.base.diverged else []
    headline = " ".join(starved) or told[-1]
    rest = tuple(sentence for sentence in told if sentence not in {headline, _REMEDY, *starved})
    advice = _REMEDY if starved else "`msam compare` tells whether a method does better here than the base optimizer."
    return Verdict(headline=headline, details=rest, advice=advice, caveats=list_caveats(findings))


def _tell_starved(findings: Findings) -> list[str]:
    units = probe_units(findings)
    return [
        f"{name} is starved: a linear probe of its branch reads {units.value(fate.joint.mean)} after joint training "
        f"and {units.value(fate.alone.mean)} when it trains alone; it lost {units.amount(fate.loss.mean)} "
        f"(95 % interval {units.span(fate.loss)})."
        for name, fate in findings.starvation.items()
        if fate.loss.low > 0
    ]


def _tell_unstarved(findings: Findings) -> str:
    losses = [fate.loss for fate in findings.starvation.values()]
    if any(math.isnan(loss.mean) for loss in losses):
        return "No branch can be said to be starved, and of some nothing can be told."
    if all(loss.high <= WIDE for loss in losses):
        return "No branch knows measurably less than alone: nothing needs fixing here."
    return "No branch can be said to be starved, but the intervals leave it open: use more seeds."


def _tell_dominance(findings: Findings) -> list[str]:
    share, name = findings.base.contributions[findings.dominant], findings.dominant
    return [] if math.isnan(share) else [f"{name} dominates: {percent(share)} of the contributions on the test split."]
