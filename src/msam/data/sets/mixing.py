"""Clips of a word in pink noise, and their spectrograms."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.data.splits.arrays import Array

RATE = 8_000
"""Samples a second."""
CLIP = 8_000
"""Samples of a clip, 1 s."""
BANDS = 32
FLOOR = 1e-3
"""Added before a logarithm is taken; the power of speech is about 1."""

_WINDOW, _HOP = 256, 200
_CHUNK = 256
_TRACK = 60 * RATE


def mix_clips(words: NDArray[Any], noise: float, generator: np.random.Generator) -> Array:
    """Put each word at a random place of a clip, in pink noise, the power of which falls with frequency as 1 / f.

    Args:
        words: ``(N, n)`` with n at most `CLIP`, zeros after a word's end.
        noise: Level relative to the word in decibels, by mean powers over the word's own length and the whole clip.
        generator: Decides places and noise: each clip's is a second of one track of a minute.

    Returns:
        ``(N, CLIP)``; words have a mean power of 1.

    Example:
        >>> quiet = mix_clips(np.array([[3, -4, 0]]), -100.0, np.random.default_rng(0))
        >>> quiet.shape, round(float(np.square(quiet).sum()), 3)
        ((1, 8000), 2.0)
    """
    lengths = words.shape[1] - (words[:, ::-1] != 0).argmax(1)
    starts = generator.integers(0, CLIP - lengths + 1)
    clips = _pink(len(words), generator) * np.float32(10 ** (noise / 20))
    for clip, word, start, length in zip(clips, words, starts, lengths, strict=True):
        said = word[:length].astype(np.float32)
        clip[start : start + length] += said * np.float32(np.sqrt(length / np.square(said).sum()))
    return clips


def _pink(count: int, generator: np.random.Generator) -> Array:
    """Cut clips of noise, each with a mean power of 1, from a track that begins at 20 Hz."""
    from scipy import fft

    frequencies = fft.rfftfreq(_TRACK, 1 / RATE)
    shape = np.where(frequencies >= 20, 1 / np.sqrt(np.maximum(frequencies, 20)), 0).astype(np.float32)
    drawn = generator.standard_normal(2 * len(shape), dtype=np.float32).view(np.complex64)
    track = fft.irfft(drawn * shape, _TRACK)
    clips = np.lib.stride_tricks.sliding_window_view(track, CLIP)[generator.integers(0, _TRACK - CLIP + 1, count)]
    scaled: Array = clips / np.sqrt(np.square(clips).mean(1, keepdims=True))
    return scaled


def measure_clips(clips: Array) -> Array:
    """Take log-mel spectrograms.

    Args:
        clips: ``(N, n)``.

    Returns:
        ``(N, BANDS, 1 + n // 200)``, natural logarithms of powers.

    Example:
        >>> measure_clips(np.zeros((2, CLIP), dtype=np.float32)).shape
        (2, 32, 41)
    """
    from scipy import fft, signal

    from msam.data.media.spectrograms import mel_bands

    window = signal.get_window("hann", _WINDOW).astype(np.float32)
    bands = mel_bands(BANDS, _WINDOW, RATE) / np.float32(np.square(window).sum())
    padded = np.pad(clips, ((0, 0), (_WINDOW // 2, _WINDOW // 2)))
    measured = []
    for start in range(0, len(clips), _CHUNK):
        cut = np.lib.stride_tricks.sliding_window_view(padded[start : start + _CHUNK], _WINDOW, axis=1)[:, ::_HOP]
        power = np.square(np.abs(fft.rfft(cut * window)))
        measured.append(np.log(power @ bands.T + np.float32(FLOOR)).transpose(0, 2, 1))
    found: Array = np.ascontiguousarray(np.concatenate(measured), dtype=np.float32)
    return found
