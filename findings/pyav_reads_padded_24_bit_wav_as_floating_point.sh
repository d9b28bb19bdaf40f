#!/usr/bin/env bash
# av 18.1.0 (libavcodec 62.28) reads a valid WAV file of 24 bits in words of 32 bits (WAVE_FORMAT_EXTENSIBLE, 4 bytes a sample, 24 of them valid, as recorders write
# it) as numbers of floating point, without an error. scipy reads the same file rightly.
# Seen, of a tone of half of full scale:
#     scipy: int32 True
#     av: pcm_f24le float32 largest 4.03e+31 NaN 4
# One would expect pcm_s32le, and 0.5. Look at what a WAV file decodes to: sound is about -1 to 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q av==18.1.0 numpy==2.4.6 scipy==1.17.1
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import struct
import sys

import av
import numpy as np
from scipy.io import wavfile

sound = 0.5 * np.sin(0.05 * np.arange(8000))
words = (np.round(sound * 2**23).astype(np.int32) << 8).astype("<i4").tobytes()
pcm = bytes.fromhex("0100000000001000800000aa00389b71")
form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 8000, 32000, 4, 32, 22, 24, 4) + pcm
body = b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(words)) + words
with open("padded.wav", "wb") as file:
    file.write(b"RIFF" + struct.pack("<I", len(body)) + body)
_, theirs = wavfile.read("padded.wav")
print("scipy:", theirs.dtype, float(np.abs(theirs / 2**31 - sound).max()) < 1e-6)
with av.open("padded.wav") as file:
    codec = file.streams.audio[0].codec_context.name
    found = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
print("av:", codec, found.dtype, f"largest {np.nanmax(np.abs(found.astype(np.float64))):.3g}", "NaN", int(np.isnan(found).sum()))
if found.dtype.kind != "f" or not np.nanmax(np.abs(found.astype(np.float64))) > 10:
    print("this has changed")
    sys.exit(1)
PY
