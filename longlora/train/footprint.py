"""The memory of one device in a training, part by part.

In bytes; T tokens in a micro batch, e bytes of the compute dtype, d hidden, m MLP width:

    weights        frozen parameters in e (4-bit: NF4 with double quantisation, 4.127 bits; arXiv 2305.14314)
    trained        4 weights + 4 gradients + 8 AdamW (2 if 8-bit) per parameter, all fp32
    checkpoints    T·d·e for each block of layers; with offload on the host, two on the device
    layers         what one layer keeps for its backward pass and what that pass needs on top; without recomputation
                   what all layers keep stands apart, as "kept layers"
    loss           the last hidden states, one chunk of logits, the gradient of a trained head
    workspace      Python, libraries and kernels

What a layer keeps is listed in `_kept`; it follows transformers' modules and torch's autograd, where a tensor is
saved only if a gradient needs it: the inputs of frozen layers are not. Liger's kernels keep less than is said here.

Measured on a CPU, fp32: a training of SmolLM2-135M with rows of 2,048 tokens needs 8 % less than predicted, one of a
two-layer model with 8,192 tokens 1 % (10 % without checkpoints). That is what its tensors need; with glibc's default
settings the process keeps freed blocks and grows to 1.4 times the prediction in the first case (1.1 without
checkpoints). Nothing has been measured on a GPU yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from longlora.flops import Shape
from longlora.train.settings import TrainSettings

if TYPE_CHECKING:
    from longlora.train.sizes import Sizes

NF4_BYTES = 4.127 / 8  # 4 bits, 8 for each 64 weights, 32 for each 64·256
WORKSPACE = {
    "cuda": "CUDA context and libraries",
    "cpu": "Python and libraries; freed blocks that the C library keeps may come on top, up to 0.4 of the rest",
}
LIBRARIES = {"cuda": 0.7e9, "cpu": 0.5e9}  # CUDA context and cuBLAS; Python, torch and transformers


@dataclass(frozen=True)
class Part:
    """Bytes of one kind. ``during``: "" for all the time, else the phase in which they are there."""

    name: str
    device: float
    host: float = 0.0
    how: str = ""
    during: str = ""


def memory_parts(settings: TrainSettings, sizes: Sizes, kind: str, length: int, devices: int) -> tuple[Part, ...]:
    """Bytes of each kind on one device.

    Args:
        settings, sizes: see `estimate`.
        kind: cpu or cuda.
        length: tokens of a row, padded.
        devices: over which ZeRO shares.
    """
    s, e = sizes.shape, 2 if settings.dtype == "bfloat16" else 4
    tokens = settings.micro_batch_size * length
    state = tokens * s.hidden * e  # one checkpoint
    zero2 = devices if settings.strategy in ("zero2", "zero3") else 1
    zero3 = devices if settings.strategy == "zero3" else 1

    linear = NF4_BYTES if settings.quantize else e
    frozen = (sizes.frozen_linear * linear + sizes.frozen_other * e) / zero3
    gathered = 2 * (s.attention + s.mlp) * e if zero3 > 1 else 0  # a layer at work, and the next one
    trained = sum(sizes.trained.values())
    small = settings.optimizer == "paged_adamw_8bit"  # but for embeddings, which take 8 bits badly
    adam = sum(n * (2 if small and name not in ("embed", "head") else 8) for name, n in sizes.trained.items())
    casts = 2 * trained if settings.lora is None and e == 2 else 0  # autocast keeps bf16 copies for a pass
    parts = [
        Part("weights", frozen + gathered, how=_weights_note(settings, zero3)),
        Part("trained", trained * 4 / zero3 + (trained * 4 + adam) / zero2 + casts, how=_trained_note(sizes, zero2)),
    ]

    blocks = -(-s.layers // settings.layers_per_checkpoint)
    kept, backward = _kept(settings, sizes, tokens), _backward(settings, s, tokens, e)
    if settings.gradient_checkpointing:
        inside = settings.layers_per_checkpoint - 1  # states between the layers of the block at work
        offloaded = settings.offload and kind == "cuda"
        parts.append(
            Part(
                "checkpoints",
                state * min(2, blocks) if offloaded else state * blocks,
                host=state * blocks if offloaded else 0.0,
                how=f"{blocks} of {_size(state)}" + (", two on the device at a time" if offloaded else ""),
            )
        )
        layers = Part("layers", kept + backward + inside * state, how="one layer, recomputed", during="layers")
    else:
        parts.append(Part("kept layers", kept * s.layers, how=f"{s.layers} layers of {_size(kept)}, none recomputed"))
        layers = Part("layers", backward, how="backward pass of one layer", during="layers")
    parts += [layers, _loss(sizes, tokens, e)]
    return (*parts, Part("workspace", LIBRARIES[kind], how=WORKSPACE[kind]))


def _kept(settings: TrainSettings, sizes: Sizes, tokens: int) -> float:
    """What one layer keeps for its backward pass, besides its input, per micro batch."""
    s, e = sizes.shape, 2 if settings.dtype == "bfloat16" else 4
    d, m, queries, keys = s.hidden, s.intermediate, s.heads * s.head_dim, s.kv_heads * s.head_dim
    tiled = _tiled(settings, tokens)
    # RMSNorm computes in fp32 and keeps that copy of its input; for its own weight it keeps the normalised input.
    norms = 2 * (d * 4 + d * e * sizes.norms_trained) if sizes.rms_norm else 2 * d * e
    if settings.tile_mlp:
        norms = d * e  # the input of the second alone; that of the first is the layer's
    # queries, keys, values, the heads' outputs in two halves and joined; the input of LoRA on q, k, v
    attention = e * (queries + 2 * keys + 2 * queries + d) + 4 * s.heads
    matrices = s.mlp // (d * m)
    width = m * (matrices if matrices == 3 else 1)  # gate, its activation, up; or the one before the activation
    mlp = e * (width + m * sizes.mlp_input_kept)
    own_input = e * d * (sizes.mlp_input_kept or tiled < tokens)
    return tokens * (norms + attention + own_input) + tiled * mlp


def _backward(settings: TrainSettings, s: Shape, tokens: int, e: int) -> float:
    """What the backward pass of a layer needs on top: gradients inside the MLP, and of the residual stream."""
    return _tiled(settings, tokens) * 3 * s.intermediate * e + tokens * 2 * s.hidden * e


def _tiled(settings: TrainSettings, tokens: int) -> int:
    return min(tokens, settings.tile_mlp or tokens)


def _loss(sizes: Sizes, tokens: int, e: int) -> Part:
    s = sizes.shape
    chunk = -(-tokens // -(-tokens // head_chunk(s.vocabulary)))  # chunks of one size, as few as go
    # the last norm's fp32 copy and output, the selection of supervised states and its gradient
    hidden = tokens * s.hidden * (4 + 3 * e)
    logits = chunk * s.vocabulary * (4 + e)  # log-softmax, in place its gradient, and that in the compute dtype
    head = s.head * (4 * sizes.head_trained + (2 if e == 2 and sizes.head_trained else 0))  # gradient; bf16 copy
    return Part("loss", hidden + logits + head, how=f"logits of {chunk:,} positions: {_size(logits)}", during="loss")


def _weights_note(settings: TrainSettings, zero3: int) -> str:
    note = "NF4, embeddings and norms in " + settings.dtype if settings.quantize else settings.dtype
    return note + (f", a {zero3}th each and two whole layers" if zero3 > 1 else "")


def _trained_note(sizes: Sizes, zero2: int) -> str:
    counts = ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in sizes.trained.items())
    return f"{counts}: fp32 weights, gradients, Adam" + (f", shared by {zero2}" if zero2 > 1 else "")


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def head_chunk(vocabulary: int) -> int:
    """Positions whose logits exist at once in the loss."""
    from longlora.train import loss

    fixed = getattr(loss, "CHUNK", None)
    return int(fixed) if fixed else max(1, int(getattr(loss, "CHUNK_BYTES", 2**28)) // (4 * vocabulary))
