"""A stage in a process of its own, followed through a file of events.

Training runs this way under Prefect: a CUDA context that went bad, or memory that was not given back, goes
with the process, and a run that is cancelled can be ended for certain. The child stays in the process group
of its parent, so that what is sent to the group reaches it, and the kernel kills it if the parent dies.

A stage on several devices is several such processes: the child becomes torchrun, which starts them and dies with
the parent, and they with it. The first of them sends the events; what ended another is in a file of its own.

    <work>/job.json              what to do                      written by the parent
    <work>/events.jsonl          one event per line              written by the child, followed by the parent
    <work>/failed-<rank>.json    what ended a process, and when  written by that process
    <work>/child.log             whatever else it had to say
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.stages import Report, Stage
from longlora.train.stopping import EXIT_STOPPED, STOP, Stopped, die_with, die_with_parent

POLL_SECONDS = 0.2
STOP_SECONDS = 27.0  # for a checkpoint; what cancels a flow run kills after 30

__all__ = ["ChildFailed", "die_with", "die_with_parent", "run_in_child"]


class ChildFailed(Exception):
    """The stage failed in its process. ``remedy`` as in `flows.errors`, or None for a defect."""

    def __init__(self, message: str, remedy: str | None, details: str = "", may_pass: bool = False) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.may_pass = may_pass
        if details:
            self.add_note(details)


def run_in_child(
    stage: Stage, settings: BaseModel, inputs: dict[str, Path], work: Path, report: Report
) -> dict[str, Any]:
    """`Stage.run` in a child process; returns the metrics.

    Raises:
        ChildFailed: with the message of the error there, or what ended the process.
    """
    events, log = work / "events.jsonl", work / "child.log"
    events.write_bytes(b"")
    for old in work.glob("failed-*.json"):
        old.unlink()
    job = work / "job.json"
    job.write_text(
        json.dumps(
            {
                "stage": stage.name,
                "settings": settings.model_dump(mode="json"),
                "inputs": {name: str(path) for name, path in inputs.items()},
                "parent": os.getpid(),
            }
        )
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "flows.child", str(work)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    last: dict[str, Any] = {}
    try:
        for event in _follow(events, process):
            if event["event"] == "done":
                last = event
            else:
                report(event.pop("event"), **event)
    finally:
        _end(process)
    if last.get("event") == "done":
        metrics: dict[str, Any] = last["metrics"]
        return metrics
    first = _first_failure(work)
    killed = _killed(log)  # the error of the others is then that it is gone
    if first and not killed:
        raise ChildFailed(first["message"], first["remedy"], first["details"], first["may_pass"])
    raise _died(stage.name, -signal.SIGKILL if killed else process.returncode, log)


def _first_failure(work: Path) -> dict[str, Any] | None:
    """What failed first: once a process is gone, the others fail in their next exchange with it."""
    failures = []
    for path in work.glob("failed-*.json"):
        with contextlib.suppress(ValueError):
            failures.append(json.loads(path.read_text()))
    return min(failures, key=lambda failure: failure["at"], default=None)


def _killed(log: Path) -> bool:
    """Whether torchrun says that the process which ended first was killed."""
    text = log.read_text(errors="replace")
    _, found, root = text.rpartition("Root Cause (first observed failure)")
    return bool(found) and re.search(r"exitcode\s*:\s*-9\b", root) is not None


def _follow(path: Path, process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """The events as they are written, until the process has ended and all are read."""
    with path.open("rb") as file:
        rest = b""
        while True:
            ended = process.poll() is not None  # asked before reading, so that nothing is missed
            rest += file.read()
            *lines, rest = rest.split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError):
                    yield json.loads(line)
            if ended:
                return
            time.sleep(POLL_SECONDS)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the child if it still runs: first asked, then killed."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except BaseException:
        process.kill()
        process.wait()


def _died(stage: str, code: int, log: Path) -> ChildFailed:
    tail = log.read_text(errors="replace").strip().splitlines()[-20:]
    if code == -signal.SIGKILL:
        return ChildFailed(
            f"the process of {stage} was killed (signal 9)",
            "often the machine's memory was used up: lower train.micro_batch_size or train.row_tokens; "
            "a checkpoint is continued from",
        )
    what = f"signal {-code}" if code < 0 else f"exit code {code}"
    return ChildFailed(f"the process of {stage} ended with {what}", f"see {log}", "\n".join(tail))


# ---------------------------------------------------------------------- in the child


def main(work: Path) -> int:
    """The process: one stage, its events, and an exit code."""
    from flows.config import RunConfig
    from flows.stages import STAGES, stage_index
    from longlora.train import distributed, launch

    job = json.loads((work / "job.json").read_text())
    die_with_parent(int(os.environ[launch.LAUNCHER]) if distributed.launched() else job["parent"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    STOP.listen()
    stage = STAGES[stage_index(job["stage"])]
    kind: Any = RunConfig.model_fields[stage.section].annotation
    settings = kind.model_validate(job["settings"])
    inputs = {name: Path(path) for name, path in job["inputs"].items()}

    with (work / "events.jsonl").open("a") as file:

        def report(event: str, **fields: Any) -> None:
            file.write(json.dumps({"event": event, **fields}) + "\n")
            file.flush()

        try:
            if stage.name == "train":
                torchrun = launch.command(settings, ["-P", "-m", "flows.child", str(work)])
                if torchrun:
                    signal.signal(signal.SIGTERM, signal.SIG_DFL)
                    launch.become(torchrun, settings.threads)
            metrics = stage.run(settings, inputs, work, report)
        except Stopped:
            return EXIT_STOPPED
        except distributed.FailedOnMain:
            return 1
        except Exception as error:
            _write_failure(work, distributed.rank(), error)
            return 1
        if distributed.is_main():
            report("done", metrics=metrics)
    return 0


def _write_failure(work: Path, rank: int, error: Exception) -> None:
    from flows.errors import may_pass, remedy_of

    remedy = remedy_of(error)
    failure = {
        "at": time.time(),
        "message": str(error) if getattr(error, "remedy", None) else f"{type(error).__name__}: {error}",
        "remedy": remedy,
        "details": "" if remedy else traceback.format_exc(),
        "may_pass": may_pass(error),
    }
    (work / f"failed-{rank}.json").write_text(json.dumps(failure))


if __name__ == "__main__":
    from flows.environment import quiet

    quiet()
    sys.exit(main(Path(sys.argv[1])))
