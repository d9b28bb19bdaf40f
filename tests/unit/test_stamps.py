"""Stamps: a small package in the same format, what is kept of it, and what its splits keep apart."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from command import run
from media_files import media_file
from msam.data import find_dataset
from msam.data.sets import stamps
from msam.data.sets.captions import BUCKETS, count_trigrams
from msam.errors import InvalidValueError
from msam.training import source
from packaged import deb_bytes, put_all

EACH = 6


def png(seed: int, mode: str = "RGBA") -> bytes:
    """A wide picture of four patches."""
    patches = np.random.default_rng(seed).integers(0, 255, (2, 2, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(patches).resize((40, 20), Image.Resampling.NEAREST).convert(mode).save(stream, "png")
    return stream.getvalue()


def mirrored(content: bytes) -> bytes:
    stream = io.BytesIO()
    Image.open(io.BytesIO(content)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(stream, "png")
    return stream.getvalue()


def speech(pitch: float, silence: float = 0.3) -> bytes:
    """A tone after a silence, as long as another."""
    time = np.arange(round(0.5 * 44_100)) / 44_100
    tone = 0.5 * np.sin(2 * np.pi * pitch * time)
    return media_file("ogg", np.concatenate([np.zeros(round(silence * 44_100)), tone]), "flac")


def stamp(place: str, number: int, caption: str, french: str, picture: bytes) -> dict[str, bytes]:
    """A stamp's files; other captions are all different."""
    said = {code: speech(200.0 + 10 * number) for code in stamps.LANGUAGES.values()}
    lines = [caption, f"fr.utf8={french}", f"de.utf8={french}", *(f"{code}.utf8=x{number}" for code in said if code != "fr")]
    whole = {".png": picture, ".txt": "\n".join(lines).encode(), ".dat": b"ignored", "_desc_it.ogg": b"ignored"}
    whole |= {f"_desc_{code}.ogg": content for code, content in said.items()}
    return {f"{stamps._FOLDER}{place}{ending}": content for ending, content in whole.items()}


def all_stamps() -> dict[str, bytes]:
    """Six stamps in each folder; in the first one 1 and 2 share a caption, 2 and 3 a picture, 4 and 5 French words."""
    files: dict[str, bytes] = {}
    for place, category in enumerate(stamps.CATEGORIES):
        for count in range(EACH):
            number = place * EACH + count
            caption, french, picture = f"A thing {number}.", f"Chose {number}", png(number, "P" if count == 4 else "RGBA")
            if not place:
                caption = "A  thing, 1" if count == 2 else caption
                picture = mirrored(png(2)) if count == 3 else picture
                french = "chose 4!" if count == 5 else french
            files |= stamp(f"{category}/of{count % 2}/thing{count}", number, caption, french, picture)
    for lacking in (".png", "_desc_ca.ogg", ".txt"):
        for name, content in stamp("town/incomplete", 99, "Incomplete.", "Incomplet", png(99)).items():
            if not name.endswith(lacking):
                files[name.replace("incomplete", f"incomplete{lacking}")] = content
    files |= stamp("symbols/alphabets/a", 98, "A", "A", png(98))
    return files | stamp("space/moon", 97, "The moon.", "La lune", png(97))


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return all_stamps()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of built sets; tasks that were built from it are not kept."""
    monkeypatch.setenv("MSAM_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    source._build_dataset_task.cache_clear()


@pytest.fixture(scope="module")
def built(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stamps")
    with pytest.MonkeyPatch.context() as monkeypatch:
        put_all(folder, stamps, [deb_bytes(files)], monkeypatch)
        return stamps.build_stamps(folder, source=folder)


@pytest.fixture
def arrays(built: Path, cache: Path) -> Any:
    shutil.copytree(built.parent, cache)
    return stamps.load_stamps(["picture", "caption", *stamps.LANGUAGES])


def test_whole_stamps_are_kept(arrays: Any, built: Path):
    rows = EACH * len(stamps.CATEGORIES)
    assert np.bincount(arrays.target).tolist() == [EACH] * len(stamps.CATEGORIES)
    shapes = {name: values.shape[1:] for name, values in arrays.inputs.items()}
    speech_shape = (1, stamps.BANDS, stamps.FRAMES)
    assert shapes == {"picture": (3, 32, 32), "caption": (512,), **dict.fromkeys(stamps.LANGUAGES, speech_shape)}
    with np.load(built) as found:
        assert len(found["places"]) == rows
        assert not [place for place in found["places"] if "incomplete" in place or "alphabets" in place]
        assert found["captions"][1] == "A  thing, 1"
        assert found["places"][1] == "animals/of0/thing2"
    picture = arrays.inputs["picture"][0]
    assert picture[:, :8].min() == picture[:, 24:].min() == 255, "a wide picture has white above and below"
    heard = arrays.inputs["french"][:, 0]
    assert heard[:, :, 0].max(1).min() > 200, "silence before is cut"
    assert heard[:, :, -1].max() == 0, "silence follows the end"
    assert heard[0, :, 4].argmax() < heard[-1, :, 4].argmax(), "the last one's pitch is higher"


def test_groups_join_equal_captions_and_pictures(built: Path):
    with np.load(built) as found:
        group = dict(zip(found["places"].tolist(), found["groups"].tolist(), strict=True))
    of = [group[f"animals/of{count % 2}/thing{count}"] for count in range(EACH)]
    assert of[1] == of[2] == of[3]
    assert of[4] == of[5]
    assert len({of[0], of[1], of[4]}) == 3
    assert len(set(group.values())) == EACH * len(stamps.CATEGORIES) - 3


@pytest.mark.parametrize("seed", [0, 1, 1_000_000])
def test_no_group_is_in_two_splits(seed: int, arrays: Any):
    # The row is written into the first pixel; splits move and scale it, but keep the order.
    marked = arrays.inputs["picture"].astype(np.float32)
    marked[:, :, 0, 0] = np.arange(len(marked))[:, None]
    arrays.inputs["picture"] = marked
    splits = stamps.split_stamps(arrays, seed)
    parts = [splits.train, splits.validation, splits.test]
    places = torch.cat([part.inputs["picture"][:, 0, 0, 0] for part in parts]).argsort().argsort().numpy()
    groups = [set(arrays.groups[rows].tolist()) for rows in np.split(places, np.cumsum([len(part) for part in parts])[:2])]
    assert len(set.union(*groups)) == sum(len(found) for found in groups)
    assert sum(len(part) for part in parts) == len(arrays.target)
    assert all(set(part.target.tolist()) == set(range(8)) for part in parts)
    again = stamps.split_stamps(arrays, seed)
    assert all(torch.equal(again.test.inputs[name], splits.test.inputs[name]) for name in arrays.inputs)


def test_values_are_scaled_by_training_rows(arrays: Any):
    splits = stamps.split_stamps(arrays, 0, rows=20, label_noise=0.5)
    for values in splits.train.inputs.values():
        assert len(values) == 20
        assert abs(float(values.mean())) < 1e-5
    assert abs(float(splits.train.inputs["caption"].std(unbiased=False)) - 1) < 1e-5
    clean = stamps.split_stamps(arrays, 0, rows=20)
    assert int((splits.train.target != clean.train.target).sum()) == 10
    with pytest.raises(InvalidValueError, match="rows must be between 1 and"):
        stamps.split_stamps(arrays, 0, rows=40)


def test_captions_are_counted_by_groups_of_letters():
    one, other = count_trigrams("A cow."), count_trigrams("An owl.")
    assert one.shape == (BUCKETS,)
    assert np.linalg.norm(one) == pytest.approx(1)
    assert np.array_equal(one, count_trigrams("a  COW"))
    assert 0 < float(one @ count_trigrams("A cow with a hat")) < 1
    assert float(one @ other) < 0.5
    assert not count_trigrams("").any()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (None, r"found none in the folders \['animals', 'food'"),
        ({"town/of0/thing0.png": b"no picture"}, "town/of0/thing0.png must be a picture"),
        ({"town/of0/thing0_desc_ro.ogg": b"no sound"}, "town/of0/thing0_desc_ro.ogg must"),
    ],
    ids=["nothing", "no picture", "no sound"],
)
@pytest.mark.usefixtures("cache")
def test_another_package_is_named(
    changed: dict[str, bytes] | None, words: str, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = {} if changed is None else files | {f"{stamps._FOLDER}{name}": content for name, content in changed.items()}
    put_all(tmp_path, stamps, [deb_bytes(found)], monkeypatch)
    with pytest.raises(InvalidValueError, match=words):
        stamps.build_stamps(source=tmp_path)


@pytest.mark.usefixtures("cache")
def test_a_set_that_is_not_built_says_how():
    assert find_dataset("stamps").state == "msam data stamps"
    with pytest.raises(InvalidValueError, match="run: msam data stamps"):
        stamps.load_stamps(["picture"])


@pytest.mark.usefixtures("arrays")
def test_it_is_a_task(tmp_path: Path):
    command = ("--dataset", "stamps", "--methods", "base", "--seeds", "2", "--trials", "1", "--epochs", "2", "--rows", "20")
    words = ("--modalities", "picture,caption,russian", "--in-process", "--out", str(tmp_path / "out"))
    assert "Advice" in run("compare", *command, *words).out
