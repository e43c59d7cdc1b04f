"""What a flow run is asked to do: the form in the Prefect UI, and what a run record keeps of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.config import RunConfig, load, parse, with_overrides
from flows.errors import UsageError
from flows.orchestration.server import STORE_VARIABLE
from flows.plan import Selection
from flows.runs import RunRecord, find_run
from flows.stages import NAMES, stage_index
from flows.store import Store

# For workers whose runs have others train and evaluate, wherever their recipe says local.
DELEGATED = {"LONGFOLIO_TRAIN_ON": "train/train", "LONGFOLIO_EVALUATE_ON": "evaluate/evaluate"}
StageName = Literal["pdf2txt", "datasets_build", "train", "merge", "evaluate"]


def without_none(values: Any) -> Any:
    """Null means the default: programs send it for what they leave open."""
    return {k: v for k, v in values.items() if v is not None} if isinstance(values, dict) else values


class RunRequest(BaseModel):
    """Which recipe, which part of the chain. Only names and settings; data and secrets never come this way."""

    model_config = ConfigDict(extra="forbid")
    _none_is_unset = model_validator(mode="before")(without_none)

    config: str = Field("demo", title="Recipe", description="Name of a packaged recipe, or path of a run file.")
    pdfs: list[str] = Field(default=[], title="Documents", description="Folders or files instead of the recipe's.")
    overrides: list[str] = Field(
        default=[], title="Settings", description="Changed settings, as KEY=VALUE: train.max_steps=40"
    )
    store: str = Field(
        "", title="Store", description="Directory of the store. Empty: that of longfolio up, else ./store."
    )
    start: StageName = Field("pdf2txt", title="From", description="Reuse everything before this stage.")
    until: StageName = Field(
        "evaluate", title="Until", description="Stop after this stage, or after the last one of the flow."
    )
    rerun: list[StageName] = Field(
        default=[], title="Run again", description="Stages to run again with what follows, whatever the store has."
    )
    gate: bool = Field(True, title="Gate", description="Compare the evaluation with the champion's.")
    resume: str = Field(
        "", title="Resume", description="Id of a run to continue with the settings it had; the rest is ignored."
    )

    def resolve(self, last: StageName = "evaluate", delegates: bool = False) -> Job:
        """Load the recipe and apply the choices.

        Args:
            last: the flow's own last stage.
            delegates: whether the flow may have stages done by other deployments. One that is delegated to must
                not: it would wait for the worker that it occupies itself.

        Raises:
            UsageError: as `flows.config.load` and `flows.runs.find_run`.
        """
        where = self.store or os.environ.get(STORE_VARIABLE)
        if self.resume:
            job = continuing(Store(Path(where or "store").absolute()), self.resume)
            return replace(job, config=placed(job.config, delegates))
        config = load(
            self.config,
            overrides=self.overrides,
            pdfs=[Path(p) for p in self.pdfs],
            store=Path(where) if where else None,
        )
        store = Store((config.flows.store or Path("store")).absolute())
        until = min(self.until, last, key=stage_index)
        selection = Selection(
            self.start if self.start != NAMES[0] else None, until if until != NAMES[-1] else None, tuple(self.rerun),
            gate=self.gate,
        )  # fmt: skip
        return Job(placed(config, delegates), store, selection, self.config, tuple(self.overrides))


@dataclass
class Job:
    """A request with everything found and checked."""

    config: RunConfig
    store: Store
    selection: Selection
    name: str  # of the recipe, as it was given
    overrides: tuple[str, ...] = ()  # as they were given; config has them already
    record: RunRecord | None = None  # of the run that is continued

    def request(self) -> RunRequest:
        """This job as a flow run's parameters: so that a person sees in the UI what was asked for."""
        return RunRequest(
            config=self.name,
            pdfs=[str(path) for path in self.config.pdfs],
            overrides=list(self.overrides),
            store=str(self.store.root),
            start=cast(Any, self.selection.start or NAMES[0]),
            until=cast(Any, self.selection.until or NAMES[-1]),
            rerun=cast(Any, list(self.selection.rerun)),
            gate=self.selection.gate,
            resume=self.record.run_id if self.record else "",
        )


def placed(config: RunConfig, delegates: bool) -> RunConfig:
    """The settings with ``flows.train_on`` and ``evaluate_on`` as they hold for this process."""
    chosen = {
        "train_on": config.flows.train_on if delegates else "local",
        "evaluate_on": config.flows.evaluate_on if delegates else "local",
    }
    for name, variable in (("train_on", "LONGFOLIO_TRAIN_ON"), ("evaluate_on", "LONGFOLIO_EVALUATE_ON")):
        if delegates and chosen[name] == "local":
            chosen[name] = os.environ.get(variable, "local")
    return config.model_copy(update={"flows": config.flows.model_copy(update=chosen)})


def continuing(store: Store, run: str) -> Job:
    """What an earlier run was asked to do.

    Raises:
        UsageError: no such run, or its settings are not valid any more.
    """
    record = find_run(store, run)
    selection = Selection.from_json(record.data["selection"])
    return Job(recorded_config(record, store), store, selection, record.data.get("config_name", ""), record=record)


def recorded_config(record: RunRecord, store: Store) -> RunConfig:
    """The settings of an earlier run. The store may have been moved: where it is now counts."""
    tree = record.data["config"]
    return parse({**tree, "flows": {**tree["flows"], "store": str(store.root)}}, str(record.path))


def evaluation_of(
    store: Store, record: RunRecord, overrides: Sequence[str] = (), tasks: tuple[str, ...] = (), model: str = ""
) -> Job:
    """The evaluation of a run's model with that run's settings, and of the champion alike.

    Inputs that changed since do not count: the model and what it is made from are taken from the store.

    Args:
        overrides: changed settings of the evaluation, as ``evaluate.KEY=VALUE``.
        tasks: if these are only some on purpose: the gate looks at them alone.
        model: digest of the merge, if it is known.

    Raises:
        UsageError: the run has no finished model, or a setting is unknown.
    """
    row = next(row for row in record.data["stages"] if row["stage"] == "merge")
    if not model and row["action"] not in ("ran", "cached"):
        raise UsageError(f"run {record.run_id} has no merged model", "`longfolio status` lists what the runs did")
    config = placed(with_overrides(recorded_config(record, store), overrides), delegates=False)
    selection = Selection(start="evaluate", model=model or row["digest"], champion=True, tasks=tasks)
    return Job(config, store, selection, record.data.get("config_name", ""), tuple(overrides))


class NightlyRequest(BaseModel):
    """What the nightly evaluation looks at."""

    model_config = ConfigDict(extra="forbid")
    _none_is_unset = model_validator(mode="before")(without_none)

    store: str = Field(
        "", title="Store", description="Directory of the store. Empty: that of longfolio up, else ./store."
    )
    overrides: list[str] = Field(
        default=[], title="Settings", description="Changed settings of the evaluation, as evaluate.KEY=VALUE"
    )
