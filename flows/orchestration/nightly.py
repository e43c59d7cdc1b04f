"""The nightly evaluation: the newest model of a store against the champion, and a history that only grows."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run

from flows.artifacts import history_markdown, nightly_markdown
from flows.errors import UsageError
from flows.figures import worse_than_base
from flows.history import add_to_history
from flows.orchestration.request import Job, NightlyRequest, evaluation_of
from flows.orchestration.server import STORE_VARIABLE
from flows.runs import RunRecord, find_run
from flows.store import Store


def superseded() -> bool:
    """Whether a later run of the same deployment is due already: after downtime Prefect starts every missed one."""
    if deployment.id is None or flow_run.scheduled_start_time is None:
        return False
    with get_client(sync_client=True) as client:
        later = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[UUID(deployment.id)])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
                expected_start_time=FlowRunFilterExpectedStartTime(
                    after_=flow_run.scheduled_start_time + timedelta(seconds=1), before_=datetime.now(UTC)
                ),
            ),
            limit=1,
        )
    return bool(later)


def newest_model(request: NightlyRequest) -> Job:
    """The evaluation of the model that was merged last, with the settings of the run that merged it.

    Raises:
        UsageError: the store has no model, or its run's record is gone.
    """
    store = Store(Path(request.store or os.environ.get(STORE_VARIABLE) or "store").absolute())
    finished = [m for s, d, _ in store.outputs("merge") if (m := store.manifest(s, d)) is not None]
    if not finished:
        raise UsageError(f"store {store.root} has no merged model", "run end-to-end once")
    manifest = max(finished, key=lambda m: str(m["finished"]))
    record = find_run(store, manifest["run_id"])
    return evaluation_of(store, record, request.overrides, model=manifest["digest"])


def keep(record: RunRecord, store: Store) -> None:
    """Into the history, with the artifacts of the night."""
    rows = add_to_history(store, record)
    logger = get_run_logger()
    logger.info("the history has %d rows", len(rows))
    worse = worse_than_base(record.data["stages"][-1]["metrics"])
    if worse:
        logger.warning("worse than its base on %s", ", ".join(worse))
    if record.data["gate"]:
        create_markdown_artifact(
            nightly_markdown(record.data, rows, store.root), key="evaluation-nightly", description="This night"
        )
    create_markdown_artifact(history_markdown(rows), key="evaluation-history", description="The last nights")
