"""Blocks of all pages become one text with exact spans.

- Paragraphs are apart by an empty line. A paragraph that runs on in the next column or page is one run of
  text.
- What stands between its two halves moves aside: in front of the paragraph if it is on the page where the
  paragraph begins (footnotes, a figure at the page's end), else behind it (a figure on top of the next page).
- Page spans are in order and do not overlap. Between two pages stands ``"\\n\\n"``, or a space where a
  paragraph runs over the page's end. A word broken by the page's end belongs whole to the page where it
  begins. A page without text has an empty span.
- Running heads, feet and page numbers are blocks with an empty span at their page's start.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pdf2txt.blocks import BULLET, RawBlock
from pdf2txt.hyphens import MARKS, Vocabulary, join
from pdf2txt.language import detect_language
from pdf2txt.schema import Block, Page, Paragraph, Place
from pdf2txt.spans import Line

_FLOW = ("text", "list", "reference")  # kinds that run over columns and pages
_ASIDE = ("figure", "table", "caption", "footnote", "header", "footer", "page-number")
_BY_LINES = ("table", "equation", "figure")  # their line breaks mean something
_ENDS = (".", "!", "?", ":", ";", "。", "！", "？", '."', ".”", ".)", "?”", "!”")


@dataclass(frozen=True)
class PageInfo:
    """A page without its place in the text."""

    number: int
    width: float
    height: float
    rotation: int
    origin: str
    confidence: float
    furniture: tuple[tuple[str, Line], ...] = ()


@dataclass
class Assembled:
    text: str
    pages: list[Page] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    paragraphs: list[Paragraph] = field(default_factory=list)


def assemble(infos: list[PageInfo], blocks: list[RawBlock], language: str = "") -> Assembled:
    """The text of a document from its pages and their blocks in reading order; ``language`` "": to be detected."""
    lines = [line.text for block in blocks for line in block.lines]
    vocabulary = Vocabulary(language or detect_language(" ".join(lines)))
    for block in blocks:
        if block.kind not in ("table", "equation", "figure"):
            vocabulary.add(line.text for line in block.lines)
    writer = _Writer(vocabulary)
    for paragraph in _paragraphs(blocks, vocabulary):
        writer.paragraph(paragraph)
    return writer.finish(infos)


def _paragraphs(blocks: list[RawBlock], vocabulary: Vocabulary) -> list[list[RawBlock]]:
    """Blocks in output order, those of one paragraph together."""
    out: list[list[RawBlock]] = []
    for block in blocks:
        k = len(out) - 1
        while k >= 0 and out[k][-1].kind in _ASIDE and block.page - out[k][-1].page <= 1:
            k -= 1
        if k < 0 or not _continues(out[k][-1], block, out[k]):
            out.append([block])
            continue
        head, between = out[k][0].page, out[k + 1 :]
        before = [p for p in between if p[0].page < block.page or head == block.page]
        after = [p for p in between if p not in before]
        if any(p[0].page < head for p in before) or any(p[-1].page != head for p in before):
            out.append([block])  # nowhere to put what stands between without leaving its page
            continue
        out[k:] = [*before, [*out[k], block], *after]
    return out


def _continues(a: RawBlock, b: RawBlock, paragraph: list[RawBlock]) -> bool:
    """Whether ``b`` is the next piece of the paragraph that ``a`` left unfinished."""
    if a.kind not in _FLOW or b.kind not in ("text", a.kind) or b.page - a.page > 1:
        return False
    last, first = a.lines[-1], b.lines[0]
    end, start = last.text.rstrip(), first.text.lstrip()
    if not end or not start or abs(last.size - first.size) > 0.15 * max(last.size, first.size):
        return False
    lower = start[0].islower()
    if BULLET.match(start) and not lower:
        return False
    if end[-1] in MARKS and lower:
        return True
    if end.endswith(_ENDS):
        return False
    moved = (a.page, a.region) != (b.page, b.region)
    if lower:
        # Within a column only a line that fills it can run on: after a short one, a new thought begins.
        return moved or last.x1 > max(line.x1 for line in a.lines) - 2 * last.size
    if not moved or len(a.lines) < 2 or len(b.lines) < 2:
        return False
    full = last.x1 > max(line.x1 for line in a.lines) - 1.5 * last.size
    indented = first.x0 > min(line.x0 for line in b.lines) + 0.6 * first.size
    return full and not indented and (start[0].isalnum() or start[0] in "([“\"'‘")


class _Writer:
    """Appends text and keeps the offsets."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.parts: list[str] = []
        self.length = 0
        self.out = Assembled("")
        self.spans: dict[int, list[int]] = {}  # page number -> [start, end]

    def _put(self, text: str) -> None:
        self.parts.append(text)
        self.length += len(text)

    def paragraph(self, blocks: list[RawBlock]) -> None:
        lines: list[tuple[int, str]] = []
        for k, block in enumerate(blocks):
            cleaned = (line.text.strip().lstrip("\x02\u00ad \t") for line in block.lines)
            lines += [(k, text) for text in cleaned if text]
        if not lines:
            return
        if self.length:
            self._put("\n\n")
        begin = self.length
        starts: dict[int, int] = {}
        ends: dict[int, int] = {}
        by_lines = blocks[0].kind in _BY_LINES
        for n, (k, text) in enumerate(lines):
            separator = ""
            if n + 1 < len(lines):
                after, right = lines[n + 1]
                text, separator = (text, "\n") if by_lines else join(text, right, self.vocabulary)
                if not separator and after != k and blocks[after].page != blocks[k].page:
                    # A broken word is not cut again between two pages: the first page gets all of it.
                    head, _, tail = right.partition(" ")
                    text, separator, lines[n + 1] = text + head, " " if tail else "", (after, tail)
            if text.endswith(("\x02", "\u00ad")):
                text = text[:-1] + "-"
            text = text.replace("\x02", "").replace("\u00ad", "")
            if not by_lines and "\t" in text:
                text = text.replace("\t", " ")
            if text:
                starts.setdefault(k, self.length)
                self._put(text)
                ends[k] = self.length
            self._put(separator)
        for k, block in enumerate(blocks):
            if k not in starts:
                continue
            self.out.blocks.append(Block(block.page, block.kind, block.box, starts[k], ends[k], block.confidence))
            span = self.spans.setdefault(block.page, [starts[k], ends[k]])
            span[1] = ends[k]
        places = tuple(Place(b.page, b.box) for k, b in enumerate(blocks) if k in starts)
        self.out.paragraphs.append(Paragraph(begin, self.length, places))

    def finish(self, infos: list[PageInfo]) -> Assembled:
        out = self.out
        out.text = "".join(self.parts)
        at = 0
        furniture: list[Block] = []
        for info in infos:
            start, end = self.spans.get(info.number, (at, at))
            at = end
            out.pages.append(
                Page(
                    info.number,
                    info.width,
                    info.height,
                    info.rotation,
                    info.origin,
                    info.confidence,
                    start,
                    end,
                )
            )
            for kind, line in info.furniture:
                furniture.append(Block(info.number, kind, line.box, start, start, line.confidence))
        order = {info.number: n for n, info in enumerate(infos)}
        out.blocks = sorted(furniture + out.blocks, key=lambda b: (order[b.page], b.start, b.end))
        return out
