"""The memory of one device in a training, part by part.

In bytes; T tokens in a micro batch, e bytes of the compute dtype, d hidden, m MLP width:

    weights        frozen parameters in e (4-bit: NF4 with double quantisation, 4.127 bits; arXiv 2305.14314)
    trained        4 weights + 4 gradients + 8 AdamW (2 if 8-bit) per parameter, all fp32
    checkpoints    T·d·e for each block of layers; with offload on the host, two on the device
    layers         what one layer keeps for its backward pass and what that pass needs on top; without recomputation
                   what all layers keep stands apart, as "kept layers"
    loss           the last hidden states, one chunk of logits, the gradient of a trained head
    loading        the base model in host memory, before it goes to the GPU; what is loaded to be shared out by ZeRO-3
                   goes there one parameter at a time, so the GPU needs no more for it
    workspace      Python, libraries and kernels

What a layer keeps is listed in `_kept`; it follows transformers' modules and torch's autograd, where a tensor is
saved only if a gradient needs it: the inputs of frozen layers are not. Liger's kernels keep less than is said here.

Measured on a CPU, fp32: a training of SmolLM2-135M with rows of 2,048 tokens needs 8 % less than predicted, one of a
two-layer model with 8,192 tokens 1 % (10 % without checkpoints). The whole process of the first peaks 3 % above the
prediction; it would at 1.4 times that with freed blocks kept, as glibc does by itself (`memory.give_back_freed`).
Nothing has been measured on a GPU yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from longlora.flops import Shape
from longlora.train import memory
from longlora.train.settings import TrainSettings

if TYPE_CHECKING:
    from longlora.train.sizes import Sizes

NF4_BYTES = 4.127 / 8  # 4 bits, 8 for each 64 weights, 32 for each 64·256
WORKSPACE = {
    "cuda": "CUDA context and libraries",
    "cpu": "Python and libraries; with a C library other than glibc, freed blocks may come on top",
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
    state = memory.checkpoint_bytes(1, tokens, s.hidden, e)
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

    per = settings.layers_per_checkpoint
    kept, backward = _kept(settings, sizes, tokens), _backward(settings, s, tokens, e)
    if settings.gradient_checkpointing:
        states = memory.checkpoint_bytes(s.layers, tokens, s.hidden, e, per)
        how, on_host = f"{states // state} of {_size(state)}", 0
        if settings.offload and kind == "cuda":
            states, on_host = min(states, memory.offload_device_bytes(tokens, s.hidden, e)), states
            how += ", two on the device at a time"
        parts.append(Part("checkpoints", states, host=on_host, how=how))
        inside = memory.block_bytes(tokens, s.hidden, e, per)
        layers = Part("layers", kept + backward + inside, how="one layer, recomputed", during="layers")
    else:
        parts.append(Part("kept layers", kept * s.layers, how=f"{s.layers} layers of {_size(kept)}, none recomputed"))
        layers = Part("layers", backward, how="backward pass of one layer", during="layers")
    parts += [layers, _loss(settings, sizes, tokens, e)]
    if kind == "cuda" and not settings.quantize:  # 4-bit weights are made on the device, tensor by tensor
        loaded = sizes.total * (4 if settings.lora is None else e)
        parts.append(Part("loading", 0.0, host=loaded, how="each process reads the whole model", during="start"))
    return (*parts, Part("workspace", LIBRARIES[kind], how=WORKSPACE[kind]))


def _kept(settings: TrainSettings, sizes: Sizes, tokens: int) -> float:
    """What one layer keeps for its backward pass, besides its input, per micro batch."""
    s, e = sizes.shape, 2 if settings.dtype == "bfloat16" else 4
    d, m, queries, keys = s.hidden, s.intermediate, s.heads * s.head_dim, s.kv_heads * s.head_dim
    # RMSNorm computes in fp32 and keeps that copy of its input; for its own weight it keeps the normalised input.
    norms = 2 * (d * 4 + d * e * sizes.norms_trained) if sizes.rms_norm else 2 * d * e
    if settings.tile_mlp:
        norms = d * e  # the input of the second alone; that of the first is the layer's
    # queries, keys, values, the heads' outputs in two halves and joined; the input of LoRA on q, k, v
    attention = e * (queries + 2 * keys + 2 * queries + d) + 4 * s.heads
    mlp = memory.mlp_bytes(tokens, m, e, tile=settings.tile_mlp, gated=s.mlp == 3 * d * m, product=sizes.mlp_input_kept)
    own_input = e * d * (sizes.mlp_input_kept or _tiled(settings, tokens) < tokens)
    return tokens * (norms + attention + own_input) + mlp


def _backward(settings: TrainSettings, s: Shape, tokens: int, e: int) -> float:
    """What the backward pass of a layer needs on top: gradients inside the MLP, and of the residual stream."""
    return _tiled(settings, tokens) * 3 * s.intermediate * e + tokens * 2 * s.hidden * e


def _tiled(settings: TrainSettings, tokens: int) -> int:
    return min(tokens, settings.tile_mlp or tokens)


def _loss(settings: TrainSettings, sizes: Sizes, tokens: int, e: int) -> Part:
    s = sizes.shape
    chunk = memory.even_chunk(tokens, memory.chunk_rows(s.vocabulary))
    # the last norm's fp32 copy and output, the selection of supervised states and its gradient
    hidden = tokens * s.hidden * (4 + 3 * e)
    plain = settings.strategy != "zero3"  # whose head is gathered when it is called
    logits = memory.logits_chunk_bytes(tokens, s.vocabulary, e, plain_head=plain)
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
