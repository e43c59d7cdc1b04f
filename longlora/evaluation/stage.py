"""The evaluate stage: base and merged model on the same samples. See docs/architecture.md."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longlora.errors import UserError
from longlora.evaluation.data import Sources
from longlora.evaluation.engines import Batch, EndpointEngine, Engine, TransformersEngine, VllmEngine, batches
from longlora.evaluation.model import context_length
from longlora.evaluation.results import Measured, entry, sample_lines, short, table
from longlora.evaluation.settings import FILES, EvaluateSettings
from longlora.evaluation.statistics import Bootstrap
from longlora.evaluation.tasks import TASKS, Context, Sample, Skipped, Task
from longlora.evaluation.tasks.records import chosen
from longlora.evaluation.units import KIND, Units, data_digest, digest
from longlora.hardware import resolve_device, resolve_dtype
from longlora.models import load_tokenizer
from longlora.prompts import end_of_answer

STAGE_VERSION = 3
Report = Callable[..., None]


def identity(settings: EvaluateSettings) -> dict[str, Any]:
    """The precision that ``auto`` means on this machine, and what each task's results depend on."""
    return {
        "dtype": resolve_dtype(settings.dtype),
        "tasks": {name: [TASKS[name].version, TASKS[name].settings(settings)] for name in settings.tasks},
    }


def run(settings: EvaluateSettings, inputs: dict[str, Path], work: Path, report: Report) -> dict[str, Any]:
    """Evaluate ``inputs["model"]`` (base) and ``inputs["merge"]/model`` (merged, if given).

    Other inputs, each optional: ``datasets_build`` (validation rows, splits), ``pdf2txt`` (documents),
    ``text-<i>`` (``settings.texts``), ``template`` (where that is a file), ``leval``, ``longbench``, ``longchat``,
    ``lm_eval``, ``wording`` (the paths of these settings), ``units``. Output: ``metrics.json``, ``samples.jsonl``,
    ``table.md``.

    Returns:
        ``{task: {metric, better, n, base, merged, difference, low, high}}``; a task without samples has
        ``skipped``.

    Raises:
        UserError: a model or data file cannot be read, or nothing at all can be measured.
    """
    settings = _with_paths(settings, inputs)
    models = {"base": inputs["model"]}
    if "merge" in inputs:
        models["merged"] = inputs["merge"] / "model"
    dataset = inputs.get("datasets_build")
    documents = inputs["pdf2txt"] / "documents.parquet" if "pdf2txt" in inputs else None
    sources = Sources(dataset, dataset / "splits.json" if dataset else None, documents, settings.texts)
    return evaluate(models, sources, settings, work, report, inputs.get("units", work / "units"))


def evaluate(
    models: dict[str, Path],
    sources: Sources,
    settings: EvaluateSettings,
    work: Path,
    report: Report,
    units: Path,
    engine: Callable[[Path, str], Engine] | None = None,
) -> dict[str, Any]:
    """Evaluate one model, or two on the same samples.

    Args:
        models: name -> directory, the baseline first.
        engine: makes what computes of a directory and a device, in place of ``settings.engine``.
    """
    make = engine or _engines(settings)
    devices = settings.device.split(",") if engine is None and settings.engine == "transformers" else [settings.device]
    devices = [resolve_device(device.strip()) for device in devices]
    loaded = [_Model(name, path, tuple(make(path, device) for device in devices)) for name, path in models.items()]
    context = Context(settings, sources, _tokenizer(models, report), _limit(models, settings, report))
    measured = _prepare(context, loaded, report)
    stops = frozenset((end_of_answer(context.tokenizer, context.template),)) if _written(measured) else frozenset()
    for item in loaded:
        for one in item.engines:
            one.stops = stops
            one.longest = max((len(s.input_ids) + s.max_new_tokens for m in measured for s in m.samples), default=0)
    if all(m.skipped for m in measured):
        reasons = "; ".join(f"{m.task}: {m.skipped}" for m in measured)
        raise UserError(
            f"nothing to evaluate: {reasons or 'no task has its data'}",
            "give them their data, or add passkey to evaluate.tasks, which needs none",
        )
    _measure(measured, loaded, settings, Units(units, work), report)

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
    """``engines``: one per device."""

    name: str
    folder: Path
    engines: tuple[Engine, ...]


def _with_paths(settings: EvaluateSettings, inputs: dict[str, Path]) -> EvaluateSettings:
    """The settings with each path where the input lies."""
    changed: dict[str, Any] = {"texts": tuple(inputs.get(f"text-{i}", path) for i, path in enumerate(settings.texts))}
    if "template" in inputs:
        changed["template"] = inputs["template"]
    if "wording" in inputs:
        changed["passkey"] = settings.passkey.model_copy(update={"wording": inputs["wording"]})
    if "lm_eval" in inputs:
        changed["lm_eval"] = settings.lm_eval.model_copy(update={"include_path": inputs["lm_eval"]})
    for name in FILES:
        if name in inputs:
            changed[name] = getattr(settings, name).model_copy(update={"path": inputs[name]})
    return settings.model_copy(update=changed)


def _engines(settings: EvaluateSettings) -> Callable[[Path, str], Engine]:
    """The engine that the settings ask for."""
    dtype = resolve_dtype(settings.dtype)
    if settings.engine == "vllm":
        return lambda folder, device: VllmEngine(folder, dtype=dtype, four_bit=settings.load_in_4bit)
    return lambda folder, device: TransformersEngine(
        folder, dtype=dtype, device=device, chunk=settings.chunk, four_bit=settings.load_in_4bit
    )


def _prepare(context: Context, models: Sequence[_Model], report: Report) -> list[Measured]:
    """The samples of every task that has its data."""
    measured = []
    for name in context.settings.tasks:
        task = TASKS[name]
        if not task.applies(context.sources, context.settings):
            continue
        try:
            if not task.answers and not all(m.engines[0].scores for m in models):
                raise Skipped("it needs losses, which an endpoint does not tell")
            if task.own and not all(isinstance(m.engines[0], TransformersEngine) for m in models):
                raise Skipped("it needs the model in this process: set evaluate.engine to transformers")
            samples = task.samples(context)
            samples = drawn(samples, context.settings) if task.draws else samples
        except Skipped as reason:
            report("warning", message=f"{name} is not measured: {reason}")
            measured.append(Measured(name, [], {}, skipped=str(reason)))
            continue
        ids = Counter(sample.id for sample in samples)
        if len(ids) < len(samples):
            raise UserError(
                f"{name}: two samples are called {ids.most_common(1)[0][0]}",
                "give each length and depth once, and each record an id of its own",
            )
        own, kind = task.settings(context.settings), models[0].engines[0].kind
        counted = data_digest([sample for sample in samples if sample.counts])
        measured.append(Measured(name, samples, {}, counted, own, engine=kind))
    return measured


def drawn(samples: list[Sample], settings: EvaluateSettings) -> list[Sample]:
    """At most ``settings.limit`` of each subset, by seed, in their order: the same ones for every model."""
    if settings.limit is None:
        return samples

    kept = chosen(((s.id, s.about.get("subset")) for s in samples), settings)
    return [sample for sample in samples if sample.id in kept]


def _measure(
    measured: list[Measured], models: list[_Model], settings: EvaluateSettings, units: Units, report: Report
) -> None:
    """Fill in the results; a model is loaded only if one of its units is missing, one model at a time."""
    total = len(models) * sum(len(m.samples) for m in measured)
    before = 0
    for model in models:
        content = model.engines[0].identity()
        for m in measured:
            if m.skipped:
                continue
            task = TASKS[m.task]
            how = [settings.batch_size, settings.batch_tokens, *sorted(model.engines[0].stops)] if task.answers else []
            key = digest(content, m.task, task.version, m.settings, data_digest(m.samples), how)
            results = units.finished(key, m.samples)
            report("unit", kind=KIND, key=key, reused=results is not None)
            if results is not None and model.engines[0].kind == EndpointEngine.kind:
                message = f"{m.task}: the endpoint's earlier answers are used again; it is asked anew in another folder"
                report("warning", message=message)
            if results is None:
                results = units.make(
                    key,
                    m.samples,
                    _groups(task, m.samples, settings),
                    [_measurer(task, engine, settings) for engine in model.engines],
                    _progress(report, before, total, m.task, model.name),
                )
            m.results[model.name] = results
            before += len(m.samples)
            report("progress", done=before, total=total, unit="samples", task=m.task, model=model.name)
        for engine in model.engines:
            engine.close()


def _groups(task: Task, samples: Sequence[Sample], settings: EvaluateSettings) -> list[Batch]:
    """What is measured at once, equal samples once."""
    distinct = list({s.digest: s for s in samples}.values())
    if task.own:
        subsets = dict.fromkeys(s.about["subset"] for s in distinct)
        return [Batch(tuple(s for s in distinct if s.about["subset"] == subset)) for subset in subsets]
    return batches(distinct, settings.batch_size, settings.batch_tokens, task.answers)


def _measurer(task: Task, engine: Engine, settings: EvaluateSettings) -> Callable[[Batch], list[dict[str, Any]]]:
    def measure(batch: Batch) -> list[dict[str, Any]]:
        if task.own:
            return task.measure(engine, batch.samples, settings)
        if not task.answers:
            return [task.measured(s, engine.losses(s.input_ids, s.start)) for s in batch.samples]
        outputs = engine.answers(batch)
        return [
            {"output": output, "expected": s.expected, **task.judge(s, output)}
            for s, output in zip(batch.samples, outputs, strict=True)
        ]

    return measure


def _progress(report: Report, before: int, total: int, task: str, model: str) -> Callable[[int], None]:
    return lambda n: report("progress", done=before + n, total=total, unit="samples", task=task, model=model)


def _written(measured: Sequence[Measured]) -> bool:
    return any(TASKS[m.task].answers and not TASKS[m.task].own and not m.skipped for m in measured)


def _limit(models: dict[str, Path], settings: EvaluateSettings, report: Report) -> int:
    """Tokens of the longest prompt about a document: what all of the models can read."""
    if settings.max_prompt_tokens is not None:
        return settings.max_prompt_tokens
    known = {name: n for name, path in models.items() if (n := context_length(path)) is not None}
    least = min(known.values(), default=1 << 40)
    asked = [name for name in settings.tasks if name in FILES]
    if asked and len(set(known.values())) > 1:
        shorter = next(name for name, n in known.items() if n == least)
        report("warning", message=f"{', '.join(asked)}: prompts are cut to {least:,} tokens, the context of the "
               f"{shorter} model; evaluate.max_prompt_tokens changes that")  # fmt: skip
    return least


def _tokenizer(models: dict[str, Path], report: Report) -> Any:
    """The tokenizer of all the models: losses per token of two tokenizers cannot be compared.

    The last one's, since a fine-tuned model knows the prompt format that it was trained with.

    Raises:
        UserError: the models cut text into different tokens.
    """
    folders = list(models.values())
    tokenizers = [load_tokenizer(folder) for folder in folders]
    if len(tokenizers) > 1 and tokenizers[0].get_vocab() != tokenizers[1].get_vocab():
        raise UserError(
            f"{folders[0]} and {folders[1]} have different tokenizers: not comparable",
            "evaluate them in two runs",
        )
    if len({t.chat_template for t in tokenizers}) > 1:
        report("warning", message=f"prompts have the chat template of {folders[-1]}, which is not that of {folders[0]}")
    return tokenizers[-1]


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
