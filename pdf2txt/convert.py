"""One file to one ``Document``: the way of every page from its bytes to blocks.

``Page.rotation`` counts the degrees clockwise by which the page, as stored, had to be turned for its text
to be upright: its own ``/Rotate``, text drawn sideways and a scan lying on its side all count.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from pdf2txt import layout, ocr, textlayer
from pdf2txt.assemble import PageInfo, assemble
from pdf2txt.blocks import RawBlock, body_style, cut_blocks, mark_sections
from pdf2txt.engines import Engines, resolve
from pdf2txt.errors import UserError, may_pass
from pdf2txt.furniture import PageLines, remove_furniture
from pdf2txt.layout.regions import order_regions
from pdf2txt.order import Reading, Region, read_order
from pdf2txt.render import page_image, poppler_pages, scale_for
from pdf2txt.repair import repair
from pdf2txt.schema import Document
from pdf2txt.settings import Pdf2txtSettings
from pdf2txt.spans import Line
from pdf2txt.textfile import SUFFIXES, convert_text

_log = logging.getLogger(__name__)
_PASSWORD_ERRORS = (4, 5)  # FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY
_LETTER = (612.0, 792.0)  # points; what a page of unknown size is taken for until it is drawn
_FEW = 10  # fewer characters than this is no text layer
_PAGE_BYTES = 3000  # of a text file that are about a printed page
_STAMP = 250  # up to so many characters may be a stamp or a running head on a scan

# The commonest words of the languages that PDFs are mostly written in, three per language.
_COMMON = frozenset(
    re.findall(r"\w+", "the of and der die und de la que les et le di il e o da het een van och att en i na nie się")
)

OnPage = Callable[[int, int, str], None]


class OcrStore(Protocol):
    """Where pages read by OCR are kept, so that an interrupted document does not read them again."""

    def get(self, page: int) -> ocr.OcrPage | None: ...
    def put(self, page: int, read: ocr.OcrPage) -> None: ...


@dataclass
class _Page:
    """What is known of a page before the others are."""

    info: PageInfo
    lines: PageLines
    turned: int = 0  # by how much more than its /Rotate


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
    engines = resolve(settings)
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if not data:
        return Document(sha256, path.name, "empty", warnings=("the file has 0 bytes",))
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        on_page(0, 1 + len(data) // _PAGE_BYTES, "document")
        document = convert_text(path, data, sha256)
    elif suffix == ".pdf" or data[:1024].lstrip().startswith(b"%PDF-"):
        document = _Converter(path, sha256, settings, engines, on_page, store, skip or {}, threads).run(data)
    else:
        return Document(sha256, path.name, "unsupported", warnings=(f"{suffix or 'no suffix'}: not a PDF or text",))
    language = settings.language or (detect_language(document.text) if document.text else "")
    return replace(document, language=language)


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


class _Converter:
    def __init__(
        self,
        path: Path,
        sha256: str,
        settings: Pdf2txtSettings,
        engines: Engines,
        on_page: OnPage,
        store: OcrStore | None,
        skip: dict[int, str],
        threads: int,
    ) -> None:
        self.path, self.sha256, self.settings, self.engines = path, sha256, settings, engines
        self.on_page, self.store, self.skip, self.threads = on_page, store, skip, threads
        self.pdf: Any = None
        self.warnings: list[str] = []
        self.lost = 0  # pages without a result

    def run(self, data: bytes) -> Document:
        status, total = self._open(data)
        if status:
            return Document(self.sha256, self.path.name, status, warnings=tuple(self.warnings))
        try:
            pages = [self._page(number, total) for number in range(1, total + 1)]
            return self._document(pages, total)
        finally:
            if self.pdf is not None:
                self.pdf.close()

    def _open(self, data: bytes) -> tuple[str, int]:
        """(status if the file cannot be converted, number of pages)."""
        import pypdfium2

        try:
            self.pdf = pypdfium2.PdfDocument(data)
            total = len(self.pdf)
        except pypdfium2.PdfiumError as error:
            if error.err_code in _PASSWORD_ERRORS:
                self.warnings.append("a password is needed to open it")
                return "encrypted", 0
            total = poppler_pages(self.path)
            if not total:
                self.warnings.append(f"cannot be opened: {error}")
                return "corrupt", 0
            self.warnings.append("damaged: pages drawn by poppler and read by OCR")
        if not total:
            self.warnings.append("the file has no pages")
            return "empty", 0
        return "", total

    def _page(self, number: int, total: int) -> _Page:
        self.on_page(number, total, "read")
        if number in self.skip:
            self._lose(number, self.skip[number])
            return _blank(number)
        page = None
        if self.pdf is not None:
            try:
                page = self.pdf[number - 1]
            except Exception as error:  # a damaged page must not lose the document
                if may_pass(error):
                    raise
                _log.debug("page %d: %s", number, error)
        try:
            return self._read(page, number)
        except Exception as error:
            if may_pass(error):
                raise
            self._lose(number, f"{type(error).__name__}: {error}")
            return _blank(number)
        finally:
            if page is not None:
                page.close()

    def _lose(self, number: int, why: str) -> None:
        self.lost += 1
        self.warnings.append(f"page {number}: {why}")

    def _read(self, page: Any, number: int) -> _Page:
        layer = None
        if page is not None:
            layer = textlayer.read(page)
            needs = self._needs_ocr(page, layer)
        else:
            needs = "the page cannot be loaded"
        if needs and self.engines.ocr != "off":
            read = self._ocr(page, number)
            letters = sum(len(a.text) for a in read.lines)
            if letters or layer is None or not layer.lines:
                return self._from_ocr(page, number, read)
        elif needs and layer is not None and needs != "invisible text":
            self.warnings.append(f"page {number}: {needs}, and OCR is off")
        if layer is None:
            raise RuntimeError(needs)
        for line in layer.lines:
            line.text = repair(line.text)
        width, height = layer.frame.size
        info = PageInfo(number, width, height, layer.frame.rotation, "text-layer", 1.0 - min(1.0, layer.bad))
        turned = (layer.frame.rotation - page.get_rotation()) % 360
        return _Page(info, PageLines(width, height, layer.lines), turned)

    def _needs_ocr(self, page: Any, layer: textlayer.TextLayer) -> str:
        """Why the text layer will not do, "" where it will."""
        if layer.bad > 0.05 or _is_gibberish(" ".join(a.text for a in layer.lines)):
            return "garbled text layer"
        if layer.hidden > 0.5:
            return "invisible text"
        if layer.characters >= _STAMP:
            return ""
        pictures, others = _drawings(page)
        if layer.characters < _FEW:
            return "no text layer" if pictures > 0.01 or others > 20 else ""
        return "hardly any text over an image" if pictures > 0.6 else ""

    def _ocr(self, page: Any, number: int) -> ocr.OcrPage:
        if self.store is not None and (known := self.store.get(number)) is not None:
            return known
        width, height = page.get_size() if page is not None else _LETTER
        scale = scale_for(width, height, self.settings.dpi)
        if page is None:
            scale = round(scale * 72) / 72  # poppler takes whole dots per inch
        image = page_image(self.path, page, number, scale, self.engines.render)
        read = ocr.read(image, scale, self.engines.ocr_backend, self.threads)
        read.width, read.height = image.shape[1] / scale, image.shape[0] / scale
        if self.store is not None:
            self.store.put(number, read)
        return read

    def _from_ocr(self, page: Any, number: int, read: ocr.OcrPage) -> _Page:
        width, height = page.get_size() if page is not None else (read.width, read.height)
        if read.rotation in (90, 270):
            width, height = height, width
        own = page.get_rotation() if page is not None else 0
        lines = [replace(line, text=repair(line.text)) for line in read.lines]
        info = PageInfo(number, width, height, (own + read.rotation) % 360, "ocr", read.confidence)
        return _Page(info, PageLines(width, height, lines), read.rotation)

    def _document(self, pages: list[_Page], total: int) -> Document:
        self.on_page(0, total, "document")
        if not self.settings.keep_headers:
            remove_furniture([p.lines for p in pages])
        regions = []
        for p in pages:
            self.on_page(p.info.number, total, "order")
            regions.append(self._regions(p))
        self.on_page(0, total, "document")  # and up to the language and the packing of the result
        style = body_style(regions)
        blocks: list[RawBlock] = []
        for p, page_regions in zip(pages, regions, strict=True):
            blocks += cut_blocks(p.info.number, page_regions, p.info.height, style)
        mark_sections(blocks, style)
        infos = [replace(p.info, furniture=tuple(p.lines.furniture)) for p in pages]
        done = assemble(infos, blocks)
        status = "ok"
        if self.lost:
            over_time = all(why.startswith("over its limit") for why in self.skip.values())
            status = (
                "partial" if self.lost < total and done.text else "timeout" if self.skip and over_time else "corrupt"
            )
        elif not done.text:
            status = "empty"
            self.warnings.append("no text was found on its pages")
        return Document(
            self.sha256, self.path.name, status, done.text, "", tuple(done.pages), tuple(done.blocks),
            tuple(done.paragraphs), tuple(self.warnings),
        )  # fmt: skip

    def _regions(self, page: _Page) -> list[Region]:
        upright = [a for a in page.lines.lines if not a.turn]
        sideways = [a for a in page.lines.lines if a.turn]
        reading = Reading([], True)
        detector, auto = self.engines.detector, self.engines.layout == "auto"
        if upright and (detector is None or auto):
            reading = read_order(upright)
        if upright and detector is not None and not (auto and reading.sure):
            reading = self._ask_model(page, upright, detector) or read_order(upright)
        # Labels of vertical axes and the like: after the page's text, from left to right.
        return reading.regions + [Region([a], "figure") for a in sorted(sideways, key=lambda a: a.x0)]

    def _ask_model(self, page: _Page, upright: list[Line], detector: layout.DetectorSpec) -> Reading | None:
        number = page.info.number
        try:
            import numpy as np

            source = self.pdf[number - 1] if self.pdf is not None else None
            scale = layout.scale_for(page.info.width, page.info.height)
            image = page_image(self.path, source, number, scale, self.engines.render)
            if page.turned:
                image = np.ascontiguousarray(np.rot90(image, -(page.turned // 90)))
            found = layout.load(detector, self.threads).detect(image, scale)
            return order_regions(upright, found)
        except Exception as error:  # layout is a help, not a need: geometry alone will do
            if may_pass(error) or isinstance(error, UserError):
                raise
            self.warnings.append(f"page {number}: layout model failed ({type(error).__name__}: {error})")
            return None


def _is_gibberish(text: str) -> bool:
    """Letters without a language: a font whose characters map to the wrong letters ("Sgd rgnqs").

    A page of real text in a Latin script holds some of the commonest words of its language; where it holds
    none at all, the language identifier decides (its code ``zxx``: no linguistic content).
    """
    words = text[:6000].lower().split()
    if len(words) < 60 or not text[:6000].isprintable() or sum(w.isascii() for w in words) < 0.5 * len(words):
        return False
    if sum(w in _COMMON for w in words) > 0.01 * len(words):
        return False
    import py3langid

    return bool(py3langid.classify(" ".join(words))[0] == "zxx")


def _blank(number: int) -> _Page:
    return _Page(PageInfo(number, 0.0, 0.0, 0, "text-layer", 0.0), PageLines(0.0, 0.0, []))


def _drawings(page: Any) -> tuple[float, int]:
    """(share of the page covered by images, number of other drawn objects, at most 1,000 looked at)."""
    import pypdfium2.raw as pdfium

    left, bottom, right, top = page.get_bbox()
    area = max(1.0, (right - left) * (top - bottom))
    covered, others = 0.0, 0
    for n, item in enumerate(page.get_objects(max_depth=3)):
        if n > 1000:
            break
        if item.type == pdfium.FPDF_PAGEOBJ_IMAGE:
            x0, y0, x1, y1 = item.get_bounds()
            w, h = min(x1, right) - max(x0, left), min(y1, top) - max(y0, bottom)
            covered += max(0.0, w) * max(0.0, h) / area
        elif item.type != pdfium.FPDF_PAGEOBJ_TEXT:
            others += 1
    return covered, others
