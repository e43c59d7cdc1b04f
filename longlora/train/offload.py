"""Checkpoints in host memory: copied out while the next layers compute, fetched back one block ahead of backward.

transformers' own ``offload`` copies on the stream that computes, so every copy is waited for. Here copies have a
stream of their own. One state of a million tokens of width 4,096 in bfloat16 is 8.2 GB and takes 0.15 s over PCIe 5
at 55 GB/s; a layer of that length computes for longer.

On a CPU the states are in host memory already and are kept as they are.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import defaultdict, deque
from typing import Any

import torch
from torch import Tensor

from longlora.errors import UserError
from longlora.train.memory import IN_FLIGHT

SLAB = 64 * 2**20  # bytes of one pinned buffer: torch rounds pinned memory up to a power of two
SMALLEST = 2**20  # bytes; smaller tensors stay on the device


class PinnedPool:
    """Host buffers that are used again: pinning memory is slow. ``bytes`` counts all that were ever made."""

    def __init__(self) -> None:
        self.free: defaultdict[int, list[Tensor]] = defaultdict(list)
        self.bytes = 0

    def take(self, nbytes: int) -> list[Tensor]:
        """Buffers of `SLAB` bytes, the last one maybe smaller, that hold ``nbytes`` together."""
        sizes = [SLAB] * (nbytes // SLAB)
        if rest := nbytes % SLAB:
            sizes.append(1 << (rest - 1).bit_length())
        return [self.free[size].pop() if self.free[size] else self._make(size) for size in sizes]

    def give(self, buffers: list[Tensor]) -> None:
        for buffer in buffers:
            self.free[len(buffer)].append(buffer)

    def _make(self, size: int) -> Tensor:
        try:
            buffer = torch.empty(size, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
        except RuntimeError as error:
            raise UserError(
                f"train.offload: host memory is used up after {self.bytes / 1e9:.1f} GB of checkpoints",
                "raise train.layers_per_checkpoint, or lower train.row_tokens",
            ) from error
        self.bytes += size
        return buffer


class State:
    """One saved tensor: its bytes on the host, and the way back."""

    def __init__(self, owner: HostOffload, tensor: Tensor) -> None:
        self.owner, self.shape, self.dtype, self.device = owner, tensor.shape, tensor.dtype, tensor.device
        self.buffers: list[Tensor] | None = None
        self.fetched: Tensor | None = None
        self.arrived: Any = None
        self.before: weakref.ref[State] | None = owner.newest  # what backward asks for after this one
        self.buffers = owner.pool.take(tensor.nbytes)
        with owner.copying(self.device):
            for part, buffer in zip(_parts(tensor), self.buffers, strict=True):
                buffer[: len(part)].copy_(part, non_blocking=True)
            self.left = owner.event(self.device)

    def fetch(self) -> None:
        """Start the copy to the device; the buffers are free for others, whose copies queue up behind this one."""
        if self.buffers is None:
            return
        self.fetched = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        with self.owner.copying(self.device):
            for part, buffer in zip(_parts(self.fetched), self.buffers, strict=True):
                part.copy_(buffer[: len(part)], non_blocking=True)
            self.arrived = self.owner.event(self.device)
        self.release()

    def release(self) -> None:
        """Give the buffers back; copies that are under way from or to them come before those of the next owner."""
        if self.buffers is not None:
            self.owner.pool.give(self.buffers)
        self.buffers = None

    def __del__(self) -> None:
        self.release()  # a forward pass without backward
        if self.fetched is not None and self.arrived is not None:  # never used: not to be overwritten by the copy
            torch.cuda.current_stream(self.device).wait_event(self.arrived)


class HostOffload:
    """Moves what is saved inside `saving` to the host, and back in reverse order.

    Memory on the device: `memory.offload_device_bytes`. Whoever runs backward twice over the same graph gets an error.

    Args:
        smallest: bytes from which a tensor is moved.
        everywhere: move tensors of a CPU as well, which saves nothing: for tests.
    """

    def __init__(self, smallest: int = SMALLEST, everywhere: bool = False) -> None:
        self.smallest, self.everywhere = smallest, everywhere
        self.pool = PinnedPool()
        self.newest: weakref.ref[State] | None = None
        self.leaving: deque[tuple[State, Tensor]] = deque()  # tensors that must live until they are copied
        self.streams: dict[torch.device, Any] = {}
        self.saved_bytes = self.prefetched = self.waited = 0  # for reports and tests

    def saving(self) -> contextlib.AbstractContextManager[Any]:
        """Context whose saved tensors are moved (`torch.autograd.graph.saved_tensors_hooks`)."""
        return torch.autograd.graph.saved_tensors_hooks(self.pack, self.unpack)

    def pack(self, tensor: Tensor) -> Tensor | State:
        movable = tensor.device.type == "cuda" or (self.everywhere and tensor.device.type == "cpu")
        if not movable or tensor.nbytes < self.smallest or not tensor.is_contiguous():
            return tensor
        tensor = tensor.detach()
        state = State(self, tensor)
        self.newest = weakref.ref(state)
        self.saved_bytes += tensor.nbytes
        self.leaving.append((state, tensor))
        self._let_go(IN_FLIGHT)
        return state

    def unpack(self, packed: Tensor | State) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        before = packed.before() if packed.before else None
        tensor = self._still_here(packed)
        if tensor is None:
            tensor = self._fetched(packed)
        if before is not None and before.buffers is not None and all(s is not before for s, _ in self.leaving):
            before.fetch()
            self.prefetched += 1
        return tensor

    def _still_here(self, state: State) -> Tensor | None:
        """The tensor itself, of the newest states: backward begins with them."""
        for i, (leaving, tensor) in enumerate(self.leaving):
            if leaving is state:
                del self.leaving[i]
                state.release()
                return tensor
        return None

    def _fetched(self, state: State) -> Tensor:
        if state.fetched is None:
            if state.buffers is None:
                raise RuntimeError("an offloaded checkpoint is needed a second time: run backward once per forward")
            state.fetch()
            self.waited += 1
        if state.arrived is not None:
            torch.cuda.current_stream(state.device).wait_event(state.arrived)
        tensor, state.fetched, state.arrived = state.fetched, None, None
        assert tensor is not None
        return tensor

    def _let_go(self, keep: int) -> None:
        """Drop the oldest tensors that are being copied out, once the computing stream waits for their copies.

        (`Tensor.record_stream` would free them at an unknown later time, and the peak would grow by that.)
        """
        while len(self.leaving) > keep:
            state, tensor = self.leaving.popleft()
            if state.left is not None:
                torch.cuda.current_stream(tensor.device).wait_event(state.left)

    @contextlib.contextmanager
    def copying(self, device: torch.device) -> Any:
        """Run copies on the stream of copies, after all that is queued for computing. On a CPU: at once."""
        if device.type != "cuda":
            yield
            return
        if device not in self.streams:
            self.streams[device] = torch.cuda.Stream(device)
        stream = self.streams[device]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            yield

    def event(self, device: torch.device) -> Any:
        """Marks this point of the current stream; None on a CPU."""
        if device.type != "cuda":
            return None
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(device))
        return event


def _parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """The tensor's bytes, in pieces of `SLAB`."""
    return tensor.view(-1).view(torch.uint8).split(SLAB)
