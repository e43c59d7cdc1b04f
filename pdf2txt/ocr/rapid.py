"""RapidOCR's models (PP-OCRv6, their weights ship in its wheel), run line by line or in small batches.

The networks, their weights and the way from a text map to boxes are RapidOCR's. Its own pipeline spends much of
its time on preparing the networks for shapes they have not seen; here widths come in steps, so that shapes recur.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pdf2txt.errors import UserError
from pdf2txt.ocr.alphabet import Alphabet
from pdf2txt.ocr.networks import Networks, OnnxNetworks, OpenVinoNetworks

_DETECT_SIDE = 1408  # pixels of an image's longer side when text is looked for; more finds no more on paper
_DETECT_STEP = 32  # the detector's strides
_HEIGHT = 48  # of a line, pixels
_WIDTH_STEP = 32  # so that shapes recur: a network is prepared anew for every shape it has not seen
_MIN_WIDTH, _MAX_WIDTH = 96, 4800


def weights() -> Path:
    """Folder of the models in the package."""
    import rapidocr

    return Path(rapidocr.__file__).parent / "models"


class RapidOcr:
    """``pdf2txt.ocr.engine.Engine`` on ``openvino`` or ``onnxruntime``."""

    letter_share = 0.72  # its boxes are drawn a little around the letters

    def __init__(self, backend: str, threads: int) -> None:
        import cv2
        from rapidocr.ch_ppocr_det.utils import DBPostProcess

        threads = threads or os.cpu_count() or 1
        cv2.setNumThreads(threads)
        networks = OpenVinoNetworks if backend == "openvino" else OnnxNetworks
        self._networks: Networks = networks(_model("det"), _model("rec"), threads)
        self._boxes = DBPostProcess(thresh=0.3, box_thresh=0.5, unclip_ratio=1.6, use_dilation=True)
        self._alphabet = Alphabet(self._networks.characters)

    def find(self, image: Any) -> Any:
        import numpy as np

        height, width = image.shape[:2]
        found, _ = self._boxes(self._networks.detect(_detector_input(image)), (height, width))
        return np.asarray(found, np.float32).reshape(-1, 4, 2)

    def recognise(self, crops: list[Any]) -> list[tuple[str, float]]:
        read: list[tuple[str, float]] = [("", 0.0)] * len(crops)

        def got(number: int, scores: Any) -> None:
            read[number] = self._alphabet.decode(scores)

        # The widest first, so that no thread is left alone with one at the end.
        order = sorted(range(len(crops)), key=lambda n: -crops[n].shape[1] / crops[n].shape[0])
        self._networks.recognise(((n, _line_input(crops[n])) for n in order), got)
        return read


def _model(task: str) -> Path:
    found = sorted(weights().glob(f"PP-OCR*_{task}_*.onnx"))
    if not found:
        raise UserError(
            f"RapidOCR's weights for {task} are not in {weights()}", "pip install --force-reinstall --no-deps rapidocr"
        )
    return found[-1]


def _detector_input(image: Any) -> Any:
    """float32 (1, 3, height, width), -1..1, sides multiples of the detector's step."""
    import cv2
    import numpy as np

    height, width = image.shape[:2]
    shrink = min(1.0, _DETECT_SIDE / max(height, width))
    high, wide = (max(_DETECT_STEP, round(side * shrink / _DETECT_STEP) * _DETECT_STEP) for side in (height, width))
    small = cv2.resize(image, (wide, high), interpolation=cv2.INTER_AREA if shrink < 1 else cv2.INTER_LINEAR)
    planes = np.ascontiguousarray(small.transpose(2, 0, 1))[None].astype(np.float32)
    planes *= 1 / 127.5
    planes -= 1.0
    return planes


def _line_input(crop: Any) -> Any:
    """float32 (3, 48, width), -1..1, padded with 0 to a step of widths."""
    import cv2
    import numpy as np

    height, width = crop.shape[:2]
    wide = min(_MAX_WIDTH, max(1, round(width * _HEIGHT / height)))
    interpolation = cv2.INTER_AREA if height > _HEIGHT else cv2.INTER_LINEAR
    line = cv2.resize(crop, (wide, _HEIGHT), interpolation=interpolation)
    padded = max(_MIN_WIDTH, -(-wide // _WIDTH_STEP) * _WIDTH_STEP)
    out = np.zeros((3, _HEIGHT, padded), np.float32)
    out[:, :, :wide] = line.transpose(2, 0, 1)
    out[:, :, :wide] *= 1 / 127.5
    out[:, :, :wide] -= 1.0
    return out
