"""Emoji by three artists, with their names, from npm packages; built into the cache."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.data.archives.cached import read_arrays
from msam.data.archives.packages import MIT_TERMS, Package, Report, build_once, cache_folder, read_members, silent
from msam.data.archives.svg import draw_svg
from msam.errors import InvalidValueError

SIZE = 32
"""Pixels of a side."""
FILE = "emoji.npz"
PACKAGES = (
    Package(
        client="npm",
        name="emoji-datasource-google",
        version="16.0.0",
        sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        licence="images Apache-2.0; names MIT",
        size=74_344_091,
    ),
    Package(
        client="npm",
        name="emoji-datasource-twitter",
        version="16.0.0",
        sha256="f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        licence="images CC-BY-4.0",
        size=61_683_754,
    ),
    Package(
        client="npm",
        name="openmoji",
        version="17.0.0",
        sha256="55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68",
        licence="images CC-BY-SA-4.0",
        size=4_339_458,
    ),
)

_WORDS = ("names", "groups", "subgroups")
_ARTISTS = ("google", "twitter", "openmoji")
_LICENCE = """# Emoji

`emoji.npz` holds the same emoji as drawn by three artists, and their names. Each part keeps its own licence. OpenMoji's is
share-alike: adapted pictures of theirs may only be passed on under the same licence.

| array | by | from | licence |
|---|---|---|---|
| `image_google` | Google LLC, Noto Emoji | npm `emoji-datasource-google` 16.0.0 | Apache-2.0, \
<https://www.apache.org/licenses/LICENSE-2.0> |
| `image_twitter` | Twitter, Inc. and other contributors, Twemoji | npm `emoji-datasource-twitter` 16.0.0 | CC-BY-4.0, \
<https://creativecommons.org/licenses/by/4.0/> |
| `image_openmoji` | OpenMoji, the open-source emoji and icon project, HfG Schwäbisch Gmünd, <https://openmoji.org> | \
npm `openmoji` 17.0.0 | CC-BY-SA-4.0, <https://creativecommons.org/licenses/by-sa/4.0/> |
| `names`, `groups`, `subgroups` | Copyright (c) 2013 Cal Henderson, emoji-data | \
npm `emoji-datasource-google` 16.0.0 | MIT, below |

**Changes made here.** Pictures are put on white and reduced to 32 x 32 pixels by averaging areas; OpenMoji's are drawn from
SVG. Names are in lower case, without accents and most punctuation. Skin tones are left out.

## MIT

{terms}
"""


@dataclass(frozen=True)
class Emoji:
    """The same concepts as drawn by several artists, and what they are called."""

    names: tuple[str, ...]
    """N names in lower case, each once, such as ``grinning face with smiling eyes``."""
    groups: tuple[str, ...]
    """N groups, such as ``Smileys & Emotion``."""
    subgroups: tuple[str, ...]
    """N finer groups, such as ``face-smiling``."""
    images: dict[str, NDArray[np.uint8]]
    """Artist (``google``, ``twitter``, ``openmoji``) -> ``(N, size, size, 3)``, on white."""

    def __len__(self) -> int:
        return len(self.names)


def load_emoji(path: Path | None = None) -> Emoji:
    """Load the built data set.

    Args:
        path: A file that `build_emoji` wrote; the cache's if None.

    Returns:
        The emoji, in Unicode's order.

    Raises:
        InvalidValueError: If it has not been built, or the file is damaged.
    """
    path = cache_folder() / FILE if path is None else path
    arrays = read_arrays(path, "the emoji", "msam data emoji", _WORDS)
    names, groups, subgroups = (tuple(arrays[key].tolist()) for key in _WORDS)
    images = {key.removeprefix("image_"): values for key, values in arrays.items() if key.startswith("image_")}
    return Emoji(names, groups, subgroups, images)


def build_emoji(folder: Path | None = None, source: Path | None = None, progress: Report = silent) -> Path:
    """Build the data set from its npm packages, unless it is there already and whole.

    Args:
        folder: Where to; the cache if None.
        source: A folder with the archives, downloaded elsewhere; None to download them with ``npm``.
        progress: Is told how far it is.

    Returns:
        The file.
    """

    def make(archives: Mapping[str, Path]) -> dict[str, NDArray[Any]]:
        return pack_emoji(read_emoji([archives[package.name] for package in PACKAGES], progress=progress))

    return build_once(
        (cache_folder() if folder is None else folder) / FILE,
        PACKAGES,
        make,
        _LICENCE.format(terms=MIT_TERMS),
        source,
        progress,
    )


def pack_emoji(emoji: Emoji) -> dict[str, NDArray[Any]]:
    """Turn emoji into the arrays of a file that `load_emoji` reads.

    Args:
        emoji: The emoji.

    Returns:
        Array name -> array.
    """
    words = {"names": emoji.names, "groups": emoji.groups, "subgroups": emoji.subgroups}
    images = {f"image_{artist}": images for artist, images in emoji.images.items()}
    return {**{key: np.array(texts) for key, texts in words.items()}, **images}


def read_emoji(archives: Sequence[Path], size: int = SIZE, progress: Report = silent) -> Emoji:
    """Read what the artists have in common.

    Args:
        archives: One of each artist, in the order Google, Twitter, OpenMoji; the first also has the names. The last may be
            missing.
        size: Pixels of a side.
        progress: Is told how far it is.

    Returns:
        The emoji that all of these artists drew, in Unicode's order, without skin tones.

    Raises:
        InvalidValueError: If the first archive holds no list of emoji.
    """
    entries = _entries(archives[0])
    images = {
        artist: _images(artist, archive, entries, size, progress) for artist, archive in zip(_ARTISTS, archives, strict=False)
    }
    common = [entry for entry in entries if all(entry["unified"] in found for found in images.values())]
    return Emoji(
        names=_names(common),
        groups=tuple(entry["category"] for entry in common),
        subgroups=tuple(entry["subcategory"] for entry in common),
        images={artist: np.stack([found[entry["unified"]] for entry in common]) for artist, found in images.items()},
    )


def _entries(archive: Path) -> list[dict[str, Any]]:
    found = dict(read_members(archive, lambda path: path == "package/emoji.json"))
    if not found:
        raise InvalidValueError(f"{archive.name} must hold package/emoji.json, found none; download it again")
    entries = json.loads(found["package/emoji.json"])
    drawn = [
        entry for entry in entries if entry["category"] != "Component" and entry["has_img_google"] and entry["has_img_twitter"]
    ]
    return sorted(drawn, key=lambda entry: entry["sort_order"])


def _images(
    artist: str, archive: Path, entries: Sequence[Mapping[str, Any]], size: int, progress: Report
) -> dict[str, NDArray[np.uint8]]:
    """Read an artist's pictures: code points, as the list of emoji has them -> picture."""
    paths = {path: entry["unified"] for entry in entries for path in _paths(artist, entry)}
    images: dict[str, NDArray[np.uint8]] = {}
    for path, content in read_members(archive, paths.__contains__):
        images[paths[path]] = _shrink(content, size)
        progress(f"drawings by {artist}", len(images), len(entries))
    return images


def _paths(artist: str, entry: Mapping[str, Any]) -> list[str]:
    """Say where a picture may be. OpenMoji leaves out some variation selectors (FE0F) that the list has."""
    if artist != "openmoji":
        return [f"package/img/{artist}/64/{entry['image']}"]
    codes = {entry["unified"], entry["non_qualified"] or entry["unified"], entry["unified"].replace("-FE0F", "")}
    return [f"package/color/svg/{code}.svg" for code in codes]


def _shrink(content: bytes, size: int) -> NDArray[np.uint8]:
    from PIL import Image

    if not content.startswith(b"\x89PNG"):
        picture = Image.fromarray(draw_svg(content, 8 * size))
    else:
        drawing = Image.open(BytesIO(content)).convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", drawing.size, "white"), drawing).convert("RGB")
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX))


def _names(entries: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Take the list's names; where two are alike, the short names instead."""
    names = [_plain(entry["name"]) for entry in entries]
    count = Counter(names)
    unique = [
        _plain(entry["short_name"].replace("_", " ")) if count[name] > 1 else name
        for name, entry in zip(names, entries, strict=True)
    ]
    assert len(set(unique)) == len(unique), "short names tell apart what names do not"
    return tuple(unique)


def _plain(name: str) -> str:
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    spoken = bare.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").replace("&", "and").replace("*", "asterisk")
    return " ".join(re.sub(r"[^a-z0-9.'-]", " ", spoken).split())
