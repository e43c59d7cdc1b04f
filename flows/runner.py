"""Carry out a plan: for each stage reuse or run, keep the record, leave everything resumable."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from datasets_build.teacher.responses import KIND as REPLIES
from flows.champion import read_champion
from flows.child import run_in_child
from flows.config import RunConfig
from flows.errors import remedy_of
from flows.gate import alike, judge
from flows.plan import Plan, PlannedStage, Selection, make_plan
from flows.runs import RunRecord, environment, new_record, now
from flows.stages import STAGES, Report, Stage, stage_index
from flows.store import UNITS_LOG, Store
from longlora import models
from longlora.train import launch
from pdf2txt.units import write_atomic


class StageFailed(Exception):
    """A stage ended with an error; the record has been updated."""

    def __init__(self, record: RunRecord, stage: str, cause: BaseException) -> None:
        super().__init__(f"{stage}: {cause}")
        self.record = record
        self.stage = stage
        self.cause = cause
        self.remedy = remedy_of(cause)


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM during a run; the record has been updated."""

    def __init__(self, record: RunRecord) -> None:
        super().__init__()
        self.record = record


class Watcher:
    """Receives what happens during a run. The command line draws it; the default ignores it."""

    def stage_started(self, stage: PlannedStage) -> None: ...

    def stage_event(self, stage: str, event: str, fields: dict[str, Any]) -> None: ...

    def stage_ended(self, row: dict[str, Any]) -> None: ...


class Executor:
    """Carries out what the runner decided, here and now. `flows.orchestration` has one that tells Prefect."""

    def stage(self, planned: PlannedStage, perform: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """One stage: reused or run; returns its row of the record."""
        return perform()

    def champion(self, planned: PlannedStage, perform: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The champion's evaluation, beside the five stages; returns its row."""
        return perform()

    def library(self, stage: Stage, settings: BaseModel, inputs: dict[str, Path], work: Path, report: Report) -> Any:
        """The library's function; returns its metrics. Training on several devices takes processes of its own."""
        if stage.name == "train" and launch.command(settings, []) is not None:  # type: ignore[arg-type]
            return run_in_child(stage, settings, inputs, work, report)
        return stage.run(settings, inputs, work, report)


@dataclass
class StageReport:
    """The ``report`` callable that a stage is given: keeps what belongs in the manifest, passes all on."""

    stage: str
    attempt: Path
    on_event: Callable[[str, str, dict[str, Any]], None]
    units: set[str] = field(default_factory=set)
    transient: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __call__(self, event: str, **fields: Any) -> None:
        if event == "unit":
            name = f"{fields['kind']}/{fields['key']}"
            if name not in self.units:
                self.units.add(name)
                # Beside the attempt, so that gc spares the units of work that was killed.
                with (self.attempt / UNITS_LOG).open("a") as log:
                    log.write(name + "\n")
        elif event == "transient":
            self.transient.append(str(fields["message"]))
        elif event == "warning":
            self.warnings.append(str(fields["message"]))
        self.on_event(self.stage, event, fields)


def run(
    config: RunConfig, store: Store, selection: Selection, watcher: Watcher, *, resume: RunRecord | None = None,
    name: str = "", executor: Executor | None = None, on_plan: Callable[[Plan, RunRecord], None] | None = None,
) -> RunRecord:  # fmt: skip
    """Run the chain; returns the finished record.

    Args:
        resume: the record of an earlier run that this one continues.
        name: of the recipe, for the record.
        executor: how a stage is carried out; in this process if not given.
        on_plan: called with the plan and the new record before the first stage.

    Raises:
        UsageError, longlora.errors.UserError: found before the first stage starts.
        StageFailed: a stage ended with an error; what was finished stays, the attempt can be resumed.
        RunInterrupted: interrupted; likewise.
    """
    store.prepare()
    if resume is not None:
        selection = replace(selection, resuming=resume.run_id)
    plan = make_plan(config, store, selection)
    record = resume or new_record(store, name)
    record.data |= {
        "config": config.model_dump(mode="json"),
        "selection": selection.to_json(),
        "documents": plan.external.names,
        "stages": [_row(stage, stage.action if stage.action == "skipped" else "pending") for stage in plan.stages],
        "gate": None,
    }
    record.start_process()
    rows = record.data["stages"]
    executor = executor or Executor()
    try:
        if on_plan is not None:
            on_plan(plan, record)
        for index, planned in enumerate(plan.stages):
            if planned.action != "skipped":
                try:
                    rows[index]["action"] = "running"
                    record.save()
                    perform = partial(_perform, config, store, plan, planned, record, watcher, executor)
                    rows[index] = executor.stage(planned, perform)
                    record.save()
                except Exception as error:
                    rows[index] = _row(planned, "failed", error=f"{type(error).__name__}: {error}")
                    watcher.stage_ended(rows[index])
                    raise StageFailed(record, planned.name, error) from error
            watcher.stage_ended(rows[index])
        record.data |= _compared(config, store, plan, record, watcher, executor)
        record.data["status"] = "done"
    except StageFailed:
        record.data["status"] = "failed"
        raise
    except KeyboardInterrupt:
        record.data["status"] = "interrupted"
        raise RunInterrupted(record) from None
    except BaseException:  # a worker's request to stop
        record.data["status"] = "interrupted"
        raise
    finally:
        ended = next((row["stage"] for row in rows if row["action"] in ("running", "failed")), "")
        for row in rows:
            if row["action"] == "pending":
                row |= {"action": "skipped", "why": f"{ended} did not finish"}
            elif row["action"] == "running":
                row["action"] = "failed"
        record.data["finished"] = now()
        _save_quietly(record)
    return record


def public_result(record: RunRecord) -> dict[str, Any]:
    """What ``run --json`` prints (DESIGN section 5)."""
    keys = ("stage", "action", "why", "digest", "path", "seconds", "metrics")
    rows = [{key: row[key] for key in keys} for row in record.data["stages"]]
    gate = record.data.get("gate")
    return {"run_id": record.run_id, "status": record.data["status"], "stages": rows, "gate": gate}


def _compared(
    config: RunConfig, store: Store, plan: Plan, record: RunRecord, watcher: Watcher, executor: Executor
) -> dict[str, Any]:
    """The gate, and the champion's evaluation if that was asked for; nothing if the run did not evaluate."""
    found: dict[str, Any] = {"gate": None}
    if record.data["stages"][-1]["action"] not in ("ran", "cached") or not plan.selection.gate:
        return found
    if plan.selection.champion and (champion := read_champion(store)) is not None:
        other, settings = alike(plan, config, store, champion)
        planned = other.stages[-1]
        if planned.digest != plan.stages[-1].digest:
            perform = partial(_perform, settings, store, other, planned, record, watcher, executor)
            record.data["champion_evaluation"] = _row(planned, "running")  # spared by gc, also when interrupted
            record.save()
            try:
                found["champion_evaluation"] = executor.champion(planned, perform)
                watcher.stage_ended(found["champion_evaluation"])
            except Exception as error:
                record.data["champion_evaluation"] = _row(planned, "failed", error=f"{type(error).__name__}: {error}")
                raise StageFailed(record, f"evaluate of the champion, {champion.run_id}", error) from error
    return found | {"gate": judge(plan, config, store, record)}


def _perform(
    config: RunConfig, store: Store, plan: Plan, planned: PlannedStage, record: RunRecord, watcher: Watcher,
    executor: Executor,
) -> dict[str, Any]:  # fmt: skip
    """Reuse or run one stage under its lock; returns its row of the record."""
    stage = STAGES[stage_index(planned.name)]
    started = time.monotonic()

    def waiting() -> None:
        message = f"{planned.name}: another run is making this output; waiting for it"
        watcher.stage_event(planned.name, "warning", {"message": message})

    with store.lock(planned.name, planned.digest, on_wait=waiting):
        manifest = store.manifest(planned.name, planned.digest)
        why = _reusable(planned, manifest, _upstream_outputs(store, stage, planned), plan.selection)
        if manifest is not None and why:
            return _row(planned, "cached", why=why, seconds=time.monotonic() - started, metrics=manifest["metrics"])
        watcher.stage_started(planned)
        manifest = _make(config, store, plan, planned, stage, record, watcher, executor, replaces=manifest)
    return _row(
        planned, "ran", seconds=time.monotonic() - started, metrics=manifest["metrics"],
        warnings=manifest["warnings"], transient=manifest["transient"],
    )  # fmt: skip


def _reusable(
    planned: PlannedStage, manifest: dict[str, Any] | None, upstream: dict[str, str], selection: Selection
) -> str:
    """Why the finished output can be used as it is, or "": looked at again once the stage has the lock."""
    if planned.action == "cached" and manifest is not None:
        return planned.why
    if manifest is None or manifest["incomplete"] or manifest["upstream_outputs"] != upstream:
        return ""
    if manifest["finished"] != planned.present:
        return f"made by run {manifest['run_id']} meanwhile"
    # Planned because something before it runs again, and that came out the same.
    return "" if selection.again(planned.name) else "what it is made from came out the same"


def _upstream_outputs(store: Store, stage: Stage, planned: PlannedStage) -> dict[str, str]:
    """The content of the outputs that a stage reads: digests name what was asked for, this is what was made."""
    manifests = {name: store.manifest(name, planned.identity["upstream"][name]) for name in stage.upstream}
    return {name: m["outputs_sha256"] for name, m in manifests.items() if m}


def _make(
    config: RunConfig,
    store: Store,
    plan: Plan,
    planned: PlannedStage,
    stage: Stage,
    record: RunRecord,
    watcher: Watcher,
    executor: Executor,
    replaces: dict[str, Any] | None,
) -> dict[str, Any]:
    """Run a stage in its attempt directory and finish the output; returns the manifest."""
    attempt = store.attempt(stage.name, planned.digest)
    again = plan.selection.again(stage.name)
    upstream = _upstream_outputs(store, stage, planned)
    earlier = _read_note(attempt)
    # An attempt is continued if it was made from the same content; under --rerun, if it is a --rerun's own.
    if earlier.get("upstream_outputs") != upstream or (again and not earlier.get("rerun")):
        store.discard(attempt)
        for unit in (replaces or {}).get("units", []) if again else ():
            if not unit.startswith(f"{REPLIES}/"):  # a teacher's replies were paid for, and would come out the same
                (store.units / unit).unlink(missing_ok=True)
    attempt.mkdir(parents=True, exist_ok=True)
    note = {
        "run_id": record.run_id,
        "started": now(),
        "rerun": again,
        "upstream_outputs": upstream,
        "identity": planned.identity,
    }
    write_atomic(attempt / "attempt.json", json.dumps(note).encode())

    report = StageReport(stage.name, attempt, watcher.stage_event)
    inputs = _inputs(config, store, plan, stage, report)
    began, clock = now(), time.monotonic()
    metrics = executor.library(stage, stage.settings(config), inputs, attempt, report)
    return store.finish(
        stage.name,
        planned.digest,
        {
            "stage": stage.name,
            "digest": planned.digest,
            "run_id": record.run_id,
            "identity": planned.identity,
            "settings": stage.settings(config).model_dump(mode="json"),
            "upstream_outputs": upstream,
            "source_sha256": stage.source_sha256(),
            "environment": environment(),
            "started": began,
            "finished": now(),
            "seconds": round(time.monotonic() - clock, 3),
            "metrics": metrics,
            "units": sorted(report.units),
            "incomplete": bool(report.transient),
            "transient": report.transient,
            "warnings": report.warnings,
        },
    )


def _inputs(config: RunConfig, store: Store, plan: Plan, stage: Stage, report: StageReport) -> dict[str, Path]:
    digests = {p.name: p.digest for p in plan.stages}
    inputs = {name: store.finished(name, digests[name]) for name in stage.upstream}
    inputs |= plan.external.paths[stage.name]
    inputs["units"] = store.units
    if stage.name == "pdf2txt":
        inputs["sources"] = report.attempt / "sources.json"
        write_atomic(inputs["sources"], json.dumps(plan.external.documents, indent=1).encode())
    if stage.reads_model:
        inputs["model"] = models.prepare(config.model, store.models, report)
    if stage.name == "datasets_build" and config.dataset.teacher and config.dataset.teacher.local:
        inputs["teacher"] = models.prepare(config.dataset.teacher.local, store.models, report)
    return inputs


def _read_note(attempt: Path) -> dict[str, Any]:
    """What an earlier attempt wrote down about itself; empty if there is none."""
    try:
        note = json.loads((attempt / "attempt.json").read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _row(planned: PlannedStage, action: str, **fields: Any) -> dict[str, Any]:
    row = {
        "stage": planned.name, "action": action, "why": planned.why, "digest": planned.digest,
        "path": str(planned.path.resolve()), "seconds": 0.0, "metrics": {}, **fields,
    }  # fmt: skip
    row["seconds"] = round(float(row["seconds"]), 3)
    return row


def _save_quietly(record: RunRecord) -> None:
    """On a full disk the error that matters is the stage's own, not that its record cannot be updated."""
    with suppress(OSError):
        record.save()
