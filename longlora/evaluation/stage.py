"""The evaluate stage: base and merged model on the same samples. See docs/architecture.md."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longlora.errors import UserError
from longlora.evaluation.data import Sources
from longlora.evaluation.model import LanguageModel, content_digest
from longlora.evaluation.results import Measured, entry, sample_lines, short, table
from longlora.evaluation.settings import EvaluateSettings
from longlora.evaluation.statistics import Bootstrap
from longlora.evaluation.tasks import TASKS, Context, Sample, Skipped, Task
from longlora.evaluation.units import KIND, Units, data_digest, digest
from longlora.hardware import resolve_device, resolve_dtype

STAGE_VERSION = 2
Report = Callable[..., None]


def identity(settings: EvaluateSettings) -> dict[str, Any]:
    """The precision that ``auto`` means on this machine, and the version of each task."""
    return {
        "dtype": resolve_dtype(settings.dtype),
        "tasks": {name: TASKS[name].version for name in settings.tasks},
    }


def run(settings: EvaluateSettings, inputs: dict[str, Path], work: Path, report: Report) -> dict[str, Any]:
    """Evaluate ``inputs["model"]`` (base) and ``inputs["merge"]/model`` (merged, if given).

    Other inputs, each optional: ``datasets_build`` (validation rows, splits), ``pdf2txt`` (documents),
    ``text-<i>`` (``settings.texts``), ``template`` (where that is a file), ``units``. Output: ``metrics.json``,
    ``samples.jsonl``, ``table.md``.

    Returns:
        ``{task: {metric, better, n, base, merged, difference, low, high}}``; a task without samples has
        ``skipped``.

    Raises:
        UserError: a model or data file cannot be read, or nothing at all can be measured.
    """
    if "template" in inputs:
        settings = settings.model_copy(update={"template": inputs["template"]})
    models = {"base": inputs["model"]}
    if "merge" in inputs:
        models["merged"] = inputs["merge"] / "model"
    dataset = inputs.get("datasets_build")
    documents = inputs["pdf2txt"] / "documents.parquet" if "pdf2txt" in inputs else None
    texts = tuple(inputs.get(f"text-{i}", path) for i, path in enumerate(settings.texts))
    sources = Sources(dataset, dataset / "splits.json" if dataset else None, documents, texts)
    return evaluate(models, sources, settings, work, report, inputs.get("units", work / "units"))


def evaluate(
    models: dict[str, Path],
    sources: Sources,
    settings: EvaluateSettings,
    work: Path,
    report: Report,
    units: Path,
) -> dict[str, Any]:
    """Evaluate one model, or two on the same samples. ``models``: name -> directory, the baseline first."""
    dtype, device = resolve_dtype(settings.dtype), resolve_device(settings.device)
    loaded = [_Model(name, path, LanguageModel(path, dtype=dtype, device=device, chunk=settings.chunk))
              for name, path in models.items()]  # fmt: skip
    _same_tokenizer(loaded)
    context = Context(settings, sources, loaded[0].model.tokenizer)
    measured = _prepare(context, report)
    if all(m.skipped for m in measured):
        reasons = "; ".join(f"{m.task}: {m.skipped}" for m in measured)
        raise UserError(
            f"nothing to evaluate: {reasons or 'no task has its data'}",
            "add documents, raise dataset.validation_share, or add passkey to evaluate.tasks",
        )
    _measure(measured, loaded, settings, dtype, Units(units, work), report)

    by = Bootstrap(settings.resamples, settings.confidence, settings.seed)
    names = [m.name for m in loaded]
    items = [entry(m, names, by) for m in measured]
    output = work / "output"
    output.mkdir(parents=True, exist_ok=True)
    _write(output / "samples.jsonl", sample_lines(measured))
    _write(output / "table.md", table(items, names))
    _write(output / "metrics.json", json.dumps(items, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return short(items)


@dataclass(frozen=True)
class _Model:
    name: str
    folder: Path
    model: LanguageModel


def _prepare(context: Context, report: Report) -> list[Measured]:
    """The samples of every task that has its data."""
    measured = []
    for name in context.settings.tasks:
        task = TASKS[name]
        if not task.applies(context.sources):
            continue
        try:
            samples = task.samples(context)
        except Skipped as reason:
            report("warning", message=f"{name} is not measured: {reason}")
            measured.append(Measured(name, [], {}, skipped=str(reason)))
            continue
        measured.append(Measured(name, samples, {}, data_digest(samples)))
    return measured


def _measure(
    measured: list[Measured],
    models: list[_Model],
    settings: EvaluateSettings,
    dtype: str,
    units: Units,
    report: Report,
) -> None:
    """Fill in the results; a model is loaded only if one of its units is missing, one model at a time."""
    total = len(models) * sum(len(m.samples) for m in measured)
    before = 0
    for model in models:
        content = content_digest(model.folder)
        for m in measured:
            if m.skipped:
                continue
            task = TASKS[m.task]
            key = digest(content, m.task, task.version, task.settings(settings), m.data_digest, dtype)
            results = units.finished(key, m.samples)
            report("unit", kind=KIND, key=key, reused=results is not None)
            if results is None:
                results = units.make(
                    key,
                    m.samples,
                    _measurer(task, model.model, settings),
                    _progress(report, before, total, m.task, model.name),
                )
            m.results[model.name] = results
            before += len(m.samples)
            report("progress", done=before, total=total, unit="samples", task=m.task, model=model.name)
        model.model.close()


def _measurer(task: Task, model: LanguageModel, settings: EvaluateSettings) -> Callable[[Sample], dict[str, Any]]:
    return lambda sample: task.measure(model, sample, settings)


def _progress(report: Report, before: int, total: int, task: str, model: str) -> Callable[[int], None]:
    return lambda n: report("progress", done=before + n, total=total, unit="samples", task=task, model=model)


def _same_tokenizer(models: list[_Model]) -> None:
    """Losses per token of two tokenizers cannot be compared.

    Raises:
        UserError: the models cut text into different tokens.
    """
    if len(models) < 2:
        return
    first, second = (m.model.tokenizer for m in models)
    if first.get_vocab() != second.get_vocab():
        raise UserError(
            f"{models[0].folder} and {models[1].folder} have different tokenizers: not comparable",
            "evaluate them in two runs",
        )


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
