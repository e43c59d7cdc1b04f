"""`transformers.Trainer` with the parts that long context and exact resumption need.

What is ours: the loss (no full logits), the optimizer groups, the order of data (a fixed stream), and
checkpoints (atomic, verified). What stays Trainer's: the loop, accumulation, clipping, schedule, devices.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainingArguments

from longlora.adapters import load_trained_state, parameter_groups, trained_state
from longlora.errors import UserError
from longlora.train import checkpoints
from longlora.train.checkpoints import Checkpoint
from longlora.train.data import Row, collate
from longlora.train.loss import supervised_loss
from longlora.train.metrics import StepCallback, cut_metrics
from longlora.train.settings import TrainSettings
from longlora.train.stopping import STOP, Stopped

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

Report = Callable[..., None]
TRAINED = "trained.safetensors"


class LossNotFinite(UserError):
    """Loss or gradient became NaN or infinite; names the rows of the step."""


class LongTrainer(Trainer):
    """Trains the adapter of ``model`` on a fixed stream of packed rows.

    Args:
        model: from `longlora.adapters.add_adapters`.
        rows: the whole stream, ``steps * global_batch_size`` rows in order.
        settings: see `TrainSettings`.
        work: ``checkpoints/`` and ``metrics.jsonl`` are kept here.
        report: takes ``progress`` after each step and ``warning``.
        fingerprint: of this run, see `checkpoints`.
        pad_id: token for the tail of a shorter row in a micro batch.
    """

    def __init__(
        self,
        model: PeftModel,
        rows: Sequence[Row],
        settings: TrainSettings,
        work: Path,
        report: Report,
        fingerprint: str,
        pad_id: int,
    ) -> None:
        steps = len(rows) // settings.global_batch_size
        arguments = TrainingArguments(
            output_dir=str(work / "trainer"),  # never written: saving is ours
            max_steps=steps,
            per_device_train_batch_size=settings.micro_batch_size,
            gradient_accumulation_steps=settings.global_batch_size // settings.micro_batch_size,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.schedule,
            warmup_steps=settings.warmup_steps,
            max_grad_norm=settings.max_grad_norm,
            seed=settings.seed,
            use_cpu=device_of(settings) == "cpu",
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
            model=model,
            args=arguments,
            train_dataset=rows,
            data_collator=lambda batch: collate(batch, pad_id),
            optimizers=(make_optimizer(model, settings), None),
            callbacks=[StepCallback(self, report)],
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # have Trainer count the labels of the whole step ...
        self.loss_is_scaled_for_ga = True  # ... and leave the division by them to compute_loss
        self.adapter, self.rows = model, rows
        self.settings, self.fingerprint = settings, fingerprint
        self.checkpoint_root, self.metrics_file = work / "checkpoints", work / "metrics.jsonl"
        self.row_ids: list[list[str]] = []  # of the micro batches since the last optimizer step
        self.step_tokens = 0  # likewise
        self.last_save = time.monotonic()

    # ------------------------------------------------------------------ data

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.rows)

    # ------------------------------------------------------------------ loss

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The share of this micro batch in the step's mean loss per supervised token."""
        row_ids, labels = inputs["row_ids"], inputs["labels"]
        self.row_ids += row_ids
        self.step_tokens += inputs["tokens"]
        causal_lm: Any = self.adapter.get_base_model()  # LoRA sits inside its layers
        with autocast(self.settings, labels.device.type):
            hidden = causal_lm.base_model(
                input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], use_cache=False
            ).last_hidden_state  # (B, L, d)
            loss = supervised_loss(hidden, labels, causal_lm.get_output_embeddings())
        items = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        loss = loss / items
        if not torch.isfinite(loss):
            self._stop_not_finite("loss", float(loss))
        return (loss, {"last_hidden_state": hidden}) if return_outputs else loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if not math.isfinite(float(norm)):  # before the optimizer spoils weights and moments
            self._stop_not_finite("gradient norm", float(norm))
        return norm

    def _stop_not_finite(self, what: str, value: float) -> None:
        ids = ", ".join(i for row in self.row_ids for i in row)
        raise LossNotFinite(
            f"{what} is {value} in step {self.state.global_step + 1}, on the rows {ids}; "
            "the last checkpoint is from before",
            "lower train.learning_rate, or look at the named rows",
        )

    # ------------------------------------------------------------------ checkpoints

    def resume_and_train(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """Train from the newest whole checkpoint, or from the start; returns the checkpoint.

        Raises:
            Stopped: asked to stop by `stopping.STOP`; what was done is in a checkpoint.
        """
        found = checkpoints.newest(self.checkpoint_root, self.fingerprint, warn)
        cut_metrics(self.metrics_file, found.step if found else 0)
        if found is None or found.step < self.args.max_steps:
            self.train(resume_from_checkpoint=str(found.path) if found else None)
            if self.state.global_step < self.args.max_steps:
                raise Stopped
        else:
            self._load_from_checkpoint(str(found.path))
        return found

    def _save_checkpoint(self, model: Any, trial: Any = None) -> None:
        began = time.monotonic()
        with checkpoints.writing(self.checkpoint_root, self.state.global_step, self.fingerprint) as folder:
            save_file(trained_state(self.adapter), folder / TRAINED)
            self._save_optimizer_and_scheduler(str(folder))
            self._save_rng_state(str(folder))
            self.state.save_to_json(str(folder / "trainer_state.json"))
        self.last_save = time.monotonic()
        STOP.save_seconds = self.last_save - began

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained_state(self.adapter, load_file(Path(resume_from_checkpoint) / TRAINED))


def make_optimizer(model: PeftModel, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW over the groups A, B, embed, norm, head, each with its own rate; norms never decay."""
    groups = [
        {
            "name": group.name,
            "params": list(group.parameters.values()),
            "lr": settings.rate(group.name),
            "weight_decay": 0.0 if group.name == "norm" else settings.weight_decay,
        }
        for group in parameter_groups(model)
    ]
    return torch.optim.AdamW(groups, fused=True)


def device_of(settings: TrainSettings) -> str:
    """cpu or cuda.

    Raises:
        UserError: cuda is asked for and not there.
    """
    available = torch.cuda.is_available()
    if settings.device == "cuda" and not available:
        raise UserError("train.device is cuda, but torch finds no CUDA device", "set train.device to cpu or auto")
    return "cuda" if available and settings.device != "cpu" else "cpu"


def autocast(settings: TrainSettings, device: str) -> contextlib.AbstractContextManager[Any]:
    """bf16 arithmetic on fp32 trained weights; nothing for float32."""
    return torch.autocast(device, torch.bfloat16, enabled=settings.dtype == "bfloat16")
