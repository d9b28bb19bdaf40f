"""Mandarin syllables: from the symbols of Zhuyin and from Pinyin with marks to Pinyin without, and a tone."""

import unicodedata

from msam.errors import InvalidValueError

NEUTRAL = 0
"""The tone that has no number."""

_INITIALS = dict(zip("ㄅㄆㄇㄈㄉㄊㄋㄌㄍㄎㄏㄐㄑㄒ", "bpmfdtnlgkhjqx", strict=True))
_SIBILANTS = dict(zip("ㄓㄔㄕㄖㄗㄘㄙ", ("zh", "ch", "sh", "r", "z", "c", "s"), strict=True))
"""Initials that are a syllable alone, with a vowel that Zhuyin leaves out."""
_FINALS = {
    "ㄚ": ("a", "a"),
    "ㄛ": ("o", "o"),
    "ㄜ": ("e", "e"),
    "ㄝ": ("ê", "ê"),
    "ㄞ": ("ai", "ai"),
    "ㄟ": ("ei", "ei"),
    "ㄠ": ("ao", "ao"),
    "ㄡ": ("ou", "ou"),
    "ㄢ": ("an", "an"),
    "ㄣ": ("en", "en"),
    "ㄤ": ("ang", "ang"),
    "ㄥ": ("eng", "eng"),
    "ㄦ": ("er", "er"),
    "ㄧ": ("i", "yi"),
    "ㄧㄚ": ("ia", "ya"),
    "ㄧㄛ": ("io", "yo"),
    "ㄧㄝ": ("ie", "ye"),
    "ㄧㄞ": ("iai", "yai"),
    "ㄧㄠ": ("iao", "yao"),
    "ㄧㄡ": ("iu", "you"),
    "ㄧㄢ": ("ian", "yan"),
    "ㄧㄣ": ("in", "yin"),
    "ㄧㄤ": ("iang", "yang"),
    "ㄧㄥ": ("ing", "ying"),
    "ㄨ": ("u", "wu"),
    "ㄨㄚ": ("ua", "wa"),
    "ㄨㄛ": ("uo", "wo"),
    "ㄨㄞ": ("uai", "wai"),
    "ㄨㄟ": ("ui", "wei"),
    "ㄨㄢ": ("uan", "wan"),
    "ㄨㄣ": ("un", "wen"),
    "ㄨㄤ": ("uang", "wang"),
    "ㄨㄥ": ("ong", "weng"),
    "ㄩ": ("ü", "yu"),
    "ㄩㄝ": ("üe", "yue"),
    "ㄩㄢ": ("üan", "yuan"),
    "ㄩㄣ": ("ün", "yun"),
    "ㄩㄥ": ("iong", "yong"),
}
"""Final -> Pinyin after an initial, and on its own."""
_PALATALS = ("j", "q", "x")
_TONES = {"1": NEUTRAL, "2": 2, "3": 3, "4": 4}
_MARKS = {"\N{COMBINING MACRON}": 1, "\N{COMBINING ACUTE ACCENT}": 2, "\N{COMBINING CARON}": 3, "\N{COMBINING GRAVE ACCENT}": 4}


def read_zhuyin(written: str) -> tuple[str, int] | None:
    """Read a syllable in Zhuyin, with a digit for the tone as input methods write it: none for the first, 1 for the neutral.

    Args:
        written: Such as ``ㄇㄚ3``.

    Returns:
        Pinyin without marks, and the tone, 1 to 4 or `NEUTRAL`; None for an initial alone, which is the name of a symbol and no
        syllable.

    Raises:
        InvalidValueError: If it is no Zhuyin.

    Example:
        >>> read_zhuyin("ㄇㄚ3"), read_zhuyin("ㄒㄩㄝ2"), read_zhuyin("ㄓ"), read_zhuyin("ㄅ")
        (('ma', 3), ('xue', 2), ('zhi', 1), None)

    Source: the tables of Hanyu Pinyin (ISO 7098) and of Zhuyin.
    """
    symbols = written.rstrip("1234")
    tone = _TONES.get(written[len(symbols) :], 1 if written == symbols else None)
    initial = (_INITIALS | _SIBILANTS).get(symbols[:1], "")
    final = symbols[1:] if initial else symbols
    if tone is None or (final and final not in _FINALS) or not symbols:
        raise InvalidValueError(f"a syllable must be written in Zhuyin with at most one of 1, 2, 3, 4, found {written!r}")
    if not final:
        return (f"{initial}i", tone) if symbols in _SIBILANTS else None
    after, alone = _FINALS[final]
    if not initial:
        return alone, tone
    return initial + (after.replace("ü", "u") if initial in _PALATALS else after), tone


def read_pinyin(written: str) -> tuple[str, int]:
    """Read a syllable in Pinyin whose tone is a mark.

    Args:
        written: Such as ``mǎ``.

    Returns:
        Pinyin without the mark, and the tone, 1 to 4; `NEUTRAL` where there is no mark.

    Example:
        >>> read_pinyin("mǎ"), read_pinyin("lǜ"), read_pinyin("de")
        (('ma', 3), ('lü', 4), ('de', 0))
    """
    parts = unicodedata.normalize("NFD", written)
    tones = [_MARKS[part] for part in parts if part in _MARKS]
    plain = "".join(part for part in parts if part not in _MARKS)
    return unicodedata.normalize("NFC", plain), tones[0] if tones else NEUTRAL
