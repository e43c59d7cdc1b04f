"""What becomes of a hyphen at a line's end: ``exam-|ple`` is one word, ``long-|term`` keeps its hyphen.

The document itself is the best witness: a word seen whole, or seen hyphenated in the middle of a line. Where
it says nothing, the word frequencies of its language decide: how common the joined word is, how common its
two parts are, and how readily those make joined words (``un-``, ``-ness``) or hyphenated ones (``self-``,
``-based``). Old books have more hyphens (``to-day``, ``sea-shore``): archaic words tell them.
The weights of this evidence are those of a logistic regression on text that was broken into lines for that
purpose, as ``benchmarks/hyphens.py --fit`` does it; the same script measures on other text. (These were fitted
on all of the development part, of the cases that must go only 40 %; those like German without the list of compounds.)
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from pdf2txt.compounds import Compounds, compounds
from pdf2txt.lexicon import Lexicon, lexicon

MARKS = "-\u2010\u2011\u00ad\x02"
_OLD_STYLE = "-"  # the key for hyphenated words that are mostly written as one: "to-day"
LIMIT = 100_000  # distinct words that are kept: some 12 MB

# Han, kana, bopomofo and full-width signs, which are set without spaces; Hangul is not among them.
_UNSPACED = re.compile("[\u2e80-\u312f\u31a0-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff9f\U00020000-\U0003fffd]")
_TIES = str.maketrans("‐‑", "--")
_CHAIN = r"[^\W\d_]+(?:[-‐‑][^\W\d_]+)*"  # letters, perhaps with hyphens: "state-of-the"
_WORD = re.compile(_CHAIN)
_LEFT = re.compile(rf"({_CHAIN})$")
_RIGHT = re.compile(rf"({_CHAIN})")
_CAMEL = re.compile(r"[a-zß-ÿ][A-ZÀ-Þ]|[A-ZÀ-Þ]{2}[a-zß-ÿ]")  # "LaTeX", "SQLite"
# An address that the line's end may have cut.
_ADDRESS = re.compile(r"(https?:/?/?|www\.|doi\.org/|\b10\.\d{4,})\S*$")
# A DOI that goes on behind a full stop: a sentence begins with a capital letter, and hardly with a number.
_DOI = re.compile(r"\b10\.\d{4,}/")
_DOI_REST = re.compile(r"[a-z\d][\w./;()-]*\d[\w./;()-]*(\s|$)")
# An address that the line's end cuts behind the first dot of its host: "https://doi.|org/10.1000".
_HOST = re.compile(r"(?:https?://(?:www\.)?[\w-]+|www(?:\.[\w-]+)?)\.")
_HOST_REST = re.compile(r"[a-z][a-z\d.-]*/")
# A path, an option, a name of a program, a mail address: its hyphens are mostly its own.
_CODE_LEFT = re.compile(r"(^\W*--[a-z]|[\\_=@~]|://|^\W*/\w|/\S*/)\S*$")
_CODE_RIGHT = re.compile(r"^\S*?(\w[\\_=@]\w|\w/\S*/|\w\(\d?\))")
# A suspended hyphen and the hyphen that it foretells.
_PARALLEL = re.compile(r"\w[-‐‑] (?:and|or|to|et|ou|y|o|e) \w+.$")

# The rest of a domain's name.
_DOMAIN = re.compile(r"^[a-z]+\.[a-z]{2,6}\b")

# "short-|and long-term": words that stand behind a suspended hyphen.
_LINKS: Mapping[str, frozenset[str]] = {
    code: frozenset(words.split())
    for code, words in {
        "en": "and or nor to versus",
        "de": "und oder bzw sowie als bis u",
        "nl": "en of tot",
        "sv": "och eller",
        "da": "og eller",
        "no": "og eller",
        "fr": "et ou",
        "es": "y o e u",
        "it": "e o ed",
        "pt": "e ou",
    }.items()
}

_TODAY = ("today", "tonight", "tomorrow")

# Words that novels and sermons of the nineteenth century are full of and later prose seldom has.
_ARCHAIC = frozenset(
    _WORD.findall(
        "upon thou thee thy thine ye hath doth shall whilst ere alas hither thither whither hence thence whence nay "
        "aye yea unto betwixt oft forth madam sir lord lady gentleman gentlemen countenance parlour servant servants "
        "exclaimed replied whom scarcely presently till"
    )
)
_OLD_BOOK = 2.5  # archaic words in a thousand: three of four pages of novels before 1920, one of twenty later ones


class Vocabulary:
    """Words that a document shows unbroken, with counts, and the language that decides where they do not.

    Parts of a document can be counted apart and merged. Of more than ``LIMIT`` words the rarest are forgotten.
    """

    def __init__(self, language: str = "") -> None:
        self.language = language
        self.words: Counter[str] = Counter()  # without a hyphen, casefolded; also parts of hyphenated ones
        self.hyphened: Counter[str] = Counter()  # "long-term", and the pairs of longer chains
        self._broken = False
        self._families: Counter[str] | None = None
        self._archaic: float | None = None

    def add(self, lines: Iterable[str]) -> None:
        """Count the words of ``lines``, in reading order, but not those that a line's end breaks."""
        self._families = self._archaic = None
        for line in lines:
            found = _WORD.findall(line.translate(_TIES))
            if self._broken:
                found = found[1:]
            self._broken = line.rstrip().endswith(tuple(MARKS))
            if self._broken:
                found = found[:-1]
            for word in found:
                if _CAMEL.search(word):
                    self.words[word] += 1  # "LaTeX", to be told from a compound of "La" and "TeX"
                word = word.casefold()
                if "-" not in word:
                    self.words[word] += 1
                    continue
                self.hyphened[word] += 1
                parts = word.split("-")
                self.words.update(parts)
                if len(parts) > 2:
                    self.hyphened.update(f"{a}-{b}" for a, b in pairwise(parts))
        self._forget()

    def merge(self, other: Vocabulary) -> None:
        """Add the counts of another part of the document."""
        self._families = self._archaic = None
        self.words.update(other.words)
        self.hyphened.update(other.hyphened)
        self.language = self.language or other.language
        self._forget()

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the words of each count in one string."""
        out: dict[str, Any] = {"language": self.language}
        for name in ("words", "hyphened"):
            by_count: dict[str, list[str]] = {}
            for word, n in getattr(self, name).items():
                by_count.setdefault(str(n), []).append(word)
            out[name] = {n: " ".join(words) for n, words in by_count.items()}
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Vocabulary:
        """The reverse of ``to_dict``."""
        out = cls(data["language"])
        for name in ("words", "hyphened"):
            counts = getattr(out, name)
            for n, words in data[name].items():
                counts.update(dict.fromkeys(words.split(" "), int(n)))
        return out

    def joined(self, left: str, right: str) -> bool:
        """Whether ``left-|right`` (letters, perhaps with more hyphens) is one word without the hyphen."""
        if (said := self._seen(left, right)) is not None:
            return said
        evidence = self._evidence(left, right)
        if evidence is None:
            a, b = left.rsplit("-", 1)[-1].casefold(), right.split("-", 1)[0].casefold()
            if len(a) < 2 or len(b) < 3:
                return len(a) > 1
            return not (self.words[a] and self.words[b])
        column = 1 if self.language in _LIKE_GERMAN else 2 if compounds(self.language) is None else 0
        return sum(_WEIGHTS[name][column] * value for name, value in evidence.items()) <= 0

    def _seen(self, left: str, right: str) -> bool | None:
        """What the document says: True for one word, False for a hyphen, None for nothing."""
        a, b = left.rsplit("-", 1)[-1], right.split("-", 1)[0]
        if self.words[a + b] and _CAMEL.search(a + b):
            return True
        a, b, left, right = a.casefold(), b.casefold(), left.casefold(), right.casefold()
        # The whole chain first: "five-per-|cent" is not what "per-|cent" is.
        if left != a or right != b:
            whole, hyphened = self.hyphened[left + right], self.hyphened[f"{left}-{right}"]
            if whole != hyphened:
                return whole > hyphened
        if a + b in _TODAY and self.language == "en":  # each of the three speaks for the others
            whole = sum(self.words[word] for word in _TODAY)
            hyphened = sum(self.hyphened[f"to-{word[2:]}"] for word in _TODAY)
            return whole > hyphened if whole != hyphened else self.archaic() < _OLD_BOOK
        for form in (b, *_forms(b)):
            whole, hyphened = self.words[a + form], self.hyphened[f"{a}-{form}"]
            if whole != hyphened:
                return whole > hyphened
        return None

    def archaic(self) -> float:
        """Archaic English words in a thousand, less where few words are known."""
        if self.language != "en":
            return 0.0
        if self._archaic is None:
            found = sum(self.words[word] for word in _ARCHAIC)
            self._archaic = 1000 * found / (self.words.total() + 100)
        return self._archaic

    def _evidence(self, left: str, right: str) -> dict[str, float] | None:
        """What speaks for and against a hyphen, as numbers; None without word frequencies."""
        known = lexicon(self.language)
        if known is None:
            return None
        if self._families is None:
            self._families = Counter()
            for word, n in self.hyphened.items():
                first, _, rest = word.partition("-")
                self._families[first + "-"] += n
                self._families["-" + rest.rpartition("-")[2]] += n
                self._families[_OLD_STYLE] += n * (known.zipf(first + rest) > 3)
        evidence = _evidence(left, right, known, self.words, self._families)
        hyphenated = compounds(self.language) or Compounds(())
        return evidence | _hyphenated_evidence(
            left, right, evidence, known, hyphenated, math.log1p(min(20.0, self.archaic()))
        )

    def _forget(self) -> None:
        for counts in (self.words, self.hyphened):
            least = 0
            while len(counts) > LIMIT:
                least += 1
                for word in [word for word, n in counts.items() if n <= least]:
                    del counts[word]


def _forms(word: str) -> list[str]:
    """Other inflected forms that share most letters: "pots" for "pot", "Partition" for "Partitionen"."""
    stems = [word.removesuffix(end) for end in ("s", "es", "n", "en") if word.endswith(end) and len(word) > 4]
    return [*stems, word + "s", word + "n", word + "en"]


def _evidence(
    left: str, right: str, known: Lexicon, words: Mapping[str, int], families: Mapping[str, int]
) -> dict[str, float]:
    a, b = left.rsplit("-", 1)[-1], right.split("-", 1)[0]
    capital, capitals = a[0].isupper() and not b.isupper(), len(a) > 1 and a.isupper() and not b.isupper()
    a, b = a.casefold(), b.casefold()
    whole, first, second = known.zipf(a + b), known.zipf(a), known.zipf(b)
    begins, begins_known = known.begins(a)
    ends, ends_known = known.ends(b)
    unknown = not whole
    return {
        "one": 1.0,
        "whole unknown": unknown,
        "whole": whole,
        "whole over 2": max(0.0, whole - 2),
        "whole over 3": max(0.0, whole - 3),
        "whole over 4": max(0.0, whole - 4),
        "first unknown": not first,
        "second unknown": not second,
        "first": first,
        "first over 4": max(0.0, first - 4),
        "first over 5.5": max(0.0, first - 5.5),
        "second": second,
        "second over 4": max(0.0, second - 4),
        "rarer part": min(first, second),
        "rarer part over 2": max(0.0, min(first, second) - 2),
        "rarer part over 3": max(0.0, min(first, second) - 3),
        "more than chance": max(0.0, whole - first - second + 9) if whole else 0.0,
        "rare part, whole unknown": unknown and min(first, second) < 2.5,
        "begins": math.log1p(begins),
        "begins known": math.log1p(begins_known),
        "begins known share": (begins_known + 1) / (begins + 2),
        "ends": math.log1p(ends),
        "ends known": math.log1p(ends_known),
        "ends known share": (ends_known + 1) / (ends + 2),
        "ends known, whole unknown": unknown * math.log1p(ends_known),
        "capital": capital,
        "capital, whole unknown": capital and unknown,
        "capitals": capitals,
        "first of 1": len(a) == 1,
        "first of 2": len(a) == 2,
        "second of 2": len(b) <= 2,
        "second of 3": len(b) == 3,
        "first in document": words[a] > 0,
        "second in document": words[b] > 0,
        "first hyphened": min(2.0, math.log1p(families[a + "-"])),
        "second hyphened": min(2.0, math.log1p(families["-" + b])),
        "old style": min(2.0, math.log1p(families[_OLD_STYLE])) if whole > 1.5 else 0.0,
        "chain": "-" in left or "-" in right,
    }


def _hyphenated_evidence(
    left: str, right: str, words: Mapping[str, float], known: Lexicon, hyphenated: Compounds, archaic: float
) -> dict[str, float]:
    """What the list of hyphenated words and the age of the document add to the evidence of the ``words``."""
    a, b = left.rsplit("-", 1)[-1].casefold(), right.split("-", 1)[0].casefold()
    listed, unknown = hyphenated.has(a, b), words["whole unknown"]
    begins, ends = hyphenated.begins(a), hyphenated.ends(b)
    return {
        "listed": listed,
        "listed, whole over 2": listed * words["whole over 2"],
        "begins hyphened": math.log1p(begins),
        "ends hyphened": math.log1p(ends),
        "rarer of both": math.log1p(min(begins, ends)),
        "begins hyphened, whole unknown": unknown * math.log1p(begins),
        "ends hyphened, whole unknown": unknown * math.log1p(ends),
        "begins hyphened share": (begins + 0.5) / (begins + known.begins(a)[0] + 3),
        "ends hyphened share": (ends + 0.5) / (ends + known.ends(b)[0] + 3),
        "archaic": archaic,
        "archaic, whole over 2": archaic * min(2.0, words["whole over 2"]),
        "archaic, rarer part": archaic * words["rarer part"],
    }


def join(left: str, right: str, vocabulary: Vocabulary) -> tuple[str, str]:
    """Two consecutive lines of a paragraph: ``left`` without its hyphen where due, and what stands between.

    Returns (left, separator), the separator being a space or nothing; ``right`` follows unchanged.
    """
    left = left.rstrip()
    if address := _ADDRESS.search(left):
        if left[-1] in "/:_=&?" or (left[-1] == "-" and not right[:1].isspace()):
            return left, ""
        if left[-1] == "." and _DOI.search(address.group()) and _DOI_REST.match(right):
            return left, ""
        if _HOST.fullmatch(address.group()) and _HOST_REST.match(right):
            return left, ""
    if not left or left[-1] not in MARKS:
        tight = left.endswith("—") or bool(_UNSPACED.match(left[-1:]) and _UNSPACED.match(right))
        return left, "" if tight else " "
    stem = left[:-1]
    if _suspended(stem, right, vocabulary):
        return stem + "-", " "  # "short- and long-term"
    a, b = _LEFT.search(stem), _RIGHT.match(right)
    if not a or not b:
        # "2019-|2020", "-|5": a hyphen between figures stays. "Ein-|/Ausgang"
        tight = stem[-1:].isalnum() or stem[-1:] in tuple("/._")
        return stem + "-", "" if tight and (right[:1].isalnum() or right[:1] in tuple("/,;:)")) else " "
    if _PARALLEL.search(left) and vocabulary.language not in _LIKE_GERMAN:
        return stem + "-", ""  # "pre- and post-|war", but "Vor- und Nach-|teile"
    first, second = a.group(1).translate(_TIES), b.group(1).translate(_TIES)
    last, next_ = first.rsplit("-", 1)[-1], second.split("-", 1)[0]
    known = lexicon(vocabulary.language)
    if _CODE_LEFT.search(left.rsplit(None, 1)[-1]) or _CODE_RIGHT.match(right.split(None, 1)[0]):
        # "How_to_con-|tribute" was broken all the same.
        broken = known is not None and known.zipf((last + next_).casefold()) > 3
        return (stem if broken else stem + "-"), ""
    if _DOMAIN.match(right) and known is not None and next_.casefold() not in known:
        return stem, ""  # "clima-|teestimate.net": a name's own hyphens stand between words
    capitals = last.isupper() and next_.isupper()
    if capitals and len(last + next_) <= 6 and not (left + right).isupper():
        capitals = known is not None and known.zipf((last + next_).casefold()) > 3  # "SE-|LECT", but "CD-|ROM"
    if second[0].isupper() and not capitals:
        # "Navier-|Stokes", "CD-|ROM"; but "La-|TeX" where the document has "LaTeX".
        camel = vocabulary.words[last + next_] and _CAMEL.search(last + next_)
        return (stem if camel else stem + "-"), ""
    return (stem if vocabulary.joined(first, second) else stem + "-"), ""


def _suspended(stem: str, right: str, vocabulary: Vocabulary) -> bool:
    """Whether the hyphen stands for a part of a word that follows later: "Vor-|und Nachteile"."""
    link = right.split(None, 1)[0].rstrip(".,") if right.strip() else ""
    if not stem[-1:].isalnum() or link not in (_LINKS.get(vocabulary.language) or _LINKS["en"] | _LINKS["de"]):
        return False
    last = re.split(r"[\W_]", stem)[-1].casefold()
    if vocabulary.words[last + link]:
        return False
    known = lexicon(vocabulary.language)
    return known is None or known.zipf(last + link) < 2  # "toma-|to"


# Languages whose compounds are written like German ones, others are weighed like English.
_LIKE_GERMAN = ("de", "nl", "sv", "da", "no", "nb", "nn", "fi", "hu", "is", "et")

# By name of the evidence: for English, for languages like German, for others, of which there is no list of compounds.
# The sum over 0 speaks for a hyphen.
_WEIGHTS: dict[str, tuple[float, float, float]] = {
    "one": (-4.18, 3.16, -5.64),
    "whole unknown": (1.04, -0.49, -0.67),
    "whole": (-1.62, -1.55, -2.08),
    "whole over 2": (0.21, 0.94, 0.48),
    "whole over 3": (-0.65, 1.36, 0.18),
    "whole over 4": (-0.48, -12.14, -1.69),
    "first unknown": (-0.37, -1.26, 0.32),
    "second unknown": (0.07, -0.31, 1.31),
    "first": (0.55, 0.04, 0.19),
    "first over 4": (-0.71, -0.16, 0.88),
    "first over 5.5": (0.51, -0.26, -1.62),
    "second": (0.4, -0.25, 0.47),
    "second over 4": (-0.18, 0.77, 0.28),
    "rarer part": (0.24, 0.9, 1.07),
    "rarer part over 2": (2.58, -0.91, 1.63),
    "rarer part over 3": (-3.04, -0.46, -2.36),
    "more than chance": (0.17, -0.42, 0.03),
    "rare part, whole unknown": (2.82, -0.31, 2.79),
    "begins": (-0.21, -0.41, -0.09),
    "begins known": (-1.26, -0.51, -0.57),
    "begins known share": (1.56, -0.24, 1.19),
    "ends": (-0.06, -0.52, -0.41),
    "ends known": (-1.3, -1.3, -0.68),
    "ends known share": (1.06, -2.08, 2.56),
    "ends known, whole unknown": (-0.3, 0.36, -0.42),
    "capital": (-1.89, -3.89, -4.36),
    "capital, whole unknown": (-0.46, 0.01, 2.39),
    "capitals": (9.78, 6.83, 10.15),
    "first of 1": (10.26, 13.4, 12.37),
    "first of 2": (0.01, 0.15, 0.07),
    "second of 2": (1.63, 5.7, 4.19),
    "second of 3": (0.02, -0.11, 0.11),
    "first in document": (0.68, 0.87, 0.46),
    "second in document": (0.49, 0.51, 0.1),
    "first hyphened": (0.79, 0.98, 1.07),
    "second hyphened": (0.55, -0.16, 1.28),
    "old style": (-0.22, 0.41, 0.12),
    "chain": (1.62, 1.92, 1.48),
    "listed": (2.72, 0.0, 0.0),
    "listed, whole over 2": (0.08, 0.0, 0.0),
    "begins hyphened": (1.3, 0.0, 0.0),
    "ends hyphened": (1.41, 0.0, 0.0),
    "rarer of both": (-0.17, 0.0, 0.0),
    "begins hyphened, whole unknown": (-0.35, 0.0, 0.0),
    "ends hyphened, whole unknown": (-0.13, 0.0, 0.0),
    "begins hyphened share": (-3.42, 0.0, 0.0),
    "ends hyphened share": (-3.59, 0.0, 0.0),
    "archaic": (-0.92, 0.0, 0.0),
    "archaic, whole over 2": (0.19, 0.0, 0.0),
    "archaic, rarer part": (0.3, 0.0, 0.0),
}
