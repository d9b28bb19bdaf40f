"""Spectrograms of sound."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.checks import as_count, as_number
from msam.errors import InvalidValueError

Array = NDArray[np.float32]

FLOOR = 1e-7
"""Added before a logarithm is taken, so that silence has one."""


def log_spectrogram(samples: NDArray[Any], window: int = 512, hop: int = 353, *, centred: bool = True) -> Array:
    """Take the logarithm of the magnitudes of short-time Fourier transforms.

        S[f, t] = log(|sum_k w[k] x[t hop + k] exp(-2 pi i f k / window)| + 1e-7)

    with w a Hann window.

    Args:
        samples: ``(n,)``.
        window: Samples of a window.
        hop: Samples between the starts of two windows.
        centred: Whether windows are centred at multiples of `hop`, with zeros before and after the sound; else they lie inside.

    Returns:
        ``(window // 2 + 1, frames)``, frames = 1 + n // hop if centred, else 1 + (n - window) // hop.

    Raises:
        InvalidValueError: If window or hop is below 1, or the sound is shorter than a window that must lie inside.

    Source: as ``librosa.stft`` has it by default where centred; tested against ``torch.stft``.

    Example:
        >>> log_spectrogram(np.zeros(66150)).shape
        (257, 188)
    """
    window, hop = as_count("window", window, 2), as_count("hop", hop, 1)
    from scipy import fft  # slow to import

    padded = np.pad(samples.astype(np.float32, copy=False), window // 2 if centred else 0)
    if len(padded) < window:
        raise InvalidValueError(f"a sound must be as long as a window, {window} samples, found {len(padded)}; use fit_length")
    cut = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    found = np.abs(fft.rfft(cut * _hann(window)))
    return np.log(found.T + np.float32(FLOOR))  # type: ignore[no-any-return]


def log_density(samples: NDArray[Any], rate: int, window: int = 512, overlap: int = 353) -> Array:
    """Take the logarithm of the power spectral density of windows that lie inside the sound.

    Args:
        samples: ``(n,)``.
        rate: Samples a second.
        window: Samples of a window; a Tukey window of shape 0.25, whose mean is subtracted.
        overlap: Samples that two windows in a row share.

    Returns:
        ``(window // 2 + 1, (n - overlap) // (window - overlap))``.

    Raises:
        InvalidValueError: If the sound is shorter than a window.

    Source: ``scipy.signal.spectrogram`` by its defaults, as the code of several audio-visual papers has it.

    Example:
        >>> log_density(np.zeros(48000), 16000).shape
        (257, 299)
    """
    from scipy import signal  # slow to import

    if len(samples) < as_count("window", window, 2):
        raise InvalidValueError(f"a sound must be as long as a window, {window} samples, found {len(samples)}; use fit_length")
    *_, found = signal.spectrogram(samples.astype(np.float32, copy=False), rate, nperseg=window, noverlap=overlap)
    return np.log(found + np.float32(FLOOR)).astype(np.float32)  # type: ignore[no-any-return]


@lru_cache(maxsize=8)
def _hann(window: int) -> Array:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)


def mel_bands(bands: int, window: int, rate: int, lowest: float = 0.0) -> Array:
    """Make the triangles that sum a spectrum into bands evenly spaced in mel.

        mel(f) = 2595 log10(1 + f / 700)

    Args:
        bands: How many.
        window: Samples of the spectrum's windows.
        rate: Samples a second.
        lowest: Hertz at which the first begins; the last ends at half of the rate.

    Returns:
        ``(bands, window // 2 + 1)``: 1 in the middle of a band, 0 at the middles of its neighbours.

    Raises:
        InvalidValueError: If a count is below 1, the first band begins above the last, or a band is so narrow that it holds no
            place of the spectrum.

    Example:
        >>> mel_bands(4, 64, 8000).shape
        (4, 33)
    """
    bands, window, rate = as_count("bands", bands, 1), as_count("window", window, 2), as_count("rate", rate, 1)
    lowest = as_number("lowest", lowest, 0, rate / 2, bounds="[)")
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(2595 * np.log10(1 + lowest / 700), top, bands + 2) / 2595) - 1)
    frequencies = np.linspace(0, rate / 2, window // 2 + 1)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    found: Array = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    if not found.any(1).all():
        raise InvalidValueError(
            f"bands must hold a place of the spectrum each, found {bands} for {window // 2 + 1} places; use fewer, or a longer "
            "window"
        )
    return found


def log_mel(samples: NDArray[Any], rate: int, bands: int = 40, window: int = 512, hop: int = 160) -> Array:
    """Take the logarithm of the power in bands evenly spaced in mel.

    Args:
        samples: ``(n,)``.
        rate: Samples a second.
        bands: How many bands.
        window: Samples of a window, Hann, centred as in `log_spectrogram`.
        hop: Samples between two windows.

    Returns:
        ``(bands, 1 + n // hop)``.

    Raises:
        InvalidValueError: If a count is below 1.

    Example:
        >>> log_mel(np.zeros(1600), 16000).shape
        (40, 11)
    """
    magnitudes = np.exp(log_spectrogram(samples, window, hop)) - np.float32(FLOOR)
    power = mel_bands(bands, window, rate) @ np.square(np.maximum(magnitudes, 0))
    return np.log(power + np.float32(FLOOR))  # type: ignore[no-any-return]
