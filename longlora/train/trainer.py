"""`transformers.Trainer` with the parts that long context and exact resumption need.

What is ours: the loss (no full logits), the optimizer groups, the order of data (a fixed stream), and
checkpoints (atomic, verified). What stays Trainer's: the loop, accumulation, clipping, schedule, devices.

On several devices each step takes the same rows as on one: accelerate deals the micro batches out in turn, and
`launch.accumulation` counts them so that a step is ``global_batch_size`` rows. DDP and DeepSpeed average the
gradients of the processes; the loss here is divided by the labels of all of them, so it is scaled up by their
number first.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from longlora.adapters import load_trained_state, trained_state
from longlora.errors import UserError
from longlora.train import checkpoints, distributed, launch, zero
from longlora.train.checkpoints import Checkpoint, Layout
from longlora.train.data import Row, collate
from longlora.train.finite import REPORT, judge
from longlora.train.metrics import StepCallback, cut_metrics, restore_metrics
from longlora.train.objective import Objective
from longlora.train.optimizer import make_optimizer
from longlora.train.settings import TrainSettings
from longlora.train.stopping import STOP, Stopped

if TYPE_CHECKING:
    from torch import Tensor, nn

Report = Callable[..., None]
TRAINED = "trained.safetensors"


class LongTrainer(Trainer):
    """Trains ``model`` (its adapter, or all of it) on a fixed stream of packed rows.

    Args:
        model: from `longlora.train.model.build_model`.
        rows: the whole stream, ``steps * global_batch_size`` rows in order.
        settings: see `TrainSettings`.
        work: ``checkpoints/`` and ``metrics.jsonl`` are kept here.
        report: takes ``progress`` after each step and ``warning``.
        fingerprint: of this run, see `checkpoints`.
        pad_id: token for the tail of a shorter row in a micro batch.
        parts: what the fingerprint is of, see `checkpoints`.

    Raises:
        UserError: the processes cannot share the global batch, or the strategy cannot be had.
    """

    def __init__(
        self,
        model: nn.Module,
        rows: Sequence[Row],
        settings: TrainSettings,
        work: Path,
        report: Report,
        fingerprint: str,
        pad_id: int,
        parts: Mapping[str, Any] | None = None,
    ) -> None:
        self.strategy = launch.strategy_of(settings)
        device = device_of(settings)
        deepspeed = self.strategy in launch.ZERO
        accelerator = zero.prepare(device) if deepspeed else None
        steps = len(rows) // settings.global_batch_size
        arguments = TrainingArguments(
            output_dir=str(work / "trainer"),  # never written: saving is ours
            max_steps=steps,
            per_device_train_batch_size=settings.micro_batch_size,
            gradient_accumulation_steps=launch.accumulation(settings, distributed.world()),
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.schedule,
            warmup_steps=settings.warmup(steps),
            max_grad_norm=settings.max_grad_norm,
            seed=settings.seed,
            use_cpu=device == "cpu" and not deepspeed,
            deepspeed=zero.configuration(self.strategy) if deepspeed else None,
            accelerator_config=accelerator,
            ddp_backend="gloo" if device == "cpu" and not deepspeed and distributed.launched() else None,
            ddp_find_unused_parameters=False,
            ddp_broadcast_buffers=False,  # nothing changes them: dynamic RoPE too is held (rope.hold_dynamic)
            save_strategy="no",
            logging_steps=1,
            logging_nan_inf_filter=False,
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        if arguments.n_gpu > 1:
            arguments._n_gpu = 1  # one process, one device: no silent DataParallel
        super().__init__(
            model=Objective(model, settings.dtype, equal_chunks=self.strategy == "zero3"),
            args=arguments,
            train_dataset=rows,
            data_collator=lambda batch: collate(batch, pad_id),
            callbacks=[StepCallback(self, report), Agreement()],
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # have Trainer count the labels of the whole step, on all devices ...
        self.loss_is_scaled_for_ga = True  # ... and leave the division by them to compute_loss
        self.adapter, self.rows, self.work = model, rows, work
        self.rows_per_epoch = len(rows)  # for the metrics; whoever knows the stream's epochs says better
        self.settings, self.fingerprint, self.report = settings, fingerprint, report
        self.parts = parts
        self.layout = Layout(distributed.world(), self.strategy)
        self.checkpoint_root, self.metrics_file = work / "checkpoints", work / "metrics.jsonl"
        self.row_ids: list[list[str]] = []  # of this process's micro batches since the last optimizer step
        self.step_loss: Tensor | float = 0.0  # likewise; a tensor, so that no micro batch waits for the device
        self.own_tokens = 0  # likewise
        self.step_tokens = 0  # of the last step, on all devices
        self.last_save = time.monotonic()

    # ------------------------------------------------------------------ data, optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.rows)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Ours, also where DeepSpeed asks for one: it would discard what the constructor was given."""
        if self.optimizer is None:
            self.optimizer = make_optimizer(self.adapter, self.settings)
        return self.optimizer

    # ------------------------------------------------------------------ loss

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The share of this micro batch in the step's mean loss per supervised token, times the processes."""
        labels = inputs["labels"]
        self.row_ids += inputs["row_ids"]
        self.own_tokens += inputs["tokens"]
        loss = model(input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], labels=labels)
        items = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        loss = loss / items * distributed.world()
        self.step_loss = self.step_loss + loss.detach()
        return (loss, {"loss": loss}) if return_outputs else loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Judges the step, before the optimizer spoils weights and moments.

        DeepSpeed has taken its step by now; raising leaves no checkpoint of it.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        loss, tokens = distributed.total(float(self.step_loss), float(self.own_tokens))
        judge(self.work, self.state.global_step + 1, loss / distributed.world(), float(norm), self.row_ids)
        self.step_tokens = int(tokens)
        self.row_ids, self.step_loss, self.own_tokens = [], 0.0, 0
        return norm

    # ------------------------------------------------------------------ checkpoints

    def resume_and_train(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """Train from the newest whole checkpoint, or from the start; returns the checkpoint.

        After the last step there is one too: where it is found, its weights are loaded and nothing is trained.

        Raises:
            Stopped: asked to stop by `stopping.STOP`; what was done is in a checkpoint.
            UserError: the checkpoint is of another number of devices, and ZeRO's.
            LossNotFinite: training diverged.
        """
        found = distributed.from_main(lambda: self._newest(warn))
        if found is None or found.step < self.args.max_steps:
            if found is None and distributed.rank():
                self._seed(0)
            self.train(resume_from_checkpoint=str(found.path) if found else None)
            if self.state.global_step < self.args.max_steps:
                raise Stopped
        else:
            self._load_from_checkpoint(str(found.path))
        return found

    def _newest(self, warn: Callable[[str], None]) -> Checkpoint | None:
        found = checkpoints.newest(self.checkpoint_root, self.fingerprint, warn, self.parts)
        if found:
            checkpoints.check_layout(found, self.layout)
            restore_metrics(self.metrics_file, found.path)  # another run may have had the work folder meanwhile
        cut_metrics(self.metrics_file, found.step if found else 0)
        (self.work / REPORT).unlink(missing_ok=True)
        return found

    def _save_checkpoint(self, model: Any, trial: Any = None) -> None:
        began = time.monotonic()
        step = self.state.global_step
        with checkpoints.writing(self.checkpoint_root, step, self.fingerprint, self.layout, self.parts) as folder:
            with distributed.gathered(self.adapter):
                if distributed.is_main():
                    save_file(trained_state(self.adapter), folder / TRAINED)
            self._save_optimizer_and_scheduler(str(folder))
            self._save_rng_state(str(folder))
            if distributed.is_main():
                self.state.save_to_json(str(folder / "trainer_state.json"))
                shutil.copyfile(self.metrics_file, folder / self.metrics_file.name)
        self.last_save = time.monotonic()
        STOP.save_seconds = self.last_save - began

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.strategy not in launch.ZERO:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        engine: Any = self.model_wrapped
        engine.save_checkpoint(output_dir, exclude_frozen_parameters=True)
        if distributed.is_main():
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")  # type: ignore[union-attr]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained_state(self.adapter, load_file(Path(resume_from_checkpoint) / TRAINED))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """The rank's own; one that the checkpoint knows nothing of (it had other devices) draws anew."""
        alone = "rng_state.pth" if distributed.world() == 1 else f"rng_state_{distributed.rank()}.pth"
        if checkpoint is None or (Path(checkpoint) / alone).is_file():
            super()._load_rng_state(checkpoint)
            return
        self._seed(self.state.global_step)
        if getattr(self.settings.lora, "dropout", 0) and distributed.is_main():
            self.report("warning", message="continued on another number of devices: dropout is drawn anew")

    def _seed(self, step: int) -> None:
        """Random numbers of this rank from ``step`` on."""
        entropy = [self.settings.seed, step, distributed.rank()]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


class Agreement(TrainerCallback):
    """After each step: a checkpoint or an end is for all ranks or for none."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        control.should_save, control.should_training_stop = distributed.agree(
            control.should_save, control.should_training_stop
        )
        return control


def device_of(settings: TrainSettings) -> str:
    """cpu or cuda.

    Raises:
        UserError: cuda is asked for and not there.
    """
    available = torch.cuda.is_available()
    if settings.device == "cuda" and not available:
        raise UserError("train.device is cuda, but torch finds no CUDA device", "set train.device to cpu or auto")
    return "cuda" if available and settings.device != "cpu" else "cpu"
