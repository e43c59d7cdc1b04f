"""Unicode repair of one line of text: ligatures folded, mojibake undone, composed characters (NFC)."""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Any

_LIGATURES = {
    "\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl",
    "\ufb05": "st", "\ufb06": "st",
}  # fmt: skip
_PLAIN = re.compile(r"[\t\x20-\x7e]*")
_C0 = re.compile(r"[\x00\x01\x03-\x08\x0b-\x1f\x7f]")
# Controls that mean nothing in text; \x02 is a hyphen at a line's end and is resolved when lines are joined.
_CONTROLS = re.compile(r"[\x00\x01\x03-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff\u200b\u2060]")
# A spacing accent drawn before or over its letter ("´e", "¨u"), as old TeX fonts do.
_SPACING = {
    "´": "\u0301",
    "`": "\u0300",
    "¨": "\u0308",
    "ˆ": "\u0302",
    "˜": "\u0303",
    "¸": "\u0327",
    "ˇ": "\u030c",
}
_ACCENT = re.compile(r"([´¨ˆ˜ˇ])([A-Za-z])")


def repair(text: str) -> str:
    """``text`` without ligatures, mojibake, control characters and detached accents."""
    if _PLAIN.fullmatch(text):
        return text
    text = _C0.sub("", text)
    text = "".join(_LIGATURES.get(ch, ch) for ch in text)
    text = _ACCENT.sub(_compose, text)
    marked = text.replace("\x02", "\u2e17")  # ftfy would drop the control character
    text = _fixer()(marked).replace("\u2e17", "\x02")
    text = text.replace("\u00a0", " ")
    return unicodedata.normalize("NFC", _CONTROLS.sub("", text))  # what is left of C1 is no mojibake either


def _compose(match: re.Match[str]) -> str:
    composed = unicodedata.normalize("NFC", match.group(2) + _SPACING[match.group(1)])
    return composed if len(composed) == 1 else match.group(0)


@functools.cache
def _fixer() -> Any:
    import ftfy

    # Only what is surely damage: quotes, widths and HTML entities may be meant (a paper about HTML).
    config = ftfy.TextFixerConfig(
        unescape_html=False, uncurl_quotes=False, fix_character_width=False, fix_latin_ligatures=True,
        fix_line_breaks=False, remove_terminal_escapes=False, remove_control_chars=False, normalization="NFC",
        explain=False,
    )  # fmt: skip
    return functools.partial(ftfy.fix_text_segment, config=config)
