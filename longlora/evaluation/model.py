"""A model as evaluation needs it: loaded when first used, losses in chunks, greedy text."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from longlora.errors import UserError
from longlora.models import WEIGHT_SUFFIXES, load_model, load_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WRITTEN_BY = ("transformers_version", "_name_or_path", "torch_dtype")  # no part of what a model computes


def content_digest(folder: Path) -> str:
    """sha256 over what a model directory computes with: weights, configuration, tokenizer (270 MB: 0.3 s)."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in WEIGHT_SUFFIXES or path.name == "longfolio.json":  # that is its lineage
            continue
        if path.name in ("config.json", "generation_config.json"):
            fields = json.loads(path.read_text())
            kept = {k: v for k, v in fields.items() if k not in WRITTEN_BY}
            part = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
        else:
            with path.open("rb") as file:
                part = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.name}\0{part}\n".encode())
    return total.hexdigest()


class LanguageModel:
    """The model of a directory. Nothing is loaded before the first loss or answer is asked for.

    dtype: ``bfloat16`` or ``float32``; chunk: positions whose logits exist at once.
    """

    def __init__(self, folder: Path, *, dtype: str, device: str = "cpu", chunk: int = 1024) -> None:
        self.folder, self.dtype, self.device, self.chunk = folder, dtype, device, chunk

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.folder)

    @cached_property
    def network(self) -> PreTrainedModel:
        model = load_model(self.folder, dtype=self.dtype, attn_implementation="sdpa")
        return model.to(self.device).eval()  # type: ignore[arg-type]

    @cached_property
    def _head_is_plain(self) -> bool:
        """Whether logits are just head(state); some models scale or cap them and need a full forward."""
        import torch

        ids = torch.tensor([[3, 1, 4, 1]], device=self.device)
        with torch.inference_mode():
            whole = self.network(input_ids=ids, use_cache=False).logits
            return torch.equal(whole, self._head(self._hidden(ids)))

    def _hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """(batch, length, width) states that the head reads."""
        return self.network.base_model(input_ids=ids, use_cache=False).last_hidden_state

    def _head(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.network.get_output_embeddings()(hidden)

    def loss(self, input_ids: list[int], start: int) -> float:
        """Sum of -log p(token | all before it), in nats, over ``input_ids[start:]``; logits in chunks.

        Raises:
            ValueError: start is 0 (the first token has no context) or past the end.
            UserError: the loss is not finite.
        """
        import torch

        if not 0 < start < len(input_ids):
            raise ValueError(f"start {start} of {len(input_ids)} tokens")
        ids = torch.tensor([input_ids], device=self.device)
        total = 0.0
        with torch.inference_mode():
            if self._head_is_plain:
                states = self._hidden(ids)[0, start - 1 : -1]  # state t predicts token t + 1
                for begin in range(0, len(states), self.chunk):
                    logits = self._head(states[begin : begin + self.chunk]).float()
                    labels = ids[0, start + begin : start + begin + len(logits)]
                    total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
            else:
                logits = self.network(input_ids=ids, use_cache=False).logits[0, start - 1 : -1].float()
                total = float(torch.nn.functional.cross_entropy(logits, ids[0, start:], reduction="sum"))
        if not total < float("inf"):  # also true of NaN
            raise UserError(
                f"{self.folder}: the loss is {total}; its weights are damaged or its training diverged",
                "look at the training loss; lower train.learning_rate or train again",
            )
        return total

    def greedy(self, input_ids: list[int], max_new_tokens: int) -> str:
        """The text the model continues with, most likely token by token, special tokens left out."""
        from longlora.inference import generate

        return generate(self.network, self.tokenizer, input_ids, max_new_tokens=max_new_tokens)

    def close(self) -> None:
        """Free the weights."""
        self.__dict__.pop("network", None)
