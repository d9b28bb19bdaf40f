"""A comparison on the terminal: its verdict, and its tables."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from msam.compare import Findings
from msam.report.side_tables import side_contents
from msam.report.tables import TableContent, branches_content, results_content
from msam.report.verdict import introduce, state_verdict


def render_table(findings: Findings) -> Table:
    """Draw the main table for a terminal.

    Args:
        findings: Of a comparison.

    Returns:
        Results and cost, one row per method.
    """
    return draw_table(results_content(findings, with_costs=True))


def draw_table(content: TableContent) -> Table:
    """Draw any table for a terminal.

    Args:
        content: The table.

    Returns:
        Without colour for meaning, so that it survives a pipe.
    """
    table = Table(title=Text(content.title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD)
    table.show_edge, table.pad_edge, table.padding = False, False, (0, 1, 0, 0)
    heads = [max(map(len, column.split()), default=0) for column in content.columns]  # a head is not cut within a word
    words = 2 if content.columns[:2] == ("Modality", "Method") else 1
    for index, column in enumerate(content.columns):
        width = max(len(word) for row in content.rows for word in row[index].split() or [""]) if index < words else heads[index]
        table.add_column(Text(column), justify="left" if index < words else "right", min_width=width, overflow="fold")
    for index, row in enumerate(content.rows):
        if index in content.sections and index:
            table.add_section()
        table.add_row(*(Text(cell) for cell in row))
    return table


def print_reports(findings: Sequence[Findings], console: Console, page_path: Path | None = None) -> None:
    """Print the verdicts of one or several comparisons, and then all of each.

    Args:
        findings: Of the comparisons.
        console: Where to.
        page_path: Of the page, to be named at the end; None if there is none.
    """
    if len(findings) > 1:
        for each in findings:
            console.print(Text(introduce(each), style="bold"))
            console.print()
    for each in findings:
        if len(findings) > 1:
            console.rule(Text(each.comparison["task"]["name"]))
            console.print()
        print_report(each, console)
        console.print()
    if page_path is not None:
        console.print(Text.assemble(("Page: ", "bold"), str(page_path)), soft_wrap=True)


def print_report(findings: Findings, console: Console, page_path: Path | None = None) -> None:
    """Print the verdict and the tables.

    Args:
        findings: Of a comparison.
        console: Where to.
        page_path: Of the page, to be named at the end; None if there is none.
    """
    verdict = state_verdict(findings)
    console.print(Text(verdict.headline, style="bold"))
    console.print()
    contents = [results_content(findings, with_costs=True)]
    contents += side_contents(findings)
    if len(findings.base.alone) > 1:
        contents.append(branches_content(findings))
    for content in contents:
        console.print(draw_table(content))
        console.print(Text(content.note, style="dim"))
        console.print()
    for sentence in verdict.details:
        console.print(Text(f"- {sentence}"))
    console.print()
    console.print(Text.assemble(("Advice: ", "bold"), verdict.advice))
    console.print()
    console.print(Text("Caveats", style="bold"))
    for caveat in verdict.caveats:
        console.print(Text(f"- {caveat}"))
    if page_path is not None:
        console.print()
        console.print(Text.assemble(("Page: ", "bold"), str(page_path)), soft_wrap=True)
