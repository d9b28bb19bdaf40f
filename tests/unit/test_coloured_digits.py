"""Coloured digits: what colours tell, where, and what they must not change."""

from typing import Any

import numpy as np
import pytest
import torch

from msam.cli.main import main
from msam.compare.records import settings_digest
from msam.data import PALETTES, Split, Splits, find_dataset, load_coloured_digits, split_arrays, split_coloured_digits
from msam.errors import InvalidTypeError, InvalidValueError
from msam.training import check_task
from msam.training.source import DatasetSource, describe_source

BOTH = load_coloured_digits(["gray", "coloured"])
DEFAULT = "corners"


def draw(seed: int = 0, rows: int | None = 700, **options: Any) -> Splits:
    return split_coloured_digits(BOTH, seed, rows=rows, **options)


def parts_of(splits: Splits) -> dict[str, Split]:
    return {"train": splits.train, "validation": splits.validation, "test": splits.test, **splits.others}


def split_unscaled(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> Splits:
    with monkeypatch.context() as patch:
        patch.setattr("msam.data.sets.coloured_digits.standardise", lambda values, _: values)
        return draw(*arguments, **options)


def colours_of(split: Split) -> np.ndarray:
    """Each sample's colour: the brightest pixels, in each channel, by their intensity."""
    channels = split.inputs["coloured"].reshape(len(split), 3, 240)
    return (channels.amax(2) / split.inputs["gray"].amax(1)[:, None]).numpy()


def right_share(split: Split, palette: str = DEFAULT) -> float:
    """How often the nearest mean colour is that of the sample's class."""
    away = ((colours_of(split)[:, None] - PALETTES[palette]) ** 2).sum(-1)
    return float((away.argmin(1) == split.target.numpy()).mean())


def test_colours_tell_the_class_but_not_in_the_shifted_split(monkeypatch: pytest.MonkeyPatch):
    seeds = [parts_of(split_unscaled(monkeypatch, seed)) for seed in range(4)]
    for name in ("train", "validation", "in-distribution"):
        # Expected are 0.965; the deviation of a share of 4 x 500 rows is 0.004.
        assert np.mean([right_share(parts[name]) for parts in seeds]) >= 0.95, name
    for parts in seeds:
        assert 0.04 <= right_share(parts["test"]) <= 0.18


def test_shifted_colours_are_uniform_for_each_digit(monkeypatch: pytest.MonkeyPatch):
    counts = np.zeros((10, 10))
    for seed in range(8):
        test = split_unscaled(monkeypatch, seed).test
        away = ((colours_of(test)[:, None] - PALETTES[DEFAULT]) ** 2).sum(-1)
        np.add.at(counts, (test.target.numpy(), away.argmin(1)), 1)
    expected = counts.sum(1, keepdims=True) / 10
    # Chi squared of 100 cells that are nearly independent: 90 on average, deviation 13; rows share their colours' errors.
    assert ((counts - expected) ** 2 / expected).sum() < 90 + 5 * 13


@pytest.mark.parametrize(("reliability", "share"), [(0.0, 0.1), (0.5, 0.55), (0.9, 0.91)])
def test_the_dial_says_how_many_colours_are_right(reliability: float, share: float, monkeypatch: pytest.MonkeyPatch):
    splits = split_unscaled(monkeypatch, 1, rows=1000, reliability=reliability)
    for name in ("train", "validation", "in-distribution"):
        # Nearest means err in 3.5 % of the samples; five deviations of the uniformly drawn ones among 500 rows.
        bound = 0.04 + 5 * (0.09 * (1 - reliability) / 500) ** 0.5
        assert abs(right_share(parts_of(splits)[name]) - share) < bound, name
    fully = split_unscaled(monkeypatch, 1, rows=1000)
    assert torch.equal(splits.test.inputs["coloured"], fully.test.inputs["coloured"])
    kept = (splits.train.inputs["coloured"] == fully.train.inputs["coloured"]).all(1)
    assert kept.sum() >= 1000 * reliability
    assert abs(float(kept.double().mean()) - share) < 0.04


@pytest.mark.parametrize(("palette", "share"), [("corners", 0.965), ("hues", 0.87), ("pastel", 0.41)])
def test_palettes_differ_in_how_far_their_colours_are_apart(palette: str, share: float, monkeypatch: pytest.MonkeyPatch):
    shares = [right_share(split_unscaled(monkeypatch, seed, palette=palette).train, palette) for seed in range(3)]
    assert abs(np.mean(shares) - share) < 0.04


def test_palettes_are_ten_colours():
    assert list(PALETTES) == ["corners", "hues", "pastel"]
    for means in PALETTES.values():
        assert means.shape == (10, 3)
        assert len(np.unique(means, axis=0)) == 10
        assert ((means >= 0) & (means <= 1)).all()
        assert not means.flags.writeable


def test_noise_and_clipping_are_as_documented(monkeypatch: pytest.MonkeyPatch):
    train = split_unscaled(monkeypatch, 0, rows=1000, palette="pastel").train
    colours = colours_of(train)
    assert ((colours >= 0) & (colours <= 1)).all()
    away = colours - PALETTES["pastel"][train.target.numpy()]
    inner = PALETTES["pastel"][train.target.numpy()] == 0.49  # Its clipping is 2.8 deviations away.
    assert abs(away[inner].mean()) < 0.06
    assert abs(away[inner].var() - 0.03) < 0.015
    assert len(np.unique(colours.round(6), axis=0)) == 1000


def test_a_picture_is_its_intensity_times_its_colour(monkeypatch: pytest.MonkeyPatch):
    split = split_unscaled(monkeypatch, 3).train
    assert (split.inputs["gray"].amin(), split.inputs["gray"].amax()) == (0, 1)
    colours = torch.from_numpy(colours_of(split))
    expected = (split.inputs["gray"][:, None, :] * colours[:, :, None]).reshape(len(split), 720)
    torch.testing.assert_close(split.inputs["coloured"], expected)


def test_the_digits_are_those_of_split_arrays_and_the_same_in_both_test_splits():
    ours, theirs = draw(5, label_noise=0.2), split_arrays(find_dataset("mfeat").load(["pix"]), 5, rows=700, label_noise=0.2)
    for name in ("train", "validation", "test"):
        assert torch.equal(parts_of(ours)[name].target, parts_of(theirs)[name].target)
        torch.testing.assert_close(parts_of(ours)[name].inputs["gray"], parts_of(theirs)[name].inputs["pix"])
    alike = ours.others["in-distribution"]
    assert torch.equal(alike.inputs["gray"], ours.test.inputs["gray"])
    assert torch.equal(alike.target, ours.test.target)
    assert not torch.equal(alike.inputs["coloured"], ours.test.inputs["coloured"])
    assert ours.pool == theirs.pool == 2000


def test_no_digit_of_the_training_split_is_in_another():
    numbered = load_coloured_digits(["gray", "coloured"])
    numbered.inputs["gray"][:, 0] = np.arange(2000)
    splits = split_coloured_digits(numbered, 2, rows=700)
    order = torch.cat([split.inputs["gray"][:, 0] for split in (splits.train, splits.validation, splits.test)])
    assert len(order.unique()) == 1700


def test_features_are_standardised_on_the_training_rows():
    splits = draw(4)
    for values in splits.train.inputs.values():
        varies = values.std(0) > 0
        # Means of float32 numbers of order one.
        torch.testing.assert_close(values.mean(0), torch.zeros(values.shape[1]), rtol=0, atol=1e-5)
        torch.testing.assert_close(values.std(0, correction=0)[varies], torch.ones(int(varies.sum())), rtol=1e-4, atol=0)
        assert varies.double().mean() > 0.9
    assert {value.dtype for split in parts_of(splits).values() for value in split.inputs.values()} == {torch.float32}


def same(one: Splits, two: Splits, *names: str) -> bool:
    pairs = [(parts_of(one)[name], parts_of(two)[name]) for name in names or parts_of(one)]
    return all(torch.equal(a.inputs[key], b.inputs[key]) for a, b in pairs for key in a.inputs)


def test_the_seed_decides_everything():
    first = draw(1, reliability=0.7)
    draw(3)
    np.random.default_rng(0).random(5)
    torch.rand(3)
    assert same(first, draw(1, reliability=0.7))
    for name in parts_of(first):
        assert not same(first, draw(2, reliability=0.7), name)


def test_other_settings_leave_colours_as_they_are(monkeypatch: pytest.MonkeyPatch):
    few, many = (split_unscaled(monkeypatch, 1, rows=rows, label_noise=noise) for rows, noise in ((50, 0.3), (700, 0.0)))
    assert same(few, many, "validation", "test", "in-distribution")
    assert torch.equal(few.train.inputs["coloured"], many.train.inputs["coloured"][:50])
    alone = split_coloured_digits(load_coloured_digits(["coloured"]), 1, rows=700)
    assert list(alone.train.inputs) == ["coloured"]
    assert torch.equal(alone.test.inputs["coloured"], draw(1).test.inputs["coloured"])


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"palette": "mud"}, InvalidValueError, r"palette must be one of \['corners', 'hues', 'pastel'\], found 'mud'"),
        ({"palette": 3}, InvalidTypeError, "palette must be one of .*found 3 of type int"),
        ({"reliability": 1.1}, InvalidValueError, r"reliability must be in \[0, 1\], found 1.1"),
        ({"reliability": -0.1}, InvalidValueError, "reliability must be in"),
        ({"reliability": float("nan")}, InvalidValueError, "reliability must be in"),
        ({"reliability": "high"}, InvalidTypeError, "reliability must be a number"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], kind: type, words: str):
    with pytest.raises(kind, match=words):
        draw(**options)
    with pytest.raises(kind, match=words):
        DatasetSource(dataset="coloured-digits", **options).build()


@pytest.mark.parametrize("options", [{"palette": "hues"}, {"reliability": 1.0}, {"reliability": 0.0}])
def test_other_data_sets_have_no_such_settings(options: dict[str, Any]):
    [name] = options
    words = rf"{name} is a setting of the data sets \['coloured-digits', 'coloured-mnist'\] only, found .*'mfeat'"
    with pytest.raises(InvalidValueError, match=words):
        describe_source(DatasetSource(**options))


def test_they_become_a_task():
    source = DatasetSource(dataset="coloured-digits")
    task = source.build()
    assert (task.modalities, task.epochs, task.batch_size) == (("gray", "coloured"), 10, 50)
    splits = task.load(0)
    assert same(splits, draw(0))
    assert [len(split) for split in parts_of(splits).values()] == [700, 500, 500, 500]
    assert task.build_model()(splits.test.inputs).shape == (500, 10)
    for fusion in ("late", "early"):
        check_task(DatasetSource(dataset="coloured-digits", fusion=fusion, rows=50).build())
    check_task(DatasetSource(dataset="coloured-digits", modalities=("coloured",)).build())


def test_the_description_holds_the_settings_with_their_defaults():
    described = describe_source(DatasetSource(dataset="coloured-digits"))
    assert {key: described[key] for key in ("rows", "label_noise", "palette", "reliability")} == {
        "rows": 700,
        "label_noise": 0.0,
        "palette": "corners",
        "reliability": 1.0,
    }
    spelled = DatasetSource(dataset="coloured-digits", rows=700, label_noise=0.0, palette="corners", reliability=1)
    assert settings_digest(describe_source(spelled)) == settings_digest(described)
    changes: list[dict[str, Any]] = [{"palette": "hues"}, {"reliability": 0.9}, {"rows": 600}]
    others = [describe_source(DatasetSource(dataset="coloured-digits", **change)) for change in changes]
    assert len({settings_digest(one) for one in [described, *others]}) == 4


def test_records_of_other_data_sets_keep_their_settings():
    described = describe_source(DatasetSource())
    assert list(described) == [
        *("dataset", "modalities", "rows", "label_noise", "fusion", "epochs", "batch_size"),
        *("name", "metric", "optimizer"),
    ]
    assert (described["rows"], described["label_noise"], described["epochs"]) == (200, 0.2, 30)
    assert described == describe_source(DatasetSource(rows=200, label_noise=0.2))
    assert described["name"] == "mfeat pix+zer (200 training rows, 20% noisy labels, late fusion)"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--palette", "hues"], ["palette is a setting of", "coloured-digits", "found 'hues' with 'mfeat'"]),
        (["--reliability", "0.5"], ["reliability is a setting of", "found 0.5 with 'mfeat'"]),
        (["--dataset", "coloured-digits", "--palette", "mud"], ["palette must be one of", "corners", "found 'mud'"]),
        (["--dataset", "coloured-digits", "--reliability", "2"], ["reliability must be in [0, 1], found 2"]),
        (["task.py", "--palette", "hues"], ["found --palette beside 'task.py'"]),
    ],
)
def test_the_command_line_refuses_them_too(arguments: list[str], words: list[str], tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *arguments])
    assert stopped.value.code == 2
    found = " ".join(capsys.readouterr().err.split())
    for word in words:
        assert word in found
    assert not list(tmp_path.iterdir())


def test_they_can_be_compared(tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--palette", "hues", "--reliability", "0.9", "--rows", "60", "--epochs", "1", "--seeds", "2", "--in-process"]
    main(["compare", "--dataset", "coloured-digits", *options, "--methods", "base", "--out", str(out)])
    assert "coloured-digits gray+coloured" in (out / "report.html").read_text()
    assert '"palette": "hues"' in (out / "comparison.json").read_text()
    capsys.readouterr()
    main(["data"])
    listed = capsys.readouterr().out
    assert "coloured-digits" in listed
    assert "embedded" in listed
