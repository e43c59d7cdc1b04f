"""What LoRA is told."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator

ALL_LINEAR = "all-linear"  # PEFT's word


class LoraSettings(BaseModel):
    """Low-rank matrices beside frozen linear layers (Hu et al., arXiv 2106.09685)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    r: int = Field(8, ge=1, description="Rank. More learns more and costs memory; LongLoRA uses 8, LongQLoRA 64.")
    alpha: float = Field(16, gt=0, description="The update is scaled by alpha / r, with rslora by alpha / sqrt(r).")
    dropout: float = Field(0.0, ge=0, lt=1, description="On the input of A; above 0 it slows training a little.")
    targets: tuple[str, ...] | str | None = Field(
        None,
        description="Names of linear layers, e.g. [q_proj, v_proj]; all-linear: every one but the output head; any "
        "other string: a regular expression for whole module paths; null: those of attention (q, k, v, o). With the "
        "MLP's as well (gate_proj, up_proj, down_proj) a step learns more and takes longer.",
    )
    rslora: bool = Field(
        False,
        description="Scale by alpha / sqrt(r) (rsLoRA, arXiv 2312.03732): high ranks then learn as fast as low ones.",
    )
    dora: bool = Field(
        False,
        description="Train the length of each weight column apart from its direction (DoRA, arXiv 2402.09353): often a "
        "little better at low ranks, slower and with more memory.",
    )

    @field_validator("targets")
    @classmethod
    def _valid_expression(cls, value: tuple[str, ...] | str | None) -> tuple[str, ...] | str | None:
        if isinstance(value, str):
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"{value!r} is no regular expression: {error}") from error
        elif value is not None and not value:
            raise ValueError("name at least one linear layer, or leave it out")
        return value
