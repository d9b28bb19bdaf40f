"""Small copies of the published sets in the formats in which they are handed out: written into a folder, with some faults.

    python tests/published_files.py tests/fixtures

writes the committed ones.
"""

import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from media_files import click, media_file

EMOTIONS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
EVENTS = ("Church bell", "Bark", "Truck")


def write_crema_d(folder: Path, actors: int = 4, seconds: float = 1.2, *, faults: bool = True) -> list[str]:
    """Clips of one length, six of each actor: 16 kHz WAV and FLV.

    With faults: a video that was cut, a text in place of a sound, and a sound without a video.
    """
    names = []
    (folder / "AudioWAV").mkdir(parents=True)
    (folder / "VideoFlash").mkdir()
    for actor in range(actors):
        for number, emotion in enumerate(EMOTIONS):
            name = f"{1001 + actor}_DFA_{emotion}_XX"
            names.append(name)
            sound = click(seconds, 0.1 + 0.05 * number, 16_000)
            (folder / "AudioWAV" / f"{name}.wav").write_bytes(media_file("wav", sound, "pcm_s16le", rate=16_000))
            sound, frames = click(seconds, 0.2, 22_050), round(25 * seconds)
            video = media_file("flv", sound, "libmp3lame", "flv", frames=frames, rate=22_050, size=(32, 24), dark=20 * number)
            (folder / "VideoFlash" / f"{name}.flv").write_bytes(video)
    if faults:
        cut = folder / "VideoFlash" / "1001_DFA_HAP_XX.flv"
        cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 9\n"
        (folder / "AudioWAV" / "1002_DFA_SAD_XX.wav").write_text(pointer)
        (folder / "VideoFlash" / "1003_DFA_ANG_XX.flv").unlink()
    return names


def write_ave(folder: Path, videos: int = 9, *, faults: bool = True) -> None:
    """Videos of 10 s at a small size, and the three lists; the last has two events, in two splits. With faults: one cut."""
    (folder / "AVE").mkdir(parents=True)
    lines: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number in range(videos):
        name = f"id_{number:03d}-x"
        sound = np.concatenate([click(5, 0.5 + 0.1 * number, 22_050), click(5, 1.0, 22_050)])
        video = media_file("mp4", sound, "aac", "mpeg4", frames=250, rate=22_050, size=(32, 24))
        (folder / "AVE" / f"{name}.mp4").write_bytes(video)
        split = "train" if number < videos - 4 else ("val" if number < videos - 2 else "test")
        lines[split].append(f"{EVENTS[number % 3]}&{name}&good&0&{5 + number % 5}")
    lines["train"].append(f"{EVENTS[videos % 3]}&id_{videos - 1:03d}-x&good&2&9")
    for split, listed in lines.items():
        (folder / f"{split}Set.txt").write_text("\n".join(listed) + "\n")
    if faults:
        cut = folder / "AVE" / "id_001-x.mp4"
        cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])


def write_ave_segments(folder: Path, rows: int = 40) -> None:
    """Features of segments; rows of the three orders overlap nowhere, and one row is in none."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    labels = np.eye(29, dtype=np.float32)[generator.integers(0, 29, (rows, 10))]
    audio = labels[..., :1] + generator.normal(size=(rows, 10, 128)).astype(np.float32) / 4
    visual = np.zeros((rows, 10, 7, 7, 512), dtype=np.float32)
    visual[..., :29] = labels[:, :, None, None, :]
    arrays = {"audio_feature": audio, "visual_feature": visual, "labels": labels}
    for name, values in arrays.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset("avadataset", data=values, compression="gzip")
    order, held = generator.permutation(rows)[1:], rows // 4
    for name, listed in zip(("train", "val", "test"), np.split(order, [rows - 1 - 2 * held, rows - 1 - held]), strict=True):
        with h5py.File(folder / f"{name}_order.h5", "w") as file:
            file["order"] = listed


def write_av_mnist(folder: Path, train: int = 300, test: int = 50) -> None:
    """Pictures and sounds of which a bright part tells the digit; one sound of the test is one of the training rows'."""
    generator = np.random.default_rng(0)
    for split, rows in (("train", train), ("test", test)):
        labels = generator.integers(0, 10, rows)
        images = np.round(generator.uniform(0, 60, (rows, 28, 28))).astype(np.float32)
        sounds = np.zeros((rows, 112, 112), dtype=np.uint8)
        sounds[:, ::16, ::16] = generator.integers(0, 200, (rows, 7, 7))
        for row, label in enumerate(labels):
            images[row, 2 * label + 4] = 255
            sounds[row, 8 * label : 8 * label + 4] = 200
        if split == "train":
            first = sounds[0].copy()
        else:
            sounds[0] = first
        for name, values in (("image", images.reshape(rows, 784)), ("audio", sounds)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            np.save(folder / name / f"{split}_data.npy", values)
        np.save(folder / f"{split}_labels.npy", labels)


def funny_pickles(rows: int = 60, words: int = 50) -> dict[str, Any]:
    """What the authors' six pickles hold: lengths of 1 to 26 words; one number is not finite; two rows have the same text."""
    generator = np.random.default_rng(0)
    names = list(range(1, rows + 1))
    text, covarep, openface, labels = {}, {}, {}, {}
    for name in names:
        length = int(generator.integers(1, 27))
        funny = int(generator.integers(0, 2))
        index = generator.integers(1, words // 2, length) + funny * (words // 2)
        context = [[1, 2], [3]]
        text[name] = {"punchline_embedding_indexes": index.tolist(), "context_embedding_indexes": context}
        for known, size in ((covarep, 81), (openface, 75)):
            values = generator.normal(size=(length, size)) + funny
            known[name] = {"punchline_features": values.tolist(), "context_features": []}
        labels[name] = funny
    covarep[1]["punchline_features"][0][0] = -np.inf
    text[rows] = text[1]
    train, dev, test = np.split(np.array(names), [rows * 2 // 3, rows * 5 // 6])
    folds = {"train": train.tolist(), "dev": dev.tolist(), "test": test.tolist()}
    return {
        "data_folds": folds,
        "word_embedding_indexes_sdk": text,
        "covarep_features_sdk": covarep,
        "openface_features_sdk": openface,
        "humor_label_sdk": labels,
        "word_embedding_list": generator.normal(size=(words, 300)).astype(np.float32).tolist(),
    }


def write_ur_funny(folder: Path, rows: int = 12) -> None:
    folder.mkdir(parents=True)
    for name, content in funny_pickles(rows, 8).items():
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(content, protocol=2))


def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0])
    write_crema_d(folder / "crema_d", 3, 0.7)
    write_ave(folder / "ave", 8)
    write_ave_segments(folder / "ave_segments", 16)
    write_av_mnist(folder / "av_mnist", 20, 8)
    write_ur_funny(folder / "ur_funny")


if __name__ == "__main__":
    main(sys.argv[1:])
