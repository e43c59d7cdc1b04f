"""Every state final in the database: at the end of a run, and for runs whose process was killed.

Task runs reach the server as events, in its own time; and a killed process says nothing at all.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.states import Cancelled, Completed, Crashed, Failed

from flows.gate import failed
from flows.orchestration.server import Home
from flows.runs import RunRecord, list_runs
from flows.store import Store

SETTLE_SECONDS = 30.0
REGRESSED_STATE = "Regressed"
_PAGE = 200
# A run that a worker has just started again still stands as killed in its record.
_JUST_STARTED = timedelta(seconds=30)
_UNFINISHED = [StateType.PENDING, StateType.RUNNING]
_UNFINISHED_FLOWS = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNFINISHED)))
_UNFINISHED_TASKS = TaskRunFilter(
    state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[*_UNFINISHED, StateType.SCHEDULED]))  # to be retried
)


def settle(flow_run: UUID, started: Iterable[UUID], seconds: float = SETTLE_SECONDS) -> list[UUID]:
    """Wait until the server has each task run in a final state; returns those that it does not have by then."""
    deadline = time.monotonic() + seconds
    waiting = set(started)
    with get_client(sync_client=True) as client:
        while True:
            of_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))
            for run in _pages(client.read_task_runs, flow_run_filter=of_run):
                if run.state is not None and run.state.is_final():
                    waiting.discard(run.id)
            if not waiting or time.monotonic() > deadline:
                return sorted(waiting)
            time.sleep(0.1)


def reconcile(store: Store) -> int:
    """Give each run of this store that stands as running, and is not, the state its record tells.

    Task runs that were left behind by a flow run that has ended are Crashed. Returns how many flow runs were mended.
    """
    records = {key: record for record in list_runs(store) for key in record.data.get("flow_runs", [])}
    mended = 0
    with get_client(sync_client=True) as client:
        left: dict[str, list[TaskRun]] = {}
        for task in _pages(client.read_task_runs, task_run_filter=_UNFINISHED_TASKS):
            left.setdefault(str(task.flow_run_id), []).append(task)
        running = {str(run.id): run for run in _pages(client.read_flow_runs, flow_run_filter=_UNFINISHED_FLOWS)}
        # A server that listens on this machine alone has workers on this machine alone.
        note = Home.of(store.root).running()
        ours = note is not None and note.get("host") in ("127.0.0.1", "localhost")
        for run in running.values() if ours else ():
            if str(run.id) not in records and _died_at_start(run):
                client.set_flow_run_state(run.id, Crashed(message="its process was killed"), force=True)
                mended += 1
        for key in sorted(running.keys() | left.keys()):
            record = records.get(key)
            if record is not None and _over(client, UUID(key), record):
                for task in left.get(key, []):
                    client.set_task_run_state(task.id, Crashed(message="its process was killed"), force=True)
                if key in running:
                    client.set_flow_run_state(UUID(key), _state(record.data, record.status), force=True)
                    mended += 1
    return mended


def take_over(record: RunRecord, current: str) -> None:
    """What earlier flow runs of a record left unfinished is Crashed: flow run ``current`` continues them.

    Also the task runs of an earlier try of ``current`` itself, before it starts its own.
    """
    keys = [UUID(key) for key in {*record.data.get("flow_runs", []), current}]
    among = FlowRunFilterId(any_=keys)
    message = f"its process was killed; continued by flow run {current}"
    with get_client(sync_client=True) as client:
        of_them = FlowRunFilter(id=among)
        for task in _pages(client.read_task_runs, task_run_filter=_UNFINISHED_TASKS, flow_run_filter=of_them):
            client.set_task_run_state(task.id, Crashed(message=message), force=True)
        unfinished = FlowRunFilter(id=among, state=_UNFINISHED_FLOWS.state)
        for run in _pages(client.read_flow_runs, flow_run_filter=unfinished):
            if str(run.id) != current:
                client.set_flow_run_state(run.id, Crashed(message=message), force=True)


def _over(client: SyncPrefectClient, key: UUID, record: RunRecord) -> bool:
    """Whether nobody works on this flow run any more."""
    # Of a run on another machine only its heartbeats are known: the automation watches them.
    if record.status == "running" or record.data["environment"]["host"] != socket.gethostname():
        return False
    state = client.read_flow_run(key).state
    # Scheduled: to be started (again). Cancelling: a worker is at it, and the server ends it after five minutes.
    if state is None or state.is_scheduled() or state.is_cancelling():
        return False
    return state.timestamp < datetime.now(UTC) - _JUST_STARTED


def _died_at_start(run: FlowRun) -> bool:
    """Whether the process that a worker of this machine started for the run ended before it had a record."""
    pid = (run.infrastructure_pid or "").rpartition(":")[2]
    if run.state is None or run.state.timestamp > datetime.now(UTC) - _JUST_STARTED:
        return False
    return pid.isdigit() and not psutil.pid_exists(int(pid))


def _pages(read: Callable[..., list[Any]], **filters: Any) -> Iterator[Any]:
    offset = 0
    while True:
        page = read(**filters, limit=_PAGE, offset=offset)
        yield from page
        if len(page) < _PAGE:
            return
        offset += _PAGE


def regressed(data: dict[str, Any]) -> State[Any]:
    """Of a run that is done, and whose gate failed: red in the UI, and no infrastructure trouble.

    The name is also that of the event: ``prefect.flow-run.Regressed``.
    """
    return Failed(name=REGRESSED_STATE, message=f"all is done, and the gate failed: {data['gate']['reason']}")


def _state(data: dict[str, Any], status: str) -> State[Any]:
    if status == "done" and failed(data):
        return regressed(data)
    if status == "done":
        return Completed(message="finished after the server was gone")
    if status == "failed":
        return Failed(message="failed after the server was gone")
    if status == "interrupted":
        return Cancelled(message="interrupted")
    return Crashed(message=f"its process (pid {data.get('pid')}) was killed; longfolio resume {data['run_id']}")
