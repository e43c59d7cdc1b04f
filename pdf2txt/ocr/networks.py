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

    def recognise(self, lines: Iterable[tuple[int, Any]], classes: list[int] | None, got: Got) -> None:
        """Call ``got(number, probabilities)`` for each (number, float32 (3, 48, width)) of ``lines``, in any order.

        Probabilities are (steps, classes) over ``classes`` of the network, None: over all of them.
        """
        ...


class OpenVinoNetworks:
    """One line per thread in flight: at the batch size of 1 a line costs what it does in a batch, unpadded."""

    def __init__(self, detector: Path, recogniser: Path, threads: int) -> None:
        import openvino

        self._core = openvino.Core()
        # Threads fixed to cores would share a core with those of other workers.
        self._options = {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        self._threads = threads
        self._detector = self._core.compile_model(
            str(detector), "CPU", {**self._options, "NUM_STREAMS": 1}
        ).create_infer_request()
        self._path = recogniser
        self._queues: dict[int, Any] = {}  # number of classes -> its queue
        self.characters = self._core.read_model(recogniser).get_rt_info()["framework"]["character"].value.splitlines()

    def detect(self, image: Any) -> Any:
        self._detector.infer([image])
        return self._detector.get_output_tensor().data

    def recognise(self, lines: Iterable[tuple[int, Any]], classes: list[int] | None, got: Got) -> None:
        queue = self._queue(classes)
        queue.set_callback(lambda request, number: got(number, request.get_output_tensor().data[0]))
        for number, line in lines:
            queue.start_async([line[None]], number)
        queue.wait_all()

    def _queue(self, classes: list[int] | None) -> Any:
        import openvino

        size = 0 if classes is None else len(classes)
        if size not in self._queues:
            model = self._core.read_model(self._path)
            if classes is not None:
                _keep_classes(model, classes)
            compiled = self._core.compile_model(model, "CPU", {**self._options, "NUM_STREAMS": self._threads})
            self._queues[size] = openvino.AsyncInferQueue(compiled, self._threads)
        return self._queues[size]


def _keep_classes(model: Any, classes: list[int]) -> None:
    """Cut the recogniser's last layer (softmax over a linear map) down to ``classes``."""
    import numpy as np
    import openvino.opset13 as ops

    def source(node: Any) -> Any:
        node = node.input_value(0).get_node()
        return source(node) if node.get_type_name() == "Identity" else node

    index = ops.constant(np.array(classes, np.int64))
    softmax = source(model.get_results()[0])
    add = source(softmax)
    product = source(add)
    if [n.get_type_name() for n in (softmax, add, product)] != ["Softmax", "Add", "MatMul"]:
        kept = ops.gather(softmax.input_value(0), index, ops.constant(-1))
        softmax.input(0).replace_source_output(kept.output(0))
    else:
        for node, axis in ((product, 1), (add, 0)):
            kept = ops.gather(node.input_value(1), index, ops.constant(axis))
            node.input(1).replace_source_output(kept.output(0))
    model.validate_nodes_and_infer_types()


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

    def recognise(self, lines: Iterable[tuple[int, Any]], classes: list[int] | None, got: Got) -> None:
        import numpy as np

        by_width: dict[int, list[tuple[int, Any]]] = {}
        for number, line in lines:
            by_width.setdefault(line.shape[2], []).append((number, line))
        name = self._recogniser.get_inputs()[0].name
        for same in by_width.values():
            for at in range(0, len(same), self._BATCH):
                numbers, images = zip(*same[at : at + self._BATCH], strict=True)
                scores = self._recogniser.run(None, {name: np.stack(images)})[0]
                if classes is not None:
                    scores = scores[:, :, classes]
                    scores /= np.maximum(scores.sum(axis=2, keepdims=True), 1e-9)
                for number, line_scores in zip(numbers, scores, strict=True):
                    got(number, line_scores)
