"""Is a modality starved here at all? The answer in a few sentences and a table."""

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from msam.compare import Findings, Interval


def print_diagnosis(findings: Findings, console: Console) -> None:
    """Print what each modality contributes, what its branch knows, what it could do alone, and what to do about it.

    Args:
        findings: Of a comparison that holds the base optimizer and the modalities alone.
        console: Where to print.
    """
    base = findings.base
    table = Table(title=f"{findings.comparison['task']['name']}: {base.label}, {len(base.records)} seeds", box=SIMPLE)
    table.add_column("modality", no_wrap=True)
    for column in ("share", "probe\njoint", "probe\nalone", "probe\nlost", "trained\nalone", "without\nit"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, share in base.contributions.items():
        starvation = findings.starvation.get(name)
        table.add_row(
            name,
            f"{share:.0%}",
            _percent(starvation.joint) if starvation else "no branch",
            _percent(starvation.alone) if starvation else "no branch",
            _points(starvation.loss) if starvation else "",
            _percent(findings.alone[name]) if name in findings.alone else "",
            _percent(base.without[name]) if name in base.without else "",
        )
    console.print(table)
    console.print(
        "share: of the contributions on the test split. probe: accuracy of a linear classifier on the branch's features, "
        "after joint training or with the branch trained alone; lost: the difference. trained alone: accuracy of the "
        "network trained with that modality only. without it: accuracy of the joint network when it is missing. "
        "All in %, with 95 % intervals.",
        style="dim",
        highlight=False,
    )
    for sentence in diagnose_findings(findings):
        console.print(sentence, highlight=False)


def diagnose_findings(findings: Findings) -> list[str]:
    """Say in sentences what the evidence supports.

    Args:
        findings: Of a comparison that holds the base optimizer and the modalities alone.

    Returns:
        Sentences: which modality dominates, which branches are starved and by how much, and advice.
    """
    shares = findings.base.contributions
    if len(shares) < 2:
        return ["There is one modality only: nothing can be starved."]
    dominant = findings.dominant
    sentences = [f"{dominant} dominates: {shares[dominant]:.0%} of the contributions on the test split."]
    if not findings.starvation:
        return [*sentences, "The model declares no encoders, so that its branches cannot be probed."]
    starved = [name for name, fate in findings.starvation.items() if fate.loss.low > 0]
    for name in starved:
        fate = findings.starvation[name]
        sentences.append(
            f"{name} is starved: a linear probe of its branch reads {_percent(fate.joint)} after joint training and "
            f"{_percent(fate.alone)} when it trains alone, {_points(fate.loss)} points lost."
        )
    if starved:
        return [*sentences, "A remedy may pay: `msam compare` tells which one does on this task, and what it costs."]
    if all(fate.loss.excludes_zero or fate.loss.half_width < 0.05 for fate in findings.starvation.values()):
        return [*sentences, "No branch knows measurably less than alone: nothing needs fixing here."]
    return [*sentences, "No branch can be said to be starved, but the intervals are wide: use more seeds."]


def _percent(interval: Interval) -> str:
    return f"{100 * interval.mean:.1f}±{100 * interval.half_width:.1f}"


def _points(interval: Interval) -> str:
    return f"{100 * interval.mean:+.1f}±{100 * interval.half_width:.1f}"
