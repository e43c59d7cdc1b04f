"""A stage in a process of its own: its events, its errors, its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.child import ChildFailed, run_in_child
from flows.errors import may_pass
from flows.stages import STAGES, stage_index
from longlora.merge.settings import MergeSettings
from longlora.train.stopping import GRACE_SECONDS, StopRequest

STAGE = STAGES[stage_index("merge")]


def child_of(work: Path, inputs: dict[str, Path] | None = None, events: list[Any] | None = None) -> dict[str, Any]:
    def report(event: str, **fields: Any) -> None:
        if events is not None:
            events.append((event, fields))

    work.mkdir(exist_ok=True)
    return run_in_child(STAGE, MergeSettings(), inputs or {}, work, report)


def test_error_of_the_stage_keeps_its_message_and_remedy(tmp_path: Path) -> None:
    missing = {"model": tmp_path / "no-model", "train": tmp_path / "no-adapter"}
    with pytest.raises(ChildFailed) as caught:
        child_of(tmp_path / "work", missing)
    assert "no-adapter" in str(caught.value) or "no-model" in str(caught.value)
    assert not may_pass(caught.value)


def test_child_that_is_killed_is_told_apart(tmp_path: Path) -> None:
    def kill() -> None:
        while not (children := psutil.Process().children()):
            time.sleep(0.01)
        children[0].send_signal(signal.SIGKILL)

    threading.Thread(target=kill).start()
    with pytest.raises(ChildFailed, match="killed"):
        child_of(tmp_path / "work", {"model": tmp_path, "train": tmp_path})


def test_child_dies_with_its_parent(tmp_path: Path) -> None:
    """SIGKILL of the parent: the kernel takes the child along."""
    (tmp_path / "job.json").write_text("{}")
    script = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", '''
import os, time
from flows.child import die_with_parent
die_with_parent({os.getpid()} and os.getppid())
print(os.getpid(), flush=True)
time.sleep(600)
'''], stdout=subprocess.PIPE, text=True)
print(child.stdout.readline().strip(), flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    child.wait(10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionResetError("peer"), True),
        (OSError(5, "Input/output error"), True),
        (OSError(28, "No space left on device"), False),
        (FileNotFoundError(2, "No such file"), False),
        (RuntimeError("NCCL error: unhandled system error"), True),
        (RuntimeError("CUDA error: initialization error"), True),
        (RuntimeError("CUDA out of memory. NCCL error follows"), False),
        (RuntimeError("shape mismatch"), False),
        (MemoryError(), False),
        (ValueError("bad"), False),
    ],
)
def test_only_what_can_pass_is_tried_again(error: Exception, again: bool) -> None:
    assert may_pass(error) is again


def test_a_stop_waits_for_the_step_only_if_it_ends_in_time() -> None:
    stop = StopRequest()
    assert not stop.in_time()  # before the first step nobody knows how long it takes
    stop.step_seconds, stop.save_seconds = 5.0, 1.0
    assert stop.in_time()
    stop.step_seconds = GRACE_SECONDS
    assert not stop.in_time()
    stop.step_started -= GRACE_SECONDS - 2  # nearly done
    assert stop.in_time()
    stop.save_seconds = GRACE_SECONDS
    assert not stop.in_time()


def test_a_torn_line_of_the_child_is_not_an_event(tmp_path: Path) -> None:
    from flows.child import _follow

    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps({"event": "progress", "done": 1}) + "\n" + '{"event": "prog')
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert list(_follow(path, ended)) == [{"event": "progress", "done": 1}]
