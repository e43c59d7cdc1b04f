"""The five stages: what each reads, what identifies its output, and the function that does it.

The libraries are imported when a stage is first looked at, so that ``longfolio --help`` stays quick.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from flows.config import RunConfig
from flows.errors import UsageError
from flows.inputs import FileHashes
from flows.takedown import excluded
from longlora import models
from pdf2txt.sources import find_sources

Report = Callable[..., None]
PACKAGE_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Stage:
    """One step of the chain. ``section`` is its key in the run file."""

    name: str
    section: str
    module: str
    upstream: tuple[str, ...] = ()
    reads_model: bool = False
    sources: tuple[str, ...] = ()  # package files whose code shapes the output, as globs

    def settings(self, config: RunConfig) -> BaseModel:
        settings: BaseModel = getattr(config, self.section)
        return settings

    def library(self) -> ModuleType:
        return importlib.import_module(self.module)

    def run(
        self, settings: BaseModel, inputs: dict[str, Path], work: Path, report: Report, **more: Any
    ) -> dict[str, Any]:
        """The library's function (docs/architecture.md); ``more`` is what this stage's takes besides."""
        result: dict[str, Any] = self.library().run(settings, inputs, work, report, **more)
        return result

    def source_sha256(self) -> str:
        """Of the stage's code, to warn when it changed and STAGE_VERSION did not."""
        total = hashlib.sha256()
        for pattern in self.sources:
            for path in sorted(PACKAGE_ROOT.glob(pattern)):
                total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return total.hexdigest()


# What loads a base model shapes every stage that reads one.
MODEL_SOURCES = (
    "longlora/models.py",
    "longlora/gguf.py",
    "longlora/prompts.py",
    "longlora/templates.py",
    "longlora/hardware.py",
)
STAGES = (
    Stage("pdf2txt", "pdf2txt", "pdf2txt.stage", sources=("pdf2txt/**/*.py",)),
    Stage(
        "datasets_build",
        "dataset",
        "datasets_build.stage",
        ("pdf2txt",),
        reads_model=True,
        sources=("datasets_build/**/*.py", *MODEL_SOURCES),
    ),
    Stage(
        "train",
        "train",
        "longlora.train.stage",
        ("pdf2txt", "datasets_build"),
        reads_model=True,
        sources=(
            "longlora/train/**/*.py",
            "longlora/attention/**/*.py",
            "longlora/rope.py",
            "longlora/quantize.py",
            "longlora/adapters/**/*.py",
            *MODEL_SOURCES,
        ),
    ),
    Stage(
        "merge",
        "merge",
        "longlora.merge.stage",
        ("train",),
        reads_model=True,
        sources=("longlora/merge/**/*.py", "longlora/adapters/**/*.py", "longlora/rope.py", *MODEL_SOURCES),
    ),
    Stage(
        "evaluate",
        "evaluate",
        "longlora.evaluation.stage",
        ("pdf2txt", "datasets_build", "merge"),
        reads_model=True,
        sources=(
            "longlora/evaluation/**/*.py",
            "longlora/train/data/sources.py",
            "longlora/quantize.py",
            *MODEL_SOURCES,
        ),
    ),
)
NAMES = tuple(stage.name for stage in STAGES)


def stage_index(name: str) -> int:
    """Position of a stage.

    Raises:
        UsageError: unknown stage, with the nearest name.
    """
    import difflib

    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.4)
        raise UsageError(
            f"unknown stage {name!r}" + (f", did you mean {near[0]!r}?" if near else ""),
            f"the stages are {', '.join(NAMES)}",
        )
    return NAMES.index(name)


@dataclass(frozen=True)
class External:
    """Inputs from outside the store, by stage: the paths that are handed over, and their content."""

    paths: dict[str, dict[str, Path]]  # stage -> input name -> path
    content: dict[str, dict[str, Any]]  # stage -> input name -> what is digested
    documents: list[dict[str, str]]  # {"sha256", "path"}, one per distinct content, by sha256
    names: dict[str, list[str]]  # sha256 -> every path of those bytes


def gather(config: RunConfig, hashes: FileHashes, store: Path, wanted: Sequence[str] = NAMES) -> External:
    """Look at every external input of the stages that are ``wanted``.

    Raises:
        UsageError, longlora.errors.UserError: one is missing or unreadable, and what to do.
    """
    from datasets_build.gates.decontaminate import evaluation_files, texts
    from datasets_build.imports import pairs
    from datasets_build.imports import source as import_source
    from longlora.evaluation.data import EVALUATION_TEXTS
    from longlora.evaluation.settings import evaluation_paths
    from longlora.train.data.sources import text_files

    names: dict[str, list[str]] = {}
    if "pdf2txt" in wanted:
        if not config.pdfs:
            raise UsageError("no documents: pdfs is not set", "use --pdfs FOLDER, or pdfs: in the run file")
        # A store below the documents (the default, for `--pdfs .`) holds no documents.
        taken_down = excluded(store)
        for path, sha in hashes.many(find_sources(config.pdfs, leave_out=store)).items():
            if sha not in taken_down:
                names.setdefault(sha, []).append(str(path))
        if not names:
            raise UsageError(
                "every document was taken down", "add documents, or `longfolio dataset drop --undo --doc ID --yes`"
            )
    documents = [{"sha256": sha, "path": sorted(paths)[0]} for sha, paths in sorted(names.items())]

    model_files = models.model_files(config.model)
    model = {p.name: sha for p, sha in hashes.many(model_files).items()}
    if config.model.name in models.EMBEDDED:
        model["conversion"] = str(models.CONVERSION_VERSION)
    # The dataset depends on the tokenizer alone; a GGUF file carries it inside.
    tokenizer = {name: sha for name, sha in model.items() if not name.endswith((".safetensors", ".bin"))}

    paths: dict[str, dict[str, Path]] = {name: {} for name in NAMES}
    content: dict[str, dict[str, Any]] = {name: {} for name in NAMES}
    # The suffix counts: the same bytes are read otherwise as .md than as .txt.
    content["pdf2txt"]["pdfs"] = [d["sha256"] + Path(d["path"]).suffix.lower() for d in documents]
    for stage in STAGES:
        if stage.reads_model:
            content[stage.name]["model"] = tokenizer if stage.name == "datasets_build" else model
    if (teacher := config.dataset.teacher) is not None and teacher.local is not None and "datasets_build" in wanted:
        own = hashes.many(models.model_files(teacher.local))
        content["datasets_build"]["teacher"] = {p.name: sha for p, sha in own.items()}
    for index, item in enumerate(config.dataset.imports if "datasets_build" in wanted else ()):
        # A hub dataset is fetched here, as a hub model is: its content counts, so it has to be known.
        key = f"dataset.imports.{index}.{'path' if item.path else 'hub'}"
        path = import_source(item)
        _add(paths, content, hashes, "datasets_build", f"import-{index}", path, key)
        next(pairs(path, item, str(index)))  # a bad one is told before the first stage starts
    evaluation = config.dataset.decontaminate if "datasets_build" in wanted else ()
    for _, file in evaluation_files(evaluation):
        next(texts(file), None)  # likewise
    for index, path in enumerate(evaluation):
        _add(paths, content, hashes, "datasets_build", f"decontaminate-{index}", path, f"dataset.decontaminate.{index}")
    for index, path in enumerate(config.evaluate.texts):
        text_files([path], f"evaluate.texts.{index}", EVALUATION_TEXTS)
        _add(paths, content, hashes, "evaluate", f"text-{index}", path, f"evaluate.texts.{index}")
    for name, path, key in evaluation_paths(config.evaluate) if "evaluate" in wanted else ():
        _add(paths, content, hashes, "evaluate", name, path, key)
    for index, path in enumerate(config.train.texts if "train" in wanted else ()):
        files = text_files([path], f"train.texts.{index}")
        shas = hashes.many(file.path for file in files)
        paths["train"][f"text-{index}"] = path
        content["train"][f"text-{index}"] = [[file.name, shas[file.path]] for file in files]
    for stage in STAGES:
        template = getattr(stage.settings(config), "template", None)
        if isinstance(template, Path) and stage.name in wanted:
            _add(paths, content, hashes, stage.name, "template", template, f"{stage.section}.template")
    return External(paths, content, documents, {sha: sorted(found) for sha, found in names.items()})


def _add(
    paths: dict[str, dict[str, Path]], content: dict[str, dict[str, Any]], hashes: FileHashes,
    stage: str, name: str, path: Path, key: str,
) -> None:  # fmt: skip
    if not path.exists():
        raise UsageError(f"{key}: {path} does not exist", f"correct {key}")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    shas = hashes.many(files)
    paths[stage][name] = path
    content[stage][name] = [[str(p.relative_to(path)) if path.is_dir() else "", shas[p]] for p in files]
