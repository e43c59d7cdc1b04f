"""What the memory settings switch on, and how many bytes each of them saves.

    cross-entropy in chunks     always               loss.py       `logits_chunk_bytes` instead of `full_logits_bytes`
    checkpoints of layers       gradient_checkpointing, layers_per_checkpoint      blocks.py     `checkpoint_bytes`
    checkpoints on the host     offload              offload.py    `offload_device_bytes` stay on the GPU
    MLP, norms in parts         tile_mlp             tiled.py      `mlp_bytes`
    fused kernels               liger                kernels.py

The formulas are plain arithmetic, so that an estimate (`longlora.train.footprint`) needs no model. Symbols: L tokens of
a micro batch (rows times length), d width of the residual stream, I width of the MLP, V vocabulary, b bytes of a
number in the arithmetic's format (2 for bfloat16, 4 for float32).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longlora.errors import UserError

if TYPE_CHECKING:
    from longlora.train.settings import TrainSettings

CHUNK_BYTES = 256 * 2**20  # of fp32 logits that exist at once
FP32 = 4
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
RETURNED = 2**20  # bytes
IN_FLIGHT = 2  # checkpoints on their way to the host; as many wait on the device in the backward pass


# ------------------------------------------------------------------ bytes


def chunk_rows(vocabulary: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Most positions in a chunk of the loss: 1,365 at a vocabulary of 49k, 523 at 128k."""
    return max(1, chunk_bytes // (FP32 * vocabulary))


def even_chunk(tokens: int, most: int) -> int:
    """Positions per chunk where ``tokens`` are shared out evenly, at most ``most`` each."""
    return -(-tokens // max(1, -(-tokens // most)))


def full_logits_bytes(tokens: int, vocabulary: int, bytes_per: int = FP32) -> int:
    """Peak of an unchunked loss: L·V·(b + 12), or L·V·12 where the head computes in fp32 already.

    The logits in the arithmetic's format, their fp32 copy, log-softmax and gradient. At 16,384 tokens and a
    vocabulary of 49,152 the fp32 logits alone are 3.2 GB, the peak is 9.7 GB.
    """
    copies = 3 * FP32 + (bytes_per if bytes_per != FP32 else 0)
    return tokens * vocabulary * copies


def logits_chunk_bytes(
    tokens: int, vocabulary: int, bytes_per: int = FP32, *, chunk_bytes: int = CHUNK_BYTES, plain_head: bool = True
) -> int:
    """Peak of the logits of one chunk: n·V·(4 + b), n at most `chunk_rows`, whatever L is.

    Args:
        tokens: L, supervised positions.
        plain_head: False for a head with LoRA, bias or hooks, whose chunks are recomputed by autograd: then one
            chunk costs what `full_logits_bytes` says of n tokens.

    Beside it: L·d·b for the gradient of the hidden states, and V·d·4 for that of a trained head.
    """
    rows = even_chunk(tokens, chunk_rows(vocabulary, chunk_bytes))
    if not plain_head:
        return full_logits_bytes(rows, vocabulary, bytes_per)
    return rows * vocabulary * (FP32 + bytes_per)


def checkpoint_bytes(layers: int, tokens: int, width: int, bytes_per: int, layers_per_checkpoint: int = 1) -> int:
    """States kept for the backward pass: ceil(layers / k)·L·d·b; on the host where ``offload`` is on.

    32 layers of width 4,096 at a million tokens in bfloat16: 262 GB with k = 1, 66 GB with k = 4.
    """
    return -(-layers // layers_per_checkpoint) * tokens * width * bytes_per


def block_bytes(tokens: int, width: int, bytes_per: int, layers_per_checkpoint: int) -> int:
    """Inner states while a block of k layers is recomputed: (k - 1)·L·d·b, beside one layer's activations.

    The price in time: all but the last layer of a block run forward three times in a step instead of twice.
    """
    return (layers_per_checkpoint - 1) * tokens * width * bytes_per


def offload_device_bytes(tokens: int, width: int, bytes_per: int) -> int:
    """Checkpoints that are on the GPU at once although ``offload`` is on: 2·L·d·b (going out, coming in)."""
    return IN_FLIGHT * tokens * width * bytes_per


def mlp_bytes(
    tokens: int, intermediate: int, bytes_per: int, *, tile: int | None = None, gated: bool = True, product: bool = True
) -> int:
    """Intermediates that one MLP keeps for its backward pass: min(L, tile)·I·b times 4 (SwiGLU) or 2.

    SwiGLU: gate, its SiLU, up and their product; Liger's kernel keeps gate and up only. Their gradients come on top
    as they are computed, at most as much again. ``tile_mlp`` costs one more forward pass of the MLP.

    Args:
        product: whether the last matrix keeps its input, for a gradient of its weight or of LoRA on it.
    """
    return min(tokens, tile or tokens) * intermediate * bytes_per * ((3 if gated else 1) + product)


# ------------------------------------------------------------------ switching on


def check(settings: TrainSettings) -> None:
    """Refuse settings of checkpoints where there are none.

    Raises:
        UserError: with what to change.
    """
    if not settings.gradient_checkpointing and (settings.offload or settings.layers_per_checkpoint > 1):
        name = "offload" if settings.offload else "layers_per_checkpoint"
        raise UserError(
            f"train.{name} is about checkpoints, but train.gradient_checkpointing is off",
            "switch train.gradient_checkpointing on",
        )


def enable(base: Any, settings: TrainSettings) -> list[str]:
    """Have ``base`` save memory as ``settings`` say. Results stay the same, up to rounding with tiles and kernels.

    Args:
        base: the causal language model, with or without LoRA in its layers; changed in place.
        settings: gradient_checkpointing, layers_per_checkpoint, offload, tile_mlp, liger, device.

    Returns:
        What was done, for a report, e.g. ``["liger: rms_norm, rope, swiglu", "checkpoints of 4 layers, on the host"]``.

    Raises:
        UserError: the architecture has no layers or MLPs that this is possible for, or settings contradict.
    """
    from longlora.train import blocks, kernels, tiled
    from longlora.train.offload import HostOffload

    check(settings)
    per = settings.layers_per_checkpoint
    done = []
    applied = kernels.apply_liger(base, settings.liger, settings.device)
    if applied:
        done.append("liger: " + ", ".join(applied))
    if settings.tile_mlp:
        tiled.tile_mlp(base, settings.tile_mlp)
        if "rms_norm" not in applied:  # Liger's keeps no more
            tiled.tile_norms(base, settings.tile_mlp)
        done.append(f"MLP and norms over {settings.tile_mlp} tokens")
    if settings.gradient_checkpointing:
        if per == 1 and not settings.offload:
            checkpoint_layers(base)
        else:
            blocks.checkpoint_blocks(base, per, HostOffload().saving if settings.offload else None)
        done.append(f"checkpoints of {per} layer{'s' * (per > 1)}" + ", on the host" * settings.offload)
    return done


def give_back_freed() -> bool:
    """Have glibc return every freed block of `RETURNED` bytes or more to the system, in this process, from now on.

    By itself it raises that threshold to the largest block freed so far (32 MiB at most) and keeps what is below:
    rows differ in length, the blocks do not fit each other, and a training on a CPU grows to 1.4 times its tensors.

    Returns:
        Whether it was set: not with another C library, nor against the user's own MALLOC_MMAP_THRESHOLD_.
    """
    import ctypes
    import os
    import platform

    if platform.libc_ver()[0] != "glibc" or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return False
    return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, RETURNED))


def checkpoint_layers(model: Any) -> None:
    """Have each layer recomputed in the backward pass, by transformers' own means."""
    if hasattr(model, "activation_checkpointing_enable"):  # the name from transformers 5.2x on
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
