"""Detectors of detectron2 from a configuration file and weights.

Models such as DiT (Li et al., arXiv 2203.02378; its Cascade R-CNN is what LongLoRA's pdf2txt runs) bring a
backbone that detectron2 does not have: the code that registers it is named in the settings and imported first.
"""

from __future__ import annotations

import importlib
from typing import Any

from pdf2txt.errors import UserError, may_pass
from pdf2txt.layout import Detection, DetectorSpec

_SAME = 0.1  # boxes that overlap more (intersection over union) are one region, whatever their classes


class Detectron2Detector:
    """See ``layout.Detector``; one page at a time, on the GPU where there is one.

    Raises:
        UserError: configuration and weights are damaged or do not belong together.
    """

    def __init__(self, spec: DetectorSpec, threads: int) -> None:
        import torch

        if threads > 0:
            torch.set_num_threads(threads)
        self._spec = spec
        try:
            self._predictor = _predictor(spec)
        except Exception as error:  # of many types, by the part that is wrong
            if isinstance(error, UserError) or may_pass(error):
                raise
            raise UserError(
                f"pdf2txt.layout_model: detectron2 cannot build {spec.model}: {type(error).__name__}: {error}",
                "correct the configuration; a backbone of the model's own is named by pdf2txt.layout_import",
            ) from error

    def detect(self, image: Any, scale: float) -> list[Detection]:
        from detectron2.layers import nms

        found = self._predictor(image)["instances"].to("cpu")
        found = found[nms(found.pred_boxes.tensor, found.scores, _SAME)]
        out = []
        for box, number, score in zip(found.pred_boxes.tensor, found.pred_classes, found.scores, strict=True):
            x0, y0, x1, y1 = (v / scale for v in box.tolist())
            out.append(Detection((x0, y0, x1, y1), self._spec.kinds[int(number)], float(score)))
        return out


def _predictor(spec: DetectorSpec) -> Any:
    try:
        import torch
        from detectron2.checkpoint import DetectionCheckpointer
        from detectron2.config import get_cfg
        from detectron2.engine import DefaultPredictor
    except Exception as error:  # torchvision beside the wrong build of torch raises RuntimeError
        raise UserError(
            f"detectron2 cannot be imported: {type(error).__name__}: {error}",
            "install it as README, Optional engines, says, or use another pdf2txt.layout",
        ) from error

    config = get_cfg()
    _extend(spec.extension, config)
    config.merge_from_file(str(spec.model))
    config.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    config.MODEL.WEIGHTS = ""  # loaded below, where what does not fit is seen
    config.MODEL.ROI_HEADS.SCORE_THRESH_TEST = config.MODEL.RETINANET.SCORE_THRESH_TEST = spec.score
    predictor = DefaultPredictor(config)

    class Checkpointer(DetectionCheckpointer):
        """Refuses what detectron2 would only log: parameters without weights, left at random."""

        def _load_model(self, checkpoint: Any) -> Any:
            result = super()._load_model(checkpoint)
            bad = [*result.missing_keys, *(name for name, *_ in result.incorrect_shapes)]
            if bad:
                raise UserError(
                    f"{spec.weights} does not fit {spec.model}: it lacks {bad[0]}"
                    + (f" and {len(bad) - 1} more parameters" if bad[1:] else ""),
                    "set pdf2txt.layout_weights to the weights that were trained with this configuration",
                )
            return result

    try:
        Checkpointer(predictor.model).load(str(spec.weights))
    except Exception as error:
        if isinstance(error, UserError) or may_pass(error):
            raise
        raise UserError(
            f"pdf2txt.layout_weights: {spec.weights} cannot be read: {type(error).__name__}: {error}",
            "copy the file again",
        ) from error
    return predictor


def _extend(extension: str, config: Any) -> None:
    """Import the module that registers a backbone; call its function, if one is named, with the configuration."""
    if not extension:
        return
    name, _, function = extension.partition(":")
    setting = f"pdf2txt.layout_import: {extension}"
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{setting} cannot be imported: {error}", "put its folder on PYTHONPATH") from error
    if function:
        add = getattr(module, function, None)
        if not callable(add):
            raise UserError(f"{setting}: {name} has no function {function}", "correct its name")
        add(config)
