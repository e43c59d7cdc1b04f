"""Several processes that train one model: which one this is, and what all of them must agree on.

One process per device, started by torchrun (see `launch`). Alone, every function here does nothing and costs
nothing. What all ranks must decide alike (a checkpoint, an end, whether a loss is finite) is decided from a
reduced number; a rank that decided by itself would leave the others waiting in their next collective. An error
on one rank is simply raised there: its process ends, and torchrun ends the others.

The messages are small and on the host: the CPU half of the process group is gloo also where tensors of the GPUs
go through NCCL, so that no step waits for a device because of them.

A collective has a deadline. What rank 0 does alone (tokens, digests, the output) may take hours, and the others wait
for it without one, in `after_main`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import nn

TIMEOUT = timedelta(minutes=30)  # of a collective: what ranks that do the same may differ by
POLL_SECONDS = 0.1
T = TypeVar("T")


def launched() -> bool:
    """Whether torchrun started this process."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def start(device: str) -> None:
    """Join the other processes that torchrun started; alone, nothing.

    Args:
        device: cpu or cuda; on cuda this process takes the device of its local rank.
    """
    import torch
    from torch import distributed

    if not launched() or distributed.is_initialized():
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)


def _joined() -> bool:
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """This process among all, from 0."""
    from torch import distributed

    return distributed.get_rank() if _joined() else 0


def world() -> int:
    """Number of processes."""
    from torch import distributed

    return distributed.get_world_size() if _joined() else 1


def is_main() -> bool:
    """Whether this is the process that writes metrics, events and output."""
    return rank() == 0


def barrier() -> None:
    """Wait until every rank is here."""
    agree(False)


_marks = count()  # of `after_main`, which all ranks call alike


def after_main() -> None:
    """Rank 0 passes at once and lets the others pass, however long they wait for it.

    They look for a key in the store of the process group. If rank 0 ends, torchrun ends them.
    """
    if world() == 1:
        return
    mark = f"longfolio/after_main/{next(_marks)}"
    store = _store()
    if is_main():
        store.set(mark, "")
        return
    while not store.check([mark]):
        time.sleep(POLL_SECONDS)


def first_to_say(message: str) -> bool:
    """Whether no other rank has said this; of an error that all of them meet one line is enough."""
    if world() == 1:
        return True
    key = f"longfolio/said/{hashlib.sha256(message.encode(errors='replace')).hexdigest()}"
    try:
        return bool(_store().add(key, 1) == 1)
    except Exception:  # the store is gone, and perhaps the others with it: rather twice than never
        return True


def _store() -> Any:
    from torch.distributed import distributed_c10d

    return distributed_c10d._get_default_store()


def agree(*flags: bool) -> tuple[bool, ...]:
    """Each flag, true on all ranks if it is on any."""
    import torch
    from torch import distributed

    if world() == 1:
        return flags
    numbers = torch.tensor([int(flag) for flag in flags])
    distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
    return tuple(bool(n) for n in numbers)


def total(*numbers: float) -> tuple[float, ...]:
    """Each number summed over the ranks, the same bits on all of them."""
    import torch
    from torch import distributed

    if world() == 1:
        return numbers
    sums = torch.tensor(numbers, dtype=torch.float64)
    distributed.all_reduce(sums)
    return tuple(sums.tolist())


def largest(number: int) -> int:
    """The largest of the ranks' numbers."""
    import torch
    from torch import distributed

    if world() == 1:
        return number
    value = torch.tensor(number)
    distributed.all_reduce(value, distributed.ReduceOp.MAX)
    return int(value)


def everyone(value: T) -> list[T]:
    """The value of each rank, by rank."""
    from torch import distributed

    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    distributed.all_gather_object(values, value)
    return values


def from_main(make: Callable[[], T]) -> T:
    """What ``make`` returns on rank 0, given to all; an error of it is raised on all."""
    from torch import distributed

    if world() == 1:
        return make()
    made: list[Any] = [None, None]
    error: Exception | None = None
    if is_main():
        try:
            made = [make(), None]
        except Exception as caught:
            error, made = caught, [None, f"{type(caught).__name__}: {caught}"]
    after_main()
    distributed.broadcast_object_list(made, src=0)
    if error is not None:
        raise error
    if made[1] is not None:
        raise FailedOnMain(made[1])
    result: T = made[0]
    return result


class FailedOnMain(RuntimeError):
    """Rank 0 failed; it reports the error itself."""


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Rank 0 runs the block before the others do: it builds a cache that they find."""
    if not is_main():
        after_main()
    yield
    if is_main():
        after_main()


@contextlib.contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """The trainable parameters at full size on rank 0, to be read; under ZeRO-3 each rank holds a share otherwise.

    To be entered by all ranks. They are fp32, and so complete: no bf16 copy stands between (see `zero`). They are
    gathered one by one and wait in rank 0's host memory: with full fine-tuning, all together are what no device holds.
    """
    parameters = [p for p in model.parameters() if p.requires_grad and hasattr(p, "ds_id")]
    if not parameters:
        yield
        return
    import deepspeed

    whole: list[Any] = []
    for parameter in parameters:
        with deepspeed.zero.GatheredParameters([parameter]):
            if is_main():
                whole.append(parameter.detach().to("cpu", copy=True))
    shares = [p.data for p in parameters]
    try:
        for p, value in zip(parameters, whole, strict=False):  # none on the other ranks
            p.data = value
        yield
    finally:
        for p, share in zip(parameters, shares, strict=True):
            p.data = share
