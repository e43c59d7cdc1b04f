"""`longfolio deploy`: work pools, queues, deployments and automations on the server, as often as one likes.

What is deployed stands in ``prefect.yaml``; Prefect's own command deploys it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import yaml
from cronsim import CronSim, CronSimError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.workers.process import ProcessWorker

from flows.errors import UsageError
from flows.orchestration.automations import install
from flows.resources import ROOT

POOLS = {"cpu": {}, "gpu": {"interactive": 1, "train": 5, "nightly": 10}}  # pool -> queue -> priority, 1 goes first
NIGHTLY = "flows.orchestration.flows.nightly_evals"
NIGHTLY_DEPLOYMENT = "nightly-evals/nightly-evals"


@dataclass(frozen=True)
class Choices:
    """What may differ from ``prefect.yaml``."""

    nightly: str | None = None  # cron of the nightly evaluation; "off" to pause it
    timezone: str | None = None  # of the cron, as in the tz database
    notify: str | None = None  # name of a notification block for the alerts, as TYPE/NAME

    def check(self) -> None:
        """Raises:
        UsageError: the cron or the timezone is none.
        """
        if self.timezone is not None and self.timezone not in available_timezones():
            raise UsageError(f"--timezone {self.timezone!r} is unknown", "use a name such as Europe/Berlin")
        if self.nightly not in (None, "off"):
            try:
                CronSim(self.nightly, datetime.now(ZoneInfo(self.timezone or "UTC")))
            except CronSimError as error:
                raise UsageError(f"--nightly {self.nightly!r}: {error}", 'use a cron such as "0 2 * * *"') from None


def deploy(choices: Choices) -> list[str]:
    """Apply everything to the server that is configured; returns the names of the deployments.

    Raises:
        UsageError: a choice is wrong, or the server refused a deployment.
    """
    choices.check()
    tree = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    with get_client(sync_client=True) as client:
        tree = chosen(tree, choices, _deployed_schedule(client))
        for pool, queues in POOLS.items():
            _make_pool(client, pool, queues)
    with tempfile.TemporaryDirectory(prefix="longfolio-") as folder:
        file = Path(folder) / "prefect.yaml"
        file.write_text(yaml.safe_dump(tree, sort_keys=False))
        done = subprocess.run(
            [sys.executable, "-P", "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)],
            cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    if done.returncode:
        raise UsageError(
            f"the deployments were refused: {(done.stdout + done.stderr).strip()[-2000:]}",
            "see the server's log; `prefect deploy --all` does the same",
        )
    names = [f"{_flow_name(item['entrypoint'])}/{item['name']}" for item in tree["deployments"]]
    install(choices.notify)
    return names


def chosen(tree: dict[str, Any], choices: Choices, deployed: dict[str, Any]) -> dict[str, Any]:
    """``prefect.yaml`` with the choices applied; a nightly schedule that is ``deployed`` stays as it is otherwise."""
    for item in tree["deployments"]:
        if item["entrypoint"] == NIGHTLY:
            for schedule in item["schedules"]:
                schedule |= deployed
                if choices.nightly == "off":
                    schedule["active"] = False
                elif choices.nightly:
                    schedule |= {"cron": choices.nightly, "active": True}
                schedule["timezone"] = choices.timezone or schedule["timezone"]
    return tree


def _deployed_schedule(client: SyncPrefectClient) -> dict[str, Any]:
    """Cron, timezone and state of the nightly schedule on the server: what a person chose there, here or in the UI."""
    try:
        known = client.read_deployment_by_name(NIGHTLY_DEPLOYMENT)
    except ObjectNotFound:
        return {}
    for item in known.schedules:
        if isinstance(item.schedule, CronSchedule):
            return {"cron": item.schedule.cron, "timezone": item.schedule.timezone or "UTC", "active": item.active}
    return {}


def _flow_name(entrypoint: str) -> str:
    return entrypoint.rpartition(".")[2].replace("_", "-")


def _make_pool(client: SyncPrefectClient, name: str, queues: dict[str, int]) -> None:
    template = ProcessWorker.get_default_base_job_template()
    with contextlib.suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
    for queue, priority in queues.items():
        try:
            client.create_work_queue(name=queue, work_pool_name=name, priority=priority)
        except ObjectAlreadyExists:
            found = client.read_work_queue_by_name(queue, work_pool_name=name)
            client.update_work_queue(found.id, priority=priority)
