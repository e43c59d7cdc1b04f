"""How many hyphens at line ends become what they should: generated text, in both directions, and the examples.

    python benchmarks/hyphens.py [--part held-out|development] [--languages en de] [--show N] [--cache DIR]
    python benchmarks/hyphens.py --fit --words 250000    # weights as those in pdf2txt/hyphens.py; 12 minutes

Running text is broken into lines of 40 to 60 characters as a typesetter would: inside words at the points of
the LibreOffice patterns (package pyphen) and after the hyphens that a word has anyway. Then every line that
ends with a hyphen is joined with the next, the vocabulary and the language being those of that text alone:
a page (500 words), ten pages, a whole book. Counted apart: hyphens that must go (``exam-|ple``), hyphens
that must stay (``long-|term``) and suspended ones, which also need a space (``Vor-|und Nachteile``).

English: the books in ``../shared`` (or ``LONGFOLIO_SHARED``), papers and reports of L-Eval there. German, French:
documentation and collections of quotations from Debian packages, fetched into the cache with ``apt-get download``.
The rules were made on the development part, the held-out part has other documents; a source that
cannot be had is skipped with the reason. Exit code 1 if a direction has less than 99 % in English or German.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyphen

from pdf2txt.hyphens import MARKS, Vocabulary, join
from pdf2txt.language import detect_language
from pdf2txt.textlayer import read

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("LONGFOLIO_SHARED", ROOT.parent / "shared"))
PAGE = 500  # words
SIZES = {"page": PAGE, "ten pages": 10 * PAGE, "book": 100_000}
DIRECTIONS = ("go", "stay", "suspended")
TARGET = 0.99
PATTERNS = {"en": "en_US", "de": "de_DE", "fr": "fr_FR", "es": "es_ES", "it": "it_IT", "nl": "nl_NL"}
WORD = re.compile(r"[^\W\d_]+")
CODE = "\ue000"  # in front of words of program code: typesetters break those only at their own hyphens


@dataclass(frozen=True)
class Source:
    """``pattern`` names files below ``SHARED`` or, with a Debian package, below its root."""

    name: str
    language: str
    held_out: bool
    pattern: str
    package: str = ""
    rows: tuple[int, int] = (0, 0)  # of a JSON Lines file: every n-th row, starting with


_GUIDE = "usr/share/doc/installation-guide-amd64"
_SAYINGS = "usr/share/games/fortunes/de"
SOURCES = (
    Source("novels and essays", "en", False, "books/train/*.txt"),
    Source("scientific papers", "en", False, "leval/scientific_qa.jsonl", rows=(2, 0)),
    Source("government reports", "en", False, "leval/gov_report_summ.jsonl", rows=(2, 0)),
    Source("articles", "en", False, "leval/multidoc_qa.jsonl", rows=(2, 0)),
    Source("stories", "en", False, "leval/quality.jsonl", rows=(2, 0)),
    Source("Debian reference", "en", False, "usr/share/debian-reference/*.en.html", "debian-reference-en"),
    Source("developers' reference", "en", False, "usr/share/developers-reference/*.html", "developers-reference"),
    Source("policy", "en", False, "usr/share/doc/debian-policy/policy.html/*.html", "debian-policy"),
    Source("handbook", "en", False, "usr/share/doc/debian-handbook/html/en-US/*.html", "debian-handbook"),
    Source("image editor's manual", "en", False, "usr/share/gimp/2.0/help/en/*.html", "gimp-help-en"),
    Source("version control manual", "en", False, "usr/share/doc/git/html/*.html", "git-doc"),
    Source("novels", "en", True, "books/test/*.txt"),
    Source("scientific papers", "en", True, "leval/scientific_qa.jsonl", rows=(2, 1)),
    Source("government reports", "en", True, "leval/gov_report_summ.jsonl", rows=(2, 1)),
    Source("articles", "en", True, "leval/multidoc_qa.jsonl", rows=(2, 1)),
    Source("stories", "en", True, "leval/quality.jsonl", rows=(2, 1)),
    Source("installation guide", "en", True, f"{_GUIDE}/en/*.html", "installation-guide-amd64"),
    Source("Debian reference", "de", False, "usr/share/debian-reference/*.de.html", "debian-reference-de"),
    Source("developers' reference", "de", False, "usr/share/developers-reference/de/*.html", "developers-reference-de"),
    Source("maintainers' guide", "de", False, "usr/share/doc/maint-guide-de/html/*.html", "maint-guide-de"),
    Source("jokes", "de", False, f"{_SAYINGS}/witze", "fortunes-de"),
    Source("conference reports", "de", False, f"{_SAYINGS}/linuxtag", "fortunes-de"),
    Source("questions and answers", "de", True, "usr/share/doc/debian/FAQ/de/*.html", "debian-faq-de"),
    Source("installation guide", "de", True, f"{_GUIDE}/de/*.html", "installation-guide-amd64"),
    Source("school manual", "de", True, "usr/share/doc/debian-edu-doc-de/*bookworm*.html", "debian-edu-doc-de"),
    Source("quotations", "de", True, f"{_SAYINGS}/zitate", "fortunes-de"),
    Source("anecdotes", "de", True, f"{_SAYINGS}/anekdoten", "fortunes-de"),
    Source("installation guide", "fr", True, f"{_GUIDE}/fr/*.html", "installation-guide-amd64"),
    Source("installation guide", "es", True, f"{_GUIDE}/es/*.html", "installation-guide-amd64"),
)  # fmt: skip


class _Html(HTMLParser):
    """Paragraphs, list items and table cells of a page, without program listings."""

    _PARTS = ("p", "li", "dd", "dt", "td", "th", "h1", "h2", "h3", "h4", "div")
    _CODE = ("code", "tt", "kbd", "samp", "var", "strong", "em", "span")
    _CLASSES = ("command", "filename", "systemitem", "application", "literal", "package", "option")

    def __init__(self) -> None:
        super().__init__()
        self.out: list[str] = []
        self.now: list[str] = []
        self.left_out = 0
        self.code: list[bool] = []

    def _cut(self) -> None:
        self.out.append("".join(self.now))
        self.now = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.left_out += tag in ("pre", "script", "style", "head")
        if tag in self._CODE:
            given = dict(attrs).get("class") or ""
            self.code.append(tag in self._CODE[:5] or any(name in given for name in self._CLASSES))
        if tag in self._PARTS:
            self._cut()

    def handle_endtag(self, tag: str) -> None:
        self.left_out -= tag in ("pre", "script", "style", "head")
        if tag in self._CODE and self.code:
            self.code.pop()
        if tag in self._PARTS:
            self._cut()

    def handle_data(self, data: str) -> None:
        if self.left_out <= 0:
            self.now.append(re.sub(r"(?=\S)(?<!\S)", CODE, data) if any(self.code) else data)


def unpacked(package: str, cache: Path) -> Path:
    """Where the files of a Debian package lie; OSError with the reason if it cannot be had."""
    root = cache / package
    if not root.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["apt-get", "download", package], cwd=cache, check=True, capture_output=True)
            (archive,) = cache.glob(f"{package}_*.deb")
            subprocess.run(["dpkg-deb", "-x", archive, root], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError, ValueError) as error:
            raise OSError(f"package {package} cannot be fetched: {error}") from error
    return root


def texts(source: Source, cache: Path) -> Iterator[list[str]]:
    """The documents of a source as lists of paragraphs; OSError with the reason if there are none."""
    root = unpacked(source.package, cache) if source.package else SHARED
    paths = sorted(root.glob(source.pattern)) or sorted(root.glob(source.pattern + ".gz"))
    if not paths:
        raise OSError(f"{source.pattern} is not in {root}")
    if paths[0].suffix == ".jsonl":
        every, first = source.rows
        rows = paths[0].read_text(encoding="utf-8").splitlines()[first::every]
        yield from (paragraphs(json.loads(row)["input"], r"\n") for row in rows)
    elif paths[0].suffix == ".html":
        # The pages of one manual are one document.
        found: list[str] = []
        for path in paths:
            page = _Html()
            page.feed(path.read_text(encoding="utf-8"))
            page.close()
            found += paragraphs("\n\n".join([*page.out, "".join(page.now)]))
        yield found
    else:
        for path in paths:
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            yield paragraphs(data.decode("utf-8"), r"\n%\n" if source.package else r"\n\s*\n")


def paragraphs(text: str, between: str = r"\n\s*\n") -> list[str]:
    """Paragraphs of running text, white space normalised; without those whose own hyphens are in doubt."""
    out = []
    for part in re.split(between, text.replace("\r", "").replace("\u00ad", "").replace("\u2011", "-")):
        if re.search(r"\w[-‐]\n", part):
            continue
        words = re.sub(r"(?<![\s\"])--|--(?!\w)", "—", part).replace("_", "").split()
        if len(words) >= 8:
            out.append(" ".join(words))
    return out


@dataclass(frozen=True)
class Break:
    """A line's end that has a hyphen: what stands in the text instead, "", "-" or "- "."""

    left: str
    right: str
    truth: str

    @property
    def direction(self) -> str:
        return {"": "go", "-": "stay"}.get(self.truth, "suspended")


def _points(word: str, patterns: pyphen.Pyphen | None) -> dict[int, str]:
    """Where ``word`` may be broken, and what then stands there: nothing, or a hyphen of its own."""
    points: dict[int, str] = {}
    if patterns is not None and not re.search(r"[\d_/=.@]", word.strip(".,;:!?()")):
        for match in WORD.finditer(word):
            if len(match[0]) >= 5:
                points |= {match.start() + p: "" for p in patterns.positions(match[0])}
    for match in re.finditer(r"(?<=\w)-(?=\w)", word):
        points[match.end()] = "-"
    return points


def broken(paragraph: str, width: int, patterns: pyphen.Pyphen) -> tuple[list[str], list[str]]:
    """Lines of at most ``width`` characters, and of each but the last what stands in the text at its end."""
    lines, ends, line = [], [], ""
    queue = [(word.replace(CODE, ""), CODE in word) for word in paragraph.split(" ")[::-1]]
    while queue:
        word, code = queue.pop()
        gap = " " if line else ""
        free = width - len(line) - len(gap)
        if len(word) <= free or not word:
            line += gap + word
            continue
        points = _points(word, None if code else patterns)
        fit = [at for at, truth in points.items() if at + (not truth) <= free]
        if fit:
            at = max(fit)
            lines.append(line + gap + word[:at] + ("" if points[at] else "-"))
            ends.append(points[at])
            queue.append((word[at:], code))
            line = ""
        elif line:
            lines.append(line)
            ends.append("- " if re.search(r"\w-$", line) else " ")
            queue.append((word, code))
            line = ""
        else:
            line = word
    return [*lines, line], ends


def documents(texts: Iterable[list[str]], words: int) -> Iterator[list[str]]:
    """Runs of paragraphs with about ``words`` words; a book's rest that is shorter than half of that is left out."""
    for text in texts:
        part: list[str] = []
        count = 0
        for paragraph in text:
            part.append(paragraph)
            count += paragraph.count(" ") + 1
            if count >= words:
                yield part
                part, count = [], 0
        if part and (count >= words / 2 or words == SIZES["book"]):
            yield part


@dataclass
class Tally:
    right: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Counter[str]] = field(default_factory=lambda: {d: Counter() for d in DIRECTIONS})

    def add(self, case: Break, vocabulary: Vocabulary) -> None:
        stem = case.left.rstrip()[:-1]
        wanted = {"": (stem, ""), "-": (stem + "-", ""), "- ": (stem + "-", " ")}[case.truth]
        if join(case.left, case.right, vocabulary) == wanted:
            self.right[case.direction] += 1
            return
        self.wrong[case.direction] += 1
        self.examples[case.direction][f"{case.left.split()[-1]}|{case.right.split()[0]}"] += 1

    def table(self) -> dict[str, Any]:
        out = {}
        for direction in DIRECTIONS:
            right, total = self.right[direction], self.right[direction] + self.wrong[direction]
            if total:
                low, high = wilson(right, total)
                out[direction] = {
                    "hyphens": total, "right": right, "percent": round(100 * right / total, 2),
                    "interval_95": [round(100 * low, 2), round(100 * high, 2)],
                }  # fmt: skip
        return out


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Score interval of a proportion (Wilson, JASA 22, 1927)."""
    p, f = right / total, z * z / total
    middle, half = p + f / 2, z * (p * (1 - p) / total + f / total / 4) ** 0.5
    return (middle - half) / (1 + f), (middle + half) / (1 + f)


def measure(
    text: list[list[str]], language: str, words: int, seed: int, tally: Tally, kind: type[Vocabulary] = Vocabulary
) -> int:
    """Breaks and joins every document of that size; the number of documents."""
    draw = random.Random(seed)
    count = 0
    for document in documents(text, words):
        count += 1
        width = draw.randint(40, 60)
        # The least that typesetters leave behind a hyphen differs.
        patterns = pyphen.Pyphen(lang=PATTERNS[language], left=2, right=draw.choice((2, 3)))
        pieces = [broken(paragraph, width, patterns) for paragraph in document]
        lines = [lines for lines, _ in pieces]
        vocabulary = kind(detect_language("\n".join(" ".join(part) for part in lines)))
        for part in lines:
            vocabulary.add(part)
        for part, ends in pieces:
            for left, right, truth in zip(part, part[1:], ends, strict=False):
                if truth != " ":
                    tally.add(Break(left, right, truth), vocabulary)
    return count


class _Recorder(Vocabulary):
    """Notes the evidence where the document itself decides nothing."""

    cases: ClassVar[list[dict[str, float]]] = []

    def joined(self, left: str, right: str) -> bool:
        if self._seen(left, right) is None and (evidence := self._evidence(left, right)) is not None:
            self.cases.append(evidence)
        return True


class _Labels(Tally):
    """Notes which of the recorded cases have a hyphen."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: list[bool] = []

    def add(self, case: Break, vocabulary: Vocabulary) -> None:
        super().add(case, vocabulary)
        self.labels += [case.truth != ""] * (len(_Recorder.cases) - len(self.labels))


def fit(language: str, cache: Path, words: int, seed: int, listed: bool = True, ridge: float = 0.1) -> dict[str, float]:
    """Weights of the evidence by logistic regression (Newton's method) on the development part.

    A ridge on the standardised weights keeps them small. ``listed``: with the list of compounds.
    """
    labels = _Labels()
    _Recorder.cases.clear()
    of_source: list[int] = []
    for source in SOURCES:
        if source.language == language and not source.held_out:
            text = list(limited(texts(source, cache), words))
            for size, n in enumerate(SIZES.values()):
                for repeat in range(4):  # other line widths break at other hyphens
                    measure(text, language, n, 10 * repeat + size + seed, labels, _Recorder)
            of_source += [SOURCES.index(source)] * (len(labels.labels) - len(of_source))
    names = list(_Recorder.cases[0])
    x = np.array([list(case.values()) for case in _Recorder.cases], float)
    if not listed:
        x[:, names.index("chain") + 1 :] = 0
    y = np.array(labels.labels, float)
    one = names.index("one")
    mean, spread = x.mean(0), x.std(0) + 1e-9
    mean[one], spread[one] = 0, 1
    z = (x - mean) / spread
    # A source counts by the root of its length and both directions alike.
    weight = np.zeros(len(y))
    for source in set(of_source):
        here = np.array(of_source) == source
        for label in (0, 1):
            these = here & (y == label)
            weight[these] = 1 / np.sqrt(max(1, these.sum()))
    weight *= len(y) / weight.sum()
    penalty = np.full(len(names), ridge)
    penalty[one] = 0
    b = np.zeros(len(names))
    for _ in range(100):
        p = 1 / (1 + np.exp(-z @ b))
        slope = z.T @ (weight * (y - p)) - penalty * b
        step = np.linalg.solve((z * (weight * p * (1 - p))[:, None]).T @ z + np.diag(penalty), slope)
        b += step
        if np.abs(step).max() < 1e-6:
            break
    b /= spread
    b[one] -= (b * mean).sum()
    score = x @ b
    print(f"# {language}: {int(y.sum())} of {len(y)} cases have a hyphen; wrong: "
          f"{100 * ((score > 0) & (y == 0)).sum() / (y == 0).sum():.2f} % of those that must go, "
          f"{100 * ((score <= 0) & (y == 1)).sum() / y.sum():.2f} % of those that must stay")  # fmt: skip
    return {name: round(float(value), 2) for name, value in zip(names, b, strict=True)}


def examples() -> Tally:
    """The hyphens that the layout of ``examples/pdfs`` has at line ends, by the truth of their sources."""
    import pypdfium2

    tally = Tally()
    for path in sorted((ROOT / "examples" / "truth").glob("*.json")):
        truth = json.loads(path.read_text(encoding="utf-8"))
        plain = re.sub(r"\s+", " ", " ".join(truth["paragraphs"]))
        pdf = pypdfium2.PdfDocument(ROOT / "examples" / "pdfs" / f"{path.stem}.pdf")
        lines = [line.text.strip() for page in pdf for line in read(page).lines if line.text.strip()]
        vocabulary = Vocabulary(detect_language(plain))
        vocabulary.add(lines)
        for left, right in pairwise(lines):
            if not left.endswith(tuple(MARKS)):
                continue
            begin, end = left[:-1].rsplit(None, 2)[-2:], right.split(None, 2)[:2]
            found = [t for t in ("", "-", "- ") if " ".join(begin) + t + " ".join(end).rstrip(MARKS) in plain]
            if len(found) == 1:
                tally.add(Break(left, right, found[0]), vocabulary)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=("held-out", "development"), default="held-out")
    parser.add_argument("--languages", nargs="+", default=["en", "de", "fr", "es"])
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=list(SIZES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--words", type=int, default=400_000, help="at most so many from each source")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="the N commonest mistakes of each kind")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "longfolio" / "hyphens")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "hyphens.json")
    parser.add_argument("--fit", action="store_true", help="print weights for pdf2txt/hyphens.py and measure nothing")
    args = parser.parse_args()
    if args.fit:
        kinds = [(language, args.cache, args.words) for language in ("en", "de", "en")]
        columns = [fit(*kind, args.seed, listed) for kind, listed in zip(kinds, (True, True, False), strict=True)]
        for name in columns[0]:
            print(f'    "{name}": ({", ".join(str(column[name]) for column in columns)}),')
        return
    report: dict[str, Any] = {
        "command": f"benchmarks/hyphens.py --part {args.part} --seed {args.seed} --words {args.words}",
        "languages": {}, "sources": [], "skipped": [],
    }  # fmt: skip
    low = 1.0
    for language in args.languages:
        tallies = {size: Tally() for size in args.sizes}
        for source in SOURCES:
            if source.language != language or source.held_out != (args.part == "held-out"):
                continue
            try:
                text = list(limited(texts(source, args.cache), args.words))
            except OSError as error:
                report["skipped"].append({"source": source.name, "language": language, "reason": str(error)})
                print(f"skipped {language} {source.name}: {error}")
                continue
            words = sum(paragraph.count(" ") + 1 for part in text for paragraph in part)
            counts, table = {}, {}
            for size in args.sizes:
                tally = Tally()
                counts[size] = measure(text, language, SIZES[size], args.seed, tally)
                table[size] = tally.table()
                tallies[size].right += tally.right
                tallies[size].wrong += tally.wrong
                for direction in DIRECTIONS:
                    tallies[size].examples[direction] += tally.examples[direction]
            report["sources"].append(
                {"source": source.name, "language": language, "words": words, "documents": counts, "by_size": table}
            )
            show(f"{language} {source.name}", table)
        table = {size: tally.table() for size, tally in tallies.items()}
        if any(table.values()):
            report["languages"][language] = table
            show(f"{language} ALL", table)
            for size, tally in tallies.items():
                mistakes(f"{language} {size}", tally, args.show)
        if language in ("en", "de"):
            low = min([low, *(c["percent"] / 100 for by in table.values() for c in by.values())])
    tally = examples()
    report["examples"] = tally.table()
    show("examples", {"": report["examples"]})
    mistakes("examples", tally, args.show)
    low = min([low, *(c["percent"] / 100 for c in report["examples"].values())])
    if args.part == "held-out":
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(0 if low >= TARGET else 1)


def limited(texts: Iterable[list[str]], words: int) -> Iterator[list[str]]:
    for text in texts:
        if words <= 0:
            return
        yield text
        words -= sum(paragraph.count(" ") + 1 for paragraph in text)


def show(name: str, table: dict[str, Any]) -> None:
    for size, cells in table.items():
        row = "  ".join(
            f"{d} {c['percent']:6.2f} [{c['interval_95'][0]:.1f}, {c['interval_95'][1]:.1f}] of {c['hyphens']}"
            for d, c in cells.items()
        )
        print(f"{name:<28} {size:<10} {row}", flush=True)


def mistakes(name: str, tally: Tally, most: int) -> None:
    for direction in DIRECTIONS if most else ():
        found = tally.examples[direction].most_common(most)
        print(f"  {name}, {direction}: " + "  ".join(f"{word} {n}" if n > 1 else word for word, n in found))


if __name__ == "__main__":
    main()
