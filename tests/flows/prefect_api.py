"""What the UI does, over the same HTTP API, and what a person would see there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

LONGFOLIO = Path(sys.executable).parent / "longfolio"
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def longfolio(*args: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "200", "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run([str(LONGFOLIO), *map(str, args)], capture_output=True, text=True, cwd=cwd, env=env)


class Api:
    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def get(self, path: str) -> Any:
        return self.http.get(path).raise_for_status().json()

    def post(self, path: str, **body: Any) -> Any:
        for _ in range(20):
            answer = self.http.post(path, json=body)
            if answer.status_code != 503:  # SQLite is busy, on a busy machine: ask again, as Prefect's own client does
                break
            time.sleep(0.5)
        return answer.raise_for_status().json()

    def start(self, deployment: str, **request: Any) -> str:
        found = self.get(f"/deployments/name/{deployment}")
        run = self.post(
            f"/deployments/{found['id']}/create_flow_run",
            parameters={"request": request} if request else {}, state={"type": "SCHEDULED"},
        )  # fmt: skip
        return str(run["id"])

    def set_state(self, run: str, kind: str, name: str) -> None:
        """The buttons Cancel (CANCELLING) and Retry (SCHEDULED, AwaitingRetry)."""
        assert self.post(f"/flow_runs/{run}/set_state", state={"type": kind, "name": name})["status"] == "ACCEPT"

    def wait(self, run: str, seconds: float = 180) -> dict[str, Any]:
        """The flow run when it is final."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found: dict[str, Any] = self.get(f"/flow_runs/{run}")
            if found["state"]["type"] in FINAL:
                return found
            time.sleep(0.2)
        raise AssertionError(f"not final after {seconds} s: {found['state']}, {self.logs(run)[-5:]}")

    def flow_runs(self, flow: str) -> list[dict[str, Any]]:
        """Those that have begun, oldest first."""
        found = self.post("/flow_runs/filter", flows={"name": {"any_": [flow]}}, sort="EXPECTED_START_TIME_ASC")
        return [run for run in found if run["state"]["type"] not in ("SCHEDULED", "PENDING")]

    def tasks(self, run: str) -> dict[str, str]:
        """Name (without the digest) -> name of the state, of every task run in order."""
        found: list[Any] = []
        while len(page := self._task_page(run, len(found))) == 200:
            found += page
        return {task["name"].rsplit(" ", 1)[0]: task["state"]["name"] for task in [*found, *page]}

    def task_states(self, run: str) -> list[str]:
        found: list[Any] = []
        while page := self._task_page(run, len(found)):
            found += page
        return [task["state"]["type"] for task in found]

    def _task_page(self, run: str, offset: int) -> list[Any]:
        page: list[Any] = self.post(
            "/task_runs/filter", flow_runs={"id": {"any_": [run]}}, offset=offset, sort="EXPECTED_START_TIME_ASC"
        )
        return page

    def logs(self, run: str) -> list[str]:
        found = self.post("/logs/filter", logs={"flow_run_id": {"any_": [run]}}, sort="TIMESTAMP_ASC")
        return [line["message"] for line in found]

    def events(self, name: str, seconds: float = 20) -> list[dict[str, Any]]:
        """Newest first, as soon as there is one: the server takes them in batches."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.post("/events/filter", filter={"event": {"name": [name]}})["events"]
            if found or time.monotonic() > deadline:
                return list(found)
            time.sleep(0.5)

    def artifacts(self, run: str) -> dict[str, Any]:
        found = self.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [run]}})
        return {item["key"]: item["data"] for item in found}
