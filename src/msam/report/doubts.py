"""Which runs diverged, and which numbers are missing; each is named with its seed."""

from collections.abc import Iterator, Sequence

from msam.compare import Findings, why_diverged
from msam.compare.records import Record
from msam.report.evidence import spoken
from msam.report.units import DASH, join_words, seeds_text, units_of


def tell_diverged(findings: Findings) -> Iterator[str]:
    """Name every run that diverged.

    Args:
        findings: Of a comparison.

    Yields:
        A sentence for each method with such runs, the base trained on one modality included.
    """
    for label, records in _runs(findings):
        if why := group_reasons(records):
            yield f"{label} diverged: {why}. No conclusion rests on its runs."


def group_reasons(records: Sequence[Record]) -> str:
    """Tell which runs of a method diverged, and why.

    Args:
        records: Of the method, at the chosen strength.

    Returns:
        Such as "no finite loss on validation (seeds 0 and 3)"; nothing if all are sound.
    """
    seeds: dict[str, list[int]] = {}
    for record in records:
        if (why := why_diverged(record)) is not None:
            seeds.setdefault(why, []).append(record["seed"])
    return "; ".join(f"{why} ({seeds_text(found)})" for why, found in seeds.items())


def tell_unknown(findings: Findings) -> Iterator[str]:
    """Name every run in which a metric on the test split is not a number.

    Args:
        findings: Of a comparison.

    Yields:
        A sentence for each method with such runs, the base trained on one modality included.
    """
    for method in findings.methods:
        yield from _tell_missing(findings, spoken(method), [(run["seed"], _numbers(run["test"])) for run in method.records])
    for name, records in findings.runs_alone.items():
        numbers = [(run["seed"], {"with it": run["test"]["metric"]}) for run in records]
        yield from _tell_missing(findings, f"{findings.base.label} with {name} only", numbers)


def _tell_missing(findings: Findings, label: str, numbers: list[tuple[int, dict[str, float | None]]]) -> Iterator[str]:
    places: dict[tuple[int, ...], list[str]] = {}
    for where in numbers[0][1]:
        if seeds := tuple(seed for seed, found in numbers if found[where] is None):
            places.setdefault(seeds, []).append(where)
    if places:
        told = "; ".join(f"{join_words(where)} ({seeds_text(seeds)})" for seeds, where in places.items())
        yield f"The test {units_of(findings).name} of {label} is not a number {told}: {DASH} stands for what needs it."


def _numbers(test: Record) -> dict[str, float | None]:
    """The metrics of a run, by what they were taken with; of two modalities, one alone is the other missing."""
    found = {"with all modalities": test["metric"]}
    if len(test["alone"]) > 1:
        found |= {f"with {name} alone": number for name, number in test["alone"].items()}
    if len(test["alone"]) > 2:
        found |= {f"without {name}": number for name, number in test["without"].items()}
    return found


def _runs(findings: Findings) -> Iterator[tuple[str, Sequence[Record]]]:
    for method in findings.methods:
        yield spoken(method), method.records
    for name, records in findings.runs_alone.items():
        yield f"{findings.base.label} with {name} only", records
