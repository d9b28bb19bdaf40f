"""Watch: shoulder exercises felt by a smartwatch's two sensors, from the package ``seglearn``; built into the cache."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.checks import as_count, as_number
from msam.data.archives.cached import read_arrays
from msam.data.archives.packages import Package, Report, build_once, cache_folder, read_members, silent
from msam.data.archives.pickles import read_pickle
from msam.data.splits.arrays import Arrays, add_label_noise, choose_rows, pick_split, standardise_channels
from msam.data.splits.split import Splits
from msam.errors import InvalidValueError

PACKAGES = (
    Package(
        client="pip",
        name="seglearn",
        version="1.2.5",
        sha256="ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd",
        licence="BSD-3-Clause",
        size=11_320_941,
    ),
)
FILE = "watch.npz"
EXERCISES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
"""Pendulum, abduction, forward elevation, internal and external rotation, trapezius, rowing."""
SUBJECTS = 10
WINDOW = 100
"""Samples of a window, 2 s at 50 Hz; windows do not overlap."""

_MEMBER = "seglearn/data/watch_dataset.npy"
_SIGNALS = ("ax", "ay", "az", "wx", "wy", "wz")
_CHANNELS = {"accel": slice(0, 3), "gyro": slice(3, 6)}
_VALIDATION_SUBJECTS = 2
_LICENCE = """# Watch

Shoulder physiotherapy exercises recorded by a smartwatch: D. M. Burns, N. Leung, M. Hardisty, C. M. Whyne, P. Henry and
S. McLachlin, *Shoulder physiotherapy exercise recognition: machine learning the inertial signals from a smartwatch*,
Physiological Measurement 39(7), 2018, arXiv:1802.01489. From the package `seglearn` 1.2.5, David Burns, BSD-3-Clause:

Redistribution and use in source and binary forms, with or without modification, are permitted provided that the following
conditions are met: 1. Redistributions of source code must retain the copyright notice, this list of conditions and the
following disclaimer. 2. Redistributions in binary form must reproduce the copyright notice, this list of conditions and the
following disclaimer in the documentation and/or other materials provided with the distribution. 3. Neither the name of the
copyright holder nor the names of its contributors may be used to endorse or promote products derived from this software
without specific prior written permission.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING,
BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT
SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR
CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE, DATA, OR
PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR
TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY
OF SUCH DAMAGE.

**Changes made here.** Recordings are cut into windows of 2 s that do not overlap; what is left at an end is dropped. Numbers
are stored in single precision.
"""


def load_watch(modalities: Sequence[str], path: Path | None = None) -> Arrays:
    """Load 2,369 windows of 2 s from 140 recordings of 10 people doing 7 exercises.

    Args:
        modalities: Of ``accel`` (acceleration) and ``gyro`` (rotation), 3 axes of 100 samples at 50 Hz each.
        path: A file that `build_watch` wrote; the cache's if None.

    Returns:
        The arrays, inputs ``(2369, 3, 100)``. `groups` is the person.

    Raises:
        InvalidValueError: If it has not been built, or the file is damaged.

    Source: Burns et al., "Shoulder physiotherapy exercise recognition", Physiological Measurement 2018, arXiv:1802.01489.
    """
    path = cache_folder() / FILE if path is None else path
    arrays = read_arrays(path, "Watch", "msam data watch", ["windows", "exercises", "subjects"])
    inputs = {name: np.ascontiguousarray(arrays["windows"][:, _CHANNELS[name]]) for name in modalities}
    return Arrays(inputs, arrays["exercises"], arrays["subjects"])


def split_watch(arrays: Arrays, seed: int, *, rows: int | None = None, label_noise: float = 0.0) -> Splits:
    """Leave one person out for the test and two for validation, and train on the other seven.

    The test person of seed s is number s modulo 10: ten seeds in a row are leave-one-subject-out, and an interval over
    them is one over people. The validation people are drawn by the seed from the others.

    Args:
        arrays: Of `load_watch`.
        seed: Decides the people, the rows and the wrong labels.
        rows: Training windows to keep, at least one; all of the seven people where None.
        label_noise: Share in [0, 1] of the training labels that are replaced by another exercise.

    Returns:
        The splits; each channel has mean 0 and standard deviation 1 over the training windows.

    Raises:
        InvalidValueError: If the share or the number of rows is out of its range.
    """
    label_noise = as_number("label_noise", label_noise, 0, 1, bounds="[]")
    seed = as_count("seed", seed)
    assert arrays.groups is not None, "load_watch gives them"
    people = np.unique(arrays.groups)
    generator = np.random.default_rng(seed)
    test_person = people[seed % len(people)]
    others = generator.permutation(people[people != test_person])
    order = generator.permutation(len(arrays.target))
    validation_people = others[:_VALIDATION_SUBJECTS]
    test = order[arrays.groups[order] == test_person]
    validation = order[np.isin(arrays.groups[order], validation_people)]
    train = choose_rows(order[np.isin(arrays.groups[order], others[_VALIDATION_SUBJECTS:])], rows, generator)
    inputs = {name: standardise_channels(values, train) for name, values in arrays.inputs.items()}
    return Splits(
        train=pick_split(inputs, train, add_label_noise(arrays.target, train, label_noise, generator)),
        validation=pick_split(inputs, validation, arrays.target[validation]),
        test=pick_split(inputs, test, arrays.target[test]),
        pool=len(arrays.target),
    )


def build_watch(folder: Path | None = None, source: Path | None = None, progress: Report = silent) -> Path:
    """Build the data set from the package's wheel, unless it is there already and whole.

    Args:
        folder: Where to; the cache if None.
        source: A folder with the wheel, downloaded elsewhere; None to download it with ``pip``.
        progress: Is told how far it is.

    Returns:
        The file.

    Source: the package ``seglearn``, BSD-3-Clause. Its file is a pickle: it is read as arrays and texts, from the wheel of the
    known checksum only.
    """

    def make(archives: Mapping[str, Path]) -> dict[str, NDArray[Any]]:
        return _read(archives[PACKAGES[0].name], progress)

    target = (cache_folder() if folder is None else folder) / FILE
    return build_once(target, PACKAGES, make, _LICENCE, source, progress)


def _read(archive: Path, progress: Report) -> dict[str, NDArray[Any]]:
    progress(f"reading {archive.name}", 0, 0)
    members = dict(read_members(archive, lambda path: path == _MEMBER))
    if _MEMBER not in members:
        raise InvalidValueError(f"{archive.name} must hold {_MEMBER}, found none; download it again")
    stream = io.BytesIO(members[_MEMBER])
    version = np.lib.format.read_magic(stream)
    np.lib.format.read_array_header_1_0(stream) if version == (1, 0) else np.lib.format.read_array_header_2_0(stream)
    found = read_pickle(stream.read(), _MEMBER)
    recorded = found.item() if isinstance(found, np.ndarray) else found
    if tuple(recorded["X_labels"]) != _SIGNALS or tuple(recorded["y_labels"]) != EXERCISES:
        raise InvalidValueError(
            f"{_MEMBER} must hold the signals {_SIGNALS} of {EXERCISES}, found {recorded['X_labels']} of "
            f"{recorded['y_labels']}; download it again"
        )
    windows = [_cut(np.asarray(signal)) for signal in recorded["X"]]
    counts = [len(part) for part in windows]
    return {
        "windows": np.concatenate(windows),
        "exercises": np.repeat(np.asarray(recorded["y"], dtype=np.int64), counts),
        "subjects": np.repeat(np.asarray(recorded["subject"], dtype=np.int64), counts),
        "recordings": np.repeat(np.arange(len(counts)), counts),
    }


def _cut(signal: NDArray[Any]) -> NDArray[np.float32]:
    """Cut a recording ``(time, 6)`` into windows ``(n, 6, 100)``."""
    count = len(signal) // WINDOW
    cut = signal[: count * WINDOW].reshape(count, WINDOW, signal.shape[1])
    return np.ascontiguousarray(cut.transpose(0, 2, 1), dtype=np.float32)
