"""Every state final in the database: at the end of a run, and for runs whose process was killed.

Task runs reach the server as events, in its own time; and a killed process says nothing at all.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Crashed, Failed

from flows.runs import RunRecord, list_runs
from flows.store import Store

SETTLE_SECONDS = 30.0
_PAGE = 200
# A run that a worker has just started again still stands as killed in its record.
_JUST_STARTED = timedelta(seconds=30)


def settle(flow_run: UUID, started: Iterable[UUID], seconds: float = SETTLE_SECONDS) -> list[UUID]:
    """Wait until the server has each task run in a final state; returns those that it does not have by then."""
    deadline = time.monotonic() + seconds
    waiting = set(started)
    with get_client(sync_client=True) as client:
        while True:
            for run in task_runs(client, flow_run):
                if run.state is not None and run.state.is_final():
                    waiting.discard(run.id)
            if not waiting or time.monotonic() > deadline:
                return sorted(waiting)
            time.sleep(0.1)


def task_runs(client: SyncPrefectClient, flow_run: UUID) -> Iterator[TaskRun]:
    """Every task run of a flow run."""
    offset = 0
    while True:
        page = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run])), limit=_PAGE, offset=offset
        )
        yield from page
        if len(page) < _PAGE:
            return
        offset += _PAGE


def reconcile(store: Store) -> int:
    """Give each flow run of this store that stands as running, and is not, the state its record tells.

    Returns how many there were.
    """
    mended = 0
    with get_client(sync_client=True) as client:
        for record in list_runs(store):
            status = record.status
            if status == "running":
                continue
            for key in record.data.get("flow_runs", []):
                mended += _mend(client, UUID(key), record, status)
    return mended


def _mend(client: SyncPrefectClient, key: UUID, record: RunRecord, status: str) -> int:
    try:
        run = client.read_flow_run(key)
    except ObjectNotFound:  # of another server
        return 0
    state = run.state
    # Scheduled: to be started (again). Cancelling: a worker is at it, and the server ends it after five minutes.
    if state is None or not (state.is_running() or state.is_pending()):
        return 0
    if state.timestamp > datetime.now(UTC) - _JUST_STARTED:
        return 0
    for task in task_runs(client, key):
        if task.state is None or not task.state.is_final():
            client.set_task_run_state(task.id, Crashed(message="its process was killed"), force=True)
    client.set_flow_run_state(key, _state(record.data, status), force=True)
    return 1


def _state(data: dict[str, Any], status: str) -> State[Any]:
    if status == "done":
        return Completed(message="finished after the server was gone")
    if status == "failed":
        return Failed(message="failed after the server was gone")
    if status == "interrupted":
        return Cancelled(message="interrupted")
    return Crashed(message=f"its process (pid {data.get('pid')}) was killed; longfolio resume {data['run_id']}")
