"""Which language a text is in, and whether it is in any."""

from __future__ import annotations

import re

# The commonest words of the languages that PDFs are mostly written in, three per language.
_FEW_WORDS = frozenset(
    re.findall(r"\w+", "the of and der die und de la que les et le di il e o da het een van och att en i na nie się")
)


def detect_language(text: str) -> str:
    """ISO 639-1 code of the language of ``text``, "" for too little text or an unusual language.

    Judged from its middle, where titles and lists are rare.
    """
    import py3langid

    middle = max(0, len(text) // 2 - 5000)
    sample = text[middle : middle + 10000]
    if sum(ch.isalpha() for ch in sample) < 40:
        return ""
    code = str(py3langid.classify(sample)[0])
    return code if len(code) == 2 else ""  # py3langid also knows codes of three letters, rare languages and noise


def is_gibberish(text: str) -> bool:
    """Letters without a language: a font whose characters map to the wrong letters ("Sgd rgnqs").

    A page of real text in a Latin script holds some of the commonest words of its language; where it holds
    none at all, the language identifier decides (its code ``zxx``: no linguistic content).
    """
    words = text[:6000].lower().split()
    if len(words) < 60 or not text[:6000].isprintable() or sum(w.isascii() for w in words) < 0.5 * len(words):
        return False
    if sum(w in _FEW_WORDS for w in words) > 0.01 * len(words):
        return False
    import py3langid

    return bool(py3langid.classify(" ".join(words))[0] == "zxx")
