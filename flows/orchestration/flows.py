"""The flows: thin shells over the chain. Deployments name them as ``flows.orchestration.flows.end_to_end``.

Each brings its last stage up to date and everything before it, reusing what the store has. A retry of a flow
run, from the UI or by a worker, continues its own run record; a stage that is done is Cached.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from rich.console import Console

from flows.child import die_with
from flows.environment import quiet
from flows.errors import remedy_of
from flows.gate import failed
from flows.orchestration.automations import announce
from flows.orchestration.nightly import keep, newest_model, superseded
from flows.orchestration.publish import Publisher
from flows.orchestration.request import Job, NightlyRequest, RunRequest
from flows.orchestration.session import SESSION, Session
from flows.orchestration.settle import regressed, settle, take_over
from flows.orchestration.tasks import PrefectExecutor, failure_text
from flows.plan import Plan
from flows.runner import StageFailed, public_result, run
from flows.runs import RunRecord, list_runs
from flows.store import Store

ROOT_VARIABLE = "LONGFOLIO_ROOT"  # what relative paths of a request are relative to, under `longfolio up`
DEFAULT = RunRequest()
NIGHTLY = NightlyRequest()
PERSIST: dict[str, Any] = {"persist_result": True, "result_serializer": "json"}


@flow(name="end-to-end", **PERSIST)
def end_to_end(request: RunRequest = DEFAULT) -> State[Any]:
    """From PDFs to an evaluated model: pdf2txt, datasets_build, train, merge, evaluate."""
    return carry(lambda: request.resolve(delegates=True))


@flow(name="pdf2txt", **PERSIST)
def pdf2txt(request: RunRequest = DEFAULT) -> State[Any]:
    """Convert the documents to text."""
    return carry(lambda: request.resolve("pdf2txt"))


@flow(name="datasets-build", **PERSIST)
def datasets_build(request: RunRequest = DEFAULT) -> State[Any]:
    """Rebuild the dataset; documents that were converted before are reused."""
    return carry(lambda: request.resolve("datasets_build"))


@flow(name="train", **PERSIST)
def train(request: RunRequest = DEFAULT) -> State[Any]:
    """Train an adapter; an attempt that was stopped continues from its newest checkpoint."""
    return carry(lambda: request.resolve("train"))


@flow(name="merge", **PERSIST)
def merge(request: RunRequest = DEFAULT) -> State[Any]:
    """Merge the adapter into the base model."""
    return carry(lambda: request.resolve("merge"))


@flow(name="evaluate", **PERSIST)
def evaluate(request: RunRequest = DEFAULT) -> State[Any]:
    """Compare the merged model with its base."""
    return carry(lambda: request.resolve("evaluate"))


@flow(name="nightly-evals", **PERSIST)
def nightly_evals(request: NightlyRequest = NIGHTLY) -> State[Any]:
    """Evaluate the newest model and the champion alike, and compare them; what has been evaluated is reused."""
    if superseded():
        return Cancelled(message="a later night is due as well, and evaluates the same")
    return carry(lambda: newest_model(request), then=keep)


def carry(prepare: Callable[[], Job], then: Callable[[RunRecord, Store], None] | None = None) -> State[Any]:
    """Carry out what was asked for inside the flow run that is current; returns its final state.

    ``prepare`` finds out what that is, for a flow run that a worker started; ``then`` is called when it is done.

    What a user can mend is a Failed state with the remedy as its message. A run that is done, and whose model is worse
    than the champion, is Failed, too, but named Regressed; a retry finds all of it done. A stop is passed on to
    whoever started this process; a run that a terminal started ends Cancelled.
    """
    session = SESSION.get()
    try:
        job = session.job if session else _prepared(prepare)
        record = run_chain(job, session or Session(job))
        if then is not None:
            then(record, job.store)
    except (KeyboardInterrupt, TerminationSignal) as stop:
        if session is None:
            raise
        session.error = stop
        again = f"longfolio resume {session.record.run_id}" if session.record else "the same command"
        return Cancelled(message=f"interrupted; what is finished stays. Continue with: {again}")
    except Exception as error:
        if session is not None:
            session.error = error
        cause = error.cause if isinstance(error, StageFailed) else error
        where = f"{error.stage}: " if isinstance(error, StageFailed) else ""
        get_run_logger().error("%s%s", where, failure_text(cause), exc_info=None if remedy_of(cause) else cause)
        return Failed(message=where + failure_text(cause))
    if failed(record.data):
        announce(record)
        return regressed(record.data)
    return Completed(message=did(record), data=_kept(public_result(record)))


def run_chain(job: Job, session: Session) -> RunRecord:
    """`flows.runner.run` with every stage as a task run; afterwards all of them are final in the database.

    Raises:
        As `flows.runner.run`.
    """
    publisher = Publisher(session.watcher, job.store)
    executor = PrefectExecutor(job.config.flows, publisher)
    resume = job.record or _record_of(job.store, flow_run.id)
    if resume is not None:
        resume.check_free()
        resume.start_process()  # before the inputs are hashed: it is no longer a killed run
        take_over(resume, flow_run.id)

    def started(plan: Plan, record: RunRecord) -> None:
        session.record = record
        publisher.run_started(plan, record)

    try:
        return run(
            job.config, job.store, job.selection, publisher, resume=resume, name=job.name, executor=executor,
            on_plan=started,
        )  # fmt: skip
    finally:
        publisher.run_ended()
        try:
            lost = settle(UUID(flow_run.id), executor.task_runs)
        except Exception as error:  # a server that is gone; what ended the run matters more
            publisher.log(logging.WARNING, "not every state is known to be recorded: %s", error)
        else:
            if lost:
                publisher.log(logging.WARNING, "the server did not record %d task runs", len(lost))


def _prepared(prepare: Callable[[], Job]) -> Job:
    """Of a flow run that a worker started: in the directory where `longfolio up` was."""
    quiet()
    Console.on_broken_pipe = lambda self: None  # type: ignore[method-assign]  # it would exit, when a worker died
    die_with(signal.SIGTERM)  # a worker that is killed leaves no run behind: it ends Crashed, and can be retried
    root = os.environ.get(ROOT_VARIABLE)
    if root and Path(root).is_dir():
        os.chdir(root)
    return prepare()


def _record_of(store: Store, flow_run_id: str | None) -> RunRecord | None:
    """The record that this very flow run made when it ran before: it is being retried."""
    return next((r for r in reversed(list_runs(store)) if flow_run_id in r.data.get("flow_runs", [])), None)


def _kept(result: dict[str, Any]) -> dict[str, Any]:
    """Without samples: what models wrote is shown in the artifact, and Prefect keeps it in no other place."""
    gate = result["gate"]
    return {**result, "gate": gate and {key: value for key, value in gate.items() if key != "worst"}}


def did(record: RunRecord) -> str:
    """``5 cached``; ``train, merge, evaluate ran; 2 cached; gate: pass``."""
    rows = record.data["stages"]
    ran = [row["stage"] for row in rows if row["action"] == "ran"]
    cached = sum(row["action"] == "cached" for row in rows)
    parts = ([f"{', '.join(ran)} ran"] if ran else []) + ([f"{cached} cached"] if cached else [])
    gate = record.data.get("gate")
    parts += [f"gate: {gate['verdict']}"] if gate and gate["champion"] else []
    return "; ".join(parts) or "nothing to do"
