"""SIGTERM during training: a checkpoint at the end of the step if that comes soon enough, else an end at once.

Whoever sends SIGTERM (a cancelled flow run, a machine that is reclaimed) commonly kills 30 seconds later.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from types import FrameType

GRACE_SECONDS = 25.0
EXIT_STOPPED = 143  # 128 + SIGTERM, as shells say it
_PR_SET_PDEATHSIG = 1


class Stopped(BaseException):
    """Training ended early because it was asked to; a checkpoint of the last step has been written."""


class StopRequest:
    """What the step loop tells about its pace, and what the signal asks of it."""

    def __init__(self) -> None:
        self.requested = False
        self.step_seconds: float | None = None  # of the slowest recent step; None before the first
        self.save_seconds = 2.0  # of the last checkpoint; a guess before the first
        self.step_started = time.monotonic()

    def listen(self) -> None:
        """Handle SIGTERM from now on; for the main thread of a process that does nothing but train."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def step_ended(self) -> None:
        now = time.monotonic()
        seconds = now - self.step_started
        # Slow steps are forgotten slowly: the estimate must not be too short.
        self.step_seconds = max(seconds, 0.9 * (self.step_seconds or 0.0))
        self.step_started = now

    def in_time(self) -> bool:
        """Whether the current step and a checkpoint fit into the grace."""
        if self.step_seconds is None:
            return False
        left = max(0.0, self.step_seconds - (time.monotonic() - self.step_started))
        return left + self.save_seconds < GRACE_SECONDS

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            return
        self.requested = True
        if not self.in_time():
            os._exit(EXIT_STOPPED)
        timer = threading.Timer(GRACE_SECONDS, os._exit, (EXIT_STOPPED,))
        timer.daemon = True
        timer.start()


STOP = StopRequest()


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends."""
    die_with(signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def die_with(number: int) -> None:
    """Get signal ``number`` when the parent ends (Linux, ``prctl(2)``; elsewhere nothing)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
