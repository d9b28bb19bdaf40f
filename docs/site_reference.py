"""The site's reference: one page for each public name, listed by room; and docstrings' equations set as they are written."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

from sphinx.pycode import ModuleAnalyzer

ROOMS = {
    "msam.optim": "Optimizers, and closures that can be asked about modalities",
    "msam.geometry": "Which perturbation",
    "msam.combine": "How two gradients become one update",
    "msam.contribution": "What each modality contributes",
    "msam.balance": "Balancing methods",
    "msam.fusion": "Models of several modalities",
    "msam.data": "Data sets, splits, and modalities joined by name",
    "msam.training": "Tasks and the training loop",
    "msam.compare": "Comparisons",
    "msam.diagnosis": "Is a modality starved?",
    "msam.errors": "Errors and warnings",
}
"""Room -> what is in it."""

_ALONE = "---\norphan: true\n---\n\n"
"""Two hundred names in every page's contents would help nobody, and take most of the time."""
_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
_SECTIONS = (
    "Args:",
    "Returns:",
    "Raises:",
    "Yields:",
    "Example:",
    "Examples:",
    "Attributes:",
    "Note:",
    "Source:",
    "Cost:",
    "Deviations:",
)


def public_names(room: str) -> list[str]:
    """List the public names of a room.

    Args:
        room: A module's name.

    Returns:
        Those of its ``__all__``; of one without, those that are defined in it.
    """
    module = importlib.import_module(room)
    names = getattr(module, "__all__", None)
    if names is None:
        names = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", "") == room
        ]
    return sorted(names, key=str.lower)


def write_reference(app: Any) -> None:
    """Write the reference's pages into ``reference/`` beside the others.

    Args:
        app: Sphinx's.
    """
    folder = Path(app.srcdir) / "reference"
    (folder / "api").mkdir(parents=True, exist_ok=True)
    written = set()
    index = ["# Reference", "", "Every public name, by the room that it is in.", ""]
    contents = []
    for room, what in ROOMS.items():
        lines = [f"# {room}", "", what + ".", "", "| name | what it is |", "|---|---|"]
        for name in public_names(room):
            value = getattr(importlib.import_module(room), name)
            page = f"api/{room}.{name}"
            lines.append(f"| [`{name}`]({page}.md) | {_first_sentence(value)} |")
            written.add(_write(folder / f"{page}.md", _page(room, name, value)))
        written.add(_write(folder / f"{room}.md", "\n".join(lines) + "\n"))
        index += [f"- [`{room}`]({room}.md): {what.lower()}"]
        contents.append(room)
    index += ["", "```{toctree}", ":hidden:", "", *contents, "```"]
    written.add(_write(folder / "index.md", "\n".join(index) + "\n"))
    for stale in {*folder.glob("*.md"), *(folder / "api").glob("*.md")} - written:
        stale.unlink()


def _write(path: Path, text: str) -> Path:
    """Write a page where it differs, so that a second build reads what changed only."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return path


def _first_sentence(value: Any) -> str:
    text = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ")
    if not (inspect.isclass(value) or callable(value) or inspect.ismodule(value)):
        return f"`{type(value).__name__}`"
    return text.replace("|", "\\|").replace("``", "`")


def _page(room: str, name: str, value: Any) -> str:
    if not callable(value):
        return f"{_ALONE}# {name}\n\n`{room}.{name}`, a `{type(value).__name__}`.\n\n{_said_of(room, name)}\n"
    kind = "autoclass" if inspect.isclass(value) else "autofunction"
    if inspect.isclass(value) and issubclass(value, BaseException):
        kind = "autoexception"
    options = "   :members:\n   :show-inheritance:\n" if kind in {"autoclass", "autoexception"} else ""
    return f"{_ALONE}# {name}\n\n```{{eval-rst}}\n.. currentmodule:: {room}\n\n.. {kind}:: {name}\n{options}```\n"


def _said_of(room: str, name: str) -> str:
    """Find what is said of a value, below its assignment, in the module that defines it."""
    root = importlib.import_module(room)
    inside = [found.name for found in pkgutil.walk_packages(getattr(root, "__path__", []), f"{room}.")]
    for module in [room, *inside]:
        said = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", name))
        if said:
            return "\n".join(said).replace("``", "`")
    return ""


def keep_links_inside(app: Any, page: str, source: list[str]) -> None:
    """Turn links to folders and pages of the repository that are not on the site into their text and path.

    Args:
        app: Sphinx's.
        page: Its name.
        source: Of the page; changed in place.
    """
    root = Path(app.srcdir)

    def plain(link: re.Match[str]) -> str:
        text, target = link.groups()
        path = (root / page).parent.joinpath(target.split("#")[0]).resolve()
        outside = "://" not in target and path.exists() and not path.is_relative_to(root)
        if outside and (path.is_dir() or path.suffix == ".md"):
            place = path.relative_to(root.parent).as_posix()
            return text if place in text else f"{text} (`{place}`)"
        return link.group()

    source[0] = _LINK.sub(plain, source[0])


def set_equations(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:  # noqa: ARG001
    """Turn indented blocks of a docstring, which are equations or code, into literal blocks, and escape what is no markup.

    Args:
        app: Sphinx's.
        what: Kind of the thing.
        name: Its name.
        value: The thing.
        options: Of the directive.
        lines: Of the docstring; changed in place.
    """
    found: list[str] = []
    inside, section = False, ""
    for number, line in enumerate(lines):
        bare = line.strip()
        if bare in _SECTIONS and line == bare:
            section = bare
        starts = bool(bare) and line.startswith("    ") and not section and (number == 0 or not lines[number - 1].strip())
        if not inside and starts:
            before = next((earlier for earlier in reversed(lines[:number]) if earlier.strip()), "")
            found += [] if before.endswith("::") else [".. code-block:: text", ""]
            inside = True
        elif inside and bare and not line.startswith("    "):
            inside = False
            found.append("")
        found.append(line if inside or section.startswith("Example") or bare.startswith(">>>") else _escaped(line))
    lines[:] = found


def _escaped(line: str) -> str:
    """Escape bars and stars outside of literals."""
    parts = line.split("``")
    return "``".join(
        part
        if place % 2
        else part.replace("|", "\\|").replace("*", "\\*")
        if "*" in part and part.count("*") % 2
        else part.replace("|", "\\|")
        for place, part in enumerate(parts)
    )
