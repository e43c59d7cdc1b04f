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

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pdf2txt.blocks import BULLET, RawBlock, Sections, Style
from pdf2txt.hyphens import MARKS, Vocabulary
from pdf2txt.markup import Format, Outline, between, render
from pdf2txt.schema import Block, DocumentBuilder, Page, Paragraph, Place
from pdf2txt.spans import Line

_FLOW = ("text", "list", "reference")  # kinds that run over columns and pages
_ASIDE = ("figure", "table", "caption", "footnote", "header", "footer", "page-number")
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


def assemble(
    pages: Iterable[tuple[PageInfo, list[RawBlock]]],
    vocabulary: Vocabulary,
    style: Style,
    form: Format = "plain",
    outline: Outline | None = None,
) -> DocumentBuilder:
    """The text of a document from its pages and their blocks in reading order, one page in memory at a time.

    ``outline`` knows the document's headings, which Markdown needs.
    """
    writer = _Writer(vocabulary, form, outline or Outline())
    sections = Sections(style)

    def blocks() -> Iterator[RawBlock]:
        for info, page_blocks in pages:
            writer.page(info)
            sections.mark(page_blocks)
            yield from page_blocks

    for paragraph in paragraphs(blocks()):
        writer.paragraph(paragraph)
    return writer.finish()


def paragraphs(blocks: Iterable[RawBlock]) -> Iterator[list[RawBlock]]:
    """Blocks in output order, those of one paragraph together."""
    out: list[list[RawBlock]] = []  # whose place, or end, a block to come may change
    for block in blocks:
        settled = 0
        while settled < len(out) and block.page - out[settled][-1].page > 1:
            settled += 1
        yield from out[:settled]
        del out[:settled]
        _add(out, block)
        last = max((k for k, p in enumerate(out) if p[-1].kind not in _ASIDE), default=0)
        yield from out[:last]
        del out[:last]
    yield from out


def _add(out: list[list[RawBlock]], block: RawBlock) -> None:
    """Put ``block`` behind, or into the paragraph that it continues, past what stands between."""
    k = len(out) - 1
    while k >= 0 and out[k][-1].kind in _ASIDE and block.page - out[k][-1].page <= 1:
        k -= 1
    if k < 0 or not _continues(out[k][-1], block, out[k]):
        out.append([block])
        return
    head, between = out[k][0].page, out[k + 1 :]
    before = [p for p in between if p[0].page < block.page or head == block.page]
    after = [p for p in between if p not in before]
    if any(p[0].page < head for p in before) or any(p[-1].page != head for p in before):
        out.append([block])  # nowhere to put what stands between without leaving its page
        return
    out[k:] = [*before, [*out[k], block], *after]


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

    def __init__(self, vocabulary: Vocabulary, form: Format, outline: Outline) -> None:
        self.vocabulary, self.form, self.outline = vocabulary, form, outline
        self.last = ""  # kind of the paragraph before
        self.out = DocumentBuilder()
        self.infos: list[PageInfo] = []
        self.spans: dict[int, list[int]] = {}  # page number -> [start, end]

    def page(self, info: PageInfo) -> None:
        self.infos.append(info)

    def paragraph(self, blocks: list[RawBlock]) -> None:
        pieces = render(blocks, self.vocabulary, self.form, self.outline)
        if not any(piece.text for piece in pieces):
            return
        if self.out.length:
            self.out.put(between(self.last, blocks[0].kind, self.form))
        self.last = blocks[0].kind
        begin = self.out.length
        starts: dict[int, int] = {}
        ends: dict[int, int] = {}
        for piece in pieces:
            if piece.text:
                starts.setdefault(piece.block, self.out.length)
                self.out.put(piece.text)
                ends[piece.block] = self.out.length
            self.out.put(piece.after)
        places = []
        for k, block in enumerate(blocks):
            if k not in starts:
                continue
            places.append(Place(block.page, block.box))
            self.out.block(Block(block.page, block.kind, places[-1].box, starts[k], ends[k], block.confidence))
            span = self.spans.setdefault(block.page, [starts[k], ends[k]])
            span[1] = ends[k]
        self.out.paragraph(Paragraph(begin, self.out.length, tuple(places)))

    def finish(self) -> DocumentBuilder:
        out, at = self.out, 0
        for info in self.infos:
            start, end = self.spans.get(info.number, (at, at))
            at = end
            out.pages.append(
                Page(
                    info.number, info.width, info.height, info.rotation, info.origin, info.confidence, start, end
                )
            )  # fmt: skip
            for kind, line in info.furniture:
                out.block(Block(info.number, kind, line.box, start, start, line.confidence))
        return out
