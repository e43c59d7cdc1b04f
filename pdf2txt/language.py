"""What language a text is in, and whether it is any: garbled fonts give letters without words."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

from pdf2txt.lexicon import lexicon
from pdf2txt.repair import repair

_SAMPLE = 6000  # characters of a page that are looked at
_FEW_WORDS = 25  # fewer say nothing
_FEW_LETTERS = 150
_LETTERS = 4  # shorter strings are in a word list whatever they are
_WORDS = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_HAN = re.compile(r"[\u3400-\u9fff]{2,}")
_NO_SPACES = ("zh", "ja")
_ENDLESS = ("ko",)  # with so many endings that a list holds few of the words of a text

# Rates below which text is no language. Measured on pages of 3,000 characters in 22 languages: real text 0.82 to
# 1.0 (0.63 with the small lists of some 30,000 words), 30 % random letters up to 0.28 (0.24), a wrong alphabet up
# to 0.1; Chinese 0.54, 0.38 and 0.2. Alternation: real text 0.64 to 0.84, garbled 0.2 to 0.66.
_KNOWN, _KNOWN_SMALL, _KNOWN_PAIRS = 0.4, 0.3, 0.25
_SMALL_LIST = 100_000
_SPOKEN, _SPOKEN_ALONE = 0.67, 0.55  # beside a word list, and where there is none
_FEWEST_LETTERS = 12  # of different ones; fewer are a sequence of bases or the like
_VOWELS = frozenset("aeiouyæøœаеиоуыэюяєіїαεηιουω")


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


def vocabulary_rate(text: str, language: str) -> float | None:
    """Share of the words of ``text`` that the word list of an ISO 639-1 ``language`` has, 0 to 1.

    Counted are words of four letters or more, parts of camelCase apart; in Chinese and Japanese, which have no
    spaces, pairs of neighbouring Han characters. None where there are fewer than 25, or no list.
    """
    if language in _NO_SPACES:
        runs = _HAN.findall(text)
        words = [run[k : k + 2] for run in runs for k in range(len(run) - 1)]
    else:
        parts = (part for word in _WORDS.findall(text) for part in _CAMEL.split(word))
        words = [part.casefold() for part in parts if len(part) >= _LETTERS]
    if len(words) < _FEW_WORDS:
        return None
    known = lexicon(language)
    if known is None:
        return None
    return sum(word in known for word in words) / len(words)


def alternation(text: str) -> float:
    """Share of the pairs of neighbouring letters that are a vowel and a consonant: what speech has and noise lacks."""
    mixed = pairs = 0
    for word in _WORDS.findall(text):
        plain = [ch for ch in unicodedata.normalize("NFD", word.casefold()) if ch.isalpha()]
        vowels = [ch in _VOWELS for ch in plain]
        pairs += max(0, len(vowels) - 1)
        mixed += sum(a != b for a, b in pairwise(vowels))
    return mixed / pairs if pairs else 1.0


def is_gibberish(text: str, language: str = "") -> bool:
    """Letters without a language: a font whose characters map to the wrong letters ("Sgd rgnqs").

    Such text has hardly any words of the list of its language, whichever that is (``language``, that of the
    document, is tried first, then the one that the text is in, then English for the sake of code and
    names), nor the change of vowels and consonants of speech. Mojibake that ``repair`` undoes is none.
    False for too little text. Takes a few milliseconds, and 0.2 s more when the list of a language is read.
    """
    text = repair(text[:_SAMPLE])
    letters = "".join(_WORDS.findall(text.casefold()))
    if len(letters) < _FEW_LETTERS or len(set(letters)) < _FEWEST_LETTERS:
        return False
    if language and _has_words(text, language):
        return False
    import py3langid

    own = str(py3langid.classify(text)[0])
    if own in _ENDLESS or _has_words(text, own) or _has_words(text, "en"):
        return False
    judged = vocabulary_rate(text, own) is not None
    if sum(unicodedata.normalize("NFD", ch)[0] in _VOWELS for ch in letters) < 0.05 * len(letters):
        # A script without vowels that we know: its list alone decides.
        return judged
    return alternation(text) < (_SPOKEN if judged else _SPOKEN_ALONE)


def _has_words(text: str, language: str) -> bool:
    rate, known = vocabulary_rate(text, language), lexicon(language)
    if rate is None or known is None:
        return False
    if language in _NO_SPACES:
        return rate >= _KNOWN_PAIRS
    return rate >= (_KNOWN if len(known) >= _SMALL_LIST else _KNOWN_SMALL)
