"""What an OCR engine does, and the engines by name of what runs them.

An engine finds text boxes and reads line crops; all else (which way up a page lies, skew, pages longer than
any paper, level lines with sizes, confidence) is done once, for every engine, by the other modules here.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol


class Engine(Protocol):
    """Images are uint8 arrays (height, width, 3), BGR."""

    letter_share: float  # font size as a share of the height of the boxes it draws around lines

    def find(self, image: Any) -> Any:
        """Boxes around lines of text: float32 array (n, 4 corners from top left clockwise, xy), pixels.

        Where the text is not level or lies on its side, boxes around its words will do: they show it.
        """
        ...

    def recognise(self, crops: list[Any]) -> list[tuple[str, float]]:
        """(text, confidence 0..1) of images of one level line each, in their order."""
        ...


@functools.cache
def load(backend: str, threads: int) -> Engine:
    """The engine that runs on ``backend`` (``engines.resolve`` names it), with so many threads (0: its choice).

    Raises:
        UserError: weights are missing.
    """
    if backend in ("cuda", "cpu"):
        from pdf2txt.ocr.easy import EasyOcr

        return EasyOcr(backend, threads)
    from pdf2txt.ocr.rapid import RapidOcr

    return RapidOcr(backend, threads)
