"""The language of a text."""
from __future__ import annotations


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
