"""How fast clips are prepared, beside the bare decoder on the same files and cores, and how fast a prepared set opens.

    python benchmarks/clips.py [--clips 200] [--rounds 5]

Clips are made in the format of CREMA-D (FLV of 480 x 360 at 30 frames a second with MP3 sound, WAV of 16 kHz, 2.5 s). The bare
decoder decodes every frame of both files with PyAV and keeps nothing, on as many threads. Both run in turn, in one process.
"""

import argparse
import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import av
import numpy as np

from msam.data.prepared.parts import Field, Part
from msam.data.prepared.preparing import Plan, prepare
from msam.data.published.crema_d import plan_crema_d

EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
SECONDS, FPS, SIZE = 2.5, 30, (480, 360)


def make_video(seed: int) -> bytes:
    """A picture that moves, and noise for a sound."""
    generator = np.random.default_rng(seed)
    picture = np.kron(generator.integers(0, 255, (24, 32, 3)), np.ones((15, 15, 1))).astype(np.uint8)
    stream = io.BytesIO()
    with av.open(stream, "w", format="flv") as file:
        video = file.add_stream("flv", rate=FPS)
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        video.bit_rate = 400_000
        sound = file.add_stream("libmp3lame", rate=44_100)
        sound.layout = "mono"
        for number in range(round(SECONDS * FPS)):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, 3 * number, axis=1), format="rgb24")
            frame.pts = number
            file.mux(video.encode(frame))
        file.mux(video.encode())
        noise = generator.normal(0, 0.1, (1, round(SECONDS * 44_100))).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44_100, 0
        for part in av.AudioResampler(format="fltp", layout="mono", rate=44_100).resample(frame):
            file.mux(sound.encode(part))
        file.mux(sound.encode())
    return stream.getvalue()


def make_sound(seed: int) -> bytes:
    """Noise, 16 bits at 16 kHz."""
    stream = io.BytesIO()
    with av.open(stream, "w", format="wav") as file:
        sound = file.add_stream("pcm_s16le", rate=16_000)
        sound.layout = "mono"
        noise = np.random.default_rng(seed).normal(0, 3000, (1, round(SECONDS * 16_000))).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
        frame.sample_rate = 16_000
        file.mux(sound.encode(frame))
        file.mux(sound.encode())
    return stream.getvalue()


def make_source(folder: Path, clips: int) -> None:
    """Files of their own for each clip; eight different contents."""
    (folder / "AudioWAV").mkdir(parents=True)
    (folder / "VideoFlash").mkdir()
    contents = [(make_sound(seed), make_video(seed)) for seed in range(8)]
    for number in range(clips):
        name = f"{1001 + number // 6}_DFA_{EMOTIONS[number % 6]}_XX"
        sound, video = contents[number % 8]
        (folder / "AudioWAV" / f"{name}.wav").write_bytes(sound)
        (folder / "VideoFlash" / f"{name}.flv").write_bytes(video)


def decode(path: Path) -> int:
    """Decode all streams of a file."""
    with av.open(str(path)) as container:
        return sum(1 for packet in container.demux() for _ in packet.decode())


def decode_all(source: Path, jobs: int) -> None:
    """What the bare decoder takes."""
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(decode, sorted(source.rglob("*.*"))))


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started = perf_counter()
    work()
    return perf_counter() - started


def measure_preparing(clips: int, rounds: int, jobs: int) -> None:
    """Both in turn."""
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "source", Path(scratch) / "crema-d"
        make_source(source, clips)
        bare, ours = [], []
        decode_all(source, jobs)  # files and libraries are read once before
        prepare(plan_crema_d(source), target, jobs=jobs)
        for _ in range(rounds):
            shutil.rmtree(target, ignore_errors=True)
            bare.append(timed(lambda: decode_all(source, jobs)))
            ours.append(timed(lambda: prepare(plan_crema_d(source), target, jobs=jobs)))
        ratios = sorted(own / other for own, other in zip(ours, bare, strict=True))
        print(
            f"{clips} clips, {jobs} threads: bare decoder {statistics.median(bare):.2f} s, prepared "
            f"{statistics.median(ours):.2f} s, ratio {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}] "
            f"of {rounds} rounds (aim 1.3)"
        )


LOADS = """
import json, sys
from pathlib import Path
from time import perf_counter
import numpy, torch
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) / 1024
import msam
from msam.data.prepared.reading import load_prepared
from msam.data.published.dealing import deal, know_crema_d
before, started = resident(), perf_counter()
prepared = load_prepared(Path(sys.argv[1]), "it")
drawn = deal(know_crema_d(prepared), 0, split="leak-free", rows=None, label_noise=0.0)
rows = numpy.sort(prepared.rows[drawn.train[:64]])
batch = {name: torch.from_numpy(prepared.arrays[name][rows]) for name in ("audio", "visual")}
print(json.dumps([perf_counter() - started, resident() - before, len(drawn.train)]))
"""


def measure_loading(clips: int) -> None:
    """Open a set of many clips, deal it by actors, and read the first batch, in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fields = {
            "audio": Field((257, 299), "float16"),
            "visual": Field((3, 3, 224, 224), "uint8"),
            "frames": Field((), "int64"),
            "target": Field((), "int64"),
        }
        empty = {name: np.zeros((1, *field.shape), dtype=field.dtype) for name, field in fields.items()}
        parts = [
            Part(f"{1001 + n % 91}_A{n:04d}_ANG_XX", (), info={"actor": str(1001 + n % 91), "emotion": "ANG"})
            for n in range(clips)
        ]

        def read(part: Part) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
            return {**empty, "target": np.array([len(part.name) % 6])}, ()

        prepare(Plan("crema-d", folder, parts, fields, read, {}, {}, lambda _: {}), folder / "crema-d")
        size = sum(path.stat().st_size for path in (folder / "crema-d").iterdir()) / 1e9
        ran = subprocess.run([sys.executable, "-c", LOADS, str(folder / "crema-d")], capture_output=True, text=True, check=True)
        seconds, megabytes, train = json.loads(ran.stdout)
        print(
            f"{clips} prepared clips ({size:.1f} GB): opened, dealt by actors ({train} training clips) and a batch of 64 read "
            f"in {seconds:.2f} s, {megabytes:.0f} MB resident (aims 3 s, 100 MB)"
        )


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--prepared", type=int, default=7000)
    options = parser.parse_args()
    measure_preparing(options.clips, options.rounds, options.jobs)
    measure_loading(options.prepared)


if __name__ == "__main__":
    main()
