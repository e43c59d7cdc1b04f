"""The model of a directory, by transformers: losses in chunks, answers in batches after one shared prefill."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora.errors import UserError
from longlora.evaluation.engines.base import Batch
from longlora.evaluation.model import content_digest
from longlora.models import load_model, load_tokenizer
from longlora.quantize import check_bitsandbytes, load_nf4

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PREFILL = 4096  # prompt tokens that go through the network at once


class TransformersEngine:
    """Nothing is loaded before the first loss or answer is asked for.

    dtype: ``bfloat16`` or ``float32``; chunk: positions whose logits exist at once; four_bit: weights in NF4.
    """

    scores = True

    def __init__(
        self, folder: Path, *, dtype: str, device: str = "cpu", chunk: int = 1024, four_bit: bool = False
    ) -> None:
        self.folder, self.dtype, self.device, self.chunk, self.four_bit = folder, dtype, device, chunk, four_bit
        self.kind = f"transformers {dtype}{' nf4' if four_bit else ''}"
        self.stops: frozenset[int] = frozenset()
        self.longest = 0
        self._prefix: tuple[list[int], Any] = ([], None)  # tokens and their keys and values

    def identity(self) -> str:
        return f"{content_digest(self.folder)} {self.kind}"

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.folder)

    @cached_property
    def network(self) -> PreTrainedModel:
        if self.four_bit:
            check_bitsandbytes("evaluate.load_in_4bit")
            return load_nf4(self.folder, dtype=self.dtype, device=self.device, attn_implementation="sdpa").eval()
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

    def losses(self, input_ids: list[int], start: int) -> np.ndarray:
        """float64 (tokens,): -log p(token | all before it), in nats, of ``input_ids[start:]``; logits in chunks.

        Raises:
            ValueError: start is 0 (the first token has no context) or past the end.
            UserError: a loss is not finite.
        """
        import numpy as np
        import torch
        from transformers import DynamicCache

        if not 0 < start < len(input_ids):
            raise ValueError(f"start {start} of {len(input_ids)} tokens")
        ids = torch.tensor([input_ids], device=self.device)
        parts: list[torch.Tensor] = []
        with torch.inference_mode():
            if self._head_is_plain:
                states = self._hidden(ids)[0, start - 1 : -1]  # state t predicts token t + 1
                for begin in range(0, len(states), self.chunk):
                    logits = self._head(states[begin : begin + self.chunk]).float()
                    labels = ids[0, start + begin : start + begin + len(logits)]
                    parts.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
            else:
                cache = DynamicCache(config=self.network.config)
                for begin in range(0, len(input_ids) - 1, self.chunk):
                    labels = ids[0, begin + 1 : begin + 1 + self.chunk]
                    piece = ids[:, begin : begin + len(labels)]
                    logits = self.network(input_ids=piece, past_key_values=cache, use_cache=True).logits[0].float()
                    parts.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
                parts = [torch.cat(parts)[start - 1 :]]
        found = torch.cat(parts).double().cpu().numpy()
        if not np.isfinite(found).all():
            raise UserError(
                f"{self.folder}: a loss is {found[~np.isfinite(found)][0]}; its weights are damaged or its training "
                "diverged",
                "look at the training loss; lower train.learning_rate or train again",
            )
        return found

    def answers(self, batch: Batch) -> list[str]:
        """Greedy, until the end of the turn or ``max_new_tokens``.

        A document's shared beginning goes through the network once, and its keys and values are kept for the next
        batch of the same document. What follows is padded on the left, between the two.
        """
        import torch

        prefix = batch.samples[0].input_ids[: batch.prefix]
        rests = [s.input_ids[batch.prefix :] for s in batch.samples]
        widest, rows = max(map(len, rests)), len(rests)
        ids = torch.zeros(rows, widest, dtype=torch.long, device=self.device)
        mask = torch.zeros(rows, batch.prefix + widest, dtype=torch.long, device=self.device)
        mask[:, : batch.prefix] = 1
        for row, rest in enumerate(rests):
            ids[row, widest - len(rest) :] = torch.tensor(rest)
            mask[row, batch.prefix + widest - len(rest) :] = 1
        with torch.inference_mode():
            cache = self._shared(prefix, rows) if batch.prefix else None
            written = self._write(ids, mask, cache, batch.samples[0].max_new_tokens)
        return [str(self.tokenizer.decode(row, skip_special_tokens=True)) for row in written]

    def _shared(self, prefix: list[int], rows: int) -> Any:
        """Keys and values of ``prefix``, for so many rows; the ones kept are not touched."""
        from copy import deepcopy

        import torch
        from transformers import DynamicCache

        kept, cache = self._prefix
        if kept != prefix:
            self._prefix = ([], None)  # free the last document's first
            cache = DynamicCache(config=self.network.config)
            ids = torch.tensor([prefix], device=self.device)
            for begin in range(0, len(prefix), PREFILL):
                self.network.base_model(
                    input_ids=ids[:, begin : begin + PREFILL], past_key_values=cache, use_cache=True
                )
            self._prefix = (prefix, cache)
        copy = deepcopy(cache)
        if rows > 1:
            copy.batch_repeat_interleave(rows)
        return copy

    def _write(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any, most: int) -> list[list[int]]:
        """ids: (rows, width), what follows the cache; mask: (rows, cached + width), 0 is padding."""
        import torch
        from transformers import DynamicCache

        cache = cache if cache is not None else DynamicCache(config=self.network.config)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        known = mask.shape[1] - ids.shape[1]
        stops = torch.tensor(sorted(self._stops()), device=self.device)
        written: list[torch.Tensor] = []
        done = torch.zeros(len(ids), dtype=torch.bool, device=self.device)
        for begin in range(0, ids.shape[1] - 1, PREFILL):  # all but the last column, in pieces
            end = min(begin + PREFILL, ids.shape[1] - 1)
            self.network.base_model(
                input_ids=ids[:, begin:end],
                attention_mask=mask[:, : known + end],
                position_ids=positions[:, begin:end],
                past_key_values=cache,
                use_cache=True,
            )
        last, place = ids[:, -1:], positions[:, -1:]
        for _ in range(most):
            out = self.network(
                input_ids=last,
                attention_mask=mask,
                position_ids=place,
                past_key_values=cache,
                use_cache=True,
            )
            token = out.logits[:, -1].argmax(-1)
            done |= torch.isin(token, stops)
            written.append(token.masked_fill(done, -1))
            if bool(done.all()):
                break
            last, place = token[:, None], place + 1
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        rows = torch.stack(written, 1).tolist()
        return [[token for token in row if token >= 0] for row in rows]

    def _stops(self) -> frozenset[int]:
        """Tokens that end an answer: the prompt format's, and the model's own, else the tokenizer's."""
        own = self.network.generation_config
        stop = own.eos_token_id if own is not None and own.eos_token_id is not None else self.tokenizer.eos_token_id
        return self.stops | (set(stop) if isinstance(stop, list) else set() if stop is None else {stop})

    def close(self) -> None:
        self._prefix = ([], None)
        self.__dict__.pop("network", None)
