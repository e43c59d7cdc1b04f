"""Memory and time of a training, predicted from settings, sizes and a device.

Memory is the sum of `longlora.train.footprint`'s parts that are there all the time and the larger of the two that are
not there together, a layer's backward pass and the loss; on a GPU 5 % of what comes and goes is added for fragments.
Time is operations (longlora.flops) over peak and efficiency. Offloading and communication are taken as hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from longlora.flops import Flops, Shape, Work
from longlora.train.footprint import Part, memory_parts
from longlora.train.preflight import group_of
from longlora.train.settings import TrainSettings

if TYPE_CHECKING:
    from longlora.train.device import Device
    from longlora.train.sizes import Sizes

FRAGMENTS = {"cuda": 0.05, "cpu": 0.0}
EFFICIENCY = {"cuda": 0.45, "cpu": 0.5}  # assumed where none was measured
NARROW = 0.9  # of a device's memory
ROW_MULTIPLE = 128  # rows are padded to it


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
        moving = max(phases.values()) + sum(p.device for p in self.parts if p.name in ("checkpoints", "kept layers"))
        always = sum(p.device for p in self.parts if not p.during)
        return always + max(phases.values()) + FRAGMENTS[self.device.kind] * moving

    @property
    def host(self) -> float:
        """Bytes of host memory, all devices of one machine together: at the start the model, then checkpoints."""
        start, later = (sum(p.host for p in self.parts if (p.during == "start") is first) for first in (True, False))
        return self.devices * max(start, later)

    @property
    def fits(self) -> bool:
        """Whether it fits the device, and what is offloaded the host where that is known."""
        host = self.device.host_memory
        return self.memory <= self.device.memory and (host is None or self.host <= host)

    @property
    def narrow(self) -> bool:
        """Whether less is left over than estimates are off by."""
        host = self.device.host_memory
        return self.memory > NARROW * self.device.memory or (host is not None and self.host > NARROW * host)

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
    count = devices or settings.stated_devices
    longest = max(sum(row) for row in rows) if rows else row_tokens
    length = -(-longest // ROW_MULTIPLE) * ROW_MULTIPLE
    work = training_work(
        settings, sizes.shape, group=group_of(settings, row_tokens), lora=sizes.lora, head_trained=sizes.head_trained
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


def training_work(settings: TrainSettings, shape: Shape, *, group: int | None, lora: int, head_trained: bool) -> Work:
    """What a step computes with these settings (`longlora.flops.Work`)."""
    # A block of layers is run again, and in it each layer but the last once more.
    blocks = -(-shape.layers // settings.layers_per_checkpoint)
    again = 1 + (shape.layers - blocks) / shape.layers
    return Work(
        shape,
        group=group,
        wrap=settings.attention == "s2_attn_wrap",
        lora=lora,
        layers_trained=settings.lora is None,
        head_trained=head_trained,
        recomputed=again if settings.gradient_checkpointing else 0,
        mlp_recomputed=int(settings.tile_mlp is not None),
    )


def with_settings(settings: TrainSettings, **changes: object) -> TrainSettings:
    """A copy with fields changed, checked as if they had been given.

    Raises:
        ValueError: they exclude each other.
    """
    return TrainSettings.model_validate({**settings.model_dump(), **changes})
