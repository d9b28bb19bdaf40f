"""Counts the matrix of methods and items: which cells ran, which are declared out, which expect a declared error.

An item is a test function that takes a ``case``; a cell is one method's item, with all its variants. What a variant was
travels with its report (``user_properties``), so that the count is right under xdist too.
"""

from collections import Counter, defaultdict

import pytest

from cases import CASES, REPEATED, Case

WORDS = {"run": "run", "error": "with an expected error", "out": "declared out"}
EXACT = {"accumulation", "amp", "interface", "method_values", "options", "restore", "side_effects", "state", "two_call"}
"""Modules whose promises are bit by bit, or to rounding."""
LONG = {"test_restores_bitwise_over_thousands_of_steps_in_half_precision"}
"""But for this: a shorter test does the same."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "declared_out(reason): the method does not have this property, as its row declares")


@pytest.hookimpl(tryfirst=True)  # Before items are chosen by their markers.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        case = item.callspec.params.get("case") if hasattr(item, "callspec") else None
        chosen = isinstance(case, Case) and case.name in REPEATED and item.originalname not in LONG
        if chosen and item.path.stem.removeprefix("test_") in EXACT:
            item.add_marker("exact")


def pytest_runtest_setup(item: pytest.Item) -> None:
    case = item.callspec.params.get("case") if hasattr(item, "callspec") else None
    if not isinstance(case, Case):
        return
    declared = item.get_closest_marker("declared_out")
    where = f"{item.path.name}::{item.originalname}"
    item.user_properties.append(("cell", [where, case.name, "out" if declared else "run"]))
    if declared:
        pytest.skip(f"declared: {declared.args[0]}")


@pytest.fixture
def expected_error(record_property):
    """Call with a method's reason: this cell tests an error that its row declares."""
    return lambda reason: record_property("expected_error", reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    cells: dict[tuple[str, str], set[str]] = defaultdict(set)
    variants = 0
    for reports in terminalreporter.stats.values():
        for report in reports:
            properties = dict(getattr(report, "user_properties", ()))
            if "cell" in properties and (report.when == "call" or report.skipped):
                where, method, state = properties["cell"]
                cells[where, method].add("error" if "expected_error" in properties else state)
                variants += 1
    if not cells:
        return
    # A cell with a variant that ran has run; one that only shows an error has that; else it is declared out.
    found = Counter(next(state for state in WORDS if state in states) for states in cells.values())
    items = {where for where, _ in cells}
    counts = ", ".join(f"{found[state]} {words}" for state, words in WORDS.items())
    terminalreporter.write_line(
        f"contract: {len(CASES)} methods x {len(items)} items = {len(CASES) * len(items)} cells "
        f"({variants} variants): {counts}, {len(CASES) * len(items) - len(cells)} missing"
    )
