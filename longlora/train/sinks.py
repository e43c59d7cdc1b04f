"""Where the numbers of a step go besides ``metrics.jsonl``: TensorBoard, Weights & Biases.

Both continue an interrupted run: TensorBoard drops what was written after the step that is resumed from, a W&B run
is known by the fingerprint of the training. W&B keeps its own account of project, key and offline mode in the
environment (WANDB_PROJECT, WANDB_API_KEY, WANDB_MODE).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from longlora.errors import UserError

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}  # name in the settings -> PyPI package


class Sink(Protocol):
    """Takes the numbers of each step."""

    def log(self, step: int, numbers: dict[str, float]) -> None: ...

    def close(self) -> None: ...


def check_sinks(names: Sequence[str]) -> None:
    """Refuse what cannot be written, before anything is computed.

    Raises:
        UserError: the package of one of ``names`` is not installed.
    """
    for name in names:
        if find_spec(PACKAGES[name]) is None:
            raise UserError(
                f"train.report_to: {name} needs the package {PACKAGES[name]}, which is not installed",
                f"pip install {PACKAGES[name]}, or leave {name} out",
            )


def open_sinks(names: Sequence[str], work: Path, step: int, run_id: str, settings: dict[str, Any]) -> list[Sink]:
    """The sinks of a training.

    Args:
        names: of `check_sinks`.
        work: TensorBoard's event files go to ``work/tensorboard``, W&B's to ``work/wandb``.
        step: optimizer steps that an earlier attempt has done.
        run_id: the same for every attempt.
        settings: shown beside the curves.
    """
    check_sinks(names)
    made: dict[str, Any] = {"tensorboard": _TensorBoard, "wandb": _Wandb}
    return [made[name](work, step, run_id, settings) for name in names]


class _TensorBoard:
    def __init__(self, work: Path, step: int, run_id: str, settings: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(work / "tensorboard"), purge_step=step + 1)

    def log(self, step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(f"train/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, work: Path, step: int, run_id: str, settings: dict[str, Any]) -> None:
        import wandb

        work.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "longfolio"),
            id=run_id[:16],
            resume="allow",
            dir=str(work),
            config=settings,
        )

    def log(self, step: int, numbers: dict[str, float]) -> None:
        self._run.log({f"train/{name}": value for name, value in numbers.items()}, step=step)

    def close(self) -> None:
        self._run.finish()
