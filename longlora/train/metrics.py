"""What a training run tells of each step: a line of ``metrics.jsonl``, and progress to whoever watches."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from longlora.train.stopping import STOP

if TYPE_CHECKING:
    from longlora.train.trainer import LongTrainer

Report = Callable[..., None]


class StepCallback(TrainerCallback):
    """After each step: a line of metrics, a progress report, and a checkpoint when one is due."""

    def __init__(self, trainer: LongTrainer, report: Report) -> None:
        self.trainer, self.report = trainer, report
        self.started = time.monotonic()
        self.file: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.last_save = self.started = STOP.step_started = time.monotonic()
        self.report("progress", done=state.global_step, total=state.max_steps, unit="steps")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        settings = self.trainer.settings
        STOP.step_ended()
        minutes = (time.monotonic() - self.trainer.last_save) / 60
        due = bool(settings.save_every_steps) and state.global_step % settings.save_every_steps == 0
        due = due or minutes >= settings.save_every_minutes or STOP.requested
        control.should_save = due and state.global_step < state.max_steps
        control.should_training_stop = control.should_training_stop or STOP.requested
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        trainer = self.trainer
        now = time.monotonic()
        seconds, self.started = now - self.started, now
        line = {
            "step": state.global_step,
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "grad_norm": logs.get("grad_norm"),
            "tokens": trainer.step_tokens,
            "seconds": round(seconds, 3),
            "tokens_per_second": round(trainer.step_tokens / seconds, 1),
            "memory_bytes": peak_memory(trainer.args.device.type),
        }
        with trainer.metrics_file.open("a") as file:  # one line, one write: a reader never sees half of it
            file.write(json.dumps(line) + "\n")
        self.report(
            "progress",
            done=state.global_step,
            total=state.max_steps,
            unit="steps",
            **{key: line[key] for key in ("loss", "learning_rate", "grad_norm", "tokens_per_second", "memory_bytes")},
        )


def peak_memory(device: str) -> int:
    """Bytes: the highest use so far, of the device's memory on cuda, of the process otherwise."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


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
