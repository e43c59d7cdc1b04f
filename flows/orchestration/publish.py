"""What a run shows in Prefect: its name, logs, progress, and artifacts.

All of it is for people to look at. None of it may stop a run: a server that is gone or slow costs a line in
the log, and a stage goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from flows import artifacts
from flows.figures import key_lines, number, read_lines, size
from flows.plan import Plan, PlannedStage
from flows.runner import Watcher
from flows.runs import RunRecord
from flows.store import Store

PROGRESS_SECONDS = 2.0  # between updates of the progress artifact
CURVE_SECONDS = 10.0  # of the training curve
LOG_SECONDS = 20.0  # between lines of progress in the log
PAUSE_SECONDS = 30.0  # without attempts after one that failed

LOST = logging.getLogger("longfolio.prefect")


class Publisher(Watcher):
    """Passes everything on to ``inner`` and shows it in Prefect as well; used inside a flow run."""

    def __init__(self, inner: Watcher, store: Store) -> None:
        self.inner, self.store = inner, store
        self.record: RunRecord | None = None
        self.curve_file: Path | None = None  # metrics.jsonl of the training in progress
        self._artifacts: dict[str, UUID] = {}
        self._last: dict[str, float] = {}
        self._quiet_until = 0.0

    # ------------------------------------------------------------------ the run

    def run_started(self, plan: Plan, record: RunRecord) -> None:
        self.record = record
        self.note_flow_run(record)
        name = f"{Path(record.data.get('config_name') or 'run').stem} {record.run_id}"
        self._quietly(lambda: self._rename(name))
        self._markdown("plan", lambda: artifacts.plan_markdown(plan), "What runs, what is reused, and why")
        for stage in plan.stages:
            self.log(logging.INFO, "%s: %s (%s)", stage.name, stage.action, stage.why)
            for warning in stage.warnings:
                self.log(logging.WARNING, "%s", warning)

    def note_flow_run(self, record: RunRecord) -> None:
        """Keep in the record which flow runs carried it, newest last."""
        known = record.data.setdefault("flow_runs", [])
        if flow_run.id and flow_run.id not in known:
            known.append(str(flow_run.id))
            record.save()

    def run_ended(self) -> None:
        """The summary and the report; whatever came of the run."""
        if self.record is None:
            return
        data = self.record.data
        self._markdown("run-summary", lambda: artifacts.summary_markdown(data), "What each stage did")
        if gate := data.get("gate"):
            self._markdown("evaluation-gate", lambda: artifacts.gate_markdown(gate), f"Gate: {gate['verdict']}")
        try:
            from flows.report import write_report

            write_report(self.record, self.store)
        except Exception as error:
            self.log(logging.WARNING, "report.html was not written: %s", error)

    # ------------------------------------------------------------------ stages

    def stage_started(self, stage: PlannedStage) -> None:
        self.inner.stage_started(stage)
        self.log(logging.INFO, "%s runs: %s", stage.name, stage.why)

    def stage_event(self, stage: str, event: str, fields: dict[str, Any]) -> None:
        self.inner.stage_event(stage, event, fields)
        if event in ("warning", "transient"):
            self.log(logging.WARNING, "%s: %s", stage, fields["message"])
        elif event == "note":
            self.log(logging.INFO, "%s: %s", stage, fields["message"])
        elif event == "progress":
            self._progress(stage, **fields)

    def stage_ended(self, row: dict[str, Any]) -> None:
        self.inner.stage_ended(row)

    def stage_report(self, row: dict[str, Any]) -> None:
        """The artifacts of a stage that is done; called inside its task run, to which they belong."""
        stage, output = row["stage"], Path(row["path"])
        key = stage.replace("_", "-")
        if key in self._artifacts:
            self._quietly(lambda: update_progress_artifact(self._artifacts[key], 100.0, description="done"))
        if stage == "evaluate":
            self._markdown(
                "evaluation", lambda: artifacts.evaluation_markdown(row["metrics"]),
                "Base against merged model, with 95 % intervals",
            )  # fmt: skip
        if row["action"] == "cached":  # the run that made it has shown the rest
            return
        if stage == "datasets_build":
            self._markdown(
                "dataset", lambda: artifacts.dataset_markdown(output, row["metrics"]), "Rows by task, lengths, samples"
            )
        elif stage == "train":
            self._curve(output / "metrics.jsonl", row["metrics"].get("steps", 0))
        if stage != "evaluate":
            summary = next(iter(key_lines(row)), row["action"])
            self._markdown(f"{key}-report", lambda: artifacts.stage_markdown(row), summary)

    def _progress(self, stage: str, done: int, total: int | None, unit: str, **numbers: Any) -> None:
        text = f"{done:,} of {total:,} {unit}" if total else f"{done:,} {unit}"
        shown = {name: value for name, value in numbers.items() if isinstance(value, int | float | str)}
        detail = ", ".join(f"{k} {size(v) if k.endswith('bytes') else number(v)}" for k, v in shown.items())
        if done and self._due(f"log-{stage}", LOG_SECONDS):
            self.log(logging.INFO, "%s: %s%s", stage, text, f" ({detail})" if detail else "")
        if total and self._due(f"progress-{stage}", PROGRESS_SECONDS):
            key, percent = stage.replace("_", "-"), 100.0 * done / total
            self._quietly(lambda: self._show_progress(key, percent, text))
        if stage == "train" and self.curve_file is not None and self._due("curve", CURVE_SECONDS):
            self._curve(self.curve_file, total or 0)

    def _show_progress(self, key: str, percent: float, text: str) -> None:
        if key in self._artifacts:
            update_progress_artifact(self._artifacts[key], percent, description=text)
        else:
            made: Any = create_progress_artifact(percent, key=f"{key}-progress", description=text)
            self._artifacts[key] = made

    def _curve(self, file: Path, steps: int) -> None:
        """The training curve: one artifact of the task run, replaced as training goes on."""

        def make() -> str:
            return artifacts.training_markdown(read_lines(file), steps)

        if "curve" not in self._artifacts:
            self._markdown("training-curve", make, "Loss by step", keep="curve")
            return

        def replace() -> None:
            with get_client(sync_client=True) as client:
                client.update_artifact(self._artifacts["curve"], ArtifactUpdate(data=make()))

        self._quietly(replace)

    # ------------------------------------------------------------------ how

    def _markdown(self, key: str, make: Callable[[], str], description: str, keep: str = "") -> None:
        def create() -> None:
            made: Any = create_markdown_artifact(make(), key=key, description=description)
            if keep:
                self._artifacts[keep] = made

        self._quietly(create)

    def _rename(self, name: str) -> None:
        if flow_run.id:
            with get_client(sync_client=True) as client:
                client.update_flow_run(UUID(flow_run.id), name=name)

    def _due(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now - self._last.get(what, -1e9) < seconds:
            return False
        self._last[what] = now
        return True

    def _quietly(self, call: Callable[[], Any]) -> None:
        if time.monotonic() < self._quiet_until:
            return
        try:
            call()
        except Exception as error:
            self._quiet_until = time.monotonic() + PAUSE_SECONDS
            LOST.debug("Prefect was not told: %s", error)

    def log(self, level: int, message: str, *values: Any) -> None:
        """Into the log of the flow or task run that is current."""
        try:
            get_run_logger().log(level, message, *values)
        except MissingContextError:
            LOST.log(level, message, *values)
