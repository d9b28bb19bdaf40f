"""Says one word with the speech engine eSpeak NG, in a process of its own: the engine's samples depend on what it said before.

It is run as a script, needs the standard library only, and writes the sampling rate as four bytes, then samples of 16 bits.
"""

import ctypes
import sys

_SYNCHRONOUS, _NO_EXIT, _CHARACTERS, _UTF8 = 2, 0x8000, 1, 1
"""Of the engine's interface, ``speak_lib.h``."""


def say_word(library: str, data: str, voice: str, word: str) -> tuple[int, bytes]:
    """Say a word.

    Args:
        library: Path of the engine's shared library.
        data: Folder of its data.
        voice: Accent and voice, such as ``en-us+f1``.
        word: To say.

    Returns:
        The sampling rate, and samples of 16 bits.

    Raises:
        RuntimeError: If the engine cannot start, or has no such voice.
    """
    engine = ctypes.CDLL(library)
    rate = engine.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _NO_EXIT)
    if rate <= 0:
        raise RuntimeError(f"the engine must start, found status {rate}")
    said = bytearray()

    def keep(samples: int | None, count: int, _: int | None) -> int:
        if samples and count > 0:
            said.extend(ctypes.string_at(samples, 2 * count))
        return 0

    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(keep)
    engine.espeak_SetSynthCallback(callback)
    if engine.espeak_SetVoiceByName(voice.encode()):
        raise RuntimeError(f"the engine must have the voice {voice!r}, found none")
    text = word.encode() + b"\0"
    size = ctypes.c_size_t(len(text))
    # Breath is noise that the engine would seed by the clock.
    engine.espeak_ng_SetRandSeed(ctypes.c_long(1))
    if engine.espeak_Synth(text, size, 0, _CHARACTERS, 0, _UTF8, None, None) or engine.espeak_Synchronize():
        raise RuntimeError(f"the engine must say {word!r} with the voice {voice!r}, found that it does not")
    return rate, bytes(said)


if __name__ == "__main__":
    found, content = say_word(*sys.argv[1:])
    sys.stdout.buffer.write(found.to_bytes(4, "little") + content)
