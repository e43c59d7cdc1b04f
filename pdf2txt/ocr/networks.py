"""Runs RapidOCR's two networks: boxes of a page, letters of lines; on OpenVINO or onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

Got = Callable[[int, Any], None]


class Networks(Protocol):
    """A detector and a recogniser."""

    characters: list[str]  # of the recogniser, without blank and space

    def detect(self, image: Any) -> Any:
        """Map (1, 1, height, width) of how likely a pixel is text, for a float32 image (1, 3, height, width)."""
        ...

    def recognise(self, lines: Iterable[tuple[int, Any]], got: Got) -> None:
        """Call ``got(number, probabilities)`` for each (number, float32 (3, 48, width)) of ``lines``, in any order.

        Probabilities are (steps, 2 + characters): the blank, the characters, the space; gone after the call.
        """
        ...


class OpenVinoNetworks:
    """One line per thread in flight: at the batch size of 1 a line costs what it does in a batch, unpadded."""

    def __init__(self, detector: Path, recogniser: Path, threads: int) -> None:
        import openvino

        core = openvino.Core()
        # Threads fixed to cores would share a core with those of other workers.
        options = {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        self._detector = core.compile_model(detector, "CPU", {**options, "NUM_STREAMS": 1}).create_infer_request()
        model = core.read_model(recogniser)
        self.characters = model.get_rt_info()["framework"]["character"].value.splitlines()
        self._queue = openvino.AsyncInferQueue(
            core.compile_model(model, "CPU", {**options, "NUM_STREAMS": threads}), threads
        )

    def detect(self, image: Any) -> Any:
        self._detector.infer([image])
        return self._detector.get_output_tensor().data

    def recognise(self, lines: Iterable[tuple[int, Any]], got: Got) -> None:
        self._queue.set_callback(lambda request, number: got(number, request.get_output_tensor().data[0]))
        for number, line in lines:
            self._queue.start_async([line[None]], number)
        self._queue.wait_all()


class OnnxNetworks:
    """Small batches of lines of one width."""

    _BATCH = 6

    def __init__(self, detector: Path, recogniser: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_cpu_mem_arena = False  # it would keep room for the largest page ever seen
        options.log_severity_level = 4
        self._detector, self._recogniser = (
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            for path in (detector, recogniser)
        )
        self.characters = self._recogniser.get_modelmeta().custom_metadata_map["character"].splitlines()

    def detect(self, image: Any) -> Any:
        return self._detector.run(None, {self._detector.get_inputs()[0].name: image})[0]

    def recognise(self, lines: Iterable[tuple[int, Any]], got: Got) -> None:
        import numpy as np

        by_width: dict[int, list[tuple[int, Any]]] = {}
        for number, line in lines:
            by_width.setdefault(line.shape[2], []).append((number, line))
        name = self._recogniser.get_inputs()[0].name
        for same in by_width.values():
            for at in range(0, len(same), self._BATCH):
                numbers, images = zip(*same[at : at + self._BATCH], strict=True)
                scores = self._recogniser.run(None, {name: np.stack(images)})[0]
                for number, line_scores in zip(numbers, scores, strict=True):
                    got(number, line_scores)
