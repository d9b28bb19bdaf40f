"""The tables of a diagnosis, for a terminal."""

from rich import box
from rich.table import Table
from rich.text import Text

from msam.diagnosis.measured import Measured
from msam.diagnosis.wording import PLAIN, SHARE, metric_units


def draw_diagnosis(diagnosis: Measured) -> Table:
    """Draw all numbers.

    Args:
        diagnosis: The result.

    Returns:
        A grid of tables.
    """
    grid = Table.grid()
    parts = [_draw_contributions(diagnosis)]
    if len(diagnosis.modalities) > 1:
        parts += [_draw_pairs(diagnosis), _draw_missing(diagnosis)]
    if diagnosis.probes:
        parts.append(_draw_probes(diagnosis))
    for part in parts:
        grid.add_row(part)
    for note in ["Below each number: its 95 % interval, from resampled samples.", *diagnosis.notes]:
        grid.add_row(Text(note, style="dim"))
    return grid


def _table(title: str, words: list[str], numbers: list[str]) -> Table:
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD)
    table.show_edge, table.pad_edge, table.padding = False, False, (0, 2, 0, 0)
    for column in words:
        table.add_column(Text(column), justify="left")
    for column in numbers:
        table.add_column(Text(column), justify="right", no_wrap=True)
    return table


def _add_row(table: Table, *cells: str) -> None:
    table.add_row(*(Text(cell) for cell in cells))


def _draw_contributions(diagnosis: Measured) -> Table:
    units = metric_units(diagnosis.metric)
    head = f"{diagnosis.metric}{', %' * units.percent}"
    title = f"Contributions on {diagnosis.samples} samples: Shapley values of {diagnosis.value}, and {diagnosis.metric}"
    numbers = ["Shapley value", "share, %", f"{head}\nwith it alone", f"{head}\nwithout it", "cost of\nits absence"]
    table = _table(title, ["absent as", "modality"], numbers)
    for baseline, view in diagnosis.views.items():
        table.add_section()
        for index, name in enumerate(diagnosis.modalities):
            found = (view.alone[name], view.without[name], view.cost[name])
            cells = (PLAIN.cell(view.contributions[name]), SHARE.cell(view.shares[name]), *map(units.cell, found))
            _add_row(table, baseline if index == 0 else "", name, *cells)
        if len(diagnosis.modalities) > 1:
            _add_row(table, "", "(all)", "", "", units.cell(view.everything), units.cell(view.nothing), "")
    return table


def _draw_pairs(diagnosis: Measured) -> Table:
    table = _table("Pairs", ["absent as", "pair"], ["interaction", "verdict"])
    for baseline, view in diagnosis.views.items():
        table.add_section()
        for index, found in enumerate(view.interactions):
            _add_row(table, baseline if index == 0 else "", " + ".join(found.pair), PLAIN.cell(found.index), found.word)
    return table


def _draw_missing(diagnosis: Measured) -> Table:
    units = metric_units(diagnosis.metric)
    fractions = [fraction for fraction, _ in next(iter(diagnosis.main.missing.values()))]
    title = f"Missing in a share of the samples: {diagnosis.metric}{', %' * units.percent}"
    table = _table(title, ["absent as", "missing"], [f"{100 * fraction:g} %" for fraction in fractions])
    for baseline, view in diagnosis.views.items():
        table.add_section()
        for index, (name, curve) in enumerate(view.missing.items()):
            _add_row(table, baseline if index == 0 else "", name, *(units.cell(found) for _, found in curve))
    return table


def _draw_probes(diagnosis: Measured) -> Table:
    numbers = ["raw inputs", "branch", "lost", "raw, above chance"]
    table = _table("Linear probes: accuracy, %", ["modality"], numbers)
    for name, probe in diagnosis.probes.items():
        _add_row(table, name, *(SHARE.cell(found) for found in (probe.raw, probe.branch, probe.lost, probe.raw_above_chance)))
    return table
