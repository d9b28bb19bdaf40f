"""One self-contained HTML page: no script, no network, readable in light and dark, on paper and on a phone."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from msam.compare import Findings
from msam.report.curves import alone_figure, contributions_figure, strengths_figure
from msam.report.drawing import keys_prefixed
from msam.report.evidence import rivals
from msam.report.figures import compute_figure, forest_figure, starvation_figure
from msam.report.side_tables import side_contents, trials_content
from msam.report.tables import branches_content, costs_content, results_content
from msam.report.units import criterion_text, percent
from msam.report.verdict import introduce, state_verdict
from msam.storage import write_text

SOURCES = (
    (
        "SAM",
        "Foret, Kleiner, Mobahi and Neyshabur, ICLR 2021",
        "2010.01412",
    ),
    (
        "Modality-Aware SAM",
        "Nowdeh, Ji, Ma and Afghah, NeurIPS 2025",
        "2510.24919",
    ),
    ("Monge SAM", "Jacobsen and Arvanitidis, 2025", "2502.08448"),
)
"""Method, publication, and arXiv number."""


def write_page(findings: Findings | Sequence[Findings], path: Path | str) -> None:
    """Write the page, atomically.

    Args:
        findings: Of a comparison, or of several.
        path: Where to.
    """
    write_text(Path(path), render_page(findings))


def render_page(findings: Findings | Sequence[Findings]) -> str:
    """Build the page.

    Args:
        findings: Of a comparison, or of several: then their verdicts come first.

    Returns:
        HTML; the same findings give the same text.
    """
    environment = Environment(
        loader=PackageLoader("msam.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["spaced"] = _keep_units
    several = [findings] if isinstance(findings, Findings) else list(findings)
    parts = []
    for place, each in enumerate(several):
        prefix = f"part{place + 1}-" if place else ""
        with keys_prefixed(prefix):
            parts.append({"prefix": prefix, **_content(each)})
    return environment.get_template("template.html.j2").render(parts=parts, sources=SOURCES) + "\n"


def _content(findings: Findings) -> dict[str, Any]:
    comparison = findings.comparison
    return {
        "comparison": comparison,
        "verdict": state_verdict(findings),
        "results": results_content(findings),
        "branches": branches_content(findings) if findings.base.alone else None,
        "costs": costs_content(findings),
        "trials": trials_content(findings),
        "figures": {
            "forest": forest_figure(findings),
            "starvation": starvation_figure(findings),
            "compute": compute_figure(findings),
            "contributions": contributions_figure(findings),
            "strengths": strengths_figure(findings),
            "alone": alone_figure(findings),
        },
        "settings": _settings(comparison["task"]),
        "statistics": _statistics(findings),
        "introduced": introduce(findings),
        "sides": side_contents(findings),
    }


def _settings(task: dict[str, Any]) -> list[tuple[str, str]]:
    """The task's settings as text; an optimizer's unset and switched-off options are left out."""
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


def _statistics(findings: Findings) -> list[str]:
    """How the numbers came about, for this comparison."""
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


def _keep_units(text: str) -> Markup:
    """Escape a text, and keep a number and its sign or unit on one line."""
    return Markup(re.sub(r"(?<=\d) (?=%|points)|(?<=±) ", "&nbsp;", str(escape(text))))
