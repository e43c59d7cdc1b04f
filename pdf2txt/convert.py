"""One file to one document, in steps that any number of processes can share.

1. ``read`` a range of pages: lines, and what other pages need to know of them (`PageRead`, one file each).
2. ``decide``: what recurs across pages, what is ordinary in the document, its language.
3. ``shape`` a range of pages: running heads taken out, reading order, blocks.
4. ``finish``: paragraphs joined over pages, into one row of ``documents.parquet``.

Between the steps everything lies in the document's `Spool`, page by page: memory does not grow with the pages,
and what was done before a kill is not done again.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdf2txt import apart, furniture, layout, linenumbers, recurrence
from pdf2txt.assemble import PageInfo, assemble
from pdf2txt.blocks import RawBlock, Sections, Style, cut_blocks
from pdf2txt.edges import Candidate, PageLines, Row
from pdf2txt.engines import Engines, resolve
from pdf2txt.errors import UserError, may_pass
from pdf2txt.footnotes import arrange_notes
from pdf2txt.hyphens import Vocabulary
from pdf2txt.language import detect_language
from pdf2txt.layout import Detection
from pdf2txt.layout.regions import order_regions
from pdf2txt.linenumbers import Numbered
from pdf2txt.markup import BY_LINES, Outline
from pdf2txt.order import Reading, Region, read_order
from pdf2txt.reading import CUT_OFF, OcrStore, Opened, PageRead, Reader
from pdf2txt.schema import CONVERTED, Document, as_table
from pdf2txt.settings import Pdf2txtSettings
from pdf2txt.spool import Spool, pack_line, ranges, unpack_line
from pdf2txt.table_pieces import gather_tables
from pdf2txt.textfile import SUFFIXES, convert_text
from pdf2txt.units import digest

if TYPE_CHECKING:
    import pyarrow as pa

_PAGE_BYTES = 3000  # of a text file that are about a printed page
_SAMPLE = 10_000  # characters of the document's middle that tell its language

OnPage = Callable[[int, int, str], None]


def convert(
    path: Path,
    settings: Pdf2txtSettings,
    *,
    on_page: OnPage = lambda number, total, step: None,
    store: OcrStore | None = None,
    skip: dict[int, str] | None = None,
    threads: int = 0,
) -> Document:
    """Convert one file; a file that cannot be converted is a Document with a status, never an exception.

    Args:
        on_page: called as (page number from 1, pages, "read" | "order") before either step of a page begins,
            and as (0, pages, "document") before what is done for all pages at once.
        skip: pages to leave out, with the reason to put among the warnings.
        threads: of the OCR engine, 0: its own choice.

    Raises:
        OSError, MemoryError, DrawingTimeout: the machine, not the file, is to blame (may pass on retry).
        UserError: an engine asked for by name is missing.
    """
    with tempfile.TemporaryDirectory(prefix="pdf2txt-") as folder:
        conversion = Conversion(
            path, settings, Path(folder), on_page=on_page, store=store, skip=skip, threads=threads
        )  # fmt: skip
        try:
            return Document.from_table(conversion.whole())
        finally:
            conversion.close()


class Conversion:
    """The steps of one document; ``folder`` is where it is kept on its way."""

    def __init__(
        self,
        path: Path,
        settings: Pdf2txtSettings,
        folder: Path,
        *,
        on_page: OnPage = lambda number, total, step: None,
        store: OcrStore | None = None,
        skip: dict[int, str] | None = None,
        threads: int = 0,
    ) -> None:
        self.path, self.settings, self.on_page = path, settings, on_page
        self.engines: Engines = resolve(settings)
        self.spool = Spool(folder)
        self.reader = Reader(path, settings, self.engines, store, threads)
        self.threads = threads
        self.skip = skip or {}  # page -> why it is left out, this time
        self.rest = ""  # why pages that have not been read so far are left out, too
        self.pages_reused = 0  # pages that another process, or an interrupted one, had read
        with path.open("rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            self._head = file.read(1024)

    def whole(self, *, at_most: int | None = None) -> pa.Table | None:
        """All steps in this process: a table of one row (`schema.arrow_schema`).

        Returns:
            None, with only the file opened, where it has more than ``at_most`` pages.
        """
        simple = self._simple()
        if simple is not None:
            return as_table(simple)
        opened = self._open()
        if opened.status:
            return as_table(self._rejected(opened.status, *opened.warnings))
        if at_most is not None and opened.pages > at_most:
            return None
        for first, last in ranges(opened.pages):
            self.read(first, last)
        self.decide()
        for first, last in ranges(opened.pages):
            self.shape(first, last)
        return self.finish()

    def close(self) -> None:
        """Close the file; the document's folder stays."""
        self.reader.close()

    def _rejected(self, status: str, *warnings: str) -> Document:
        return Document(self.sha256, self.path.name, status, warnings=warnings)

    def _simple(self) -> Document | None:
        """The document of a file that is no PDF, else None."""
        if not self._head:
            return self._rejected("empty", "the file has 0 bytes")
        suffix = self.path.suffix.lower()
        if suffix in SUFFIXES:
            data = self.path.read_bytes()
            self.on_page(0, 1 + len(data) // _PAGE_BYTES, "document")
            document = convert_text(self.path, data, self.sha256)
            return replace(document, language=self._language(document.text))
        if suffix == ".pdf" or self._head.lstrip().startswith(b"%PDF-"):
            return None
        return self._rejected("unsupported", f"{suffix or 'no suffix'}: not a PDF or text")

    def _language(self, text: str) -> str:
        return self.settings.language or (detect_language(text) if text else "")

    # -- the steps ---------------------------------------------------------------------------------------------

    def _open(self) -> Opened:
        """Open the file; what is found is kept for the other steps."""
        opened = self.reader.open()
        if not opened.status:
            self.spool.put("opened", vars(opened))
        return opened

    def read(self, first: int, last: int) -> None:
        """Read pages; those that the spool has are not read again."""
        total = self.total
        edges = []
        for number in range(first, last + 1):
            page = None if number in self.skip else self._known(number)
            if page is None and (self.rest or number in self.skip):
                edges.append(_Edges([], [], Counter(), 0))
                continue
            if page is None:
                self.on_page(number, total, "read")
                page = self.reader.read(number)
                self.spool.put("read", page.to_json(), number)
                page = self._known(number) or page  # as it will be read back: numbers are rounded
            else:
                self.pages_reused += 1
            edges.append(_Edges.of(page))
        self.spool.put("edges", [e.to_json() for e in edges], first)

    def decide(self) -> None:
        """What needs all pages at once, from little of each."""
        total = self.total
        self.on_page(0, total, "document")
        language = self._language(self._sample(total))  # first: what it loads stays, the pages' edges do not
        edges = [e for first, _ in ranges(total) for e in map(_Edges.from_json, self.spool.get("edges", first))]
        warnings: list[str] = []
        numbered: list[list[Numbered]] = [[] for _ in edges]
        if self.settings.line_numbers == "drop":
            numbered = linenumbers.decide([e.numbered for e in edges])
        for number, found in enumerate(numbered, start=1):
            if found:  # what stands at the page's edges is seen rightly only without them
                lines = _lines(self._page(number))
                linenumbers.take(lines, found)
                edges[number - 1].rows = furniture.candidates(lines)
        rows: list[list[Row]] = [[] for _ in edges]
        if not self.settings.keep_headers:
            candidates = [e.rows for e in edges]
            rows = recurrence.decide(candidates)
            for n, doubtful in enumerate(furniture.doubtful(candidates, rows)):
                if doubtful and (seen := self._ask_model(n + 1, warnings)):
                    labels = [(d.box, d.kind, d.score) for d in seen]
                    lines = _lines(self._page(n + 1))
                    linenumbers.take(lines, numbered[n])
                    rows[n] = rows[n] + furniture.confirmed(lines, doubtful, labels)
        sizes: Counter[float] = Counter()
        for e in edges:
            sizes.update(e.sizes)
        size = sizes.most_common(1)[0][0] if sizes else 10.0
        bold = sum(e.bold for e in edges) > 0.5 * sizes.total()
        taken = [[list(map(astuple, found)), row] for found, row in zip(numbered, rows, strict=True)]
        key = digest(size, bold, language, taken)  # pages shaped after another decision are shaped again
        self.spool.put("decided", {"size": size, "bold": bold, "language": language, "key": key, "warnings": warnings})
        for first, last in ranges(total):
            self.spool.put("taken", taken[first - 1 : last], first)

    def shape(self, first: int, last: int) -> None:
        """Blocks of pages in reading order, from their lines and what was decided."""
        total = self.total
        decided = self.spool.get("decided")
        style = Style(decided["size"], decided["bold"])
        taken = self.spool.get("taken", first)
        vocabulary = Vocabulary(decided["language"])
        headings: list[list[Any] | None] = []
        for number in range(first, last + 1):
            page = self._page(number)
            key = [decided["key"], page.lost]  # a page left out this time may be there the next
            shaped = self.spool.get("shaped", number)
            if shaped is None or shaped["key"] != key:
                self.on_page(number, total, "order")
                # A page that is left out only now, in this step, has nothing to take.
                numbered, rows = ([], []) if page.lost else taken[number - first]
                shaped = {"key": key, **self._shaped(page, numbered, rows, style)}
                self.spool.put("shaped", shaped, number)
            for block in _blocks(number, shaped):
                if block.kind not in BY_LINES:
                    vocabulary.add(line.text for line in block.lines)
            headings.append([b for b in shaped["blocks"] if b[0] == "heading"] if shaped["blocks"] else None)
        self.spool.put("words", vocabulary.to_dict(), first)
        self.spool.put("headings", headings, first)

    def finish(self) -> pa.Table:
        """The document's row, from the blocks of all pages."""
        total = self.total
        self.on_page(0, total, "document")
        decided = self.spool.get("decided")
        vocabulary = Vocabulary(decided["language"])
        for first, _ in ranges(total):
            vocabulary.merge(Vocabulary.from_dict(self.spool.get("words", first)))
        warnings: list[str] = [*self.spool.get("opened")["warnings"], *decided["warnings"]]
        lost = 0

        def pages() -> Iterator[tuple[PageInfo, list[RawBlock]]]:
            nonlocal lost
            for number in range(1, total + 1):
                shaped = self.spool.get("shaped", number)
                if shaped["lost"]:
                    lost += 1
                    warnings.append(f"page {number}: {shaped['lost']}")
                warnings.extend(shaped["warnings"])
                taken = tuple((kind, unpack_line(line)) for kind, line in shaped["furniture"])
                width, height, rotation, origin, confidence = shaped["seen"]
                info = PageInfo(number, width, height, rotation, origin, confidence, taken)
                yield info, _blocks(number, shaped)

        style = Style(decided["size"], decided["bold"])
        builder = assemble(pages(), vocabulary, style, self.settings.format, self._outline(style))
        status = self._status(lost, total, builder.length, warnings)
        if status not in CONVERTED and builder.length:  # a rejected document has no text
            return as_table(self._rejected(status, *warnings))
        language = decided["language"] if builder.length else ""
        return builder.table(self.sha256, self.path.name, status, language, warnings)

    def _status(self, lost: int, total: int, length: int, warnings: list[str]) -> str:
        if lost:
            over_time = self.skip and all(why.startswith("over its limit") for why in self.skip.values())
            if lost < total and length and lost <= self.settings.error_budget * total:
                return "partial"
            if lost < total and length:
                warnings.insert(0, f"{lost} of {total} pages were lost, more than pdf2txt.error_budget allows")
            return "timeout" if over_time else "corrupt"
        if not length:
            warnings.append("no text was found on its pages")
            return "corrupt" if CUT_OFF in warnings else "empty"
        return "partial" if CUT_OFF in warnings else "ok"

    # -- what the spool holds ----------------------------------------------------------------------------------

    @property
    def total(self) -> int:
        """Pages of the document, once it was opened."""
        return int(self.spool.get("opened")["pages"])

    def _known(self, number: int) -> PageRead | None:
        data = self.spool.get("read", number)
        return PageRead.from_json(data) if data is not None else None

    def _page(self, number: int) -> PageRead:
        """The page as it was read, a blank one if it was left out."""
        if number in self.skip:
            return PageRead(number, lost=self.skip[number])
        page = self._known(number)
        if page is None and not self.rest:
            raise RuntimeError(f"page {number} is gone from {self.spool.folder}: another run was quicker")
        return page or PageRead(number, lost=self.rest)

    def _outline(self, style: Style) -> Outline:
        """The document's headings, as far as its form shows their levels."""
        outline = Outline()
        if self.settings.format == "markdown":
            sections = Sections(style)
            for first, last in ranges(self.total):
                for number, found in zip(range(first, last + 1), self.spool.get("headings", first), strict=True):
                    if found is None:
                        continue
                    blocks = _blocks(number, {"blocks": found})
                    sections.mark(blocks, more=True)
                    for block in blocks:
                        outline.add(block)
        return outline

    def _sample(self, total: int) -> str:
        """Text from the middle of the document, where titles and lists are rare."""
        middle = total // 2 + 1
        parts: list[str] = []
        for number in [*range(middle, total + 1), *range(middle - 1, 0, -1)]:
            parts += [line.text for line in self._page(number).lines]
            if sum(map(len, parts)) > _SAMPLE:
                break
        return "\n".join(parts)

    # -- one page ----------------------------------------------------------------------------------------------

    def _shaped(self, page: PageRead, numbered: list[Any], rows: list[Any], style: Style) -> dict[str, Any]:
        lines = _lines(page)
        linenumbers.take(lines, [Numbered(*values) for values in numbered])
        if not self.settings.keep_headers:
            furniture.take(lines, rows)
        warnings: list[str] = []
        blocks = cut_blocks(page.number, self._regions(page, lines, warnings), page.height, style)
        blocks, left_out = arrange_notes(gather_tables(blocks), self.settings.footnotes)
        aside = lines.furniture + [("footnote", note.as_line()) for note in left_out]
        return {
            "blocks": [[b.kind, b.region, [pack_line(line) for line in b.lines], b.ruled] for b in blocks],
            "furniture": [[kind, pack_line(line)] for kind, line in aside],
            "seen": [page.width, page.height, page.rotation, page.origin, page.confidence],
            "lost": page.lost,
            "warnings": page.warnings + warnings,
        }

    def _regions(self, page: PageRead, lines: PageLines, warnings: list[str]) -> list[Region]:
        aside = apart.sort_out(lines, page.number, self.settings)
        upright = [a for a in lines.lines if not a.turn]
        sideways = [a for a in lines.lines if a.turn]
        detector, auto = self.engines.detector, self.engines.layout == "auto"
        reading = read_order(upright) if upright and (detector is None or auto) else Reading([], True)
        if upright and detector is not None and not (auto and reading.sure):
            seen = self._ask_model(page.number, warnings)
            reading = order_regions(upright, seen) if seen is not None else read_order(upright)
        # Labels of vertical axes and the like: after the page's text, from left to right.
        axes = [Region([a], "figure") for a in sorted(sideways, key=lambda a: a.x0)]
        return apart.put_back(reading.regions + axes, aside)

    def _ask_model(self, number: int, warnings: list[str]) -> list[Detection] | None:
        """What the layout model sees on a page; None where it fails, or the user wants geometry alone."""
        if self.engines.detector is None:
            return None
        page = self._page(number)
        try:
            scale = layout.scale_for(page.width, page.height)
            image = self.reader.image(number, scale, page.turned)
            return layout.load(self.engines.detector, self.threads).detect(image, scale)
        except Exception as error:  # layout is a help, not a need: geometry alone will do
            if may_pass(error) or isinstance(error, UserError):
                raise
            warnings.append(f"page {number}: layout model failed ({type(error).__name__}: {error})")
            return None


def _lines(page: PageRead) -> PageLines:
    return PageLines(page.width, page.height, list(page.lines), drawn=page.drawn)


def _blocks(number: int, shaped: dict[str, Any]) -> list[RawBlock]:
    return [RawBlock(number, [unpack_line(line) for line in lines], kind, region, ruled)
            for kind, region, lines, ruled in shaped["blocks"]]  # fmt: skip


class _Edges:
    """What the other pages need to know of one: rows near its edges, numbered lines, how its letters look."""

    def __init__(self, rows: list[Candidate], numbered: list[Numbered], sizes: Counter[float], bold: int) -> None:
        self.rows, self.numbered, self.sizes, self.bold = rows, numbered, sizes, bold

    @classmethod
    def of(cls, page: PageRead) -> _Edges:
        sizes: Counter[float] = Counter()
        bold = 0
        for line in page.lines:
            sizes[round(line.size * 2) / 2] += len(line.text)
            bold += line.bold * len(line.text)
        return cls(furniture.candidates(_lines(page)), linenumbers.candidates(_lines(page)), sizes, bold)

    def to_json(self) -> list[Any]:
        return [list(map(astuple, self.rows)), list(map(astuple, self.numbered)), list(self.sizes.items()), self.bold]

    @classmethod
    def from_json(cls, data: list[Any]) -> _Edges:
        return cls(
            [Candidate.from_json(row) for row in data[0]],
            [Numbered(*values) for values in data[1]],
            Counter(dict(data[2])),
            data[3],
        )
