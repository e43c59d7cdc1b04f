"""`longfolio up`: the server of a store, its deployments, and workers, kept until Ctrl-C or `longfolio down`.

A worker or a server that dies is started again; if this process dies, the workers end with it, and the server
because nobody uses it any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from flows.child import die_with
from flows.errors import UsageError
from flows.orchestration.request import DELEGATED
from flows.orchestration.server import (
    HEARTBEAT_SECONDS,
    STORE_VARIABLE,
    Home,
    alive,
    free_port,
    healthy,
    joined,
    read_json,
)
from flows.store import Store
from pdf2txt.units import write_atomic

UI_PORT = 4200
CHECK_SECONDS = 1.0
RECONCILE_SECONDS = 30.0
STOP_SECONDS = 40.0  # a training that is asked to stop takes up to 27 for its checkpoint
RESTART_SECONDS = (1.0, 60.0)  # before a dead worker is started again: at first, and at most


@dataclass(frozen=True)
class UpSettings:
    store: Store
    host: str = "127.0.0.1"
    port: int | None = None  # None: 4200, or a free one
    cpu_runs: int = 2  # flow runs at a time on the cpu pool
    devices: tuple[str, ...] = ()  # one worker of the gpu pool for each; none: one worker that computes on the CPU
    nightly: str | None = None
    timezone: str | None = None
    notify: str | None = None


@dataclass
class Worker:
    """One worker process, started again when it dies."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    pause: float = RESTART_SECONDS[0]
    not_before: float = 0.0
    started: float = field(default=0.0)

    def keep(self, tell: Callable[[str], None]) -> None:
        now = time.monotonic()
        if self.process is not None and self.process.poll() is None:
            if now - self.started > RESTART_SECONDS[1]:
                self.pause = RESTART_SECONDS[0]
            return
        if self.process is not None:
            tell(f"worker {self.name} ended (code {self.process.returncode}); it starts again, see {self.log}")
            self.process, self.not_before = None, now + self.pause
            self.pause = min(2 * self.pause, RESTART_SECONDS[1])
        if now >= self.not_before:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True,  # Ctrl-C is ours to pass on
                    preexec_fn=lambda: die_with(signal.SIGTERM),
                )  # fmt: skip
            self.started = now


def up(settings: UpSettings, tell: Callable[[str], None]) -> None:
    """Keep everything running until SIGINT or SIGTERM.

    Raises:
        UsageError: already up, or a port is taken.
    """
    from flows.orchestration.local import point_at

    home = Home.of(settings.store.root)
    home.make()
    settings.store.prepare()
    stop = _stop_signals()
    with ExitStack() as stack:
        stack.enter_context(_only_one(home))
        url = stack.enter_context(joined(settings.store.root, host=settings.host, port=_port(settings)))
        _check_address(settings, home, url)
        point_at({"PREFECT_API_URL": url, "PREFECT_HOME": str(home.path)})

        from flows.orchestration.deployments import Choices, deploy
        from flows.orchestration.settle import reconcile

        reconcile(settings.store)
        for name in deploy(Choices(settings.nightly, settings.timezone, settings.notify)):
            tell(f"deployed {name}")
        workers = _workers(settings, url, home)
        stack.callback(_stop, workers, tell)
        for worker in workers:
            worker.keep(tell)
        ui = url.removesuffix("/api")
        note = {"url": url, "ui": ui, "pid": os.getpid(), "process_started": psutil.Process().create_time(),
                "workers": [w.name for w in workers]}  # fmt: skip
        write_atomic(home.path / "up.json", json.dumps(note).encode())
        stack.callback((home.path / "up.json").unlink, missing_ok=True)
        if settings.host not in ("127.0.0.1", "localhost") and not os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
            tell("who reaches this address can start processes as you; PREFECT_SERVER_API_AUTH_STRING sets a password")
        tell(f"up: {ui}  (store {settings.store.root}; Ctrl-C stops all)")
        _watch(settings.store, workers, stop, tell)


def _watch(store: Store, workers: list[Worker], stop: list[int], tell: Callable[[str], None]) -> None:
    from flows.orchestration.settle import reconcile

    last = time.monotonic()
    while not stop:
        for worker in workers:
            worker.keep(tell)
        if time.monotonic() - last > RECONCILE_SECONDS:
            last = time.monotonic()
            with contextlib.suppress(Exception):  # looked at again in half a minute
                reconcile(store)
        time.sleep(CHECK_SECONDS)


def _workers(settings: UpSettings, url: str, home: Home) -> list[Worker]:
    base = os.environ | {
        "PREFECT_API_URL": url,
        "PREFECT_HOME": str(home.path),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        STORE_VARIABLE: str(settings.store.root),
        "LONGFOLIO_ROOT": str(Path.cwd()),
    }
    base.pop("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", None)
    host = socket.gethostname()

    def worker(pool: str, name: str, limit: int, **environment: str) -> Worker:
        command = [
            sys.executable, "-P", "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process",
            "--name", f"{name} on {host}", "--limit", str(limit), "--install-policy", "never",
        ]  # fmt: skip
        return Worker(name, command, base | environment, home.path / f"worker-{name}.log")

    # Where there are devices, the cpu pool has none: its runs train and evaluate on the gpu pool.
    elsewhere = {"CUDA_VISIBLE_DEVICES": "", **DELEGATED} if settings.devices else {}
    found = [worker("cpu", "cpu", settings.cpu_runs, **elsewhere)]
    for device in settings.devices:
        found.append(worker("gpu", f"gpu-{device}", 1, CUDA_VISIBLE_DEVICES=device))
    if not settings.devices:
        found.append(worker("gpu", "gpu-none", 1))
    return found


def _stop(workers: list[Worker], tell: Callable[[str], None]) -> None:
    running = [w.process for w in workers if w.process is not None and w.process.poll() is None]
    if running:
        tell("stopping; a training in progress writes a checkpoint first")
    deadline = time.monotonic() + STOP_SECONDS
    # The flows first: a worker that is stopped kills what it runs at once.
    flows = [flow for process in running for flow in _flows_of(process.pid)]
    for flow in flows:
        with contextlib.suppress(psutil.Error):
            flow.terminate()
    psutil.wait_procs(flows, STOP_SECONDS)
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _flows_of(worker: int) -> list[psutil.Process]:
    """The processes of the flow runs that a worker carries."""
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(worker).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # ended meanwhile
                if "prefect.engine" in child.cmdline():
                    found.append(child)
    return found


def _port(settings: UpSettings) -> int:
    if settings.port is not None:
        running = Home.of(settings.store.root).running()
        if running is None and not free_port(settings.host, settings.port):
            raise UsageError(f"port {settings.port} is taken", "use --port with another, or leave it out")
        return settings.port
    return UI_PORT if free_port(settings.host, UI_PORT) else 0


def _check_address(settings: UpSettings, home: Home, url: str) -> None:
    """A run that is going on may have a server of its own, which is used then."""
    host, port = (home.running() or {}).get("host"), int(url.removesuffix("/api").rpartition(":")[2])
    if host != settings.host or settings.port not in (None, 0, port):
        raise UsageError(
            f"a run of this store uses a server at {url}", "wait for the run, or leave out --host and --port"
        )


@contextmanager
def _only_one(home: Home) -> Iterator[None]:
    try:
        with FileLock(home.path / "up.lock").acquire(timeout=0):
            yield
    except Timeout:
        note = read_json(home.path / "up.json") or {}
        raise UsageError(f"already up: {note.get('ui', 'starting')}", "`longfolio down` stops it") from None


def _stop_signals() -> list[int]:
    """A list that gets the signal which asks us to stop."""
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, _: asked.append(n))
    return asked


def detach(arguments: list[str], store: Store) -> dict[str, Any]:
    """`longfolio up` in the background; returns its note when it is up.

    Raises:
        UsageError: it ended instead, with the end of what it said.
    """
    home = Home.of(store.root)
    home.make()
    log = home.path / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "flows.cli", "up", *arguments], stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, start_new_session=True,
        )  # fmt: skip
    while process.poll() is None:
        note = read_json(home.path / "up.json")
        if note and alive(note) and note["pid"] == process.pid and healthy(note["url"]):
            return note
        time.sleep(0.2)
    said = log.read_text(errors="replace").strip().splitlines()[-6:]
    raise UsageError("it did not come up: " + " / ".join(said), f"see {log}")


def down(store: Store) -> bool:
    """Stop what `up` keeps for this store and wait for it; False if nothing is up."""
    note = read_json(Home.of(store.root).path / "up.json")
    if not note or not alive(note):
        return False
    os.kill(note["pid"], signal.SIGTERM)
    while alive(note):
        time.sleep(0.1)
    return True
