"""What a training run tells of each step: a line of ``metrics.jsonl``, and progress to whoever watches.

step                  optimizer steps done
loss, grad_norm       mean per supervised token; norm before clipping
learning_rate         of the first group; learning_rates: of each group, where they differ
tokens, seconds       real tokens (no padding) of the step on all devices, and its time without checkpoints
tokens_per_second
flops, utilisation    what the step computed (longlora.flops, S²-Attn's pairs counted exactly), and its share of
                      what all devices can do; null where architecture or device is not known
memory_bytes          peak so far, of the device or, on a CPU, of the process
row, epoch            position in the data: rows consumed, and the same as passes over all rows
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from longlora import attention
from longlora.flops import Shape, Work, device_peak
from longlora.train.estimate import training_work
from longlora.train.settings import TrainSettings
from longlora.train.sinks import Sink, open_sinks
from longlora.train.stopping import STOP

if TYPE_CHECKING:
    from longlora.train.data import Row
    from longlora.train.trainer import LongTrainer

Report = Callable[..., None]
SHOWN = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "memory_bytes")  # beside the progress bar


class StepCallback(TrainerCallback):
    """After each step: a line of metrics, a progress report, and a checkpoint when one is due."""

    def __init__(self, trainer: LongTrainer, report: Report) -> None:
        self.trainer, self.report = trainer, report
        self.started = time.monotonic()
        self.rates: dict[str, float] = {}
        self.sinks: list[Sink] = []
        self.work: Work | None = None
        self.peak: float | None = None  # operations per second of all devices

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        if state.is_world_process_zero:
            self.work = work_of(trainer.adapter, trainer.settings)
            if self.work:
                peak = device_peak(args.device.type, trainer.settings.dtype)
                self.peak = peak * args.world_size if peak else None
            self.sinks = open_sinks(
                trainer.settings.report_to, trainer.metrics_file.parent, state.global_step, trainer.fingerprint,
                trainer.settings.model_dump(mode="json"),
            )  # fmt: skip
        trainer.last_save = self.started = STOP.step_started = time.monotonic()
        self.report("progress", done=state.global_step, total=state.max_steps, unit="steps")

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Here the rates are those that the step uses; afterwards the schedule has moved on.
        groups = self.trainer.optimizer.param_groups if self.trainer.optimizer is not None else []
        self.rates = {str(group.get("name", i)): float(group["lr"]) for i, group in enumerate(groups)}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        settings = self.trainer.settings
        STOP.step_ended()
        minutes = (time.monotonic() - self.trainer.last_save) / 60
        due = bool(settings.save_every_steps) and state.global_step % settings.save_every_steps == 0
        due = due or minutes >= settings.save_every_minutes or STOP.requested
        # The last one too: what remains is the output, and if that fails nothing need be trained again.
        control.should_save = due or state.global_step >= state.max_steps
        control.should_training_stop = control.should_training_stop or STOP.requested
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started = STOP.step_started = time.monotonic()  # what saving took is no part of the next step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        trainer, settings = self.trainer, self.trainer.settings
        now = time.monotonic()
        seconds, self.started = now - self.started, now
        # The stream is the same on every device, so the step's rows are known without asking the others.
        end = state.global_step * settings.global_batch_size
        rows = [trainer.rows[i] for i in range(end - settings.global_batch_size, end)]
        tokens = sum(len(sample) for row in rows for sample in row)
        flops = step_flops(self.work, rows) if self.work else None
        line = {
            "step": state.global_step,
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            **({"learning_rates": self.rates} if len(set(self.rates.values())) > 1 else {}),
            "grad_norm": logs.get("grad_norm"),
            "tokens": tokens,
            "seconds": round(seconds, 3),
            "tokens_per_second": round(tokens / seconds, 1),
            "flops": flops,
            "utilisation": round(flops / seconds / self.peak, 4) if flops and self.peak else None,
            "memory_bytes": peak_memory(args.device.type),
            "row": end,
            "epoch": round(end / trainer.rows_per_epoch, 4),
        }
        with trainer.metrics_file.open("a") as file:  # one line, one write: a reader never sees half of it
            file.write(json.dumps(line) + "\n")
        for sink in self.sinks:
            sink.log(state.global_step, scalars(line))
        self.report(
            "progress",
            done=state.global_step,
            total=state.max_steps,
            unit="steps",
            **{key: line[key] for key in SHOWN},
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for sink in self.sinks:
            sink.close()


def work_of(model: Any, settings: TrainSettings) -> Work | None:
    """What a step of this model computes; None where its architecture is not counted."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    try:
        shape = Shape.of(base.config)
    except ValueError:
        return None
    # ds_numel: under ZeRO-3 a process holds a part of each parameter
    lora = sum(getattr(p, "ds_numel", p.numel()) for n, p in model.named_parameters() if ".lora_" in n)
    head = base.get_output_embeddings()
    return training_work(
        settings,
        shape,
        group=getattr(base.config, attention.GROUP_ATTRIBUTE, None),
        lora=lora,
        head_trained=head is not None and head.weight.requires_grad,
    )


def step_flops(work: Work, rows: Sequence[Row]) -> float:
    """Operations of a step over these rows, all devices together."""
    supervised = sum(int((sample.labels[1:] != -100).sum()) for row in rows for sample in row)
    documents = [len(sample) for row in rows for sample in row]
    return work.step(documents, supervised).total


def scalars(line: dict[str, Any]) -> dict[str, float]:
    """The finite numbers of a line, those of groups as ``learning_rates/A``."""
    flat = {**line, **{f"learning_rates/{k}": v for k, v in line.get("learning_rates", {}).items()}}
    return {k: float(v) for k, v in flat.items() if isinstance(v, int | float) and k != "step" and math.isfinite(v)}


def summary(curve: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of all lines together: tokens, tokens_per_second, flops, utilisation (weighted by time; null if not known)."""
    seconds = sum(line["seconds"] for line in curve)
    used = [line for line in curve if line.get("utilisation") is not None]
    weight = sum(line["seconds"] for line in used)
    tokens = sum(line["tokens"] for line in curve)
    counted = [line["flops"] for line in curve if line.get("flops")]
    return {
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "flops": sum(counted) if len(counted) == len(curve) else None,
        "utilisation": sum(line["utilisation"] * line["seconds"] for line in used) / weight if weight else None,
    }


def plot_loss(curve: Sequence[dict[str, Any]], path: Path) -> None:
    """The loss of each step and its mean over the last tenth of the steps, as SVG; same bytes for the same losses."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    steps, losses = [line["step"] for line in curve], [line["loss"] for line in curve]
    width = max(1, len(losses) // 10)
    means = [sum(part) / len(part) for part in (losses[max(0, i - width + 1) : i + 1] for i in range(len(losses)))]
    with matplotlib.rc_context({"svg.hashsalt": "loss", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(steps, losses, color="0.7", linewidth=1, marker="." if len(steps) < 50 else "", label="loss")
        if width > 1:
            axes.plot(steps, means, color="C0", linewidth=1.6, label=f"mean of {width} steps")
            axes.legend(frameon=False)
        axes.set_xlabel("step")
        axes.set_ylabel("loss per supervised token")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.grid(alpha=0.3)
        figure.savefig(path, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))


def peak_memory(device: str) -> int:
    """Bytes: the highest use so far, of the device's memory on cuda, of the process otherwise."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    # Not getrusage: its maximum is the parent's where that was larger when it forked.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def restore_metrics(path: Path, checkpoint: Path) -> None:
    """The lines as they were when the checkpoint was written."""
    kept = checkpoint / path.name
    if kept.exists():
        aside = path.with_suffix(".tmp")
        shutil.copyfile(kept, aside)
        aside.replace(path)


def cut_metrics(path: Path, step: int) -> None:
    """Drop the lines after ``step`` (and a torn last one): those steps are done again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    aside = path.with_suffix(".tmp")
    aside.write_text("".join(kept))
    aside.replace(path)
