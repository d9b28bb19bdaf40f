"""A page of retrievals: what each model finds for a name, and for a picture."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from _data import Split
from _model import Aligned
from _tables import NOTE, RETRIEVAL, SPACE, Summary, tabulate
from _training import embed
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import image as pictures

from msam.data.sets.emoji import Emoji

QUERIES = 16
FOUND = 6
NAMES = 3


@dataclass(frozen=True)
class Shown:
    """What one model found among the unseen emoji."""

    artists: list[str]
    """A held-in artist and the held-out one."""
    by_name: list[list[list[int]]]
    """For each artist: for each query, the rows of the nearest pictures."""
    by_picture: list[list[int]]
    """For each query, the rows of the names nearest to its picture, held-in art."""

    @classmethod
    def of(cls, model: Aligned, split: Split) -> "Shown":
        """Query a model.

        Args:
            model: In evaluation mode.
            split: Of its data.

        Returns:
            What it found.
        """
        artists, most = [split.held_in[0], split.held_out], len(split.test)
        pairs = [embed(model, split.test, artist) for artist in artists]
        by_name = [(text @ image.mT).topk(min(FOUND, most)).indices[:QUERIES].tolist() for image, text in pairs]
        image, text = pairs[0]
        return cls(artists, by_name, (image @ text.mT).topk(min(NAMES, most)).indices[:QUERIES].tolist())


def draw_picture(pixels: np.ndarray) -> str:
    """Encode a picture.

    Args:
        pixels: Shape ``(H, W, 3)``, uint8.

    Returns:
        A data URI.
    """
    buffer = BytesIO()
    pictures.imsave(buffer, pixels, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def write_page(path: Path, shown: Mapping[str, Shown], emoji: Emoji, split: Split, summaries: Sequence[Summary]) -> None:
    """Write the page.

    Args:
        path: Where to.
        shown: What each model found, by the method's label.
        emoji: The data set.
        split: Of the first seed.
        summaries: Of the runs, for the table.
    """
    rows = [emoji.names.index(name) for name in split.test.names]
    queries, artists = range(min(QUERIES, len(rows))), [split.held_in[0], split.held_out]
    used = sorted({row for one in shown.values() for found in one.by_name for query in found for row in query} | set(queries))
    uris = {artist: {row: draw_picture(emoji.images[artist][rows[row]]) for row in used} for artist in artists}
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("page.html.j2").render(
        shown=shown,
        uris=uris,
        names=split.test.names,
        queries=queries,
        artists=artists,
        candidates=len(split.test),
        tables=list(zip((RETRIEVAL, SPACE), tabulate(summaries), strict=True)),
        note=NOTE,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
