"""The module that is trained: rows in, their summed loss out.

Trainer, DDP and DeepSpeed wrap this and call it, so that their hooks see every forward pass. A loss that reached
round the wrapper to the model inside would leave DDP's gradients local to each process, without a word.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from longlora.adapters import causal_lm
from longlora.train import distributed
from longlora.train.loss import chunk_count, supervised_loss

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class Objective(nn.Module):
    """The sum of the next-token losses of a micro batch.

    Args:
        model: of `longlora.train.model.build_model`, with LoRA layers inside or trained as it is.
        dtype: bfloat16 (autocast) or float32.
        equal_chunks: have every rank call the output head equally often. ZeRO-3 gathers the head's weight at
            each call, with all ranks taking part; rows with fewer labels would leave the others waiting.
    """

    def __init__(self, model: Any, dtype: str, equal_chunks: bool = False) -> None:
        super().__init__()
        self.model, self.dtype, self.equal_chunks = model, dtype, equal_chunks
        self.config = self.causal_lm.config

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The language model itself; LoRA sits inside its layers."""
        return causal_lm(self.model)

    def forward(self, input_ids: Tensor, position_ids: Tensor, labels: Tensor) -> Tensor:
        """The loss summed over the labels, a scalar, fp32; all arguments (B, L), see `longlora.train.data.collate`."""
        network: Any = self.causal_lm
        head = network.get_output_embeddings()
        chunks = distributed.largest(chunk_count(labels, head)) if self.equal_chunks else 1
        with autocast(self.dtype, labels.device.type):
            hidden = network.base_model(
                input_ids=input_ids, position_ids=position_ids, use_cache=False
            ).last_hidden_state  # (B, L, d)
            return supervised_loss(hidden, labels, head, min_chunks=chunks)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """As a module's, but what is frozen may be missing: a checkpoint holds what is trained, the base the rest."""
        result = super().load_state_dict(state_dict, strict=False, assign=assign)
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        wrong = [*result.unexpected_keys, *(name for name in result.missing_keys if name in trained)]
        if strict and wrong:
            raise RuntimeError(f"the checkpoint does not fit this model: {wrong[0]} and {len(wrong) - 1} more")
        return result


def autocast(dtype: str, device: str) -> contextlib.AbstractContextManager[Any]:
    """bf16 arithmetic on fp32 trained weights; nothing for float32."""
    return torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")
