"""A stage, and a shard of one, as Prefect tasks.

Tasks are called directly, never submitted: only then does the request to stop reach what they run. They take
the work to do as a closure and names to show; the server sees the names alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.logging import get_run_logger
from prefect.runtime import task_run
from prefect.states import Cancelled, Completed, Failed
from prefect.utilities.annotations import quote
from pydantic import BaseModel

from flows.child import run_in_child
from flows.config import FlowSettings
from flows.errors import may_pass, remedy_of
from flows.orchestration.delegate import run_elsewhere
from flows.orchestration.device import device_slots
from flows.orchestration.publish import Publisher
from flows.plan import PlannedStage
from flows.runner import Executor
from flows.stages import Report, Stage
from longlora.train import launch
from pdf2txt.stage import Shard, Sources

MAX_SHARDS = 250  # a server on SQLite loses task runs by the thousand (Prefect 3.8); a person reads dozens
RETRY_SECONDS = [10.0, 60.0]
TRY_AGAIN = "TryAgain"

Row = dict[str, Any]


class PrefectExecutor(Executor):
    """Each stage is a task run; what can be divided, a task run per shard; training, a child process or elsewhere."""

    def __init__(self, settings: FlowSettings, publisher: Publisher) -> None:
        self.settings, self.publisher = settings, publisher
        self.task_runs: list[UUID] = []  # to be final when the run ends

    def stage(self, planned: PlannedStage, perform: Callable[[], Row]) -> Row:
        return self._task(planned.name, lambda: self._bring_about(planned, perform))

    def champion(self, planned: PlannedStage, perform: Callable[[], Row]) -> Row:
        return self._task("champion", perform)

    def _task(self, name: str, perform: Callable[[], Row]) -> Row:
        outcome = Outcome(perform)
        # The error itself is kept here: a state carries its text only.
        task: Any = carry_out_stage.with_options(task_run_name=name)
        task(quote(outcome), quote(self), return_state=True)
        if outcome.error is not None:
            raise outcome.error
        return outcome.row

    def _bring_about(self, planned: PlannedStage, perform: Callable[[], Row]) -> Row:
        where = {"train": self.settings.train_on, "evaluate": self.settings.evaluate_on}.get(planned.name, "local")
        if where == "local" or planned.action != "run":
            row = perform()
        else:
            run_elsewhere(where, planned, self.publisher)
            row = perform()  # finds the output in the store
            row |= {"action": "ran", "why": f"{planned.why}; on {where}"}
        self.publisher.stage_report(row)
        return row

    def library(self, stage: Stage, settings: BaseModel, inputs: dict[str, Path], work: Path, report: Report) -> Row:
        devices = launch.processes(settings) if stage.name == "train" else 1  # type: ignore[arg-type]
        with device_slots(stage.name, devices):
            if stage.name == "train":
                self.publisher.curve_file = work / "metrics.jsonl"
                return run_in_child(stage, settings, inputs, work, report)
            if stage.name == "pdf2txt":
                return stage.run(settings, inputs, work, report, spread=self._spread)
            return stage.run(settings, inputs, work, report)

    def _spread(self, sources: Sources, shard: Shard) -> None:
        done = 0
        for part in shards_of(sources, self.settings.shard_documents):
            name = f"convert {done + 1}-{done + len(part)} of {len(sources)}"
            done += len(part)
            work: Any = convert_shard.with_options(task_run_name=name)
            work(quote(partial(shard, part)), quote(self))


def shards_of(sources: Sources, size: int) -> Iterator[Sources]:
    """Parts of ``size`` sources each, or of more: never more than `MAX_SHARDS` parts."""
    items = list(sources.items())
    size = max(size, -(-len(items) // MAX_SHARDS))
    for start in range(0, len(items), size):
        yield dict(items[start : start + size])


class Outcome:
    """Calls a function and keeps what came of it, beside what Prefect is told."""

    def __init__(self, call: Callable[[], Row]) -> None:
        self.call = call
        self.row: Row = {}
        self.error: BaseException | None = None

    def __call__(self) -> Row:
        self.error = None
        try:
            self.row = self.call()
        except BaseException as error:
            self.error = error
            raise
        return self.row


def _to_be_retried(task: Any, task_run: Any, state: State[Any]) -> bool:
    return state.name == TRY_AGAIN


@task(
    name="stage", cache_policy=NO_CACHE, persist_result=True, result_serializer="json",
    retries=len(RETRY_SECONDS), retry_delay_seconds=RETRY_SECONDS, retry_condition_fn=_to_be_retried,
)  # fmt: skip
def carry_out_stage(outcome: Outcome, executor: PrefectExecutor) -> State[Row]:
    """Run or reuse one stage of the chain; what fails and may pass on another try, Prefect tries again."""
    executor.task_runs.append(UUID(task_run.id))
    logger = get_run_logger()
    try:
        row = outcome()
    except (KeyboardInterrupt, TerminationSignal):  # raised again by `PrefectExecutor.stage`
        return Cancelled(message="stopped; what is finished stays, and a retry continues")
    except Exception as error:
        if may_pass(error) and task_run.run_count <= len(RETRY_SECONDS):
            return Failed(name=TRY_AGAIN, message=failure_text(error))
        logger.error(failure_text(error), exc_info=None if remedy_of(error) else error)
        return Failed(message=failure_text(error))
    if row["action"] == "cached":
        logger.info("reused: %s", row["why"])
        return Completed(name="Cached", message=row["why"], data=row)
    return Completed(message=f"ran in {row['seconds']:.1f} s: {row['why']}", data=row)


@task(name="convert", cache_policy=NO_CACHE, persist_result=False)
def convert_shard(work: Callable[[], tuple[int, int]], executor: PrefectExecutor) -> State[None]:
    """Convert the documents of one shard to units of the store."""
    executor.task_runs.append(UUID(task_run.id))
    converted, reused = work()
    if not converted and reused:
        return Completed(name="Cached", message=f"{reused} documents converted before")
    return Completed(message=f"{converted} documents converted, {reused} converted before")


def failure_text(error: BaseException) -> str:
    """What happened and what to do, in one line."""
    remedy = remedy_of(error)
    message = str(error) if getattr(error, "remedy", None) or not str(error) else f"{type(error).__name__}: {error}"
    return f"{message}. What to do: {remedy}" if remedy else message
