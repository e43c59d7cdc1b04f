"""Page images for OCR and layout: pdfium first or poppler first, the other one where the first fails.

Poppler's programs have limits: the memory that is left to the process which asks, seconds, and its life.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

from pdf2txt import limited
from pdf2txt.errors import DrawingTimeout, may_pass

_MIN_SIDE, _MAX_SIDE = 1500, 3600  # pixels of the longer side: readable small pages, bounded memory
_MAX_PIXELS = 40_000_000  # of pages much longer than wide, whose longer side may exceed that: 120 MB
_MEMORY = 4.0  # gigabytes that this process and its poppler may take together, where the caller does not say
_LEAST = 0.5  # gigabytes that poppler may take however much this process has: a page takes a tenth of it
_DRAW_SECONDS, _COUNT_SECONDS = 120, 30


def scale_for(width: float, height: float, dpi: int) -> float:
    """Pixels per point at which a page of ``width`` x ``height`` points is drawn."""
    longer, shorter = max(width, height, 1.0), max(min(width, height), 1.0)
    if longer > 3 * shorter:
        return min(dpi / 72, (_MAX_PIXELS / (longer * shorter)) ** 0.5)
    return min(max(dpi / 72, _MIN_SIDE / longer), _MAX_SIDE / longer)


def page_image(
    path: Path, page: Any, number: int, scale: float, engine: str, password: str | None = None, opened: bool = True,
    memory: float = _MEMORY,
) -> Any:  # fmt: skip
    """The page as a reader sees it (its own /Rotate applied): uint8 array (height, width, 3), BGR.

    ``page`` is a ``pypdfium2.PdfPage`` or None where pdfium could not load it; ``number`` counts from 1, as pdfium
    does where it could open the file (``opened``), otherwise as poppler does.
    ``memory``: gigabytes that this process and poppler may take together.

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
            if opened and _skips(path, password, memory):
                raise RuntimeError("it passes over the file's missing pages, its numbers are others")
            return _poppler(path, number, scale, password, memory)
        except Exception as error:  # both engines raise many types on damaged files
            if may_pass(error):
                raise
            problems.append(f"{name}: {error}")
    raise RuntimeError("; ".join(problems))


def poppler_pages(path: Path, memory: float = _MEMORY) -> int:
    """Number of pages of a file as poppler sees it, 0 where it cannot read it or is not installed.

    Raises:
        DrawingTimeout, MemoryError, OSError: may pass on retry.
    """
    if not shutil.which("pdfinfo"):
        return 0
    import pdf2image

    try:
        info = _call(pdf2image.pdfinfo_from_path, str(path), memory=memory, timeout=_COUNT_SECONDS)
        return int(info.get("Pages", 0))
    except Exception as error:
        if may_pass(error):
            raise
        return 0


def _skips(path: Path, password: str | None, memory: float) -> bool:
    """Whether pages are missing that poppler does not count, unlike pdfium.

    A kid of the page tree that is not in the file moves all later pages forward: asked for page 5 of 6, poppler
    may draw the sixth. The numbers left over at the end then have no page.
    """
    if not shutil.which("pdfinfo"):
        return False
    stat = path.stat()
    return _ends_early(path, password, memory, (stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=16)
def _ends_early(path: Path, password: str | None, memory: float, version: tuple[int, int]) -> bool:
    """Whether the last page has no size; ``version`` tells files of one name apart."""
    import pdf2image

    try:
        options: dict[str, Any] = {"memory": memory, "timeout": _COUNT_SECONDS, "userpw": password}
        last = _call(pdf2image.pdfinfo_from_path, str(path), **options)["Pages"]
        info = _call(pdf2image.pdfinfo_from_path, str(path), **options, first_page=last, last_page=last)
    except Exception as error:
        if may_pass(error):
            raise
        return False  # then it will draw nothing either
    return any(
        name.startswith("Page ") and name.endswith(" size") and str(size).startswith("0 x 0")
        for name, size in info.items()
    )


class _Program(subprocess.Popen[bytes]):
    """One of poppler's programs, begun by pdf2image, within limits (``limited.py``)."""

    limits: ContextVar[tuple[int, int]] = ContextVar("limits")  # bytes, seconds

    def __init__(self, args: list[str], **options: Any) -> None:
        size, seconds = self.limits.get()
        launcher = [sys.executable, "-I", "-S", limited.__file__, str(size), str(seconds), str(os.getpid())]
        self._ours = False  # whether it was ended by us
        super().__init__([*launcher, *args], **options)

    def kill(self) -> None:
        self._ours = True
        super().kill()

    def communicate(self, *args: Any, **options: Any) -> tuple[bytes, bytes]:
        """Raises: MemoryError, DrawingTimeout: it met a limit. It says so, and may end as if all were well."""
        out, err = super().communicate(*args, **options)
        size, seconds = self.limits.get()
        killed = self.returncode == -signal.SIGKILL and not self._ours  # the kernel's memory killer
        if killed or b"Out of memory" in err or b"bad_alloc" in err:
            raise MemoryError(f"over its limit of {size / 1e9:.1f} GB of memory in poppler")
        if self.returncode == -signal.SIGXCPU:
            raise DrawingTimeout(f"over its limit of {seconds} seconds in poppler")
        return out, err


def _left(memory: float) -> int:
    """Bytes that poppler may take, so that it and this process stay within ``memory``."""
    import psutil

    return int(max(_LEAST * 1e9, memory * 1e9 - psutil.Process().memory_info().rss))


def _call(function: Any, *args: Any, memory: float, timeout: int, **options: Any) -> Any:
    """``function`` of pdf2image, which hides two errors that may pass behind types of its own."""
    import pdf2image.pdf2image
    from pdf2image.exceptions import PDFInfoNotInstalledError, PDFPopplerTimeoutError

    # It offers no other way to limit what it starts.
    pdf2image.pdf2image.Popen = _Program  # type: ignore[assignment,misc]
    token = _Program.limits.set((_left(memory), timeout))
    try:
        return function(*args, timeout=timeout, **options)
    except PDFPopplerTimeoutError as error:
        raise DrawingTimeout(f"over its limit of {timeout} seconds in poppler") from error
    except PDFInfoNotInstalledError as error:  # whatever kept the program from starting
        cause = error.__context__
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            raise cause from None
        raise
    finally:
        _Program.limits.reset(token)


def _poppler(path: Path, number: int, scale: float, password: str | None, memory: float) -> Any:
    if not shutil.which("pdftoppm"):
        raise RuntimeError("not installed")
    import numpy as np
    import pdf2image

    images = _call(
        pdf2image.convert_from_path, path, memory=memory, timeout=_DRAW_SECONDS,
        dpi=round(scale * 72), first_page=number, last_page=number, use_cropbox=True, userpw=password,
    )  # fmt: skip
    if not images:
        raise RuntimeError("no image")
    if images[0].size == (1, 1):  # how it draws a page that is not in the file
        raise RuntimeError("no such page")
    return np.asarray(images[0].convert("RGB"))[:, :, ::-1].copy()
