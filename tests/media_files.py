"""Small sound and video files, made for tests: a click, and frames whose brightness tells the time."""

import io

import av
import numpy as np

RATE = 44_100


def click(seconds: float = 2.0, at: float = 0.5, rate: int = RATE) -> np.ndarray:
    """Silence with a short tone that begins suddenly."""
    sound = np.zeros(round(seconds * rate), dtype=np.float32)
    start = round(at * rate)
    sound[start : start + 200] = 0.8 * np.sin(np.arange(200) * 0.3)[: len(sound) - start]
    return sound


def onset(samples: np.ndarray) -> int:
    """Where the tone begins."""
    loud = np.abs(samples)
    return int(np.flatnonzero(loud > 0.3 * loud.max())[0])


def media_file(
    container: str,
    sound: np.ndarray | None = None,
    codec: str = "libmp3lame",
    video: str | None = None,
    frames: int = 50,
    rate: int = RATE,
    size: tuple[int, int] = (64, 48),
    dark: int = 0,
) -> bytes:
    """A file with a sound ``(n,)`` or ``(channels, n)``, and a video, 25 frames a second; frame k has brightness dark + 5 k."""
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as file:
        heard = shown = None
        if sound is not None:
            layout = "stereo" if sound.ndim == 2 else "mono"
            heard = file.add_stream(codec, rate=rate)
            heard.layout = layout
        if video is not None:
            shown = file.add_stream(video, rate=25)
            shown.width, shown.height, shown.pix_fmt = *size, "yuv420p"
            for number in range(frames):
                picture = np.full((size[1], size[0], 3), min(255, dark + 5 * number), dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = number
                file.mux(shown.encode(frame))
            file.mux(shown.encode())
        if sound is not None and heard is not None:
            frame = av.AudioFrame.from_ndarray(np.atleast_2d(sound).astype(np.float32), format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, 0
            resampler = av.AudioResampler(format=heard.format.name, layout=layout, rate=rate)
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                file.mux(heard.encode(part))
            file.mux(heard.encode())
    return stream.getvalue()
