"""What the studies' reports share: tables in Markdown, and the parts of a page between markers."""

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """Write a table."""
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(line)} |" for line in lines)]


def replace(page: str, marker: str, lines: Iterable[str]) -> str:
    """Put lines between the markers of a part of the page."""
    begin, end = f"<!-- {marker} -->", f"<!-- end of {marker} -->"
    if begin not in page or end not in page:
        raise SystemExit(f"the page must hold {begin!r} and {end!r}")
    body = "\n".join(lines)
    return re.sub(re.escape(begin) + r".*?" + re.escape(end), lambda _: f"{begin}\n\n{body}\n\n{end}", page, flags=re.DOTALL)
