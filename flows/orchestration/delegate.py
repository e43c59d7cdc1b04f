"""A stage on other infrastructure: a run of a deployment, waited for (``flows.train_on``, ``flows.evaluate_on``)."""

from __future__ import annotations

import logging
import time
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Cancelled, Cancelling, Scheduled

from flows.errors import UsageError
from flows.orchestration.publish import Publisher
from flows.plan import PlannedStage
from flows.runs import RunRecord
from flows.store import MANIFEST
from pdf2txt.units import write_atomic

POLL_SECONDS = 2.0
PATIENCE_SECONDS = 60.0  # before it is said that no worker takes the run


class ElsewhereFailed(Exception):
    """The run of the deployment did not complete."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def run_elsewhere(deployment: str, planned: PlannedStage, publisher: Publisher) -> None:
    """Have a deployment bring about the output of ``planned`` in the shared store.

    The digest is the idempotency key: whoever asks for the same output joins the same flow run, and one that
    failed is retried, as the UI would.

    Raises:
        UsageError: there is no such deployment.
        ElsewhereFailed: its run failed, crashed or was cancelled, or made something else.
    """
    assert publisher.record is not None
    parameters = {"request": _request(planned, publisher.record)}
    with get_client(sync_client=True) as client:
        run, ours = _start(client, deployment, planned, parameters)
        publisher.log(logging.INFO, "%s runs on %s, flow run %r", planned.name, deployment, run.name)
        try:
            final = _wait(client, run, planned.name, publisher)
        except BaseException:  # we are stopped: so is what we started, but not what others wait for as well
            if not ours:
                raise
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
    if not (planned.path / MANIFEST).exists():
        raise ElsewhereFailed(
            f"{planned.name} on {deployment} completed, but its output is not in this store",
            "use one store on a shared file system, the same versions there as here, and no auto precision (dtype)",
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
        "gate": False,  # whoever asked compares
    }  # fmt: skip


def _start(
    client: SyncPrefectClient, deployment: str, planned: PlannedStage, parameters: dict[str, Any]
) -> tuple[FlowRun, bool]:
    """The flow run for this digest, and whether it runs because of us."""
    key = planned.digest
    known = _runs_of(client, key)
    if known and known[0].state is not None and known[0].state.is_completed():
        key = f"{planned.digest}-{flow_run.id}"  # its output is not in the store any more
        known = _runs_of(client, key)
    if known:
        run = known[0]
        if run.state is None or not run.state.is_final():
            return run, False
        client.set_flow_run_state(run.id, Scheduled(name="AwaitingRetry", message="asked for again"))
        return run, True
    try:
        # Not a subflow: others may join it, and each would leave a task run behind that never ends.
        made: Any = run_deployment(
            deployment, parameters=parameters, idempotency_key=key, timeout=0, as_subflow=False,
            flow_run_name=f"{planned.name} {planned.digest[:8]}",
        )  # fmt: skip
    except ObjectNotFound as error:
        raise UsageError(
            f"flows.{planned.name}_on: there is no deployment {deployment!r}",
            "`longfolio deploy` makes train/train and evaluate/evaluate; or use local",
        ) from error
    return client.read_flow_run(made.id), True


def _runs_of(client: SyncPrefectClient, key: str) -> list[FlowRun]:
    wanted = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[key]))
    return client.read_flow_runs(flow_run_filter=wanted, limit=1)


def _wait(client: SyncPrefectClient, run: FlowRun, stage: str, publisher: Publisher) -> FlowRun:
    started, told = time.monotonic(), False
    while True:
        now = client.read_flow_run(UUID(str(run.id)))
        if now.state is not None and now.state.is_final():
            return now
        waiting = now.state is not None and now.state.is_scheduled()
        if waiting and not told and time.monotonic() - started > PATIENCE_SECONDS:
            told = True
            message = f"flow run {run.name!r} waits for a worker of work pool {now.work_pool_name!r} (longfolio up)"
            publisher.stage_event(stage, "warning", {"message": message})
        time.sleep(POLL_SECONDS)
