"""The command ``longfolio train``: the train stage alone, or what it will need."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_common import (
    ConfigArgument,
    JsonOption,
    NoPrefectOption,
    PdfsOption,
    SetOption,
    StoreOption,
    guarded,
    print_json,
    resolve_store,
)

if TYPE_CHECKING:
    from rich.table import Table

    from flows.config import RunConfig
    from longlora.train.advice import Advice
    from longlora.train.device import Device
    from longlora.train.estimate import Estimate
    from longlora.train.settings import TrainSettings
    from longlora.train.sizes import Sizes


def train(
    config: ConfigArgument,
    pdfs: PdfsOption = None,
    store: StoreOption = None,
    set_: SetOption = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Predict memory and time, and say what to change if it will not fit.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            "--device", metavar="NAME", help='For --estimate: a GPU such as "H100 80GB", or cpu; default: this machine.'
        ),
    ] = None,
    no_prefect: NoPrefectOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the adapter of a run file on the dataset in the store: `run --from train --until train`."""
    with guarded(as_json):
        from flows.errors import UsageError

        if device is not None and not estimate:
            raise UsageError("--device is for --estimate", "train.device says where to train: --set train.device=cpu")
    if not estimate:
        from flows.cli import run

        run(
            config, pdfs=pdfs, store=store, set_=set_, from_="train", until="train", no_prefect=no_prefect,
            as_json=as_json,
        )  # fmt: skip
        return
    with guarded(as_json):
        from flows.config import load

        settings = load(config, overrides=set_ or (), pdfs=pdfs or (), store=store)
        sizes, predicted, advice, data = _predict(settings, device, resolve_store(settings))
        if as_json:
            print_json(_as_json(sizes, predicted, advice, data))
        else:
            _show(sizes, predicted, advice, data)


def _predict(config: RunConfig, device_name: str | None, store: Path) -> tuple[Sizes, Estimate, Advice | None, str]:
    """The estimate, advice where it does not fit, and what is known of the data."""
    from longlora.train.advice import advise
    from longlora.train.estimate import estimate
    from longlora.train.sizes import measure

    device, settings = _device(config.train, device_name)
    devices = None
    if settings.devices == "auto" and device.here and device.kind == "cuda":
        import torch

        devices = torch.cuda.device_count()
    sizes = measure(config.model, settings, devices)
    rows, data = _rows(config, settings, sizes, store)
    more: dict[str, Any] = {"efficiency": _measured_efficiency(store) if device.here else None}
    predicted = estimate(settings, sizes, device, rows=rows, devices=devices, **more)  # the advice chooses its own
    return sizes, predicted, None if predicted.fits else advise(settings, sizes, device, rows, **more), data


def _device(settings: TrainSettings, name: str | None) -> tuple[Device, TrainSettings]:
    """The device, and the settings with the dtype that ``auto`` stands for there."""
    from longlora.hardware import resolve_device, resolve_dtype
    from longlora.train.device import named_device, this_device

    foreign = name is not None and not name.lower().startswith("cpu")
    dtype = "bfloat16" if foreign and settings.dtype == "auto" else resolve_dtype(settings.dtype)
    settings = settings.model_copy(update={"dtype": dtype})
    device = named_device(name, dtype) if name is not None else this_device(resolve_device(settings.device), dtype)
    return device, settings


def _rows(config: RunConfig, settings: TrainSettings, sizes: Sizes, store: Path) -> tuple[list[list[int]] | None, str]:
    """The lengths in each packed row of the dataset, where it is in the store; and where the numbers are from."""
    from flows.errors import UsageError
    from flows.figures import token_lengths
    from flows.plan import Selection, make_plan
    from flows.store import Store
    from longlora import models
    from longlora.errors import UserError

    full = "every row full (no dataset in the store)"
    local = config.model.path is not None or config.model.name in models.EMBEDDED  # else planning would download it
    if settings.data != "sft" or not local or not store.is_dir():
        return None, full if settings.data == "sft" else "every row full"
    with suppress(UsageError, UserError, OSError):
        stage = next(s for s in make_plan(config, Store(store), Selection()).stages if s.name == "datasets_build")
        if stage.action == "cached":
            from longlora.train.data import pack

            lengths = token_lengths(Path(stage.path))["train"]
            row = settings.row_tokens or sizes.window
            if lengths and max(lengths) <= row:
                packed = pack(lengths, row) if settings.packing else [[i] for i in range(len(lengths))]
                return [
                    [lengths[i] for i in items] for items in packed
                ], f"the dataset in the store, {len(packed)} rows"
    return None, full


def _measured_efficiency(store: Path) -> tuple[float, str] | None:
    """The median utilisation of the newest training in the store."""
    from statistics import median

    from flows.figures import finite, read_lines

    files = [path for part in ("stages/train/*", "work/train/*") for path in store.glob(f"{part}/metrics.jsonl")]
    for path in sorted(files, key=lambda p: p.stat().st_mtime, reverse=True):
        values = [line["utilisation"] for line in read_lines(path) if finite(line.get("utilisation"))]
        if values and median(values) > 0:
            return median(values), "measured, last training in the store"
    return None


def _as_json(sizes: Sizes, predicted: Estimate, advice: Advice | None, data: str) -> dict[str, Any]:
    device = predicted.device
    return {
        "model": sizes.name,
        "parameters": {"base": sizes.total, "trained": sizes.trained},
        "device": {
            "name": device.name, "kind": device.kind, "memory_bytes": device.memory, "devices": predicted.devices,
            "peak_flops_per_second": device.peak, "peak_source": device.peak_source,
        },
        "dtype": predicted.settings.dtype,
        "row_tokens": predicted.row_tokens,
        "data": data,
        "memory": {
            "parts": [
                {"name": p.name, "device_bytes": round(p.device), "host_bytes": round(p.host), "how": p.how,
                 "during": p.during or "always"}
                for p in predicted.parts
            ],
            "device_bytes": round(predicted.memory),
            "host_bytes": round(predicted.host),
        },
        "fits": predicted.fits,
        "narrow": predicted.narrow,
        "time": {
            "flops_per_step": round(predicted.flops.total),
            "efficiency": predicted.efficiency,
            "efficiency_source": predicted.efficiency_source,
            "step_seconds": predicted.step_seconds,
            "steps": predicted.steps,
            "total_seconds": predicted.total_seconds,
            "tokens_per_second": _pace(predicted),
        },
        "advice": None if advice is None else {
            "found": advice.result is not None,
            "set": [f"train.{key}={_value(value)}" for key, value in advice.changes.items()],
            "narrow": advice.result.narrow if advice.result else None,
            "device_bytes": round(advice.result.memory) if advice.result else None,
            "host_bytes": round(advice.result.host) if advice.result else None,
            "step_seconds": advice.result.step_seconds if advice.result else None,
        },
    }  # fmt: skip


def _show(sizes: Sizes, predicted: Estimate, advice: Advice | None, data: str) -> None:
    from rich.markup import escape

    from flows.display import out
    from flows.figures import size

    device, settings = predicted.device, predicted.settings
    trained = sum(sizes.trained.values())
    many = f"{predicted.devices} x " if predicted.devices > 1 else ""
    out.print(
        f"[bold]{escape(sizes.name)}[/]  {sizes.total / 1e6:,.0f} M parameters, {trained / 1e6:,.1f} M trained; "
        f"rows of {predicted.row_tokens:,} tokens, {settings.micro_batch_size} at a time; {escape(data)}",
        soft_wrap=True,
    )
    out.print(_memory_table(predicted))
    verdict = "[yellow]fits narrowly[/]" if predicted.narrow else "[green]fits[/]"
    if not predicted.fits:
        verdict = "[bold red]does not fit[/]"
    host = f", {size(predicted.host)} of host memory" if predicted.host else ""
    out.print(f"{verdict}  {many}{escape(device.name)}: {size(predicted.memory)} of {size(device.memory)}{host}")
    out.print(_time_line(predicted), markup=False, soft_wrap=True)
    if advice is None:
        return
    if advice.result is None:
        out.print("[bold]do[/]    nothing that is known makes it fit: take a larger device or a smaller model")
        return
    out.print("[bold]do[/]    make it fit with:")
    for fix in advice.fixes:
        options = " ".join(f"--set train.{key}={_value(value)}" for key, value in fix.changes.items())
        out.print(f"        {options}   [dim]{escape(fix.cost)}[/]", soft_wrap=True)
    host = f" and {size(advice.result.host)} of host memory" if advice.result.host else ""
    narrow = " (narrowly)" if advice.result.narrow else ""
    out.print(f"      then {size(advice.result.memory)}{host}{narrow}; {_time_line(advice.result)}", soft_wrap=True)


def _memory_table(predicted: Estimate) -> Table:
    from flows.display import new_table
    from flows.figures import size

    table = new_table()
    table.add_column("memory", style="bold", no_wrap=True)
    table.add_column("device", justify="right", no_wrap=True)
    table.add_column("host", justify="right", no_wrap=True)
    table.add_column("what", overflow="fold", ratio=1)
    phases = {p.during: p.device for p in predicted.parts if p.during}
    for part in predicted.parts:
        smaller = part.during and part.device < max(phases.values())
        note = " (not at the same time as the larger one above or below)" if smaller else ""
        table.add_row(
            part.name, size(part.device), size(part.host) if part.host else "", part.how + note,
            style="dim" if smaller else "",
        )  # fmt: skip
    table.add_row("peak", size(predicted.memory), size(predicted.host) if predicted.host else "", "")
    return table


def _time_line(predicted: Estimate) -> str:
    device = predicted.device
    if predicted.step_seconds is None:
        return f"time    not predicted: the peak of {device.name} is {device.peak_source}"
    text = f"time    {_duration(predicted.step_seconds)} a step ({_pace(predicted):,.0f} tokens/s"
    text += (
        f"; {predicted.flops.total / 1e12:,.1f} TFLOP, {device.peak / 1e12:,.3g} TFLOP/s {device.peak_source}"
        if device.peak
        else ""
    )
    text += f", {predicted.efficiency:.0%} of it {predicted.efficiency_source})"
    if predicted.total_seconds is not None:
        text += f"; {predicted.steps:,} steps: {_duration(predicted.total_seconds)}"
    return text


def _pace(predicted: Estimate) -> float | None:
    return predicted.step_tokens / predicted.step_seconds if predicted.step_seconds else None


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _value(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="One step alone")(train)
