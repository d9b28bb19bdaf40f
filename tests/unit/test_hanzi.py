"""Hanzi: syllables read from Zhuyin and Pinyin, small packages in the same format, and what the splits keep apart."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTCollection

from command import run
from media_files import media_file
from msam.data import find_built, find_dataset
from msam.data.sets import hanzi
from msam.data.sets.mandarin import read_pinyin, read_zhuyin
from msam.errors import InvalidValueError
from msam.training import source
from packaged import deb_bytes, put_all, wheel_bytes

BASES = {"ㄅㄚ": "ba", "ㄇㄚ": "ma", "ㄓ": "zhi", "ㄒㄩㄝ": "xue", "ㄌㄩ": "lü", "ㄨㄛ": "wo", "ㄧㄡ": "you", "ㄩㄥ": "yong"}
MARKS = "\u0304\u0301\u030c\u0300"
FIRST = 0x4E00


def place(base: int, tone: int, number: int) -> int:
    """The code point of a character: ten for each syllable and tone."""
    return FIRST + 100 * base + 10 * tone + number


def font(codes: list[int]) -> bytes:
    """A collection of one font, in which each character is a bar, the higher its code point the higher."""
    builder = FontBuilder(1000, isTTF=True)
    names = {code: f"u{code:X}" for code in codes}
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    glyphs = {".notdef": TTGlyphPen(None).glyph()}
    for code, name in names.items():
        pen, height = TTGlyphPen(None), 200 + (code - FIRST) % 700
        pen.moveTo((100, 0))
        for corner in ((100, height), (900, height), (900, 0)):
            pen.lineTo(corner)
        pen.closePath()
        glyphs[name] = pen.glyph()
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 100)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupPost()
    collection, stream = TTCollection(), io.BytesIO()
    collection.fonts = [builder.font]
    collection.save(stream)
    return stream.getvalue()


def sound(tone: int, base: int, speaker: int) -> bytes:
    """A syllable of a third of a second: its tone decides the pitch."""
    time = np.arange(14_700) / 44_100
    return media_file("ogg", 0.5 * np.sin(2 * np.pi * (150 * tone + 5 * base + 30 * speaker) * time), "flac")


def packages(**recordings: bytes) -> list[bytes]:
    """Archives with eight syllables in four tones, of ten characters each; two of these are in no font or have two readings."""
    files = {
        f"{hanzi._RECORDINGS}{zhuyin}{'' if tone == 1 else tone}/{speaker}.ogg": sound(tone, number, int(speaker))
        for number, zhuyin in enumerate(BASES)
        for tone in range(1, 5)
        for speaker in "35"
        if (zhuyin, tone, speaker) != ("ㄓ", 4, "5")
    }
    files[f"{hanzi._RECORDINGS}ㄅ/3.ogg"] = files[f"{hanzi._RECORDINGS}ㄅㄚ1/3.ogg"] = b"never decoded"
    files |= {f"{hanzi._RECORDINGS}{name}": content for name, content in recordings.items()}
    readings, codes = {"12295": "líng"}, []
    for number, pinyin in enumerate(BASES.values()):
        at = max(pinyin.find(vowel) for vowel in "aoeiuü") if pinyin != "you" else 1
        for tone in range(1, 5):
            written = pinyin[: at + 1] + MARKS[tone - 1] + pinyin[at + 1 :]
            for count in range(10):
                readings[str(place(number, tone, count))] = written if count else f"{written},ba"
                codes.append(place(number, tone, count))
    fonts = [font([code for code in codes if code % 10 != (lacking + FIRST) % 10]) for lacking in (1, 1, 100)]
    debs = [deb_bytes({member: content}) for member, content in zip(hanzi._FONTS.values(), fonts, strict=True)]
    return [deb_bytes(files), *debs, wheel_bytes({hanzi._DICTIONARY: json.dumps(readings).encode()})]


@pytest.fixture(scope="module")
def archives() -> list[bytes]:
    return packages()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of built sets; tasks that were built from it are not kept."""
    monkeypatch.setenv("MSAM_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    source._build_dataset_task.cache_clear()


@pytest.fixture(scope="module")
def built(archives: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hanzi")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(hanzi, "CHARACTERS", 8)
        put_all(folder, hanzi, archives, monkeypatch)
        return hanzi.build_hanzi(folder, source=folder)


@pytest.fixture
def arrays(built: Path, cache: Path) -> Any:
    shutil.copytree(built.parent, cache)
    return hanzi.load_hanzi(["audio", "glyph"])


@pytest.mark.parametrize(
    ("written", "syllable"),
    [
        ("ㄅㄚ", ("ba", 1)),
        ("ㄅㄚ1", ("ba", 0)),
        ("ㄔ2", ("chi", 2)),
        ("ㄐㄩㄥ3", ("jiong", 3)),
        ("ㄋㄩㄝ4", ("nüe", 4)),
        ("ㄑㄩ4", ("qu", 4)),
        ("ㄩ3", ("yu", 3)),
        ("ㄨㄣ2", ("wen", 2)),
        ("ㄉㄨㄣ", ("dun", 1)),
        ("ㄉㄨㄥ", ("dong", 1)),
        ("ㄨㄥ", ("weng", 1)),
        ("ㄦ2", ("er", 2)),
        ("ㄅ", None),
        ("ㄇ1", None),
    ],
)
def test_zhuyin_is_read(written: str, syllable: tuple[str, int] | None):
    assert read_zhuyin(written) == syllable


@pytest.mark.parametrize("written", ["", "3", "ba", "ㄅㄆ", "ㄅㄚ34", "ㄚㄅ"])
def test_what_is_no_zhuyin_is_named(written: str):
    with pytest.raises(InvalidValueError, match="must be written in Zhuyin"):
        read_zhuyin(written)


@pytest.mark.parametrize(("written", "syllable"), [("nǚ", ("nü", 3)), ("ér", ("er", 2)), ("ê̄", ("ê", 1)), ("le", ("le", 0))])
def test_pinyin_is_read(written: str, syllable: tuple[str, int]):
    assert read_pinyin(written) == syllable


def test_characters_with_one_reading_in_all_fonts_get_a_recording(arrays: Any, built: Path):
    # Of ten characters one has two readings, and one is lacking in two fonts.
    assert {name: values.shape for name, values in arrays.inputs.items()} == {
        "audio": (256, 1, hanzi.BANDS, hanzi.FRAMES),
        "glyph": (256, 1, hanzi.SIZE, hanzi.SIZE),
    }
    assert np.bincount(arrays.target).tolist() == [64] * 4
    assert np.bincount(arrays.groups).tolist() == [32] * 8
    with np.load(built) as found:
        assert sorted(found["names"].tolist()) == sorted(BASES.values())
        codes = found["characters"] - FIRST
        numbers = [list(BASES.values()).index(found["names"][syllable]) for syllable in found["syllables"]]
        assert (codes // 100).tolist() == numbers
        assert (codes // 10 % 10).tolist() == found["tones"].tolist()
        assert len(set(codes.tolist())) == 256
        assert not {0, 1} & set((codes % 10).tolist())
        assert set(found["fonts"].tolist()) == {0, 1, 2}
        alone = (found["tones"] == 4) & (found["names"][found["syllables"]] == "zhi")
        assert set(found["speakers"][alone].tolist()) == {0}, "the only speaker of that syllable"
    # 21.5 Hz a band: the pitch stands where its tone has it.
    loudest = arrays.inputs["audio"][:, 0, :, 0].argmax(1)
    assert [int(loudest[arrays.target == tone].mean() / 7) for tone in range(4)] == [1, 2, 3, 4]
    assert arrays.inputs["audio"].max() == 255
    assert arrays.inputs["audio"][:, 0, :, -1].max() == 0, "silence follows the end"
    assert arrays.inputs["glyph"].reshape(256, -1).max(1).tolist() == [255] * 256


@pytest.mark.parametrize("seed", [0, 1, 1_000_000])
def test_no_syllable_is_in_two_splits(seed: int, arrays: Any):
    # The syllable and the row are written where the signals were.
    marked = arrays.inputs["audio"].astype(np.float32)
    marked[:, 0, 0, 0], marked[:, 0, 0, 1] = arrays.groups, np.arange(256)
    arrays.inputs["audio"] = marked
    splits = hanzi.split_hanzi(arrays, seed)
    parts = [splits.train, splits.validation, splits.test]
    assert sum(len(part) for part in parts) == 256
    values = [{round(float(value), 4) for value in part.inputs["audio"][:, 0, 0, 0]} for part in parts]
    assert [len(found) for found in values] == [4, 2, 2]
    assert len(set.union(*values)) == 8
    assert [part.target.bincount().tolist() for part in parts] == [[32] * 4, [16] * 4, [16] * 4]
    again = hanzi.split_hanzi(arrays, seed)
    assert all(torch.equal(again.test.inputs[name], splits.test.inputs[name]) for name in arrays.inputs)


def test_values_are_scaled_by_training_rows(arrays: Any):
    splits = hanzi.split_hanzi(arrays, 0, rows=50, label_noise=0.5)
    for values in splits.train.inputs.values():
        assert len(values) == 50
        assert abs(float(values.mean())) < 1e-5
        assert abs(float(values.std(unbiased=False)) - 1) < 1e-5
    clean = hanzi.split_hanzi(arrays, 0, rows=50)
    assert int((splits.train.target != clean.train.target).sum()) == 25
    with pytest.raises(InvalidValueError, match="rows must be between 1 and 128"):
        hanzi.split_hanzi(arrays, 0, rows=129)


@pytest.mark.parametrize(
    ("number", "content", "words"),
    [
        (0, {}, "must hold recordings in .* found none"),
        (0, {f"{hanzi._RECORDINGS}ㄅㄚ/4.ogg": b""}, "recordings of the speakers .* found .*ㄅㄚ/4.ogg"),
        (0, {f"{hanzi._RECORDINGS}ㄅㄚ/3.ogg": b"no sound"}, "ㄅㄚ/3.ogg must"),
        (0, {f"{hanzi._RECORDINGS}ba/3.ogg": b""}, "must be written in Zhuyin .* found 'ba'"),
        (1, {}, "must hold usr/share/fonts/truetype/wqy/wqy-zenhei.ttc, found none"),
    ],
    ids=["no recordings", "another speaker", "no sound", "another name", "no font"],
)
@pytest.mark.usefixtures("cache")
def test_another_package_is_named(
    number: int, content: dict[str, bytes], words: str, archives: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    changed = [deb_bytes(content) if place == number else whole for place, whole in enumerate(archives)]
    put_all(tmp_path, hanzi, changed, monkeypatch)
    with pytest.raises(InvalidValueError, match=words):
        hanzi.build_hanzi(source=tmp_path)


@pytest.mark.usefixtures("cache")
def test_sound_at_another_rate_is_named(archives: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    slow = media_file("ogg", 0.5 * np.sin(np.arange(9000) / 10), "flac", rate=22_050)
    changed = [deb_bytes({f"{hanzi._RECORDINGS}ㄅㄚ/3.ogg": slow}), *archives[1:]]
    put_all(tmp_path, hanzi, changed, monkeypatch)
    with pytest.raises(InvalidValueError, match="must have 44100 samples a second, found 22050"):
        hanzi.build_hanzi(source=tmp_path)


@pytest.mark.usefixtures("cache")
def test_a_set_that_is_not_built_says_how():
    assert find_dataset("hanzi").state == "msam data hanzi"
    with pytest.raises(InvalidValueError, match="run: msam data hanzi"):
        hanzi.load_hanzi(["audio"])
    assert [package.archive for package in find_built("hanzi").packages][::4] == [
        "gcin-voice_0~20170223-3_all.deb",
        "pypinyin-0.55.0-py2.py3-none-any.whl",
    ]


@pytest.mark.usefixtures("arrays")
def test_it_is_a_task(tmp_path: Path):
    command = ("--dataset", "hanzi", "--methods", "base", "--seeds", "2", "--trials", "1", "--epochs", "2", "--rows", "60")
    said = run("compare", *command, "--rho", "0.05", "--in-process", "--out", str(tmp_path / "out")).out
    assert "Advice" in said
