"""One self-contained HTML page: nothing loaded, readable without scripts, in light and dark, on paper and on a phone."""

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from msam.compare import Findings
from msam.compare.flat import csv_text
from msam.report.drawing import keys_prefixed
from msam.report.plot import swatch
from msam.report.sections import part_content
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


def write_page(findings: Findings | Sequence[Findings], path: Path | str, *, diagnosis: bool = False) -> None:
    """Write the page, atomically.

    Args:
        findings: Of a comparison, or of several.
        path: Where to.
        diagnosis: Whether it shall tell if a modality is starved, instead of which method is best.
    """
    write_text(Path(path), render_page(findings, diagnosis=diagnosis))


def render_page(findings: Findings | Sequence[Findings], *, diagnosis: bool = False) -> str:
    """Build the page.

    Args:
        findings: Of a comparison, or of several: then their verdicts come first.
        diagnosis: Whether it shall tell if a modality is starved, instead of which method is best.

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
    environment.filters.update(spaced=_keep_units, swatch=_swatch, csv_link=_csv_link)
    several = [findings] if isinstance(findings, Findings) else list(findings)
    parts: list[dict[str, Any]] = []
    for place, each in enumerate(several):
        prefix = f"part{place + 1}-" if place else ""
        with keys_prefixed(prefix):
            parts.append({"prefix": prefix, **part_content(each, diagnosis=diagnosis)})
    style, script = (_inlined(name) for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template("template.html.j2")
    return page.render(parts=parts, sources=SOURCES, style=style, script=script, digest=Markup(digest)) + "\n"


def _inlined(name: str) -> Markup:
    return Markup((files("msam.report") / name).read_text(encoding="utf-8"))


def _swatch(style: Any) -> Markup:
    return Markup(swatch(style))


def _csv_link(rows: Any) -> str:
    """A table as an address that holds all of it, so that the page stays one file."""
    text = rows if isinstance(rows, str) else csv_text(rows)
    return "data:text/csv;charset=utf-8," + quote(text, safe=",:;()/+=*!@$")


def _keep_units(text: str) -> Markup:
    """Escape a text, and keep a number and its sign or unit on one line."""
    return Markup(re.sub(r"(?<=\d) (?=%|points)|(?<=±) ", "&nbsp;", str(escape(text))))
