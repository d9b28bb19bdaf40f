"""How a comparison came about: its settings, machines, versions, and statistics, in words."""

from typing import Any

from msam.compare import Findings
from msam.report.evidence import rivals
from msam.report.units import criterion_text, percent


def settings_rows(task: dict[str, Any]) -> list[tuple[str, str]]:
    """Write a task's settings.

    Args:
        task: Of ``comparison.json``.

    Returns:
        Names and texts; an optimizer's unset and switched-off options are left out.
    """
    rows = []
    for key, value in task.items():
        if isinstance(value, dict):
            name = [str(value["name"])] if "name" in value else []
            options = [f"{option} {held}" for option, held in value.items() if option != "name" and held]
            rows.append((key, ", ".join(name + options)))
        elif isinstance(value, list | tuple):
            rows.append((key, ", ".join(map(str, value))))
        else:
            rows.append((key, str(value)))
    return [(key.replace("_", " "), text) for key, text in rows]


def statistics_sentences(findings: Findings) -> list[str]:
    """Tell how the numbers came about.

    Args:
        findings: Of a comparison.

    Returns:
        Sentences.
    """
    count = len(rivals(findings))
    told = [
        "Runs of one seed share splits, initial weights and batch order, whatever the method. Each run keeps the weights of "
        "its best validation epoch, and its test split is read once."
        if findings.base.alone
        else "Runs of one seed are paired, whatever the method. What they trained, and what they read of validation and test, "
        "is their own training function's.",
    ]
    if findings.comparison["seeds"] == 1:
        told.append("A single seed gives no intervals and no p values.")
    else:
        told += _interval_statistics(findings, count)
    if any(len(method.tuning.trials) > 1 for method in findings.methods):
        told.append(_tuning(findings))
    if findings.base.alone:
        told.append(
            "Contributions are Shapley values over all coalitions of modalities, absent ones masked, negative ones counted as "
            f"zero, and scaled to sum to {percent(1.0)}."
        )
    if findings.base.probes:
        told.append(
            "A probe is a ridge model, fitted to a branch's frozen features on the training split and scored on the test split."
        )
    return told


def _tuning(findings: Findings) -> str:
    comparison = findings.comparison
    if not comparison["tuning_seeds"]:
        return (
            "Strengths are searched on a coarse geometric grid and refined twice around the best, by validation, with the same "
            "number of runs for each method; ties go to the smaller strength."
        )
    rule = "the strongest within one standard error of the best" if comparison["one_standard_error"] else "the best mean score"
    return (
        f"Settings are chosen by {criterion_text(findings)} on validation, over {comparison['tuning_seeds']} seeds that are "
        "not reported: points spread evenly over learning rate (a third to three times the task's) and strength (two decades), "
        f"both in the logarithm, with the same number for each method, the base included. Chosen is {rule}; ties go to the "
        "smaller strength."
    )


def _interval_statistics(findings: Findings, count: int) -> list[str]:
    told = [
        "Differences are paired: seed by seed, then Student's t over seeds. The variance is that of Nadeau and Bengio "
        "(Machine Learning 52, 2003), s squared times (1/n + c / (1 - c)), where n is the number of seeds and "
        + (
            "c = 0, as all seeds have the same test split: what is said holds on these rows."
            if findings.has_fixed_test
            else f"c = {findings.test_share:.3g} is the share of all rows that a test split takes, since test splits of "
            "different seeds overlap."
        ),
    ]
    if count > 1:
        told.append(
            f"Intervals of differences to {findings.base.label} hold together at 95 % for all {count} comparisons "
            "(Bonferroni); p values are corrected by Holm's method. A method is said to be better or worse only if its "
            "corrected interval excludes zero."
        )
    if findings.method("modality_aware_sam") is not None and findings.method("sam") is not None:
        told.append("Modality-Aware SAM against SAM is one question of its own, with a plain 95 % interval.")
    if findings.starvation:
        told.append("Whether a branch is starved is judged by a plain 95 % interval of the paired difference of its probes.")
    return told


def machine_rows(findings: Findings) -> list[tuple[str, str]]:
    """Tell on what the reported runs were measured.

    Args:
        findings: Of a comparison.

    Returns:
        Names and texts; nothing where the records do not tell.
    """
    runs = [run for method in findings.methods for run in method.records]
    runs += [run for found in findings.runs_alone.values() for run in found]
    machines: dict[str, int] = {}
    for run in runs:
        if held := run["measured"].get("machine"):
            names = (held.get("processor", "unknown processor"), held.get("system", "unknown system"))
            told = f"{', '.join(names)}, {held.get('cores', '?')} cores"
            machines[told] = machines.get(told, 0) + 1
    rows = [("machine", told if len(machines) == 1 else f"{told} ({count} runs)") for told, count in machines.items()]
    peaks = [run["measured"]["peak_memory_mib"] for run in runs if run["measured"].get("peak_memory_mib")]
    rows += [("peak memory of a process", f"{max(peaks):.0f} MiB")] if peaks else []
    return rows
