"""One page from its bytes to lines: the text layer where it is good, OCR where it is not.

``PageRead.rotation`` counts the degrees clockwise by which the page, as stored, had to be turned for its text
to be upright: its own ``/Rotate``, text drawn sideways and a scan lying on its side all count.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from pdf2txt import drawings, ocr, textlayer
from pdf2txt.drawings import Drawings
from pdf2txt.engines import Engines
from pdf2txt.errors import UserError, may_pass
from pdf2txt.judge import Verdict, judge
from pdf2txt.render import page_image, poppler_pages, scale_for
from pdf2txt.repair import repair
from pdf2txt.salvage import MOST, salvaged
from pdf2txt.settings import Pdf2txtSettings
from pdf2txt.spans import Line
from pdf2txt.spool import pack_line, unpack_line

_log = logging.getLogger(__name__)
_PASSWORD_ERRORS = (4, 5)  # FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY
CUT_OFF = "damaged: its end is missing, and what stood there is lost"
_LETTER = (612.0, 792.0)  # points; what a page of unknown size is taken for until it is drawn
REOPEN = 64  # pages after which the file is opened anew: pdfium keeps what it has parsed until it is closed


class OcrStore(Protocol):
    """Where what OCR read is kept, so that an interrupted document does not read it again.

    ``region`` counts the regions of a page, 0 is the whole page.
    """

    def get(self, page: int, region: int = 0) -> ocr.OcrPage | None: ...
    def put(self, page: int, read: ocr.OcrPage, region: int = 0) -> None: ...


@dataclass
class PageRead:
    """What is known of a page before the others are."""

    number: int  # from 1
    width: float = 0.0  # points, as seen
    height: float = 0.0
    rotation: int = 0
    turned: int = 0  # the part of ``rotation`` that the page's own /Rotate does not say
    origin: str = "text-layer"
    confidence: float = 0.0
    lines: list[Line] = field(default_factory=list)
    drawn: Drawings = field(default_factory=Drawings)
    warnings: list[str] = field(default_factory=list)
    lost: str = ""  # why there is nothing of this page

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "lines": [pack_line(line) for line in self.lines], "drawn": vars(self.drawn)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PageRead:
        lines = [unpack_line(line) for line in data["lines"]]
        drawn = Drawings(**{kind: [tuple(box) for box in boxes] for kind, boxes in data["drawn"].items()})
        return cls(**{**data, "lines": lines, "drawn": drawn})


@dataclass
class Opened:
    """How many pages a file has, or (``status``) why it cannot be converted."""

    pages: int
    status: str = ""
    warnings: list[str] = field(default_factory=list)


class Reader:
    """The pages of one file. Memory does not grow with their number."""

    def __init__(
        self, path: Path, settings: Pdf2txtSettings, engines: Engines, store: OcrStore | None, threads: int
    ) -> None:
        self.path, self.settings, self.engines, self.store, self.threads = path, settings, engines, store, threads
        self._pdf: Any = None
        self._password: str | None = None
        self._given = 0  # pages since the file was opened
        self._mended = False  # its end is missing
        self._broken = False  # pdfium cannot open it, poppler may

    def open(self) -> Opened:
        """Open the file; it is read from the disk as needed, never whole."""
        import pypdfium2

        try:
            self._pdf = self._unlocked()
            pages = len(self._pdf)
        except pypdfium2.PdfiumError as error:
            if error.err_code in _PASSWORD_ERRORS:
                return Opened(0, "encrypted", [self._locked()])
            pages = poppler_pages(self.path, self.settings.worker_memory)
            if not pages:
                return Opened(0, "corrupt", [f"cannot be opened: {error}"])
            self._broken = True
            return Opened(pages, "", ["damaged: pages drawn by poppler and read by OCR"])
        if not pages:
            return Opened(0, "empty", ["the file has no pages"])
        return Opened(pages, "", [CUT_OFF] if self._mended else [])

    def _unlocked(self) -> Any:
        known = (self._password,) if self._password is not None else (None, *_passwords(self.settings.passwords))
        document, self._password, self._mended = _open(self.path, known)
        return document

    def _locked(self) -> str:
        if self.settings.passwords is not None:
            tried = len(_passwords(self.settings.passwords))
            why = f"none of the {tried} in pdf2txt.passwords fits" if tried else "the file pdf2txt.passwords holds none"
            return f"a password is needed to open it, and {why}"
        return "a password is needed to open it: put it into a file, one a line, for the setting pdf2txt.passwords"

    def close(self) -> None:
        if self._pdf is not None:
            self._pdf.close()
            self._pdf = None

    def page(self, number: int) -> Any:
        """The ``pypdfium2.PdfPage``, or None where pdfium cannot load it."""
        if self._pdf is None and not self._broken:
            self.open()
        if self._pdf is None:
            return None
        if self._given >= REOPEN:
            self.close()
            self._pdf, self._given = self._unlocked(), 0
        self._given += 1
        try:
            return self._pdf[number - 1]
        except Exception as error:  # a damaged page must not lose the document
            if may_pass(error):
                raise
            _log.debug("page %d: %s", number, error)
            return None

    def read(self, number: int) -> PageRead:
        """The lines of a page; one that the file's damage hides is a `PageRead` with ``lost``.

        Raises:
            OSError, MemoryError, DrawingTimeout: the machine is to blame, another try may do (`errors.may_pass`).
        """
        page = self.page(number)
        try:
            return self._read(page, number)
        except Exception as error:
            if may_pass(error) or isinstance(error, UserError | ImportError):
                raise
            return PageRead(number, lost=f"{type(error).__name__}: {error}")
        finally:
            if page is not None:
                page.close()

    def image(self, number: int, scale: float, turned: int = 0) -> Any:
        """The page as a reader sees it, uint8 array (height, width, 3), BGR."""
        page = self.page(number)
        try:
            return self._draw(page, number, scale, turned)
        finally:
            if page is not None:
                page.close()

    def _read(self, page: Any, number: int) -> PageRead:
        warnings: list[str] = []
        layer = textlayer.read(page) if page is not None else None
        drawn = drawings.read(page, layer.frame) if layer is not None else Drawings()
        verdict = judge(page, layer, drawn) if layer is not None else Verdict("the page cannot be loaded")
        if verdict.why and not verdict.regions:
            if self.engines.ocr != "off":
                read = self._ocr(page, number)
                if read.lines or layer is None or not layer.lines:
                    return self._from_ocr(page, number, read)
                warnings.append(f"page {number}: {verdict.why}, and OCR found nothing")
            elif not verdict.hidden:
                warnings.append(f"page {number}: {verdict.why}, and OCR is off")
        if layer is None:
            raise RuntimeError(verdict.why)
        for line in layer.lines:
            line.text = repair(line.text)
        width, height = layer.frame.size
        turned = (layer.frame.rotation - page.get_rotation()) % 360
        done = PageRead(
            number, width, height, layer.frame.rotation, turned, "text-layer", _trust(layer, verdict),
            layer.lines, drawn, warnings,
        )  # fmt: skip
        if verdict.regions:
            self._add_regions(page, done, verdict)
        return done

    def _add_regions(self, page: Any, done: PageRead, verdict: Verdict) -> None:
        """OCR of the regions that the text layer leaves out, or tells wrong."""
        if self.engines.ocr == "off":
            done.warnings.append(f"page {done.number}: {verdict.why}, and OCR is off")
            return
        scale = scale_for(done.width, done.height, self.settings.dpi)
        image: Any = None
        found: list[Line] = []
        for k, (x0, y0, x1, y1) in enumerate(verdict.regions, start=1):
            read = self.store.get(done.number, k) if self.store is not None else None
            if read is None:
                if image is None:
                    image = self._draw(page, done.number, scale, done.turned)
                read = ocr.read(image, scale, self.engines.ocr_backend, self.threads, region=(x0, y0, x1, y1))
                if self.store is not None:
                    self.store.put(done.number, read, k)
            if not read.lines:
                continue
            found += [replace(line, text=repair(line.text)) for line in read.lines]
            inside = [a for a in done.lines if x0 <= (a.x0 + a.x1) / 2 <= x1 and y0 <= a.cy <= y1]
            done.lines = [a for a in done.lines if not any(a is b for b in inside)]
        if found:
            done.lines = done.lines + found
            done.origin = "mixed"
            letters = sum(len(a.text) for a in done.lines)
            done.confidence = sum(a.confidence * len(a.text) for a in done.lines) / max(1, letters)

    def _draw(self, page: Any, number: int, scale: float, turned: int = 0) -> Any:
        import numpy as np

        opened = not self._broken
        memory = self.settings.worker_memory
        image = page_image(self.path, page, number, scale, self.engines.render, self._password, opened, memory)
        return np.ascontiguousarray(np.rot90(image, -(turned // 90))) if turned else image

    def _ocr(self, page: Any, number: int) -> ocr.OcrPage:
        if self.store is not None and (known := self.store.get(number)) is not None:
            return known
        width, height = page.get_size() if page is not None else _LETTER
        scale = scale_for(width, height, self.settings.dpi)
        if page is None:
            scale = round(scale * 72) / 72  # poppler takes whole dots per inch
        image = self._draw(page, number, scale)
        read = ocr.read(image, scale, self.engines.ocr_backend, self.threads)
        read.width, read.height = image.shape[1] / scale, image.shape[0] / scale
        if self.store is not None:
            self.store.put(number, read)
        return read

    def _from_ocr(self, page: Any, number: int, read: ocr.OcrPage) -> PageRead:
        width, height = page.get_size() if page is not None else (read.width, read.height)
        if read.rotation in (90, 270):
            width, height = height, width
        own = page.get_rotation() if page is not None else 0
        lines = [replace(line, text=repair(line.text)) for line in read.lines]
        rotation = (own + read.rotation) % 360
        return PageRead(number, width, height, rotation, read.rotation, "ocr", read.confidence, lines)


def _trust(layer: textlayer.TextLayer, verdict: Verdict) -> float:
    """Confidence of a page's text layer."""
    if verdict.why and not verdict.regions and not verdict.hidden:
        return 0.0  # nothing better was found
    return 1.0 - min(1.0, layer.bad)


def open_pdf(path: Path, passwords: Path | None) -> tuple[Any, str | None]:
    """The ``pypdfium2.PdfDocument`` of a file and the password that opened it, tried in turn.

    Raises:
        pypdfium2.PdfiumError: it is no PDF, damaged, or no password fits.
    """
    document, password, _ = _open(path, (None, *_passwords(passwords)))
    return document, password


def _open(path: Path, passwords: tuple[str | None, ...]) -> tuple[Any, str | None, bool]:
    """The document, its password, and whether it had to be mended for that."""
    import pypdfium2

    for k, password in enumerate(passwords):
        try:
            return pypdfium2.PdfDocument(path, password=password), password, False
        except pypdfium2.PdfiumError as error:
            if error.err_code in _PASSWORD_ERRORS and k + 1 < len(passwords):
                continue
            if error.err_code not in _PASSWORD_ERRORS and (mended := _mended(path)) is not None:
                return mended, None, True
            raise
    raise AssertionError  # the last password either opened it or raised


def _mended(path: Path) -> Any:
    """The document of a file whose end is missing, None where no page is left."""
    import pypdfium2

    data = salvaged(path.read_bytes()) if path.stat().st_size <= MOST else None
    if data is None:
        return None
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError:
        return None
    if len(document):
        return document
    document.close()
    return None


def _passwords(path: Path | None) -> tuple[str, ...]:
    """Passwords to try, in order: the lines of a file."""
    return tuple(line for line in path.read_text("utf-8-sig").splitlines() if line) if path else ()
