"""What stands on the page, and in which order."""

from dataclasses import dataclass
from typing import Any

from msam.compare import Findings
from msam.compare.flat import records_csv
from msam.report.curves import alone_figure, contributions_figure, learning_figure
from msam.report.diagnosis import state_diagnosis
from msam.report.differences import differences_figure
from msam.report.drawing import Figure
from msam.report.figures import calibration_figure, missing_figure, starvation_figure
from msam.report.origin import machine_rows, settings_rows, statistics_sentences
from msam.report.scatter import compute_figure
from msam.report.search import search_figure
from msam.report.side_tables import calibration_content, control_content, metrics_content, patterns_content, trials_content
from msam.report.tables import TableContent, branches_content, costs_content, results_content
from msam.report.verdict import introduce, state_verdict


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading of its own."""

    key: str
    """Its id, but for the prefix of a comparison."""
    title: str
    blocks: tuple[Figure | TableContent, ...] = ()
    """Figures and tables, in their order."""


def part_content(findings: Findings, *, diagnosis: bool = False) -> dict[str, Any]:
    """Collect what the page says of one comparison.

    Args:
        findings: Of the comparison.
        diagnosis: Whether the question is if a modality is starved: then the verdict says so, beside the picture of branches.

    Returns:
        For the template; ``sections`` are those that have something to show.
    """
    comparison = findings.comparison
    runs = [run for method in findings.methods for run in method.records]
    runs += [run for found in findings.runs_alone.values() for run in found]
    picture = starvation_figure(findings) if diagnosis else differences_figure(findings)
    sections = _sections(findings, picture)
    trials = trials_content(findings)
    return {
        "comparison": comparison,
        "verdict": state_diagnosis(findings) if diagnosis else state_verdict(findings),
        "introduced": introduce(findings),
        "picture": picture,
        "sections": sections,
        "contents": _contents(sections),
        "trials": trials,
        "records": records_csv(runs),
        "settings": settings_rows(comparison["task"]),
        "machines": machine_rows(findings),
        "statistics": statistics_sentences(findings),
    }


def _sections(findings: Findings, picture: Figure | None) -> list[Section]:
    """All but what stands on the first screen already."""
    starvation = starvation_figure(findings)
    shown = starvation is not None and picture is not None and picture.key == starvation.key
    found = [
        _section("results", "Results", compute_figure(findings), results_content(findings), costs_content(findings),
                 metrics_content(findings), control_content(findings)),
        _section("branches", "Branches", None if shown else starvation,
                 branches_content(findings) if findings.base.alone else None),
        _section("absence", "Missing modalities", missing_figure(findings), patterns_content(findings)),
        _section("trust", "Calibration", calibration_figure(findings), calibration_content(findings)),
        _section("training", "Curves", learning_figure(findings)),
        _section("shares", "Contributions", contributions_figure(findings), alone_figure(findings)),
        _section("trials", "Trials", search_figure(findings), _tried(findings)),
    ]  # fmt: skip
    return [section for section in found if section.blocks]


def _section(key: str, title: str, *blocks: Figure | TableContent | None) -> Section:
    return Section(key, title, tuple(block for block in blocks if block is not None))


def _tried(findings: Findings) -> TableContent | None:
    content = trials_content(findings)
    return content if content.rows else None


def _contents(sections: list[Section]) -> list[tuple[str, str]]:
    """Ids and titles of all sections, those with words of their own included."""
    ends = [("files", "Data"), ("origin", "How this came about"), ("statistics", "Statistics")]
    return [("verdict", "Verdict"), ("caveats", "Caveats"), *((section.key, section.title) for section in sections), *ends]
