"""A model behind an OpenAI-compatible endpoint: answers only, since losses of a given text are not told there."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from longlora.errors import UserError
from longlora.evaluation.engines.base import Batch
from longlora.evaluation.tasks.base import Sample

if TYPE_CHECKING:
    import numpy as np


class EndpointSettings(BaseModel):
    """Where a model is served."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field(description="Such as http://localhost:8000/v1.")
    model: str = Field(description="The model's name there.")
    api_key_variable: str = Field(default="OPENAI_API_KEY", description="Environment variable with the key.")
    timeout: float = Field(default=600, gt=0, description="Seconds for one answer.")
    retries: int = Field(default=5, ge=0, description="Times that a failed request is sent again, with back-off.")


class EndpointEngine:
    """Sends each prompt as one user message; the server applies its own prompt format.

    Its identity is the address and the name: what is behind them may change unseen.
    """

    scores = False
    kind = "endpoint"
    stops: frozenset[int] = frozenset()  # its own business
    longest = 0

    def __init__(self, settings: EndpointSettings) -> None:
        self.at = settings

    def identity(self) -> str:
        return f"{self.at.base_url} {self.at.model}"

    @cached_property
    def _client(self) -> Any:
        try:
            from openai import OpenAI
        except ImportError as error:
            raise UserError("the endpoint needs the openai package", "pip install 'longfolio[teacher]'") from error
        key = os.environ.get(self.at.api_key_variable) or "none"
        return OpenAI(base_url=self.at.base_url, api_key=key, timeout=self.at.timeout, max_retries=self.at.retries)

    def losses(self, input_ids: list[int], start: int) -> np.ndarray:
        raise UserError(
            f"{self.at.base_url} tells no losses", "evaluate the model directory, or leave tasks on losses out"
        )

    def answers(self, batch: Batch) -> list[str]:
        """Raises:
        UserError: the endpoint does not answer, or refuses.
        """
        with ThreadPoolExecutor(len(batch.samples)) as pool:
            return list(pool.map(self._ask, batch.samples))

    def _ask(self, sample: Sample) -> str:
        client = self._client
        from openai import OpenAIError

        try:
            reply = client.chat.completions.create(
                model=self.at.model,
                messages=[{"role": "user", "content": sample.prompt}],
                max_tokens=sample.max_new_tokens,
                temperature=0,
            )
        except OpenAIError as error:
            raise UserError(
                f"{self.at.base_url} did not answer sample {sample.id}: {error}",
                "see that it runs, and evaluate again: finished batches are kept",
            ) from error
        return str((reply.choices[0].message.content if reply.choices else "") or "")

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()
