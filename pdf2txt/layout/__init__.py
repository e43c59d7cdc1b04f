"""Layout detection: which regions a page image shows, behind one interface.

``regions`` gives a page's lines to the detections and orders them; each engine is a module of its own, whose
packages are imported when it is loaded.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pdf2txt.schema import Box

_DPI, _MAX_SIDE = 100, 1400  # more would be for nothing: these models look at 640 to 1333 pixels


@dataclass(frozen=True, slots=True)
class Detection:
    """One region that a model sees on a page."""

    box: Box  # points, origin top left of the page as drawn
    kind: str  # one of schema.KINDS
    score: float  # 0..1


class Detector(Protocol):
    """A layout model, ready to be asked."""

    def detect(self, image: Any, scale: float) -> list[Detection]:
        """Regions of a page image, in no order.

        Args:
            image: uint8 array (height, width, 3), BGR.
            scale: its pixels per point.
        """
        ...


@dataclass(frozen=True)
class DetectorSpec:
    """What has to be loaded; ``engines.resolve`` has checked it."""

    engine: str  # "rapid" | "transformers" | "detectron2"
    score: float  # detections below are left out
    model: Path | None = None  # transformers: a directory, detectron2: a configuration file
    weights: Path | None = None  # of detectron2
    kinds: tuple[str, ...] = ()  # of the model's classes, by their numbers
    extension: str = ""  # detectron2: "module" or "module:function" to import before the model is built


@functools.cache
def load(spec: DetectorSpec, threads: int = 0) -> Detector:
    """The detector of ``spec``, loaded once per process.

    Args:
        threads: of the processor to use at a time, 0: the engine's own choice.

    Raises:
        UserError: its files are damaged or do not belong together.
    """
    if spec.engine == "transformers":
        from pdf2txt.layout.rtdetr import TransformersDetector

        return TransformersDetector(spec, threads)
    if spec.engine == "detectron2":
        from pdf2txt.layout.detectron import Detectron2Detector

        return Detectron2Detector(spec, threads)
    from pdf2txt.layout.rapid import RapidDetector

    return RapidDetector(spec, threads)


def scale_for(width: float, height: float) -> float:
    """Pixels per point at which a model is shown a page of ``width`` x ``height`` points."""
    return min(_DPI / 72, _MAX_SIDE / max(width, height, 1.0))
