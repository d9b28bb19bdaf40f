"""Sound and video of files: where the sound is placed, which frames are taken, and what is named as damaged."""

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from scipy.io import wavfile

from media_files import RATE, click, media_file, onset
from msam.data.media import opening
from msam.data.media.clips import read_clip
from msam.data.media.opening import DamagedClipError
from msam.data.media.sound import fit_length, join_sound, read_sound, resample, to_mono
from msam.data.media.spectrograms import FLOOR, log_density, log_mel, log_spectrogram, mel_bands
from msam.errors import InvalidValueError

CONTAINERS = {
    "flv": ("flv", "libmp3lame", "flv"),
    "flv, sound only": ("flv", "libmp3lame", None),
    "mp4": ("mp4", "libmp3lame", "mpeg4"),
    "mp4, aac": ("mp4", "aac", "mpeg4"),
    "matroska": ("matroska", "libmp3lame", "mpeg4"),
    "mp3": ("mp3", "libmp3lame", None),
    "wav": ("wav", "pcm_s16le", None),
    "wav, 32 bits": ("wav", "pcm_s32le", None),
    "wav, floating point": ("wav", "pcm_f32le", None),
    "wav, 8 bits": ("wav", "pcm_u8", None),
    "ogg": ("ogg", "flac", None),
}


@pytest.mark.parametrize("name", [name for name in CONTAINERS if name != "flv, sound only"])
def test_the_same_sound_is_at_the_same_place(name: str):
    container, codec, video = CONTAINERS[name]
    sound = read_sound(media_file(container, click(), codec, video))
    assert (sound.rate, len(sound.samples)) == (RATE, 1)
    assert abs(onset(sound.samples[0]) - onset(click())) < 50
    assert 0.6 < np.abs(sound.samples).max() < 1.0
    assert 1.95 < sound.seconds < 2.1


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f64le", "pcm_u8"])
def test_channels_of_packed_sound_are_told_apart(codec: str):
    two = np.stack([click(0.5, 0.1), -click(0.5, 0.3)])
    found = read_sound(media_file("wav", two, codec)).samples
    assert found.shape == two.shape
    assert np.abs(found - two).max() < (0.02 if codec == "pcm_u8" else 1e-4)
    assert np.allclose(to_mono(found), found.mean(0))


def test_sound_that_begins_late_has_silence_before_it():
    """The sound of a file whose video begins earlier, by its time stamps, is moved to its place."""
    frames = []
    for number in (2, 3, 5):
        frame = av.AudioFrame.from_ndarray(np.full((1, 100), number, dtype=np.float32) / 10, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 1000, 100 * number
        frame.time_base = Fraction(1, 1000)
        frames.append(frame)
    late = join_sound(iter(frames), 0.0, "it").samples[0]
    assert late.shape == (600,)
    assert np.unique(late[:200]).tolist() == [0]
    assert np.unique(late[400:500]).tolist() == [0], "a gap is silence"
    assert np.allclose([late[250], late[350], late[550]], [0.2, 0.3, 0.5])
    cut = join_sound(iter(frames), 0.25, "it").samples[0]
    assert np.allclose([cut[0], cut[50], cut[300]], [0.2, 0.3, 0.5])
    assert len(cut) == 350


@pytest.mark.parametrize(("container", "codec", "video"), [CONTAINERS[name] for name in ("flv", "mp4", "mp4, aac", "matroska")])
def test_frames_are_the_first_of_each_second(container: str, codec: str, video: str):
    clip = read_clip(media_file(container, click(3.0), codec, video, frames=75), size=16, sound=True)
    assert clip.frames.shape == (3, 3, 16, 16)
    assert np.allclose(clip.times, [0, 1, 2], atol=0.005)
    brightness = clip.frames.mean((1, 2, 3))
    assert np.allclose(brightness, [0, 125, 250], atol=8)
    assert clip.sound is not None
    assert abs(onset(clip.sound.samples[0]) - onset(click())) < 50
    assert len(read_clip(media_file(container, None, codec, video), size=8, per_second=4).frames) == 8
    assert read_clip(media_file(container, None, codec, video), size=8).sound is None


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("name", [*(name for name in CONTAINERS if name != "ogg"), "avi"])
def test_a_file_that_was_cut_is_named(name: str, share: float):
    """Not Ogg: such a file tells no length, and what is left of it is a whole one."""
    container, codec, video = CONTAINERS.get(name, ("avi", "libmp3lame", "mpeg4"))
    whole = media_file(container, click(), codec, video)
    cut = whole[: int(share * len(whole))]
    with pytest.raises(DamagedClipError, match=r"1001_DFA must be (as long as it says|a whole sound)"):
        read_sound(cut, "1001_DFA")
    if video:
        with pytest.raises(DamagedClipError, match=r"1001_DFA must be (as long as it says|a whole sound)"):
            read_clip(cut, "1001_DFA")


def padded_wav() -> bytes:
    """A WAV file of 24 bits in words of 32."""
    words = (np.round(click(0.2, 0.05) * 2**23).astype(np.int32) << 8).astype("<i4").tobytes()
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, RATE, 4 * RATE, 4, 32, 22, 24, 4) + guid
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(words)) + words
    return b"RIFF" + struct.pack("<I", len(body)) + body


def wav_of(samples: np.ndarray, path: Path) -> bytes:
    wavfile.write(path / "made.wav", RATE, samples)
    return (path / "made.wav").read_bytes()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: b"", "found it empty"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (lambda _: b"<!DOCTYPE html><title>Sign in</title>" * 40, "whole sound or video file"),
        (lambda path: wav_of(np.zeros(0, np.int16), path), "found no samples|whole sound"),
        (lambda path: wav_of(np.full(900, np.nan, np.float32), path), "numbers of about -1 to 1, found nan"),
        (lambda path: wav_of(np.full(900, 1e9, np.float32), path), r"numbers of about -1 to 1, found 1e\+09"),
        (lambda _: media_file("mp4", None, video="mpeg4"), "must have a sound"),
    ],
    ids=["empty", "git lfs", "a web page", "no samples", "nan", "absurd", "no sound"],
)
def test_what_is_no_sound_is_named(make: Callable[[Path], bytes], words: str, tmp_path: Path):
    with pytest.raises(DamagedClipError, match=words):
        read_sound(make(tmp_path), "it")
    (tmp_path / "it.wav").write_bytes(make(tmp_path))
    with pytest.raises(DamagedClipError, match=words):
        read_sound(tmp_path / "it.wav", "it")


def test_24_bits_in_words_of_32_are_read_rightly_or_named():
    try:
        found = read_sound(padded_wav(), "it").samples
    except DamagedClipError as error:
        assert "must decode to numbers of about -1 to 1" in str(error)
    else:
        assert np.abs(found[0] - click(0.2, 0.05)).max() < 1e-4


def test_what_is_no_video_is_named(tmp_path: Path):
    with pytest.raises(DamagedClipError, match="it must have a video, found 1 sounds"):
        read_clip(media_file("mp3", click()), "it")
    with pytest.raises(DamagedClipError, match="it must have a sound"):
        read_clip(media_file("mp4", None, video="mpeg4"), "it", sound=True)
    with pytest.raises(DamagedClipError, match="must be a file that can be read"):
        read_clip(tmp_path / "none.flv", "it")
    wrong: dict[str, Any]
    for wrong in ({"per_second": 0}, {"size": 0}):
        with pytest.raises(InvalidValueError):
            read_clip(b"", "it", **wrong)


def test_without_pyav_its_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(opening, "find_spec", lambda _: None)
    with pytest.raises(InvalidValueError, match=r"pip install 'msam\[media\]'"):
        read_sound(b"RIFF")


@pytest.mark.parametrize("to", [8000, 16000, 22050, 48000])
def test_resampling_keeps_what_both_rates_can_hold(to: int):
    times = np.arange(RATE) / RATE
    found = resample(np.sin(2 * np.pi * 440 * times)[None], RATE, to)[0]
    wanted = np.sin(2 * np.pi * 440 * np.arange(len(found)) / to)
    assert len(found) == to
    assert np.abs(found - wanted)[100:-100].max() < 0.01
    above = resample(np.sin(2 * np.pi * 21_000 * times), RATE, to)
    assert np.abs(above[200:-200]).max() < (0.02 if to < 40_000 else 1.1)


@pytest.mark.parametrize(("window", "hop", "length"), [(512, 353, 66_150), (512, 160, 5000), (64, 64, 64), (400, 100, 401)])
def test_spectrograms_are_those_of_torch(window: int, hop: int, length: int):
    samples = np.random.default_rng(0).normal(size=length).astype(np.float32)
    options: dict[str, Any] = {"window": torch.hann_window(window), "return_complex": True, "pad_mode": "constant"}
    for centred in (True, False):
        wanted = torch.stft(torch.tensor(samples), window, hop, center=centred, **options).abs()
        found = log_spectrogram(samples, window, hop, centred=centred)
        assert found.shape == wanted.shape
        assert np.allclose(np.exp(found), wanted.numpy() + FLOOR, rtol=1e-3, atol=1e-4)
    with pytest.raises(InvalidValueError, match="must be as long as a window"):
        log_spectrogram(samples[: window - 1], window, hop, centred=False)


def test_a_tone_is_in_its_band():
    samples = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    assert log_density(samples, 16_000).argmax(0).tolist() == [32] * 98
    bands = mel_bands(40, 512, 16_000)
    loudest = int(bands[:, 32].argmax())
    found = log_mel(samples, 16_000)
    assert found.shape == (40, 101)
    assert set(found[:, 2:-2].argmax(0).tolist()) == {loudest}
    assert np.allclose(bands.sum(0)[4:-30], 1, atol=0.3), "neighbouring triangles add up"


def test_a_short_sound_is_repeated():
    assert fit_length(np.arange(3), 7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert fit_length(np.arange(5), 2).tolist() == [0, 1]


def test_frames_are_those_shown_at_even_times():
    """A video that stands still from 0 to 2 s: the frame that is shown then is taken as often as it is wanted."""
    stream = io.BytesIO()
    with av.open(stream, "w", format="matroska") as file:
        video = file.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        for number in [0, *range(50, 100)]:
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 2 * number, dtype=np.uint8), format="rgb24")
            frame.pts = number
            file.mux(video.encode(frame))
        file.mux(video.encode())
    clip = read_clip(stream.getvalue(), per_second=1, size=8)
    assert clip.times == (0, 1, 2, 3)
    assert np.allclose(clip.frames.mean((1, 2, 3)), [0, 0, 100, 150], atol=6)
    assert len(read_clip(stream.getvalue(), per_second=1, size=8, most=2).frames) == 2


@pytest.mark.parametrize("start", [0, 1, 60])
@pytest.mark.parametrize("container", ["matroska", "mp4", "mpegts"])
def test_files_that_begin_later_are_whole(container: str, start: int):
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as file:
        video = file.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 5 * number, dtype=np.uint8), format="rgb24")
            frame.pts = number + 25 * start
            file.mux(video.encode(frame))
        file.mux(video.encode())
    clip = read_clip(stream.getvalue(), size=8)
    assert clip.times == (0, 1)
    assert np.allclose(clip.frames.mean((1, 2, 3)), [0, 125], atol=8)


@pytest.mark.parametrize("size", [36, 37, 0x7FFFFFFF, 0xFFFFFFFF, 0])
def test_sizes_that_writers_get_nearly_right_are_taken(size: int, tmp_path: Path):
    whole = bytearray(wav_of(np.round(1000 * click(0.2, 0.05)).astype(np.int16), tmp_path))
    whole[4:8] = (len(whole) - 36 + size if 0 < size < 100 else size).to_bytes(4, "little")
    assert read_sound(bytes(whole)).samples.shape == (1, len(click(0.2)))


def test_gaps_that_no_sound_has_are_named():
    frames = []
    for number in (0, 3600):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 100), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 1000, number, Fraction(1)
        frames.append(frame)
    with pytest.raises(DamagedClipError, match="it must have a sound without gaps of more than 60 s, found one of 3600 s"):
        join_sound(iter(frames), 0.0, "it")
    with pytest.raises(DamagedClipError, match="all of its sound lies before its first frame"):
        join_sound(iter(frames[:1]), 50.0, "it")


def test_a_path_may_be_a_text(tmp_path: Path):
    (tmp_path / "it.wav").write_bytes(media_file("wav", click(0.2, 0.05), "pcm_s16le"))
    assert read_sound(str(tmp_path / "it.wav")).rate == RATE


def test_bands_that_hold_nothing_are_refused():
    with pytest.raises(InvalidValueError, match="bands must hold a place of the spectrum each"):
        mel_bands(128, 512, 16_000)
    with pytest.raises(InvalidValueError, match="lowest"):
        mel_bands(4, 512, 16_000, 9000.0)
    with pytest.raises(InvalidValueError, match="must be as long as a window"):
        log_density(np.zeros(300), 16_000)
