#!/usr/bin/env bash
# espeakng-loader 0.2.4: some voices, those with breath, say the same word with other samples in each process, though nothing random was asked for: the engine
# seeds its noise by the clock when it starts. Others say it alike in each process.
# Seen, the word "seven" by en-us, in four processes each:
#     +whisper: 4 different; after espeak_ng_SetRandSeed(1): 1
#     +f1: 1 different
# One would expect one answer. Call espeak_ng_SetRandSeed before each word, and say each in a process of its own, where samples are to be made again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q espeakng-loader==0.2.4
cd "$folder"
cat > say.py <<'PY'
import ctypes
import hashlib
import sys

import espeakng_loader

voice, seeded = sys.argv[1], sys.argv[2] == "seeded"
engine = ctypes.CDLL(espeakng_loader.get_library_path())
engine.espeak_Initialize(2, 0, espeakng_loader.get_data_path().encode(), 0x8000)
said = bytearray()
kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


@kind
def keep(samples, count, _):
    if samples and count > 0:
        said.extend(ctypes.string_at(samples, 2 * count))
    return 0


engine.espeak_SetSynthCallback(keep)
assert engine.espeak_SetVoiceByName(voice.encode()) == 0
if seeded:
    engine.espeak_ng_SetRandSeed(ctypes.c_long(1))
engine.espeak_Synth(b"seven\0", ctypes.c_size_t(6), 0, 1, 0, 1, None, None)
engine.espeak_Synchronize()
print(hashlib.sha256(bytes(said)).hexdigest())
PY
count() { for _ in 1 2 3 4; do venv/bin/python say.py "$1" "$2"; sleep 1.1; done | sort -u | wc -l; }
breath=$(count en-us+whisper plain)
seeded=$(count en-us+whisper seeded)
plain=$(count en-us+f1 plain)
echo "+whisper: $breath different; after espeak_ng_SetRandSeed(1): $seeded"
echo "+f1: $plain different"
[ "$breath" -gt 1 ] && [ "$seeded" -eq 1 ] && [ "$plain" -eq 1 ] || { echo "this has changed"; exit 1; }
