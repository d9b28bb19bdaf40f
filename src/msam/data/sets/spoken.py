"""Words said by eSpeak NG from the wheel ``espeakng-loader``: one process a word, so that a word is always said alike."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from msam.data.archives.packages import Package, Report, read_members
from msam.data.sets import say_word
from msam.errors import InvalidValueError

ENGINE = Package(
    client="pip",
    name="espeakng-loader",
    version="0.2.4",
    sha256="08721baf27d13d461f6be6eed9a65277e70d68234ff484fd8b9897b222cdcb6d",
    licence="GPL-3 or later (the engine eSpeak NG)",
    size=10_078_484,
    tag="py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64",
)
"""Its wheel for Linux on x86-64; pip names the file with underscores."""

_FOLDER = "espeakng_loader/"
_LIBRARY = f"{_FOLDER}libespeak-ng.so"
_DATA = f"{_FOLDER}espeak-ng-data"
_VOICES = f"{_DATA}/voices/!v/"
_PLATFORM = ("Linux", "x86_64")
_TIMEOUT = 60.0

Word = tuple[str, str, str]
"""Accent, voice and text."""
Speech = tuple[int, NDArray[np.int16]]
"""Sampling rate and samples."""


def check_platform() -> None:
    """Check that the engine's wheel runs here.

    Raises:
        InvalidValueError: If this is another system or processor.
    """
    found = (platform.system(), platform.machine())
    if found != _PLATFORM:
        raise InvalidValueError(
            f"words are said by {ENGINE.archive}, which runs on {' '.join(_PLATFORM)}, found {' '.join(found)}; build the set "
            "on such a machine, and copy its file and licence from the cache there to the one here"
        )


def say_words(
    archive: Path, choose: Callable[[Sequence[str]], Sequence[Word]], report: Report
) -> tuple[list[Word], list[Speech]]:
    """Say words, each in a process of its own.

    Args:
        archive: The engine's wheel.
        choose: From the names of its voices, sorted, to the words to say.
        report: Is told how far it is.

    Returns:
        The words, and how they sound.

    Raises:
        InvalidValueError: If the wheel holds no engine or no voices, or the engine fails.
    """
    with TemporaryDirectory(prefix="msam-") as scratch:
        folder = Path(scratch)
        voices = _unpack(archive, folder)
        words = list(choose(voices))
        said: list[Speech] = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for speech in pool.map(lambda word: _say(folder, word), words):
                if len(said) % 100 == 0:
                    report("saying words", len(said), len(words))
                said.append(speech)
    return words, said


def _unpack(archive: Path, folder: Path) -> list[str]:
    """Unpack the engine, and list its voices."""
    voices = []
    for name, content in read_members(archive, lambda path: path == _LIBRARY or path.startswith(f"{_DATA}/")):
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InvalidValueError(f"{archive.name} must hold files below its own folder, found {name!r}; download it again")
        if not name.endswith("/"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            voices += [name.removeprefix(_VOICES)] if name.startswith(_VOICES) else []
    if not (folder / _LIBRARY).is_file() or not voices:
        raise InvalidValueError(f"{archive.name} must hold {_LIBRARY} and voices in {_VOICES}, found none; download it again")
    return sorted(voices)


def _say(folder: Path, word: Word) -> Speech:
    accent, voice, text = word
    script = [sys.executable, "-I", "-S", str(Path(say_word.__file__))]
    arguments = [str(folder / _LIBRARY), str(folder / _DATA), f"{accent}+{voice}", text]
    try:
        ran = subprocess.run([*script, *arguments], capture_output=True, check=False, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise InvalidValueError(f"the speech engine must say {word} in {_TIMEOUT:.0f} s, found that it goes on") from error
    if ran.returncode or len(ran.stdout) < 4:
        lines = ran.stderr.decode("utf-8", "replace").strip().splitlines() or ["nothing"]
        raise InvalidValueError(f"the speech engine must say {word}, found status {ran.returncode}; it said: {lines[-1]}")
    rate = int.from_bytes(ran.stdout[:4], "little")
    return rate, np.frombuffer(ran.stdout[4:], dtype="<i2").astype(np.int16)
