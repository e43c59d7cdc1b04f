"""What to change when a training does not fit: the first combination of fixes that does.

Fixes are tried from the cheapest to the dearest and added up; then those that turned out not to be
needed are dropped, the dearest first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from longlora.errors import UserError
from longlora.train.device import Device
from longlora.train.estimate import Estimate, estimate, with_settings
from longlora.train.launch import accumulation
from longlora.train.model import check_together
from longlora.train.settings import TrainSettings
from longlora.train.sizes import Sizes

LEAST_ROW = 512  # shorter rows are no long context
MOST_DEVICES = 64


@dataclass(frozen=True)
class Fix:
    """A change of settings: ``--set train.<key>=<value>`` for each, and what it costs."""

    changes: dict[str, Any]
    cost: str


@dataclass(frozen=True)
class Advice:
    """The fixes to make together, and what is needed with them; no fixes: nothing was found that fits."""

    fixes: tuple[Fix, ...]
    result: Estimate | None

    @property
    def changes(self) -> dict[str, Any]:
        return {key: value for fix in self.fixes for key, value in fix.changes.items()}


def advise(
    settings: TrainSettings, sizes: Sizes, device: Device, rows: Sequence[Sequence[int]] | None = None, **more: Any
) -> Advice:
    """The first combination that fits ``device``; ``more`` goes to `estimate`."""

    def predict(fixes: Sequence[Fix]) -> Estimate | None:
        changes = {key: value for fix in fixes for key, value in fix.changes.items()}
        try:
            changed = with_settings(settings, **changes)
            check_together(changed)
            accumulation(changed, changed.stated_devices)
        except (ValueError, UserError):  # training would refuse it
            return None
        own_rows = None if "row_tokens" in changes else rows  # other rows: packed anew, and full for all we know
        return estimate(changed, sizes, device, rows=own_rows, **more)

    def need(fixes: Sequence[Fix]) -> float:
        predicted = predict(fixes)
        if predicted is None:
            return float("inf")
        host = device.host_memory
        return max(predicted.memory / device.memory, predicted.host / host if host else 0.0)

    chosen: list[Fix] = []
    for family in _FAMILIES:
        if need(chosen) <= 1:
            break
        values = list(family(with_settings(settings, **Advice(tuple(chosen), None).changes), sizes, device))
        if not values:
            continue
        best = next((fix for fix in values if need([*chosen, fix]) <= 1), min(values, key=lambda f: need([*chosen, f])))
        if need([*chosen, best]) < need(chosen):
            chosen.append(best)
    if need(chosen) > 1:
        return Advice((), None)
    for fix in chosen[-2::-1]:  # the dearest first; the very last one is what made it fit
        others = [f for f in chosen if f is not fix]
        if need(others) <= 1:
            chosen = others
    return Advice(tuple(chosen), predict(chosen))


def _micro_batch(settings: TrainSettings, sizes: Sizes, device: Device) -> Iterator[Fix]:
    for size in range(settings.micro_batch_size - 1, 0, -1):
        if settings.global_batch_size % size == 0:
            yield Fix({"micro_batch_size": size}, "more, smaller batches: the same result, a little slower")


def _checkpointing(settings: TrainSettings, sizes: Sizes, device: Device) -> Iterator[Fix]:
    if not settings.gradient_checkpointing:
        yield Fix({"gradient_checkpointing": True}, "about a third more time")


def _layers_per_checkpoint(settings: TrainSettings, sizes: Sizes, device: Device) -> Iterator[Fix]:
    for layers in (2, 4, 8, 16):
        if sizes.one_kind and settings.layers_per_checkpoint < layers <= sizes.shape.layers // 2:
            yield Fix(
                {"layers_per_checkpoint": layers}, "nearly all layers are computed once more: about a quarter more time"
            )


def _offload(settings: TrainSettings, sizes: Sizes, device: Device) -> Iterator[Fix]:
    if device.kind == "cuda" and not settings.offload:
        yield Fix({"offload": True}, "host memory, and traffic over PCIe")


def _tile_mlp(settings: TrainSettings, sizes: Sizes, device: Device) -> Iterator[Fix]:
    for tokens in (16384, 8192, 4096, 2048):
        if settings.tile_mlp is None or tokens < settings.tile_mlp:
            yield Fix({"tile_mlp": tokens}, "the MLPs are computed once more")


def _quantize(settings: TrainSettings, sizes: Sizes, device: Device) -> Iterator[Fix]:
    if settings.quantize is None and settings.lora is not None and settings.strategy != "zero3":
        yield Fix({"quantize": "nf4"}, "slower steps, slightly worse; needs the extra qlora")


def _zero3(settings: TrainSettings, sizes: Sizes, device: Device) -> Iterator[Fix]:
    if device.kind != "cuda":
        return
    whole: dict[str, Any] = {"quantize": None} if settings.quantize else {}  # DeepSpeed shares no 4-bit weights
    if settings.optimizer != "adamw":
        whole["optimizer"] = "adamw"  # and the state of its own optimizers alone
    count = 2
    while count <= MOST_DEVICES and settings.global_batch_size % (count * settings.micro_batch_size) == 0:
        yield Fix({"strategy": "zero3", "devices": count, **whole}, f"{count} devices; needs the extra deepspeed")
        count *= 2


def _shorter_rows(settings: TrainSettings, sizes: Sizes, device: Device) -> Iterator[Fix]:
    tokens = (settings.row_tokens or sizes.window) // 2
    while tokens >= LEAST_ROW:
        yield Fix({"row_tokens": tokens}, "another training: no longer context than this is learned")
        tokens //= 2


_Family = Callable[[TrainSettings, Sizes, Device], Iterator[Fix]]
_FAMILIES: tuple[_Family, ...] = (
    _micro_batch, _checkpointing, _layers_per_checkpoint, _offload, _tile_mlp, _quantize, _zero3, _shorter_rows,
)  # fmt: skip
