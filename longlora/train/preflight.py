"""What training refuses by its settings and the model's config alone, and the lengths that follow from both.

Asked by the stage before anything large is read, and by an estimate, which thus accepts what training accepts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from longlora import attention, rope
from longlora.errors import UserError
from longlora.train import blocks, launch
from longlora.train.model import check_config, check_together
from longlora.train.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Lengths(NamedTuple):
    """In tokens: what the model handles, a full row, a group of S²-Attn (None: full attention)."""

    context: int
    row: int
    group: int | None


def check(config: PretrainedConfig, settings: TrainSettings, devices: int) -> Lengths:
    """Refuse what training cannot do.

    Args:
        config: of `longlora.train.model.make_config`; its group is set here.
        settings: of the training.
        devices: that share a step.

    Raises:
        UserError: with what to change.
    """
    check_together(settings)
    launch.accumulation(settings, devices)
    found = lengths(config, settings)
    setattr(config, attention.GROUP_ATTRIBUTE, found.group)
    check_config(config, settings)
    if settings.gradient_checkpointing:
        blocks.check_kinds(config, settings.layers_per_checkpoint)
    return found


def lengths(config: PretrainedConfig, settings: TrainSettings) -> Lengths:
    """The lengths that the settings leave to the model, filled in.

    Raises:
        UserError: the rows are longer than what the model handles.
    """
    context = settings.context_length or rope.window(config)
    row = settings.row_tokens or context
    if row > context:
        raise UserError(
            f"train.row_tokens ({row:,}) is above the model's context of {context:,} tokens",
            "set train.context_length to extend the model, or lower train.row_tokens",
        )
    return Lengths(context, row, group_of(settings, row))


def group_of(settings: TrainSettings, row_tokens: int) -> int | None:
    """Tokens of a group in rows of ``row_tokens``; None for full attention."""
    return None if settings.attention == "full" else attention.group_tokens(settings.group, row_tokens)
