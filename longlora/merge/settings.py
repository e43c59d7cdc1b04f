"""What the user can choose about merging."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from longlora.errors import UserError


class MergeSettings(BaseModel):
    """How the merged model is stored and how strictly it is checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Literal["bfloat16", "float16", "float32", "base"] = Field(
        default="bfloat16",
        description="Storage type of the merged weights. float32 keeps every bit of training at twice the "
        "size; base keeps each tensor's type in the base model. What rounding costs is in verification.json.",
    )
    max_shard_bytes: int = Field(
        default=4_000_000_000,
        ge=1,
        description="Bytes of weights per safetensors file; smaller files copy in parallel.",
    )
    probe_tokens: int = Field(
        default=128,
        ge=8,
        le=4096,
        description="Tokens on which merged and base + adapter logits are compared.",
    )
    tolerance: float = Field(
        default=1e-4,
        gt=0,
        description="Largest logit difference that counts as equal, before rounding. Absolute, in float64.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="Where to merge and to verify; auto: a GPU if there is one. Either way one tensor is in memory at "
        "a time, and the bytes are the same.",
        json_schema_extra={"digest": False},
    )

    def resolved_device(self) -> str:
        """cpu or cuda.

        Raises:
            UserError: cuda is asked for and not there.
        """
        import torch

        available = torch.cuda.is_available()
        if self.device == "cuda" and not available:
            raise UserError("merge.device is cuda, but torch finds no CUDA device", "set merge.device to cpu or auto")
        return "cuda" if available and self.device != "cpu" else "cpu"
