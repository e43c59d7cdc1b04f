"""Superscripts in plain text: ``m²`` and ``10⁻³``, not ``m2`` and ``10−3``."""

from __future__ import annotations

import re

_FORMS = dict(
    zip("0123456789+-−–()abcdefghijklmnoprstuvwxyz", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁻⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ", strict=True)
)
_ORDINAL_END = re.compile(r"st|nd|rd|th|er|re|e|ème|o|a|º|ª", re.I)
_BETWEEN = " ,.;"  # stand between superscripts and have no form of their own


def superscript(letters: list[str]) -> list[str]:
    """``letters`` as Unicode's superscripts; behind a caret where it has none for one of them. As many as before."""
    if all(letter in _FORMS or letter in _BETWEEN for letter in letters):
        return [_FORMS.get(letter, letter) for letter in letters]
    return ["^" + letters[0], *letters[1:]]


def is_exponent(before: str, raised: str) -> bool:
    """Whether ``raised``, a superscript, needs a mark to be told from what stands before it.

    Brackets and signs ("[1]", "*") tell themselves apart; "21st", "1er" and names of brands are written so.
    """
    if before.isspace() or not (raised[:1].isalnum() or (raised[:1] in tuple("+-−–") and len(raised) > 1)):
        return False
    return not (_ORDINAL_END.fullmatch(raised) if before.isdigit() else raised.casefold() in ("tm", "sm", "r"))
