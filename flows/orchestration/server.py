"""The Prefect server of a store: started for the first that needs it, stopped after the last.

Everyone who needs the server holds a shared lock on ``clients.lock``; the server itself tries that lock
exclusively twice a second and stops when it gets it. A lock goes with its process, however that ends, so a
server never outlives its users by more than a moment, and no user needs to know who started it.

Not Prefect's own ephemeral server: it was seen to print tracebacks at exit and to lose the last states.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from flows.environment import PRIVACY
from flows.errors import UsageError
from pdf2txt.units import write_atomic

START_SECONDS = 120.0  # the first start makes the database; a busy machine takes its time
RESTARTS = 20  # of a server that dies; more often there is something wrong with it
HEARTBEAT_SECONDS = 60  # of flow runs; three missed ones are taken for a death
STORE_VARIABLE = "LONGFOLIO_STORE"


@dataclass(frozen=True)
class Home:
    """Where a store's server lives: ``$XDG_STATE_HOME/longfolio/<store id>``.

    Outside the store, which may lie on a shared file system that SQLite cannot use.
    """

    path: Path

    @classmethod
    def of(cls, store: Path) -> Home:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        return cls(state / "longfolio" / hashlib.sha256(str(store.resolve()).encode()).hexdigest()[:12])

    @property
    def note(self) -> Path:
        """``{"url", "pid", "process_started"}`` of the server; no ``url`` until it listens."""
        return self.path / "server.json"

    @property
    def log(self) -> Path:
        return self.path / "server.log"

    def make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise UsageError(
                f"{self.path}, where the Prefect server keeps its database, cannot be made: {error.strerror}",
                "set XDG_STATE_HOME to a directory that can be written, or use --no-prefect",
            ) from error

    def starting(self) -> FileLock:
        """Held while a server starts, is joined, or decides to stop."""
        return FileLock(self.path / "start.lock")

    def process(self) -> dict[str, Any] | None:
        """The note of a server whose process lives, be it starting or stopping, or None."""
        note = read_json(self.note)
        return note if note and alive(note) else None

    def running(self) -> dict[str, Any] | None:
        """The note of a server that listens, or None."""
        note = self.process()
        return note if note and "url" in note else None


def alive(note: dict[str, Any]) -> bool:
    """Whether the process of a note (``pid``, ``process_started``) still runs."""
    try:
        process = psutil.Process(note["pid"])
        started: float = process.create_time()
        return started == note["process_started"] and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError):
        return False


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def healthy(url: str, seconds: float = 5.0) -> bool:
    """Whether the API at ``url`` answers."""
    try:
        # No proxy: the address is of this machine or network.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{url.rstrip('/')}/health", timeout=seconds) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False


def free_port(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@contextmanager
def joined(store: Path, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Use the store's server within the block, starting it if there is none; yields the address of its API.

    Raises:
        UsageError: it did not start, with the end of its log.
    """
    home = Home.of(store)
    home.make()
    clients = (home.path / "clients.lock").open("a")
    try:
        url = None
        while url is None:
            with home.starting():
                fcntl.flock(clients, fcntl.LOCK_SH)
                note = home.process()
                while note and note.get("stopping"):  # two servers on one SQLite file get into each other's way
                    time.sleep(0.1)
                    note = home.process()
                process = None if note else _spawn(home, host, port)
            url = _wait(home, process)
        with _kept(home, url):
            yield url
    finally:
        clients.close()  # releases the lock


@contextmanager
def _kept(home: Home, url: str) -> Iterator[None]:
    """Start the server again, at the same address, if it dies within the block."""
    host = str((home.running() or {}).get("host", "127.0.0.1"))
    port = int(url.removesuffix("/api").rpartition(":")[2])
    done = threading.Event()

    def keep() -> None:
        for _ in range(RESTARTS):
            while home.process() is not None:
                if done.wait(1.0):
                    return
            with home.starting():
                if home.process() is None:
                    _spawn(home, host, port)
            if done.wait(10.0):  # one that keeps dying is not started again at once
                return

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _spawn(home: Home, host: str, port: int) -> subprocess.Popen[bytes]:
    home.note.unlink(missing_ok=True)
    keep = {k: v for k, v in os.environ.items() if k not in ("PREFECT_API_URL", "PREFECT_PROFILE")}
    environment = (
        keep
        | PRIVACY
        | {
            "PREFECT_HOME": str(home.path),
            # By default leases are in memory: a slot that was held when the server died would be held for ever.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        }
    )
    with home.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "flows.orchestration.server", str(home.path), host, str(port)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
            start_new_session=True,  # Ctrl-C in the terminal must not take it from under the run
        )  # fmt: skip
    # Now, not when it listens: whoever comes in between must wait for this one, not start another.
    note = {"pid": process.pid, "process_started": psutil.Process(process.pid).create_time()}
    write_atomic(home.note, json.dumps(note).encode())
    return process


def _wait(home: Home, process: subprocess.Popen[bytes] | None) -> str | None:
    """Until the server answers: the address of its API; None if one that was running before is gone.

    Raises:
        UsageError: the ``process`` that was started for it ended, or it took too long.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        note = home.process()
        if note and "url" in note and healthy(note["url"]):
            return str(note["url"])
        if process is None and note is None:
            return None
        if process is not None and process.poll() is not None:
            break
        time.sleep(0.1)
    tail = home.log.read_text(errors="replace").strip().splitlines()[-3:] if home.log.exists() else []
    raise UsageError(
        f"the Prefect server did not start: {' / '.join(tail) or 'no output'}",
        f"see {home.log}; or run with --no-prefect",
    )


def main(home: Path, host: str, port: int) -> None:
    """The process of the server."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        sys.exit(f"{host}:{port}: {error.strerror}")
    port = listener.getsockname()[1]
    # 0.0.0.0 is where one listens, not where one connects; and a browser knows itself where it found the page.
    url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}/api"
    os.environ |= {
        "PREFECT_API_URL": url, "PREFECT_SERVER_API_HOST": host, "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_UI_API_URL": "/api",
    }  # fmt: skip
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "WARNING")

    import uvicorn
    from prefect.server.api.server import create_app

    server = uvicorn.Server(
        uvicorn.Config(
            _private(create_app(final=True)), log_level="warning", timeout_keep_alive=5, timeout_graceful_shutdown=5
        )
    )
    note = {"url": url, "host": host, "pid": os.getpid(), "process_started": psutil.Process().create_time()}
    with Home(home).starting():  # after the note of who started this process
        write_atomic(Home(home).note, json.dumps(note).encode())
    threading.Thread(target=_stop_when_alone, args=(Home(home), server), daemon=True).start()
    server.run(sockets=[listener])


def _private(app: Any) -> Any:
    """The UI may ask this server and nobody else: its bundle calls an analytics host whatever the settings."""
    policy = (b"content-security-policy", b"connect-src 'self'")

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def tagged(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), policy]}
            await send(message)

        await app(scope, receive, tagged if scope["type"] == "http" else send)

    return wrapped


def _stop_when_alone(home: Home, server: Any) -> None:
    with (home.path / "clients.lock").open("a") as clients:
        while True:
            time.sleep(0.5)
            try:
                with home.starting().acquire(timeout=0):  # someone is joining otherwise
                    fcntl.flock(clients, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    note = read_json(home.note) or {}
                    write_atomic(home.note, json.dumps(note | {"stopping": True}).encode())
                    server.should_exit = True
                    return
            except (Timeout, BlockingIOError):
                continue


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
