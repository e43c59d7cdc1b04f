"""The model of a directory, by vLLM: continuous batching and shared prefixes on a GPU."""

from __future__ import annotations

import importlib
import math
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora.errors import UserError
from longlora.evaluation.engines.base import Batch
from longlora.evaluation.model import content_digest

if TYPE_CHECKING:
    import numpy as np


class VllmEngine:
    """Nothing is loaded before the first loss or answer is asked for."""

    scores = True

    def __init__(self, folder: Path, *, dtype: str, four_bit: bool = False) -> None:
        self.folder, self.dtype, self.four_bit = folder, dtype, four_bit
        self.stops: frozenset[int] = frozenset()
        self.longest = 0
        self.kind = f"vllm {dtype}{' nf4' if four_bit else ''}"

    def identity(self) -> str:
        return f"{content_digest(self.folder)} {self.kind}"

    @cached_property
    def _llm(self) -> Any:
        quantized = {"quantization": "bitsandbytes"} if self.four_bit else {}
        try:
            return _vllm().LLM(
                model=str(self.folder),
                dtype=self.dtype,
                max_model_len=self.longest + 1 if self.longest else None,  # one is written even for a loss
                enable_prefix_caching=True,
                **quantized,
            )
        except ValueError as error:
            raise UserError(
                f"vLLM does not take {self.folder}: {error}",
                "lower the lengths of evaluate to the model's context, or set evaluate.engine to transformers",
            ) from error

    def losses(self, input_ids: list[int], start: int) -> np.ndarray:
        import numpy as np

        wanted = _vllm().SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
        (out,) = self._llm.generate([{"prompt_token_ids": input_ids}], wanted, use_tqdm=False)
        found = [-out.prompt_logprobs[i][input_ids[i]].logprob for i in range(start, len(input_ids))]
        if not all(map(math.isfinite, found)):
            raise UserError(f"{self.folder}: a loss is not finite", "look at the training loss; train again")
        return np.asarray(found)

    def answers(self, batch: Batch) -> list[str]:
        most, stops = batch.samples[0].max_new_tokens, sorted(self.stops)
        wanted = _vllm().SamplingParams(max_tokens=most, temperature=0, stop_token_ids=stops)
        prompts = [{"prompt_token_ids": s.input_ids} for s in batch.samples]
        return [out.outputs[0].text for out in self._llm.generate(prompts, wanted, use_tqdm=False)]

    def close(self) -> None:
        import gc

        if self.__dict__.pop("_llm", None) is not None:
            gc.collect()  # its memory is given back when nothing refers to it any more


def _vllm() -> Any:
    try:
        return importlib.import_module("vllm")
    except ImportError as error:
        raise UserError(
            f"evaluate.engine: vllm cannot be imported: {error}", "pip install vllm, or set engine to transformers"
        ) from error
