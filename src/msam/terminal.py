"""The terminal: what is printed is text, whoever wrote it."""

from collections.abc import Iterable
from typing import Any

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from msam.shown import make_visible


class Console(rich.console.Console):
    r"""A rich console that interprets nothing in what it prints: no markup, no emoji codes, no control characters.

    Styles and layout are made with rich's objects. Only newlines within text are kept; names should be made fit before, by
    `msam.shown.show_name`, which escapes them too.

    Args:
        options: Of `rich.console.Console`.

    Example:
        >>> Console(width=60).print("[red]x[/red] :smile: \x1b[31m")
        [red]x[/red] :smile: \x1b[31m
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a string into text, with control characters made visible before rich drops some of them.

        Args:
            text: The string.
            options: Of `rich.console.Console.render_str`.

        Returns:
            The text.
        """
        return super().render_str(make_visible(text, keep="\n"), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render an object, with control characters in its text made visible.

        Args:
            renderable: As of `rich.console.Console.render`.
            options: As of `rich.console.Console.render`.

        Yields:
            Segments; those that control the terminal are rich's own.
        """
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=make_visible(segment.text, keep="\n"))
