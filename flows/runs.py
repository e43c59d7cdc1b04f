"""Run records: one JSON file per run, written at its start and updated as it goes."""

from __future__ import annotations

import json
import os
import platform
import secrets
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from flows.errors import UsageError
from flows.store import Store
from pdf2txt.units import write_atomic

RECORDED_PACKAGES = (
    "longfolio", "torch", "transformers", "peft", "accelerate", "datasets", "pyarrow", "pypdfium2", "rapidocr",
    "onnxruntime", "openvino", "rapid-layout", "prefect",
)  # fmt: skip


def now() -> str:
    """UTC, ISO 8601, milliseconds: sorts as text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@cache
def environment() -> dict[str, Any]:
    """What the run was made with: recorded, never digested."""
    versions = {}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "versions": versions,
    }


@dataclass
class RunRecord:
    """One run's record and the file that holds it."""

    path: Path
    data: dict[str, Any]

    @property
    def run_id(self) -> str:
        return str(self.data["run_id"])

    @property
    def status(self) -> str:
        """The recorded status; ``killed`` where it says running and the process is gone."""
        status = str(self.data["status"])
        return "killed" if status == "running" and not self._alive() else status

    def _alive(self) -> bool:
        if self.data["environment"]["host"] != socket.gethostname():
            # Another machine on a shared store, or a container that is gone: the locks tell.
            store = Store(self.path.parent.parent)
            return any(store.locked(row["stage"], row["digest"]) for row in self.data["stages"])
        try:
            return bool(psutil.Process(self.data["pid"]).create_time() == self.data["process_started"])
        except psutil.Error:
            return False

    def check_free(self) -> None:
        """Raises:
        UsageError: another process carries this run at the moment.
        """
        if self.status == "running" and self.data["pid"] != os.getpid():
            where = f"process {self.data['pid']} on {self.data['environment']['host']}"
            raise UsageError(f"run {self.run_id} is still running ({where})", "wait for it, or end it first")

    def save(self) -> None:
        write_atomic(self.path, json.dumps(self.data, indent=1).encode())

    def start_process(self) -> None:
        """This process carries the run (again)."""
        self.data |= {"status": "running", "pid": os.getpid(), "process_started": psutil.Process().create_time(),
                      "environment": environment(), "finished": None}  # fmt: skip
        self.save()


def new_record(store: Store, name: str) -> RunRecord:
    """A record under a fresh id ``YYYYMMDD-HHMMSS-xxxx``, not yet saved."""
    run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    return RunRecord(store.runs / f"{run_id}.json", {"run_id": run_id, "started": now(), "config_name": name})


def list_runs(store: Store) -> list[RunRecord]:
    """Every readable record, oldest first."""
    records = []
    for path in sorted(store.runs.glob("*.json")):
        try:
            data = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(data, dict) and {"run_id", "stages", "config"} <= data.keys():
            records.append(RunRecord(path, data))
    return sorted(records, key=lambda r: (r.data.get("started", ""), r.run_id))


def find_run(store: Store, name: str) -> RunRecord:
    """A run by id, by unique beginning of its id, or as ``latest`` or ``previous``.

    Raises:
        UsageError: no such run, or several.
    """
    records = list_runs(store)
    if not records:
        raise UsageError(f"store {store.root} has no runs", "start one with `longfolio run demo`, or choose --store")
    if name in ("latest", "previous"):
        index = 1 if name == "latest" else 2
        if len(records) < index:
            raise UsageError("there is no previous run: the store has only one", "name a run, or use latest")
        return records[-index]
    matches = [r for r in records if r.run_id == name] or [r for r in records if r.run_id.startswith(name)]
    if len(matches) != 1:
        what = "no run" if not matches else f"{len(matches)} runs"
        raise UsageError(f"{what} {name!r} in store {store.root}", "`longfolio status` lists the runs")
    return matches[0]
