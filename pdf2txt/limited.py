"""Run a program with limits: ``python limited.py BYTES SECONDS PARENT PROGRAM ARGUMENT...``

A program of its own and not a ``preexec_fn``, which may deadlock in a process that has threads. It imports next to
nothing, as it is started for every page that poppler draws, and turns into PROGRAM.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    size, seconds, parent = map(int, argv[:3])
    _lower(resource.RLIMIT_AS, size, size)
    _lower(resource.RLIMIT_CPU, seconds, seconds + 1)  # at the first it is told why it ends, at the second killed
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)
    os.execvp(argv[3], argv[3:])


def _lower(kind: int, *wanted: int) -> None:
    """The soft and the hard limit of a resource, where they are not lower already."""
    known = resource.getrlimit(kind)
    limits = [new if old == resource.RLIM_INFINITY else min(new, old) for new, old in zip(wanted, known, strict=True)]
    resource.setrlimit(kind, (min(limits), limits[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
