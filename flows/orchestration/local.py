"""`longfolio run`: the end-to-end flow in this process, on the server of its store."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flows.display import err
from flows.errors import UsageError
from flows.orchestration.request import Job
from flows.orchestration.server import HEARTBEAT_SECONDS, Home, healthy, joined
from flows.orchestration.session import SESSION, Session
from flows.plan import make_plan
from flows.runner import RunInterrupted, Watcher
from flows.runs import RunRecord
from flows.store import Store

DRAIN_SECONDS = 10.0


def run_as_flow(job: Job, watcher: Watcher) -> RunRecord:
    """As `flows.runner.run`, under Prefect.

    Raises:
        UsageError: also if no server can be had.
        StageFailed, RunInterrupted: as `flows.runner.run`.
    """
    job.store.prepare()
    make_plan(job.config, job.store, job.selection)  # a user's mistake is found before a server is started
    session = Session(job, watcher)
    with prefect_server(job.store) as url:
        from prefect.exceptions import TerminationSignal

        from flows.orchestration.flows import end_to_end, evaluate
        from flows.orchestration.settle import reconcile

        token = SESSION.set(session)
        try:
            reconcile(job.store)
            flow: Any = evaluate if job.selection.model else end_to_end  # of a model: `longfolio eval`
            flow(job.request(), return_state=True)
        except Exception as lost:  # of Prefect's client: what the run itself raised is kept in the session
            if session.record is None or session.record.data["status"] == "running":
                raise
            err.print(f"[yellow]![/] Prefect was not told how the run ended: {lost}")
        finally:
            SESSION.reset(token)
            _drain(lost=not healthy(url))
        error = session.error
        if isinstance(error, KeyboardInterrupt | TerminationSignal):
            raise RunInterrupted(session.record) if session.record else KeyboardInterrupt
        if error is not None:
            raise error
    assert session.record is not None
    return session.record


@contextmanager
def prefect_server(store: Store) -> Iterator[str]:
    """The API that is configured, else the one of the store; Prefect in this process talks to it.

    Raises:
        UsageError: the configured one does not answer, or the store's did not start.
    """
    # The terminal has our own display.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(HEARTBEAT_SECONDS))
    logging.raiseExceptions = False  # a log line that the server did not get is not worth a line in the terminal
    from prefect.settings import get_current_settings

    configured = get_current_settings().api.url
    if configured:
        if not healthy(configured):
            raise UsageError(
                f"the Prefect server at {configured} (PREFECT_API_URL) does not answer",
                "start it, correct or unset PREFECT_API_URL, or use --no-prefect",
            )
        yield configured
        return
    before = dict(os.environ)
    with joined(store.root) as url:
        point_at({"PREFECT_API_URL": url, "PREFECT_HOME": str(Home.of(store.root).path)})
        try:
            yield url
        finally:
            os.environ.clear()
            point_at(before)


def point_at(environment: dict[str, str]) -> None:
    """Set environment variables that Prefect's settings are read from, also where they have been read."""
    from prefect.context import refresh_global_settings_context

    os.environ.update(environment)
    refresh_global_settings_context()


def _drain(lost: bool) -> None:
    """Send what is still on its way while the server is there; Prefect would do it at exit, with tracebacks."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    workers: tuple[Any, ...] = (EventsWorker, APILogWorker)
    for worker in workers:
        for service in tuple(worker._instances.values()) if lost else ():
            with contextlib.suppress(queue.Empty):  # each would be tried for seconds, at a server that is gone
                while True:
                    service._queue.get_nowait()
        worker.drain_all(timeout=DRAIN_SECONDS)
    logging.getLogger("prefect").setLevel(logging.CRITICAL)
