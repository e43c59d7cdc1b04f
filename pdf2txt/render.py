"""Page images for OCR and layout: pdfium first or poppler first, the other one where the first fails."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

_MIN_SIDE, _MAX_SIDE = 1500, 3600  # pixels of the longer side: readable small pages, bounded memory
_MAX_PIXELS = 40_000_000  # of pages much longer than wide, whose longer side may exceed that: 120 MB


def scale_for(width: float, height: float, dpi: int) -> float:
    """Pixels per point at which a page of ``width`` x ``height`` points is drawn."""
    longer, shorter = max(width, height, 1.0), max(min(width, height), 1.0)
    if longer > 3 * shorter:
        return min(dpi / 72, (_MAX_PIXELS / (longer * shorter)) ** 0.5)
    return min(max(dpi / 72, _MIN_SIDE / longer), _MAX_SIDE / longer)


def page_image(path: Path, page: Any, number: int, scale: float, engine: str) -> Any:
    """The page as a reader sees it (its own /Rotate applied): uint8 array (height, width, 3), BGR.

    ``page`` is a ``pypdfium2.PdfPage`` or None where pdfium could not load it; ``number`` counts from 1.

    Raises:
        RuntimeError: neither engine can draw it.
    """
    order = ("poppler", "pdfium") if engine == "poppler" else ("pdfium", "poppler")
    problems = []
    for name in order:
        try:
            if name == "pdfium":
                if page is None:
                    raise RuntimeError("page not loaded")
                return page.render(scale=scale, rev_byteorder=False, may_draw_forms=True).to_numpy()[:, :, :3].copy()
            return _poppler(path, number, scale)
        except Exception as error:  # both engines raise many types on damaged files
            problems.append(f"{name}: {error}")
    raise RuntimeError("; ".join(problems))


def _poppler(path: Path, number: int, scale: float) -> Any:
    if not shutil.which("pdftoppm"):
        raise RuntimeError("not installed")
    import numpy as np
    import pdf2image

    images = pdf2image.convert_from_path(
        path, dpi=round(scale * 72), first_page=number, last_page=number, use_cropbox=True, timeout=120
    )
    if not images:
        raise RuntimeError("no image")
    return np.asarray(images[0].convert("RGB"))[:, :, ::-1].copy()
