"""The published sets, from small copies in the formats in which they are handed out: rows, splits, what is named."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from command import run
from media_files import click, media_file
from msam.data import CATALOG, PUBLISHED, PUBLISHED_RECIPES, find_dataset
from msam.data.media.sound import resample
from msam.data.media.spectrograms import log_density, log_spectrogram
from msam.data.published.crema_d import is_test_clip, literature_clips, plan_crema_d
from msam.data.published.dealing import deal, know_ave, know_crema_d
from msam.data.published.loading import load_published, split_published
from msam.errors import InvalidValueError
from msam.fusion import ENCODERS
from msam.training import source as sources
from msam.training.source import DatasetSource, describe_source
from published_files import (
    EMOTIONS,
    funny_pickles,
    write_av_mnist,
    write_ave,
    write_ave_segments,
    write_crema_d,
    write_ur_funny,
)

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MSAM_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    sources._build_dataset_task.cache_clear()


@pytest.fixture
def clips(tmp_path: Path) -> Any:
    """CREMA-D of six actors, whole, with small frames."""
    write_crema_d(tmp_path / "crema", 6, 0.7, faults=False)
    return PUBLISHED["crema-d"].prepare(tmp_path / "crema", frame_size=8)


def rows_of(name: str, **options: Any) -> Any:
    return split_published(load_published(name, find_dataset(name).modalities), 0, **options)


def test_clips_become_spectrograms_and_frames(clips: Any):
    assert clips.manifest["found"] == {
        "clips": 36,
        "actors": 6,
        "test clips": sum(map(is_test_clip, clips.info("name").tolist())),
    }
    assert clips.column("target").tolist() == [EMOTIONS.index(name.split("_")[2]) for name in clips.info("name").tolist()]
    name = clips.info("name").tolist().index("1002_DFA_SAD_XX")
    heard = np.tile(click(0.7, 0.2, 16_000), 5)[: 3 * 16_000]
    found = clips.arrays["audio"][name].astype(np.float32)
    assert found.shape == (257, 299)
    assert np.abs(found - log_density(heard, 16_000)).max() < 0.2, "of 16 bits, in half precision"
    assert clips.arrays["visual"].shape == (36, 3, 3, 8, 8)
    assert set(clips.column("frames").tolist()) == {1}, "0.7 s have one frame at one a second"
    assert np.array_equal(clips.arrays["visual"][0, 0], clips.arrays["visual"][0, 2]), "which stands for the others"


def test_the_spectrogram_of_ogm_ge_is_another(tmp_path: Path):
    write_crema_d(tmp_path / "crema", 1, 0.7, faults=False)
    prepared = PUBLISHED["crema-d"].prepare(tmp_path / "crema", frame_size=8, spectrogram="ogm-ge")
    assert prepared.arrays["audio"].shape == (6, 257, 188)
    sound = resample(click(0.7, 0.1, 16_000), 16_000, 22_050)
    wanted = log_spectrogram(np.tile(sound, 5)[: 3 * 22_050])
    found = prepared.arrays["audio"][prepared.info("name").tolist().index("1001_DFA_NEU_XX")].astype(np.float32)
    loud = wanted > wanted.max() - 3
    assert np.abs(found - wanted)[loud].max() < 0.1
    with pytest.raises(InvalidValueError, match="spectrogram must be one of"):
        plan_crema_d(tmp_path / "crema", spectrogram="mel")  # type: ignore[arg-type]


def test_the_list_of_the_literature_is_whole():
    listed = literature_clips()
    assert len(listed) == 744
    assert len({name[:4] for name in listed}) == 91, "all actors are in the test, and so in the training clips"
    assert {name.split("_")[2] for name in listed} == set(EMOTIONS)
    whole = next(iter(sorted(name for name in listed if name.endswith("_XX"))))
    assert is_test_clip(whole)
    assert is_test_clip(whole[:-1]), "the authors' file of one clip ends in X"
    assert not is_test_clip("1001_DFA_ANG_XX")


@pytest.mark.parametrize("split", ["literature", "leak-free"])
def test_rows_are_dealt(split: Any, clips: Any):
    splits = rows_of("crema-d", split=split)
    names, parts = clips.info("name").tolist(), [splits.train, splits.validation, splits.test]
    assert sum(map(len, parts)) == 36
    if split == "literature":
        assert len(splits.test) == sum(map(is_test_clip, names))
        assert splits.pool is None
    else:
        assert [len(part) for part in parts] == [24, 6, 6], "whole actors, with six clips each"
        assert splits.pool == 36
    for name in ("audio", "visual"):
        train = splits.train.inputs[name].double()
        axes = (0, 2, 3)
        assert train.mean(axes).abs().max() < 1e-3
        assert (train.std(axes, correction=0) - 1).abs().max() < 1e-2
    again = rows_of("crema-d", split=split)
    assert torch.equal(splits.train.inputs["audio"], again.train.inputs["audio"])
    other = split_published(load_published("crema-d", ["audio"]), 1, split=split, rows=7, label_noise=1.0)
    assert len(other.train) == 7
    assert list(other.train.inputs) == ["audio"]


def test_no_actor_is_in_two_splits(clips: Any):
    """Told by the sound, which tells actor and emotion apart by nothing: by the rows that the splits were dealt."""
    for seed in range(4):
        drawn = deal(know_crema_d(clips), seed, split="leak-free", rows=None, label_noise=0.0)
        actors = [set(clips.info("actor")[index].tolist()) for index in (drawn.train, drawn.validation, drawn.test)]
        assert [len(found) for found in actors] == [4, 1, 1]
        assert not actors[0] & actors[1]
        assert not actors[2] & (actors[0] | actors[1])


def test_what_is_misnamed_is_named(tmp_path: Path):
    write_crema_d(tmp_path / "crema", 1, 0.7, faults=False)
    for folder, ending in (("AudioWAV", "wav"), ("VideoFlash", "flv")):
        (tmp_path / "crema" / folder / f"1001_DFA_SAD_XX.{ending}").rename(tmp_path / "crema" / folder / f"copy.{ending}")
        file = tmp_path / "crema" / folder / f"1001_DFA_HAP_XX.{ending}"
        file.rename(file.with_name(f"1001_DFA_JOY_XX.{ending}"))
    with pytest.raises(InvalidValueError, match="found 2 that cannot be used") as raised:
        PUBLISHED["crema-d"].prepare(tmp_path / "crema", frame_size=8)
    for name in ("copy", "1001_DFA_JOY_XX"):
        assert f"{name} must be named ACTOR_SENTENCE_EMOTION_LEVEL" in str(raised.value)
    prepared = PUBLISHED["crema-d"].prepare(tmp_path / "crema", frame_size=8, leave_out_damaged=True)
    assert len(prepared) == 4
    assert [left["name"] for left in prepared.manifest["left_out"]] == ["1001_DFA_JOY_XX", "copy"]


def test_a_sound_under_another_ending_is_read_as_what_it_is(tmp_path: Path):
    write_crema_d(tmp_path / "crema", 1, 0.7, faults=False)
    file = tmp_path / "crema" / "AudioWAV" / "1001_DFA_ANG_XX.wav"
    file.write_bytes(media_file("mp3", click(0.7, 0.3), "libmp3lame"))
    silent = tmp_path / "crema" / "AudioWAV" / "1001_DFA_SAD_XX.wav"
    silent.write_bytes(media_file("wav", 0 * click(0.7), "pcm_s16le"))
    prepared = PUBLISHED["crema-d"].prepare(tmp_path / "crema", frame_size=8)
    assert len(prepared) == 6
    notes = {part["name"]: part.get("notes") for part in prepared.manifest["parts"]}
    assert notes["1001_DFA_SAD_XX"] == ["its sound is silent"]
    assert notes["1001_DFA_ANG_XX"] is None


def test_videos_of_two_events_are_kept_apart(tmp_path: Path):
    write_ave(tmp_path / "ave", 9, faults=False)
    prepared = PUBLISHED["ave"].prepare(tmp_path / "ave", frame_size=8)
    assert prepared.manifest["found"] == {"clips": 10, "train": 6, "validation": 2, "test": 2}
    assert prepared.arrays["audio"].shape == (10, 257, 1004)
    assert prepared.arrays["visual"].shape == (10, 4, 3, 8, 8)
    assert prepared.column("frames").tolist() == [4] * 10
    brightness = prepared.arrays["visual"][0].mean((1, 2, 3))
    assert (np.diff(brightness[:2]) > 100).all(), "frame k is that at 2.5 k s: brightness 5 x 62 is above white"
    shared = prepared.info("video").tolist().count("id_008-x")
    assert shared == 2
    known = know_ave(prepared)
    drawn = deal(known, 0, split="literature", rows=None, label_noise=0.0)
    videos = [set(prepared.info("video")[index].tolist()) for index in (drawn.train, drawn.validation, drawn.test)]
    assert videos[0] & videos[2] == {"id_008-x"}, "the authors' lists share it"
    for seed in range(5):
        drawn = deal(known, seed, split="leak-free", rows=None, label_noise=0.0)
        videos = [set(prepared.info("video")[index].tolist()) for index in (drawn.train, drawn.validation, drawn.test)]
        assert not videos[0] & (videos[1] | videos[2])
        assert not videos[1] & videos[2]


def test_lines_of_ave_are_looked_at(tmp_path: Path):
    write_ave(tmp_path / "ave", 5, faults=False)
    listed = tmp_path / "ave" / "trainSet.txt"
    whole = listed.read_text()
    listed.write_text("Category&VideoID&Quality&StartTime&EndTime\n" + whole)
    assert len(PUBLISHED["ave"].plan(tmp_path / "ave").parts) == 6
    for line in ("Thunder&x&good&0&10", "Bark&x&good&0", "Bark&x&good&a&10"):
        listed.write_text(whole + line + "\n")
        with pytest.raises(
            InvalidValueError, match=r"line \d of trainSet.txt must be EVENT&ID&QUALITY&START&END .* found 'T?B?"
        ):
            PUBLISHED["ave"].plan(tmp_path / "ave")


def test_segments_are_rows_and_videos_stay_together(tmp_path: Path):
    write_ave_segments(tmp_path / "segments", 40)
    prepared = PUBLISHED["ave-segments"].prepare(tmp_path / "segments")
    assert prepared.manifest["found"] == {"videos": 40, "train": 19, "validation": 10, "test": 10}
    splits = rows_of("ave-segments")
    assert splits.train.inputs["audio"].shape == (190, 128)
    assert splits.train.inputs["visual"].shape == (190, 512)
    assert len(splits.test) == 100
    with h5py.File(tmp_path / "segments" / "labels.h5") as file:
        labels = file["avadataset"][:].argmax(-1)
    with h5py.File(tmp_path / "segments" / "test_order.h5") as file:
        assert sorted(splits.test.target.tolist()) == sorted(labels[np.sort(file["order"][:])].reshape(-1).tolist())
    with pytest.raises(InvalidValueError, match="label_noise"):
        rows_of("ave-segments", label_noise=0.1)


def test_equal_videos_leave_the_training_segments(tmp_path: Path):
    write_ave_segments(tmp_path / "segments", 40)
    orders = {}
    for name in ("train", "test"):
        with h5py.File(tmp_path / "segments" / f"{name}_order.h5") as file:
            orders[name] = file["order"][:]
    with h5py.File(tmp_path / "segments" / "visual_feature.h5", "r+") as file:
        file["avadataset"][orders["train"][0]] = file["avadataset"][orders["test"][0]]
    PUBLISHED["ave-segments"].prepare(tmp_path / "segments")
    assert len(rows_of("ave-segments").train) == 190
    assert len(rows_of("ave-segments", split="leak-free").train) == 180


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:900]), "must be a whole HDF5 file"),
        (lambda path: path.write_text("<html>"), "must be a whole HDF5 file"),
        (lambda path: h5py.File(path, "w").create_dataset("other", data=1), "must be a whole HDF5 file with 'avadataset'"),
        (
            lambda path: h5py.File(path, "w").create_dataset("avadataset", data=np.zeros((40, 9, 128))),
            "must have rows of shape",
        ),
        (lambda path: h5py.File(path, "w").create_dataset("avadataset", data=np.zeros((4, 10, 128))), "the same rows"),
    ],
    ids=["cut", "a web page", "another key", "another shape", "other rows"],
)
def test_other_features_are_named(damage: Any, words: str, tmp_path: Path):
    write_ave_segments(tmp_path / "segments", 40)
    damage(tmp_path / "segments" / "audio_feature.h5")
    with pytest.raises(InvalidValueError, match=words):
        PUBLISHED["ave-segments"].prepare(tmp_path / "segments")


def test_digits_are_pictures_and_spectrograms(tmp_path: Path):
    write_av_mnist(tmp_path / "digits", 240, 50)
    prepared = PUBLISHED["av-mnist"].prepare(tmp_path / "digits")
    images = np.load(tmp_path / "digits" / "image" / "train_data.npy").reshape(-1, 1, 28, 28)
    sounds = np.load(tmp_path / "digits" / "audio" / "train_data.npy")
    assert np.array_equal(prepared.arrays["image"][:240], images.astype(np.float32) / 255)
    assert np.array_equal(np.round(prepared.arrays["audio"][:240, 0].astype(np.float32) * 255), sounds), "no number is lost"
    splits = rows_of("av-mnist")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [220, 20, 50], "the last twelfth"
    leak_free = rows_of("av-mnist", split="leak-free")
    assert len(leak_free.train) == 219, "one sound of the test is one of the training rows'"
    assert splits.train.inputs["audio"].shape[1:] == (1, 112, 112)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("image/train_data.npy", np.zeros((240, 100)), "images of 784 pixels"),
        ("image/train_data.npy", np.full((240, 784), 256.0), "numbers of 0 to 255, found 256"),
        ("audio/train_data.npy", np.full((240, 112, 112), np.nan), "numbers of 0 to 255, found nan"),
        ("audio/train_data.npy", np.zeros((239, 112, 112)), "the same rows, found"),
        ("train_labels.npy", np.full(240, 10), "labels of 0 to 9"),
        ("train_labels.npy", np.full(240, 0.5), "labels of 0 to 9"),
        ("train_labels.npy", np.array([["a"]]), "must hold numbers"),
    ],
    ids=["pixels", "range", "nan", "rows", "ten", "half", "texts"],
)
def test_other_digits_are_named(name: str, values: np.ndarray, words: str, tmp_path: Path):
    write_av_mnist(tmp_path / "digits", 240, 50)
    np.save(tmp_path / "digits" / name, values)
    with pytest.raises(InvalidValueError, match=words):
        PUBLISHED["av-mnist"].prepare(tmp_path / "digits")


def test_an_array_that_was_cut_or_is_a_pickle_is_named(tmp_path: Path):
    write_av_mnist(tmp_path / "digits", 24, 5)
    file = tmp_path / "digits" / "audio" / "test_data.npy"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(InvalidValueError, match=r"test_data.npy of test must be a whole array file"):
        PUBLISHED["av-mnist"].prepare(tmp_path / "digits")
    np.save(file, np.array([{}]), allow_pickle=True)
    with pytest.raises(InvalidValueError, match=r"test_data.npy of test must be a whole array file"):
        PUBLISHED["av-mnist"].prepare(tmp_path / "digits")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_punchlines_are_padded_and_cut(protocol: int, tmp_path: Path):
    whole = funny_pickles(60)
    (tmp_path / "funny").mkdir()
    for name, content in whole.items():
        (tmp_path / "funny" / f"{name}.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    prepared = PUBLISHED["ur-funny"].prepare(tmp_path / "funny")
    assert {name: prepared.arrays[name].shape for name in ("text", "audio", "visual")} == {
        "text": (60, 20, 300),
        "audio": (60, 20, 81),
        "visual": (60, 20, 75),
    }
    row = whole["data_folds"]["train"][3]
    words = whole["word_embedding_indexes_sdk"][row]["punchline_embedding_indexes"][:20]
    wanted = np.asarray(whole["word_embedding_list"], dtype=np.float32)[words]
    assert np.array_equal(prepared.arrays["text"][3, 20 - len(words) :], wanted)
    assert not prepared.arrays["text"][3, : 20 - len(words)].any(), "what is before a short one is zeros, not the first word"
    assert prepared.column("target").tolist() == [
        whole["humor_label_sdk"][n] for part in whole["data_folds"].values() for n in part
    ]
    assert prepared.manifest["parts"][0]["notes"] == ["numbers of audio that were not finite, now 0: 1"]
    assert prepared.manifest["parts"][2]["notes"] == ["punchlines with other numbers of words in other modalities: 1"]
    splits = rows_of("ur-funny")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [40, 10, 10]
    assert len(rows_of("ur-funny", split="leak-free").train) == 39, "one punchline of the test is one of the training rows'"
    filled = (splits.train.inputs["text"] != 0).any(-1)
    assert abs(float(splits.train.inputs["text"][filled].mean())) < 1e-4
    order = (prepared.arrays["text"][:40] != 0).any(-1).sum(1)
    assert sorted(filled.sum(1).tolist()) == sorted(order.tolist()), "padding stays zeros"


def test_the_one_pickle_of_multibench_is_read(tmp_path: Path):
    generator = np.random.default_rng(0)
    whole = {
        split: {
            "text": generator.normal(size=(rows, 50, 300)),
            "audio": generator.normal(size=(rows, 50, 81)),
            "vision": generator.normal(size=(rows, 50, 371)),
            "labels": generator.choice([-1.0, 1.0], (rows, 1, 1)),
            "id": np.array([f"a{n}" for n in range(rows)]),
        }
        for split, rows in (("train", 30), ("valid", 5), ("test", 6))
    }
    (tmp_path / "funny").mkdir()
    (tmp_path / "funny" / "humor.pkl").write_bytes(pickle.dumps(whole))
    prepared = PUBLISHED["ur-funny"].prepare(tmp_path / "funny")
    assert prepared.arrays["visual"].shape == (41, 50, 371)
    assert np.array_equal(prepared.arrays["text"][30:35], whole["valid"]["text"].astype(np.float32))
    assert prepared.column("target")[:30].tolist() == (whole["train"]["labels"].reshape(-1) > 0).astype(int).tolist()
    del whole["valid"]["vision"]
    (tmp_path / "funny" / "humor.pkl").write_bytes(pickle.dumps(whole))
    with pytest.raises(InvalidValueError, match=r"humor.pkl must hold train, valid and test, each with"):
        PUBLISHED["ur-funny"].prepare(tmp_path / "funny")


def test_pickles_that_lack_rows_or_run_something_are_named(tmp_path: Path):
    write_ur_funny(tmp_path / "funny")
    labels = tmp_path / "funny" / "humor_label_sdk.pkl"
    whole = pickle.loads(labels.read_bytes())
    labels.write_bytes(pickle.dumps({key: value for key, value in whole.items() if key != 5}))
    with pytest.raises(InvalidValueError, match=r"1 rows that lack some, such as \[5\]"):
        PUBLISHED["ur-funny"].prepare(tmp_path / "funny")
    labels.write_bytes(pickle.dumps({1: np.random.default_rng}))
    with pytest.raises(InvalidValueError, match="which is not run"):
        PUBLISHED["ur-funny"].prepare(tmp_path / "funny")


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_without_a_source_or_with_another_it_says_where_from(name: str, tmp_path: Path):
    known = PUBLISHED[name]
    with pytest.raises(InvalidValueError, match=f"{name} must be prepared once.*run: msam data {name} --source DIR"):
        known.load()
    with pytest.raises(InvalidValueError, match=f"run: msam data {name} --source DIR"):
        DatasetSource(dataset=name).build()
    with pytest.raises(InvalidValueError, match="--source must be a folder with"):
        known.prepare(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidValueError, match=r"must be a folder with .*, found no .*; get them from"):
        known.prepare(tmp_path / "empty")
    with pytest.raises(InvalidValueError, match=r"settings of .* are .*, found colour='red'; leave it out"):
        known.prepare(tmp_path / "empty", colour="red")


def test_every_recipe_fits_its_row():
    assert list(PUBLISHED_RECIPES) == ["crema-d", "ave", "av-mnist", "ur-funny", "ave-segments"]
    for name, recipe in PUBLISHED_RECIPES.items():
        dataset = CATALOG[name]
        assert set(recipe.encoders) <= set(dataset.modalities)
        assert set(recipe.encoders.values()) <= set(ENCODERS)
        assert (dataset.epochs, dataset.batch_size, dataset.recipe) == (100, 64, recipe)
        assert "rho" in recipe.open
        assert DatasetSource(dataset=name).settings()["split"] == "literature"


def test_a_published_set_is_a_task(clips: Any):
    task = DatasetSource(dataset="crema-d", split="leak-free").build()
    assert task.name == "crema-d audio+visual (all training rows, split leak-free, late fusion)"
    model = task.build_model()
    optimizer = task.build_optimizer(model.parameters())
    assert type(optimizer) is torch.optim.SGD
    assert [optimizer.defaults[name] for name in ("lr", "momentum", "weight_decay")] == [1e-3, 0.9, 1e-4]
    assert task.lr_decay is not None
    assert [task.lr_decay(epoch) for epoch in (0, 69, 70, 99)] == pytest.approx([1, 1, 0.1, 0.1])
    rows = {name: torch.as_tensor(values[:2]) for name, values in task.load(0).train.inputs.items()}
    assert model(rows).shape == (2, 6)
    assert len(clips) == 36


@pytest.mark.parametrize(("name", "folder"), [("ur-funny", "ur_funny"), ("ave-segments", "ave_segments")])
def test_a_comparison_runs_on_it(name: str, folder: str, tmp_path: Path):
    assert "use it with msam compare" in run("data", name, "--source", str(FIXTURES / folder)).out
    words = ("--methods", "base,modality_aware_sam", "--seeds", "2", "--trials", "1", "--epochs", "2", "--rho", "0.05")
    said = run("compare", "--dataset", name, "--split", "leak-free", *words, "--in-process", "--out", str(tmp_path / "out")).out
    assert "Modality-Aware SAM" in said


def test_the_command_names_damage_and_goes_on():
    failed = run("data", "crema-d", "--source", str(FIXTURES / "crema_d"), "--frame-size", "8", "--jobs", "1", code=2)
    assert "found 3 that cannot be used" in failed.err
    assert "VideoFlash/1001_DFA_HAP_XX.flv must be as long as it says" in failed.err
    assert "git lfs pull" in failed.err
    words = ("data", "crema-d", "--source", str(FIXTURES / "crema_d"), "--frame-size", "8", "--leave-out-damaged")
    said = run(*words).out
    assert "going on after 17 of 18" in said
    assert "left out: VideoFlash/1001_DFA_HAP_XX.flv must be as long as it says" in said
    assert "prepared" in run("data").out
    assert "left out" in run("data", "crema-d").out
    for option, words in ((("--jobs", "0"), "jobs must be"), (("--spectrogram", "paper"), "spectrogram")):
        said = run("data", "av-mnist", "--source", str(FIXTURES / "av_mnist"), *option, code=2).err
        assert words in said
    assert "--leave-out-damaged is a setting of published sets" in run("data", "watch", "--leave-out-damaged", code=2).err


@pytest.mark.parametrize("name", ["ave", "av-mnist"])
def test_the_committed_copies_can_be_prepared(name: str):
    said = run("data", name, "--source", str(FIXTURES / name.replace("-", "_")), "--leave-out-damaged").out
    assert "manifest.json" in said
    assert "in the literature" in said


def test_the_same_video_under_two_names_is_in_one_split(tmp_path: Path):
    write_ave(tmp_path / "ave", 9, faults=False)
    videos = tmp_path / "ave" / "AVE"
    (videos / "id_000-x.mp4").write_bytes((videos / "id_007-x.mp4").read_bytes())
    prepared = PUBLISHED["ave"].prepare(tmp_path / "ave", frame_size=8)
    names = prepared.info("video").tolist()
    for seed in range(6):
        drawn = deal(know_ave(prepared), seed, split="leak-free", rows=None, label_noise=0.0)
        parts = [{names[row] for row in index} for index in (drawn.train, drawn.validation, drawn.test)]
        assert sum(("id_000-x" in part) + ("id_007-x" in part) for part in parts if {"id_000-x", "id_007-x"} <= part) == 2


def test_lists_that_were_changed_change_the_splits(tmp_path: Path):
    write_ave(tmp_path / "ave", 9, faults=False)
    first = PUBLISHED["ave"].prepare(tmp_path / "ave", frame_size=8)
    lists = {name: tmp_path / "ave" / f"{name}Set.txt" for name in ("train", "val")}
    lines = lists["train"].read_text().splitlines()
    lists["train"].write_text("\n".join(lines[:-1]))
    lists["val"].write_text("\n".join([lines[-1], lists["val"].read_text()]))
    second = PUBLISHED["ave"].prepare(tmp_path / "ave", frame_size=8)
    assert first.info("name").tolist() == second.info("name").tolist()
    assert second.manifest["found"]["validation"] == first.manifest["found"]["validation"] + 1
    write_ave_segments(tmp_path / "segments", 40)
    before = PUBLISHED["ave-segments"].prepare(tmp_path / "segments").column("split")
    orders = [tmp_path / "segments" / f"{name}_order.h5" for name in ("val", "test")]
    contents = [order.read_bytes() for order in orders]
    for order, content in zip(orders, contents[::-1], strict=True):
        order.write_bytes(content)
    after = PUBLISHED["ave-segments"].prepare(tmp_path / "segments").column("split")
    assert np.array_equal(np.where(before > 0, 3 - before, before), after)


def test_other_types_of_numbers_hide_no_equal_row(tmp_path: Path):
    write_av_mnist(tmp_path / "digits", 240, 50)
    file = tmp_path / "digits" / "audio" / "test_data.npy"
    np.save(file, np.load(file).astype(np.float64))
    PUBLISHED["av-mnist"].prepare(tmp_path / "digits")
    assert len(rows_of("av-mnist", split="leak-free").train) == 219


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("humor_label_sdk", lambda held: held.update({1: 7}), "labels of 0 or 1, found"),
        ("humor_label_sdk", lambda held: held.update({1: 0.9}), "labels of 0 or 1, found"),
        ("humor_label_sdk", lambda held: held.update({1: "funny"}), "a label of 0 or 1 for each row"),
        ("humor_label_sdk", lambda held: held.update({1: float("nan")}), "labels of 0 or 1, found"),
        ("word_embedding_indexes_sdk", lambda held: held[1].update(punchline_embedding_indexes=[-1]), "words of 0 to 7"),
        ("word_embedding_indexes_sdk", lambda held: held[1].update(punchline_embedding_indexes=[999]), "words of 0 to 7"),
        ("word_embedding_indexes_sdk", lambda held: held[1].update(punchline_embedding_indexes=[1.7]), "words of 0 to 7"),
        ("covarep_features_sdk", lambda held: held.update({2: {}}), "must have a punchline's features"),
        ("covarep_features_sdk", lambda held: held[2].update(punchline_features=[[0.0] * 162]), "81 features a word"),
        ("covarep_features_sdk", lambda held: held[2].update(punchline_features=[[0.0], [0.0, 1.0]]), "a punchline's features"),
        ("data_folds", lambda held: held["test"].append(held["train"][0]), "must name each row once"),
        ("word_embedding_list", lambda held: held.append([1.0]), "vectors of one size"),
    ],
    ids=["7", "0.9", "a word", "nan", "-1", "999", "1.7", "none", "wide", "ragged", "twice", "a ragged list"],
)
def test_pickles_that_hold_something_else_are_named(name: str, change: Any, words: str, tmp_path: Path):
    write_ur_funny(tmp_path / "funny")
    file = tmp_path / "funny" / f"{name}.pkl"
    held = pickle.loads(file.read_bytes())
    change(held)
    file.write_bytes(pickle.dumps(held))
    with pytest.raises(InvalidValueError, match=words):
        PUBLISHED["ur-funny"].prepare(tmp_path / "funny")


@pytest.mark.parametrize("key", ["train", "text", "object"])
def test_one_pickle_that_holds_something_else_is_named(key: str, tmp_path: Path):
    arrays = {"text": np.ones((4, 5, 300)), "audio": np.ones((4, 5, 81)), "vision": np.ones((4, 5, 9)), "labels": np.ones(4)}
    whole: dict[str, Any] = {split: dict(arrays) for split in ("train", "valid", "test")}
    if key == "train":
        whole["train"] = 5
    elif key == "text":
        whole["valid"]["text"] = np.ones((3, 5, 300))
    else:
        whole["test"]["audio"] = np.array([[[None]]] * 4, dtype=object)
    (tmp_path / "funny").mkdir()
    (tmp_path / "funny" / "humor.pkl").write_bytes(pickle.dumps(whole))
    with pytest.raises(InvalidValueError, match=r"humor.pkl must hold"):
        PUBLISHED["ur-funny"].prepare(tmp_path / "funny")


def test_features_that_are_no_numbers_are_named(tmp_path: Path):
    write_ave_segments(tmp_path / "segments", 40)
    for value in (np.nan, 1e6):
        with h5py.File(tmp_path / "segments" / "visual_feature.h5", "r+") as file:
            file["avadataset"][33, 2, 1, 1, 5] = value
        with pytest.raises(InvalidValueError, match=r"visual of rows from 32 must be numbers that float16 can hold"):
            PUBLISHED["ave-segments"].prepare(tmp_path / "segments")
    for order in (np.zeros((2, 2), dtype=int), np.array([0.5]), np.array([], dtype=int), np.array([77])):
        with h5py.File(tmp_path / "segments" / "val_order.h5", "w") as file:
            file["order"] = order
        with pytest.raises(InvalidValueError, match=r"val_order.h5 must hold numbers of rows, 0 to 39"):
            PUBLISHED["ave-segments"].prepare(tmp_path / "segments")


def test_records_tell_which_prepared_set_they_are_of(clips: Any):
    told = describe_source(DatasetSource(dataset="crema-d"))
    assert told["prepared"] == {"sha256": clips.manifest["source_sha256"], "settings": clips.manifest["settings"], "parts": 36}


def test_settings_without_a_source_are_refused():
    said = run("data", "crema-d", "--frame-size", "32", code=2).err
    assert "need --source" in said
