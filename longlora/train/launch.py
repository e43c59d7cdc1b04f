"""How many processes a training run takes, and the command that starts them."""

from __future__ import annotations

import os
import sys

from longlora.errors import UserError
from longlora.hardware import resolve_device
from longlora.train import distributed
from longlora.train.settings import TrainSettings

LAUNCHER = "LONGFOLIO_LAUNCHER"  # pid of the torchrun process, whose end is the ranks' end
ZERO = ("zero2", "zero3")


def processes(settings: TrainSettings) -> int:
    """One per device: ``devices``, or as many as there are GPUs.

    Raises:
        UserError: more GPUs are asked for than there are.
    """
    import torch

    gpus = torch.cuda.device_count() if resolve_device(settings.device) == "cuda" else 0
    if settings.devices == "auto":
        return max(1, gpus)
    if gpus and settings.devices > gpus:
        raise UserError(
            f"train.devices is {settings.devices}, but this machine has {gpus} GPU{'s' * (gpus > 1)}",
            f"set train.devices to {gpus} or auto",
        )
    return settings.devices


def accumulation(settings: TrainSettings, world: int) -> int:
    """Micro batches of each process in a step.

    Raises:
        UserError: the global batch cannot be shared evenly.
    """
    share = settings.micro_batch_size * world
    if settings.global_batch_size % share:
        below = settings.global_batch_size // share * share
        sizes = " or ".join(str(n) for n in (below, below + share) if n)
        raise UserError(
            f"train.global_batch_size ({settings.global_batch_size}) cannot be shared by {world} devices with "
            f"micro_batch_size {settings.micro_batch_size}",
            f"set train.global_batch_size to {sizes} (another result), or another train.devices "
            "or train.micro_batch_size (the same result)",
        )
    return settings.global_batch_size // share


def command(settings: TrainSettings, arguments: list[str]) -> list[str] | None:
    """The torchrun command of a run, or None where this very process can do it.

    Args:
        settings: of the run.
        arguments: what follows ``python`` in each process, e.g. ``["-m", "longlora.train", ...]``.

    Raises:
        UserError: as `processes` and `accumulation`.
    """
    if distributed.launched():
        return None
    count = processes(settings)
    accumulation(settings, count)
    if count == 1 and settings.strategy not in ZERO:
        return None
    torchrun = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    if _knows("--signals-to-handle"):  # Ctrl-C is for whoever started us to decide
        torchrun += ["--signals-to-handle", "SIGTERM"]
    return [*torchrun, "--no-python", sys.executable, *arguments]


def _knows(option: str) -> bool:
    from torch.distributed.run import get_args_parser

    return option in get_args_parser().format_help()


def become(command: list[str], threads: int | None = None) -> None:
    """Replace this process by torchrun: same pid, same parent, and the ranks end with it."""
    count = int(command[command.index("--nproc-per-node") + 1])
    os.environ[LAUNCHER] = str(os.getpid())
    # torchrun would give every process one thread.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads or max(1, (os.cpu_count() or 1) // count)))
    os.execv(command[0], command)


def strategy_of(settings: TrainSettings) -> str:
    """ddp, zero2 or zero3, after a look at what goes together.

    Raises:
        UserError: the processes that the settings ask for are not there, or the strategy cannot do this.
    """
    world = distributed.world()
    if settings.devices not in ("auto", world):
        raise UserError(
            f"train.devices is {settings.devices}, but this run has {world} process{'es' * (world > 1)}",
            "start it with longfolio run or python -m longlora.train, or set train.devices to auto",
        )
    check_zero(settings)
    if settings.strategy not in ZERO:
        return "ddp"
    if not distributed.launched():
        raise UserError(
            f"train.strategy {settings.strategy} needs processes started by torchrun",
            "start it with longfolio run or python -m longlora.train, or set train.strategy to ddp",
        )
    return settings.strategy


def check_zero(settings: TrainSettings) -> None:
    """Refuse what ZeRO cannot share out.

    Raises:
        UserError: with what to change.
    """
    if settings.strategy in ZERO and settings.optimizer != "adamw":
        raise UserError(
            f"train.optimizer {settings.optimizer} does not go with train.strategy {settings.strategy}",
            "set train.optimizer to adamw: ZeRO divides its state among the devices",
        )
    if settings.strategy == "zero3" and settings.quantize:
        raise UserError(
            "train.strategy: zero3 cannot share out 4-bit weights", "use zero2 or ddp, or train.quantize: null"
        )
