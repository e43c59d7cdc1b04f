"""Object detectors of transformers from a local directory: RT-DETR and its relatives.

Zhao et al., DETRs Beat YOLOs on Real-time Object Detection (RT-DETR), arXiv 2304.08069; whatever
``AutoModelForObjectDetection`` loads is used the same way.
"""

from __future__ import annotations

from typing import Any

from pdf2txt.errors import UserError, may_pass
from pdf2txt.layout import Detection, DetectorSpec


class TransformersDetector:
    """See ``layout.Detector``; one page at a time, on the GPU where there is one.

    Raises:
        UserError: the directory's files are damaged, incomplete or of another sort of model.
    """

    def __init__(self, spec: DetectorSpec, threads: int) -> None:
        import torch

        if threads > 0:
            torch.set_num_threads(threads)
        self._spec = spec
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._processor, self._model = _load(spec)
        self._model.eval().to(self._device)

    def detect(self, image: Any, scale: float) -> list[Detection]:
        import numpy as np
        import torch

        inputs = self._processor(images=np.ascontiguousarray(image[:, :, ::-1]), return_tensors="pt").to(self._device)
        with torch.inference_mode():
            outputs = self._model(**inputs)
        (found,) = self._processor.post_process_object_detection(
            outputs, threshold=self._spec.score, target_sizes=[image.shape[:2]]
        )
        out = []
        for box, label, score in zip(found["boxes"], found["labels"], found["scores"], strict=True):
            x0, y0, x1, y1 = (v / scale for v in box.tolist())
            out.append(Detection((x0, y0, x1, y1), self._spec.kinds[int(label)], float(score)))
        return out


def _load(spec: DetectorSpec) -> tuple[Any, Any]:
    from transformers import AutoImageProcessor, AutoModelForObjectDetection
    from transformers.utils import logging

    logging.disable_progress_bar()  # seconds at most
    where = str(spec.model)
    try:
        processor = AutoImageProcessor.from_pretrained(where, local_files_only=True, backend="pil")
        model, info = AutoModelForObjectDetection.from_pretrained(
            where, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # of many types, by the part that is wrong
        if may_pass(error):
            raise
        raise UserError(
            f"pdf2txt.layout_model: {where} cannot be loaded: {_line(error)}",
            "name the directory of an object detector that transformers knows, and copy all its files there",
        ) from error
    # transformers draws what the weights lack at random and goes on.
    if missing := sorted(map(str, [*info["missing_keys"], *info.get("mismatched_keys", ())])):
        raise UserError(
            f"pdf2txt.layout_model: the weights in {where} lack {missing[0]}"
            + (f" and {len(missing) - 1} more" if missing[1:] else ""),
            "copy all files of the model there",
        )
    return processor, model


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
