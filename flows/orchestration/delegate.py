"""A stage on other infrastructure: a run of a deployment, waited for (``flows.train_on``, ``flows.evaluate_on``)."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled, Cancelling, Scheduled

from flows.errors import UsageError
from flows.plan import PlannedStage
from flows.runs import RunRecord
from pdf2txt.units import write_atomic

POLL_SECONDS = 2.0
PATIENCE_SECONDS = 60.0  # before it is said that no worker takes the run


class ElsewhereFailed(Exception):
    """The run of the deployment did not complete."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def run_elsewhere(deployment: str, planned: PlannedStage, record: RunRecord | None) -> None:
    """Have a deployment bring about the output of ``planned`` in the shared store.

    The digest is the idempotency key: whoever asks for the same output joins the same flow run, and one that
    failed is retried, as the UI would.

    Raises:
        UsageError: there is no such deployment.
        ElsewhereFailed: its run failed, crashed or was cancelled.
    """
    assert record is not None
    parameters = {"request": _request(planned, record)}
    with get_client(sync_client=True) as client:
        run = _start(client, deployment, planned, parameters)
        try:
            final = _wait(client, run)
        except BaseException:  # we are stopped: so is what we started
            why = "the run that asked for it was stopped"
            begun = client.read_flow_run(run.id).infrastructure_pid
            client.set_flow_run_state(run.id, Cancelling(message=why) if begun else Cancelled(message=why))
            raise
    state = final.state
    if state is None or not state.is_completed():
        kind = state.name if state else "unknown"
        raise ElsewhereFailed(
            f"{planned.name} on {deployment} ended {kind}: {state.message if state else ''}",
            f"look at flow run {final.name!r} in the Prefect UI; a retry continues from its last checkpoint",
        )


def _request(planned: PlannedStage, record: RunRecord) -> dict[str, Any]:
    """The same settings, as a run file in the run's folder, for this stage alone."""
    tree = {**record.data["config"]}
    tree["flows"] = {**tree["flows"], "train_on": "local", "evaluate_on": "local"}
    folder = record.path.with_suffix("")
    folder.mkdir(exist_ok=True)
    path = folder / f"{planned.name}.yaml"
    write_atomic(path, yaml.safe_dump(tree, sort_keys=False).encode())
    again = record.data["selection"]["rerun"]
    return {
        "config": str(path), "store": str(record.path.parent.parent), "start": planned.name, "until": planned.name,
        "rerun": [planned.name] if again and planned.why.startswith("--rerun") else [],
    }  # fmt: skip


def _start(client: SyncPrefectClient, deployment: str, planned: PlannedStage, parameters: dict[str, Any]) -> FlowRun:
    def start(key: str) -> FlowRun:
        run: Any = run_deployment(
            deployment, parameters=parameters, idempotency_key=key, timeout=0,
            flow_run_name=f"{planned.name} {planned.digest[:8]}",
        )  # fmt: skip
        return client.read_flow_run(run.id)

    try:
        run = start(planned.digest)
        if run.state is not None and run.state.is_completed():  # its output is not in the store (any more)
            run = start(f"{planned.digest}-{flow_run.id}")
    except ObjectNotFound as error:
        raise UsageError(
            f"flows.{planned.name}_on: there is no deployment {deployment!r}",
            "`longfolio deploy` makes train/train and evaluate/evaluate; or use local",
        ) from error
    if run.state is not None and run.state.is_final():
        client.set_flow_run_state(run.id, Scheduled(name="AwaitingRetry", message="asked for again"))
    get_run_logger().info("%s runs on %s, flow run %r", planned.name, deployment, run.name)
    return run


def _wait(client: SyncPrefectClient, run: FlowRun) -> FlowRun:
    started, told = time.monotonic(), False
    while True:
        now = client.read_flow_run(UUID(str(run.id)))
        if now.state is not None and now.state.is_final():
            return now
        waiting = now.state is not None and now.state.is_scheduled()
        if waiting and not told and time.monotonic() - started > PATIENCE_SECONDS:
            told = True
            get_run_logger().warning(
                "flow run %r waits for a worker of work pool %r (longfolio up, or prefect worker start)",
                run.name, now.work_pool_name,
            )  # fmt: skip
        time.sleep(POLL_SECONDS)
