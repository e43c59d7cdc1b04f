"""The run file: one YAML per recipe, checked key by key.

Relative paths in a run file are relative to that file; paths in ``--set`` and ``--pdfs`` to the current
directory.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from datasets_build.settings import DatasetSettings
from flows.errors import UsageError
from flows.resources import packaged_config, packaged_configs
from longlora.errors import UserError
from longlora.evaluation.settings import EvaluateSettings
from longlora.explain import explain
from longlora.merge.settings import MergeSettings
from longlora.models import ModelSettings
from longlora.overrides import assign, split
from longlora.train.settings import TrainSettings
from pdf2txt.settings import Pdf2txtSettings


class FlowSettings(BaseModel):
    """How a run is carried out. Never part of a digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Path | None = Field(None, description="Directory of the store; null is ./store.")
    shard_documents: int = Field(
        64, ge=1,
        description="Documents per Prefect task run of the conversion. Fewer show progress in finer grain and spread "
        "better over a cluster; each costs its own start of the workers. There are never more than 250 task runs.",
    )  # fmt: skip
    train_on: str = Field(
        "local",
        description="Where training runs under Prefect: local is a child process of the run, FLOW/DEPLOYMENT (such as "
        "train/train) a run of that deployment, on whatever its work pool stands for. The store must be shared.",
    )
    evaluate_on: str = Field("local", description="Likewise for the evaluation, such as evaluate/evaluate.")

    @field_validator("train_on", "evaluate_on")
    @classmethod
    def _local_or_deployment(cls, value: str) -> str:
        if value != "local" and not all(value.partition("/")):
            raise ValueError("must be local or FLOW/DEPLOYMENT, such as train/train")
        return value


class RunConfig(BaseModel):
    """Everything a run needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pdfs: tuple[Path, ...] = Field((), description="List of folders (searched recursively) and files: .pdf, .txt, .md.")
    model: ModelSettings = Field(description="The base model.")
    pdf2txt: Pdf2txtSettings = Field(default_factory=Pdf2txtSettings, description="Stage 1: PDF to text.")
    dataset: DatasetSettings = Field(default_factory=DatasetSettings, description="Stage 2: text to rows.")
    train: TrainSettings = Field(default_factory=TrainSettings, description="Stage 3: rows to adapter.")
    merge: MergeSettings = Field(default_factory=MergeSettings, description="Stage 4: adapter to model.")
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings, description="Stage 5: model to numbers.")
    flows: FlowSettings = Field(default_factory=FlowSettings, description="Store and execution.")

    @field_validator("pdfs", mode="before")
    @classmethod
    def _accept_one_path(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _rows_fit_into_training(self) -> RunConfig:
        longest, row = self.dataset.max_tokens, self.train.row_tokens or self.train.context_length
        if self.train.data == "sft" and row is not None and longest > row:
            raise ValueError(
                f"dataset.max_tokens ({longest:,}) is above the {row:,} tokens that train takes in a row: "
                "raise train.row_tokens (or train.context_length), or lower dataset.max_tokens"
            )
        return self


def load(
    name: str, *, overrides: Sequence[str] = (), pdfs: Sequence[Path] = (), store: Path | None = None
) -> RunConfig:
    """Read a run file (path, or name of a packaged recipe) and apply ``--set``, ``--pdfs`` and ``--store``.

    Raises:
        UsageError: no such file or recipe, not YAML, unknown key, or bad value.
    """
    path = _find(name)
    try:
        raw = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, ValueError) as error:  # PyYAML raises ValueError for impossible dates
        raise UsageError(
            f"{path} is not YAML: {error}", "correct the file; `longfolio config show demo` is an example"
        ) from error
    if not isinstance(raw, dict):
        raise UsageError(f"{path} holds no settings", "`longfolio config show demo` prints an example")
    config = rebase(parse(raw, str(path)), path.parent.resolve())

    more: list[tuple[str, Any]] = []
    if pdfs:
        more.append(("pdfs", [str(p) for p in pdfs]))
    if store is not None:
        more.append(("flows.store", str(store)))
    return with_overrides(config, overrides, more)


def with_overrides(config: RunConfig, overrides: Sequence[str], more: Sequence[tuple[str, Any]] = ()) -> RunConfig:
    """A copy with ``KEY=VALUE`` settings changed; relative paths in them are taken from the current directory.

    Raises:
        UsageError: unknown key, or bad value.
    """
    changes = [*(_split(item) for item in overrides), *more]
    if not changes:
        return config
    tree = config.model_dump(mode="json")
    for key, value in changes:
        _assign(tree, key, value)
    changed: RunConfig = rebase(parse(tree, "--set"), Path.cwd())
    return changed


def parse(raw: dict[str, Any], where: str) -> RunConfig:
    """Validate a tree of settings.

    Raises:
        UsageError: lists every unknown key (with the nearest valid one) and bad value.
    """
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        lines = [explain(item, RunConfig) for item in error.errors()]
        raise UsageError(
            f"{where}: " + "; ".join(lines), "`longfolio config schema` lists every key with its meaning"
        ) from None


def rebase(model: BaseModel, base: Path) -> Any:
    """A copy whose relative paths are absolute, taken from ``base``."""

    def move(value: Any) -> Any:
        if isinstance(value, Path):
            return absolute(value, base)
        if isinstance(value, BaseModel):
            return rebase(value, base)
        if isinstance(value, tuple | list):
            return type(value)(move(v) for v in value)
        return value

    return model.model_copy(update={name: move(getattr(model, name)) for name in type(model).model_fields})


def absolute(path: Path, base: Path) -> Path:
    """``path`` from ``base``, ``~`` expanded, links followed.

    Raises:
        UsageError: an unknown user after ``~``, or links in a circle.
    """
    try:
        return Path(base / path.expanduser()).resolve()
    except (RuntimeError, OSError) as error:
        raise UsageError(f"{path}: {error}", "correct the path") from error


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``("train.max_steps", 40)`` for every leaf of a tree of settings."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def _find(name: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise UsageError(
            f"{name} is a folder, not a run file", "name a YAML file, or a recipe (`longfolio config list`)"
        )
    packaged = packaged_config(name)
    if packaged is not None:
        return packaged
    near = difflib.get_close_matches(name, list(packaged_configs()), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UsageError(
        f"no run file {name!r}, and no packaged recipe of that name",
        f"{hint}recipes: {', '.join(packaged_configs())} (`longfolio config list`)",
    )


def _split(item: str) -> tuple[str, Any]:
    with _as_usage():
        return split(item, "train.max_steps=40")


def _assign(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    if key == "model" or (parents == ["model"] and last in ("name", "path")):
        # name and path exclude each other: setting one replaces the other.
        tree["model"] = value if key == "model" else {last: value}
        return
    with _as_usage():
        assign(tree, key, value, "`longfolio config schema` lists every key")


@contextmanager
def _as_usage() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UsageError(str(error), error.remedy) from error
