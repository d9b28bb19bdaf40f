"""Checks, one row each, and the table of what they found."""

import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import torch

HEADS = ("check", "method", "seen", "limit", "verdict")
WIDEST = 110
"""Of a cell, in characters; what is cut stands below the table in full."""


class Skipped(Exception):  # noqa: N818 - no error
    """What is missing for a check."""


@dataclass(frozen=True)
class Found:
    """What a check saw, and whether that is within its limit; None where there is no limit."""

    seen: str
    good: bool | None = None


@dataclass(frozen=True)
class Check:
    """One row: what is looked at, with which method, within which limit."""

    name: str
    method: str
    limit: str
    run: Callable[[], Found]
    needs_cuda: bool = False


@dataclass
class Row:
    """What became of a check."""

    check: Check
    seen: str = ""
    verdict: str = ""
    trace: str = ""
    warned: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether it counts against the exit status."""
        return self.verdict.startswith(("FAILED", "ERROR"))

    @property
    def cells(self) -> tuple[str, ...]:
        """Of the table's line."""
        check = self.check
        return tuple(map(_cut, (check.name, check.method, self.seen, check.limit, self.verdict)))


def run_all(checks: Sequence[Check], device: torch.device) -> list[Row]:
    """Run checks one after the other, whatever becomes of each; progress goes to the standard error."""
    start, rows = perf_counter(), []
    for check in checks:
        rows.append(run_check(check, device))
        _write_progress(rows[-1], perf_counter() - start)
    return rows


def run_check(check: Check, device: torch.device) -> Row:
    """Run one check; an exception is its verdict, and warnings are kept."""
    row = Row(check)
    if check.needs_cuda and device.type != "cuda":
        row.verdict = "skipped: needs CUDA"
        return row
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            found = check.run()
            if device.type == "cuda":
                torch.cuda.synchronize()  # so that an error of the device is found in the row that it belongs to
            row.seen, row.verdict = found.seen, {None: "no limit", True: "ok", False: "FAILED"}[found.good]
        except Skipped as reason:
            row.verdict = f"skipped: {reason}"
        except Exception as error:
            row.verdict, row.trace = f"ERROR: {first_line(error)}", traceback.format_exc()
    row.warned = sorted({f"{warning.category.__name__}: {warning.message}" for warning in caught})
    return row


def first_line(error: BaseException) -> str:
    """Say an error's type and the first line of its message."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def write_table(rows: Sequence[Row]) -> str:
    """Write the table; below it what failed, with its limits in full, tracebacks, and warnings."""
    lines = [HEADS, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
    texts = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    texts.insert(1, "  ".join("-" * width for width in widths))
    failed = [row for row in rows if row.failed]
    skipped = sum(row.verdict.startswith("skipped") for row in rows)
    texts += ["", f"{len(rows)} rows: {len(failed)} failed, {skipped} skipped"]
    texts += [f"\n{row.check.name}, {row.check.method}: {row.verdict}\n{row.seen}\n{row.trace}".rstrip() for row in failed]
    return "\n".join([*texts, *_write_warnings(rows)]) + "\n"


def _write_warnings(rows: Sequence[Row]) -> list[str]:
    places: dict[str, list[str]] = {}
    for row in rows:
        for text in row.warned:
            places.setdefault(text.partition("\n")[0], []).append(f"{row.check.name}, {row.check.method}")
    return [
        f"\nwarning in {found[0]}{f' and {len(found) - 1} more' * (len(found) > 1)}:\n  {text}"
        for text, found in places.items()
    ]


def _write_progress(row: Row, seconds: float) -> None:
    sys.stderr.write(f"{seconds:6.1f} s  {row.check.name}, {row.check.method}: {_cut(f'{row.seen}: {row.verdict}')}\n")
    sys.stderr.flush()


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."
