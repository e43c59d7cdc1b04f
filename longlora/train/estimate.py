"""Memory and time of a training, predicted from settings, sizes and a device.

Memory of one device, in bytes (T tokens in a micro batch, e bytes of the compute dtype, d hidden, m MLP width):

    weights        frozen parameters in e (4-bit: NF4 with double quantisation, 4.127 bits; arXiv 2305.14314)
    trained        4 weights + 4 gradients + 8 AdamW (2 if 8-bit) per parameter (as in ZeRO, arXiv 1910.02054)
    checkpoints    T·d·e for each block of layers; with offload on the host, two on the device
    layers         what one layer keeps for its backward pass and what that pass needs on top; every layer's
                   where nothing is recomputed
    loss           the last hidden states, one chunk of logits, the gradient of a trained head
    workspace      libraries and kernels; on a GPU 5 % of the moving parts, for fragments, as well

Weights, trained and checkpoints are there all the time; of layers and loss the larger one counts, as one is over
before the other begins (without checkpointing the layers' part is kept during the loss). What a layer keeps is
listed in `_kept`; it follows transformers' modules and torch's autograd, where a tensor is saved only if a gradient
needs it: the inputs of frozen layers are not.

Time is operations (longlora.flops) over peak and efficiency. Offloading and communication are taken as hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from longlora.attention import group_tokens
from longlora.flops import Flops, Shape, Work
from longlora.train.settings import TrainSettings

if TYPE_CHECKING:
    from longlora.train.device import Device
    from longlora.train.sizes import Sizes

NF4_BYTES = 4.127 / 8  # 4 bits, 8 for each 64 weights, 32 for each 64·256
LOGIT_BYTES = 12  # of a logit at the worst moment, all fp32: log-softmax, its gradient, the logits' gradient
LIBRARIES = {"cuda": 0.7e9, "cpu": 0.5e9}  # CUDA context and cuBLAS; Python, torch and transformers
FRAGMENTS = {"cuda": 0.05, "cpu": 0.0}
EFFICIENCY = {"cuda": 0.45, "cpu": 0.5}  # assumed where none was measured
ROW_MULTIPLE = 128  # rows are padded to it


@dataclass(frozen=True)
class Part:
    """Bytes of one kind. ``during``: "" for all the time, else the phase in which they are there."""

    name: str
    device: float
    host: float = 0.0
    how: str = ""
    during: str = ""


@dataclass(frozen=True)
class Estimate:
    """What a training needs. Times are None where the device's peak is not known."""

    settings: TrainSettings
    device: Device
    row_tokens: int
    devices: int
    parts: tuple[Part, ...]
    flops: Flops  # of a step, all devices
    efficiency: float
    efficiency_source: str
    steps: int | None
    step_tokens: int

    @property
    def memory(self) -> float:
        """Bytes on each device at the peak."""
        phases = {name: sum(p.device for p in self.parts if p.during == name) for name in ("layers", "loss")}
        moving = max(phases.values()) + sum(p.device for p in self.parts if p.name == "checkpoints")
        always = sum(p.device for p in self.parts if not p.during)
        return always + max(phases.values()) + FRAGMENTS[self.device.kind] * moving

    @property
    def host(self) -> float:
        """Bytes of host memory for offloaded checkpoints, all devices of one machine together."""
        return self.devices * sum(p.host for p in self.parts)

    @property
    def fits(self) -> bool:
        """Whether it fits the device, and what is offloaded the host where that is known."""
        host = self.device.host_memory
        return self.memory <= self.device.memory and (host is None or self.host <= host)

    @property
    def step_seconds(self) -> float | None:
        if not self.device.peak:
            return None
        return self.flops.total / (self.devices * self.device.peak * self.efficiency)

    @property
    def total_seconds(self) -> float | None:
        seconds = self.step_seconds
        return None if seconds is None or self.steps is None else seconds * self.steps


def estimate(
    settings: TrainSettings,
    sizes: Sizes,
    device: Device,
    *,
    rows: Sequence[Sequence[int]] | None = None,
    efficiency: tuple[float, str] | None = None,
    devices: int | None = None,
) -> Estimate:
    """Predict memory and time.

    Args:
        settings: dtype resolved (not auto).
        sizes: of `longlora.train.sizes.measure`, with these settings' adapters.
        device: one of the devices.
        rows: lengths of the documents of each packed row, where the data is known; None: every row is full and
            one document.
        efficiency: share of the peak that is reached, and where the number is from; None: `EFFICIENCY`, assumed.
        devices: how many; None: ``settings.devices``, auto as 1.
    """
    row_tokens = settings.row_tokens or sizes.window
    count = devices or (settings.devices if isinstance(settings.devices, int) else 1)
    longest = max(sum(row) for row in rows) if rows else row_tokens
    length = -(-longest // ROW_MULTIPLE) * ROW_MULTIPLE
    work = training_work(
        settings, sizes.shape, group=_group(settings, row_tokens), lora=sizes.lora, head_trained=sizes.head_trained
    )
    batch, steps = settings.global_batch_size, settings.max_steps
    if rows:
        documents = [n for row in rows for n in row]
        whole = work.step(documents)
        share = batch / len(rows)  # a step of average rows
        flops = Flops(whole.linear * share, whole.attention * share, whole.head * share, whole.recomputed * share)
        tokens = round(sum(documents) * share)
        steps = steps or max(1, round(settings.epochs * len(rows) / batch))
    else:
        flops, tokens = work.step([row_tokens] * batch), row_tokens * batch
    value, source = efficiency or (EFFICIENCY[device.kind], "assumed")
    return Estimate(
        settings=settings,
        device=device,
        row_tokens=row_tokens,
        devices=count,
        parts=memory_parts(settings, sizes, device.kind, length, count),
        flops=flops,
        efficiency=value,
        efficiency_source=source,
        steps=steps,
        step_tokens=tokens,
    )


def _group(settings: TrainSettings, row_tokens: int) -> int | None:
    return None if settings.attention == "full" else group_tokens(settings.group, row_tokens)


def training_work(settings: TrainSettings, shape: Shape, *, group: int | None, lora: int, head_trained: bool) -> Work:
    """What a step computes with these settings (`longlora.flops.Work`)."""
    several = settings.layers_per_checkpoint > 1  # the block is run again, and in it each layer once more
    return Work(
        shape,
        group=group,
        wrap=settings.attention == "s2_attn_wrap",
        lora=lora,
        layers_trained=settings.lora is None,
        head_trained=head_trained,
        recomputed=(1 + several) if settings.gradient_checkpointing else 0,
        mlp_recomputed=int(settings.tile_mlp is not None),
    )


def head_chunk(vocabulary: int) -> int:
    """Positions whose logits exist at once in the loss."""
    from longlora.train import loss

    fixed = getattr(loss, "CHUNK", None)
    return int(fixed) if fixed else max(1, int(getattr(loss, "CHUNK_BYTES", 2**28)) // (4 * vocabulary))


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
    adam = 2 if settings.optimizer == "paged_adamw_8bit" else 8
    parts = [
        Part("weights", frozen + gathered, how=_weights_note(settings, zero3)),
        Part("trained", trained * (4 / zero3 + 4 / zero2 + adam / zero2), how=_trained_note(sizes, adam, zero2)),
    ]

    blocks = -(-s.layers // settings.layers_per_checkpoint)
    kept, backward = _kept(settings, sizes, tokens), _backward(settings, s, tokens, e)
    if settings.gradient_checkpointing:
        inside = settings.layers_per_checkpoint if settings.layers_per_checkpoint > 1 else 0
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
    return (*parts, Part("workspace", LIBRARIES[kind], how="libraries and kernels"))


def _kept(settings: TrainSettings, sizes: Sizes, tokens: int) -> float:
    """What one layer keeps for its backward pass, besides its input, per micro batch."""
    s, e = sizes.shape, 2 if settings.dtype == "bfloat16" else 4
    d, m, queries, keys = s.hidden, s.intermediate, s.heads * s.head_dim, s.kv_heads * s.head_dim
    # RMSNorm computes in fp32 and keeps that copy of its input; for its own weight it keeps the normalised input.
    norm = d * 4 + d * e * sizes.norms_trained if sizes.rms_norm else d * e
    half_splits = (s.heads // 2) % (s.heads // s.kv_heads) == 0  # else keys and values are repeated for each head
    keys = keys if half_splits else queries
    # queries, keys, values, the heads' outputs in two halves and joined; the input of LoRA on q, k, v
    attention = e * (queries + 2 * keys + 2 * queries + d) + 4 * s.heads
    matrices = s.mlp // (d * m)
    width = m * (matrices if matrices == 3 else 1)  # gate, its activation, up; or the one before the activation
    tiled = _tiled(settings, tokens)
    mlp = e * (width + m * sizes.mlp_input_kept)
    own_input = e * d * (sizes.mlp_input_kept or tiled < tokens)
    return tokens * (2 * norm + attention + own_input) + tiled * mlp


def _backward(settings: TrainSettings, s: Shape, tokens: int, e: int) -> float:
    """What the backward pass of a layer needs on top: gradients inside the MLP, and of the residual stream."""
    return _tiled(settings, tokens) * 3 * s.intermediate * e + tokens * 2 * s.hidden * e


def _tiled(settings: TrainSettings, tokens: int) -> int:
    return min(tokens, settings.tile_mlp or tokens)


def _loss(sizes: Sizes, tokens: int, e: int) -> Part:
    s = sizes.shape
    chunk = min(tokens, head_chunk(s.vocabulary))
    hidden = tokens * s.hidden * (4 + 4 * e)  # the last norm's fp32 copy, its output, their selection and gradients
    logits = chunk * s.vocabulary * LOGIT_BYTES
    head = s.head * (4 + (2 if e == 2 else 0)) if sizes.head_trained else 0  # gradient of a chunk; bf16 copy
    return Part("loss", hidden + logits + head, how=f"logits of {chunk:,} positions: {_size(logits)}", during="loss")


def _weights_note(settings: TrainSettings, zero3: int) -> str:
    note = "NF4, embeddings and norms in " + settings.dtype if settings.quantize else settings.dtype
    return note + (f", a {zero3}th each and two whole layers" if zero3 > 1 else "")


def _trained_note(sizes: Sizes, adam: int, zero2: int) -> str:
    counts = ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in sizes.trained.items())
    return f"{counts}; weights, gradients, Adam: {8 + adam} bytes each" + (f", shared by {zero2}" if zero2 > 1 else "")


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def with_settings(settings: TrainSettings, **changes: object) -> TrainSettings:
    """A copy with fields changed, checked as if they had been given.

    Raises:
        ValueError: they exclude each other.
    """
    return TrainSettings.model_validate({**settings.model_dump(), **changes})
