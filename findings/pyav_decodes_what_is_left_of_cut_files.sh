#!/usr/bin/env bash
# av 18.1.0 (libavcodec 62.28): a video or sound file of which the second half is missing, as a download that broke off leaves it, decodes without an error or a
# warning: Matroska, FLV, AVI, MP3 and WAV give what is left. Only MP4 (whose index is at the end) is refused.
# Seen, of 2 s:
#     matroska  0.97 s of sound; the file says 2.02 s
#     flv       1.02 s of sound; the file says 2.02 s
#     avi       0.63 s of sound; the file says 1.04 s
#     mp3       0.99 s of sound; the file says 2.00 s
#     wav       1.00 s of sound; the file says 1.00 s
#     mp4       InvalidDataError
# One would expect an error, or the stream's corrupt flag. Compare what was decoded with what the container says; WAV and AVI files name their own size in
# bytes 4 to 7, which FFmpeg replaces by the file's.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q av==18.1.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import io
import sys

import av
import numpy as np

RATE = 44_100
sound = np.random.default_rng(0).normal(0, 0.1, (1, 2 * RATE)).astype(np.float32)


def write(container, codec, video):
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as file:
        heard = file.add_stream(codec, rate=RATE)
        heard.layout = "mono"
        seen = None
        if video:
            seen = file.add_stream(video, rate=25)
            seen.width, seen.height, seen.pix_fmt = 64, 48, "yuv420p"
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        resampler = av.AudioResampler(format=heard.format.name, layout="mono", rate=RATE)
        packets = [p for part in [*resampler.resample(frame), *resampler.resample(None)] for p in heard.encode(part)]
        packets += heard.encode()
        for number in range(50 if seen else 0):
            picture = np.full((48, 64, 3), 5 * number, dtype=np.uint8)
            shown = av.VideoFrame.from_ndarray(picture, format="rgb24")
            shown.pts = number
            packets += seen.encode(shown)
        if seen:
            packets += seen.encode()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            file.mux(packet)
    return stream.getvalue()


found = {}
kinds = {
    "matroska": ("libmp3lame", "mpeg4"),
    "flv": ("libmp3lame", "flv"),
    "avi": ("libmp3lame", "mpeg4"),
    "mp3": ("libmp3lame", None),
    "wav": ("pcm_s16le", None),
    "mp4": ("aac", "mpeg4"),
}
for container, (codec, video) in kinds.items():
    whole = write(container, codec, video)
    try:
        with av.open(io.BytesIO(whole[: len(whole) // 2])) as file:
            seconds = sum(frame.samples for frame in file.decode(audio=0)) / RATE
            found[container] = seconds
            print(f"{container:9s} {seconds:.2f} s of sound; the file says {file.duration / 1e6:.2f} s")
    except av.FFmpegError as error:
        found[container] = None
        print(f"{container:9s} {type(error).__name__}")
if [name for name, seconds in found.items() if seconds is None] != ["mp4"] or max(filter(None, found.values())) > 1.5:
    print("this has changed")
    sys.exit(1)
PY
