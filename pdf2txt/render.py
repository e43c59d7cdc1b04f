"""Page images for OCR and layout: pdfium first or poppler first, the other one where the first fails."""

from __future__ import annotations

import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

from pdf2txt.errors import DrawingTimeout, may_pass

_MIN_SIDE, _MAX_SIDE = 1500, 3600  # pixels of the longer side: readable small pages, bounded memory
_MAX_PIXELS = 40_000_000  # of pages much longer than wide, whose longer side may exceed that: 120 MB


def scale_for(width: float, height: float, dpi: int) -> float:
    """Pixels per point at which a page of ``width`` x ``height`` points is drawn."""
    longer, shorter = max(width, height, 1.0), max(min(width, height), 1.0)
    if longer > 3 * shorter:
        return min(dpi / 72, (_MAX_PIXELS / (longer * shorter)) ** 0.5)
    return min(max(dpi / 72, _MIN_SIDE / longer), _MAX_SIDE / longer)


def page_image(
    path: Path, page: Any, number: int, scale: float, engine: str, password: str | None = None, opened: bool = True
) -> Any:
    """The page as a reader sees it (its own /Rotate applied): uint8 array (height, width, 3), BGR.

    ``page`` is a ``pypdfium2.PdfPage`` or None where pdfium could not load it; ``number`` counts from 1, as pdfium
    does where it could open the file (``opened``), otherwise as poppler does.

    Raises:
        RuntimeError: neither engine can draw it.
        DrawingTimeout, MemoryError, OSError: may pass on retry (``errors.may_pass``).
    """
    order = ("poppler", "pdfium") if engine == "poppler" else ("pdfium", "poppler")
    problems = []
    for name in order:
        try:
            if name == "pdfium":
                if page is None:
                    raise RuntimeError("page not loaded")
                return page.render(scale=scale, rev_byteorder=False, may_draw_forms=True).to_numpy()[:, :, :3].copy()
            if opened and _skips(path, password):
                raise RuntimeError("it passes over the file's missing pages, its numbers are others")
            return _poppler(path, number, scale, password)
        except Exception as error:  # both engines raise many types on damaged files
            if may_pass(error):
                raise
            problems.append(f"{name}: {error}")
    raise RuntimeError("; ".join(problems))


def poppler_pages(path: Path) -> int:
    """Number of pages of a file as poppler sees it, 0 where it cannot read it or is not installed.

    Raises:
        DrawingTimeout, MemoryError, OSError: may pass on retry.
    """
    if not shutil.which("pdfinfo"):
        return 0
    import pdf2image

    try:
        return int(_call(pdf2image.pdfinfo_from_path, str(path), timeout=30).get("Pages", 0))
    except Exception as error:
        if may_pass(error):
            raise
        return 0


def _skips(path: Path, password: str | None) -> bool:
    """Whether pages are missing that poppler does not count, unlike pdfium.

    A kid of the page tree that is not in the file moves all later pages forward: asked for page 5 of 6, poppler
    may draw the sixth. The numbers left over at the end then have no page.
    """
    if not shutil.which("pdfinfo"):
        return False
    stat = path.stat()
    return _ends_early(path, password, (stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=16)
def _ends_early(path: Path, password: str | None, version: tuple[int, int]) -> bool:
    """Whether the last page has no size; ``version`` tells files of one name apart."""
    import pdf2image

    try:
        last = _call(pdf2image.pdfinfo_from_path, str(path), timeout=30, userpw=password)["Pages"]
        info = _call(
            pdf2image.pdfinfo_from_path, str(path), timeout=30, userpw=password, first_page=last, last_page=last
        )
    except Exception as error:
        if may_pass(error):
            raise
        return False  # then it will draw nothing either
    return any(
        name.startswith("Page ") and name.endswith(" size") and str(size).startswith("0 x 0")
        for name, size in info.items()
    )


def _call(function: Any, *args: Any, timeout: int, **options: Any) -> Any:
    """``function`` of pdf2image, which hides two errors that may pass behind types of its own."""
    from pdf2image.exceptions import PDFInfoNotInstalledError, PDFPopplerTimeoutError

    try:
        return function(*args, timeout=timeout, **options)
    except PDFPopplerTimeoutError as error:
        raise DrawingTimeout(f"over its limit of {timeout} seconds in poppler") from error
    except PDFInfoNotInstalledError as error:  # whatever kept the program from starting
        cause = error.__context__
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            raise cause from None
        raise


def _poppler(path: Path, number: int, scale: float, password: str | None) -> Any:
    if not shutil.which("pdftoppm"):
        raise RuntimeError("not installed")
    import numpy as np
    import pdf2image

    images = _call(
        pdf2image.convert_from_path, path,
        dpi=round(scale * 72), first_page=number, last_page=number, use_cropbox=True, userpw=password, timeout=120,
    )  # fmt: skip
    if not images:
        raise RuntimeError("no image")
    if images[0].size == (1, 1):  # how it draws a page that is not in the file
        raise RuntimeError("no such page")
    return np.asarray(images[0].convert("RGB"))[:, :, ::-1].copy()
