"""What the parts share: the data, the rows of a table, and how a command is run and watched."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
TOOL = Path(sys.executable).parent / "longfolio"
_SAMPLE = 0.05  # seconds between two looks at the memory of a process tree


class Skip(Exception):
    """A part, or a line of it, that cannot be had here: the reason."""


@dataclass(frozen=True)
class Row:
    """One figure. ``target`` is shown as it is; ``good`` is None for a figure without one."""

    name: str
    value: float | int | str | None
    target: str = ""
    good: bool | None = None
    note: str = ""


@dataclass
class Part:
    """What one part showed. ``data`` is kept in the JSON file, beside the rows."""

    rows: list[Row] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, value: float | int | str | None, *, least: float | None = None,
            most: float | None = None, note: str = "") -> None:  # fmt: skip
        """A figure, with the target that it be at least ``least`` and at most ``most``."""
        parts = [f"{sign} {bound:g}" for sign, bound in ((">=", least), ("<=", most)) if bound is not None]
        good = None
        if parts:
            number = float(value) if isinstance(value, int | float) else float("nan")
            good = not (least is not None and not number >= least) and not (most is not None and not number <= most)
        target = f"{least:g}" if least is not None and least == most else " and ".join(parts)
        self.rows.append(Row(name, round(value, 3) if isinstance(value, float) else value, target, good, note))

    def skip(self, name: str, why: object) -> None:
        self.rows.append(Row(name, None, note=f"skipped: {why}"))


@dataclass
class Bench:
    """Where things are, and how much is asked for."""

    shared: Path | None
    work: Path  # scratch of this run
    cache: Path  # what may be used again by the next: peers' environments, mutated files, big PDFs
    seed: int = 1
    repeat: int = 3
    mutants: int = 500
    ocr_documents: int = 0  # 0: all
    kills: int = 6

    @property
    def pdfbench(self) -> Path:
        """The folder with jose/, olmocr/, gnarly/ and score.py.

        Raises:
            Skip: it is not there.
        """
        if self.shared is None:
            raise Skip("no benchmark PDFs: set LONGFOLIO_SHARED or --shared to the folder that holds pdfbench/")
        return self.shared / "pdfbench"

    def pdfs(self, *sets: str) -> list[Path]:
        return [file for name in sets for file in sorted((self.pdfbench / name).glob("*.pdf"))]

    def folder(self, name: str) -> Path:
        """A new folder for scratch."""
        for number in range(1000):
            path = self.work / (f"{name}-{number}" if number else name)
            if not path.exists():
                path.mkdir(parents=True)
                return path
        raise AssertionError(name)


def find_shared(named: Path | None) -> Path | None:
    """The folder that holds ``pdfbench``: the named one, ``LONGFOLIO_SHARED``, or ``shared`` beside the checkout."""
    wanted = named or os.environ.get("LONGFOLIO_SHARED") or ROOT.parent / "shared"
    path = Path(wanted).expanduser().resolve()
    return path if (path / "pdfbench").is_dir() else None


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longfolio"


def content_key(*parts: object) -> str:
    """16 hex digits; files count by their content."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else repr(part).encode()
        whole.update(hashlib.sha256(data).digest())
    return whole.hexdigest()[:16]


def environment(**more: str) -> dict[str, str]:
    """For a child process: it finds this checkout first, and asks nothing of a hub."""
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", **more}


def convert_command(paths: Sequence[Path], out: Path, *options: str) -> list[str]:
    """``longfolio pdf2txt`` for ``paths``, result as JSON on stdout."""
    return [str(TOOL), "pdf2txt", *map(str, paths), "--out", str(out), "--json", *options]


@dataclass
class Watched:
    """A command that ended, and what its process tree took."""

    returncode: int
    seconds: float
    out: str
    err: str
    peak_sum: int = 0  # bytes resident, all processes together, at the worst moment
    peak_one: int = 0  # of the biggest process at its worst moment (VmHWM, which the kernel keeps)
    left: list[str] = field(default_factory=list)  # processes that outlived it by more than 5 seconds


def watch(command: Sequence[str], limit: float, folder: Path, kill_after: float | None = None) -> Watched:
    """Run ``command`` in a session of its own and look at its processes until it ends.

    Args:
        limit: seconds after which the whole group is killed; the return code then is -9.
        kill_after: the same, but as the purpose of the run.
    """
    with (folder / "stdout").open("wb+") as out, (folder / "stderr").open("wb+") as err:
        began = time.monotonic()
        process = subprocess.Popen(
            command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=environment(), start_new_session=True
        )
        seen: dict[int, psutil.Process] = {}
        peak = [0, 0]
        done = threading.Event()

        def sample() -> None:
            top = psutil.Process(process.pid)
            while not done.wait(_SAMPLE):
                total = 0
                try:
                    tree = [top, *top.children(recursive=True)]
                except psutil.Error:
                    continue
                for one in tree:
                    seen[one.pid] = one
                    try:
                        rss = one.memory_info().rss
                    except psutil.Error:
                        continue
                    total += rss
                    peak[1] = max(peak[1], rss, high_water(one.pid))
                peak[0] = max(peak[0], total)

        sampler = threading.Thread(target=sample, daemon=True)
        sampler.start()
        deadline = began + min(limit, kill_after if kill_after is not None else limit)
        while process.poll() is None:
            if time.monotonic() > deadline:
                os.killpg(process.pid, signal.SIGKILL)
                deadline = float("inf")
            time.sleep(0.01)
        seconds = time.monotonic() - began
        done.set()
        sampler.join()
        _, alive = psutil.wait_procs([p for p in seen.values() if p.pid != process.pid], timeout=5)
        left = [_describe(p) for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        out.seek(0)
        err.seek(0)
        return Watched(
            process.returncode, seconds, out.read().decode("utf-8", "replace"), err.read().decode("utf-8", "replace"),
            peak[0], peak[1], left,
        )  # fmt: skip


def high_water(pid: int) -> int:
    """Bytes that a process had resident at most (Linux; not ru_maxrss, which counts the parent before exec)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(Path(word).name for word in process.cmdline())[:120]}"
    except psutil.Error:
        return str(process.pid)


def run_json(command: Sequence[str], limit: float = 600.0, cwd: Path | None = None) -> Any:
    """What ``command`` prints, as JSON.

    Raises:
        Skip: it failed or took too long; the end of what it said is the reason.
    """
    import json

    name = " ".join(Path(word).name for word in list(command)[:3])
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, env=environment(), cwd=cwd, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Skip(f"over {limit:g} s: {name}") from error
    if done.returncode:
        print(done.stderr.strip()[-1000:], flush=True)
        raise Skip(f"exit code {done.returncode} of {name}")
    return json.loads(done.stdout)
