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
    """Nothing is loaded before the first loss or answer is asked for. ``length``: longest prompt with its answer."""

    scores = True

    def __init__(self, folder: Path, *, dtype: str, length: int | None = None, four_bit: bool = False) -> None:
        self.folder, self.dtype, self.length, self.four_bit = folder, dtype, length, four_bit

    def identity(self) -> str:
        return f"{content_digest(self.folder)} {self.dtype}{' nf4' if self.four_bit else ''} vllm"

    @cached_property
    def _llm(self) -> Any:
        quantized = {"quantization": "bitsandbytes"} if self.four_bit else {}
        return _vllm().LLM(
            model=str(self.folder),
            dtype=self.dtype,
            max_model_len=self.length,
            enable_prefix_caching=True,
            **quantized,
        )

    def losses(self, input_ids: list[int], start: int) -> np.ndarray:
        import numpy as np

        wanted = _vllm().SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
        (out,) = self._llm.generate([{"prompt_token_ids": input_ids}], wanted, use_tqdm=False)
        found = [-out.prompt_logprobs[i][input_ids[i]].logprob for i in range(start, len(input_ids))]
        if not all(map(math.isfinite, found)):
            raise UserError(f"{self.folder}: a loss is not finite", "look at the training loss; train again")
        return np.asarray(found)

    def answers(self, batch: Batch) -> list[str]:
        wanted = _vllm().SamplingParams(max_tokens=batch.samples[0].max_new_tokens, temperature=0)
        prompts = [{"prompt_token_ids": s.input_ids} for s in batch.samples]
        return [out.outputs[0].text for out in self._llm.generate(prompts, wanted, use_tqdm=False)]

    def close(self) -> None:
        self.__dict__.pop("_llm", None)


def _vllm() -> Any:
    try:
        return importlib.import_module("vllm")
    except ImportError as error:
        raise UserError(
            f"evaluate.engine: vllm cannot be imported: {error}", "pip install vllm, or set engine to transformers"
        ) from error
