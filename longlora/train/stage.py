"""The train stage: dataset (or documents) + base model -> adapter.

tokens      rows or text, rendered, packed                       data/
config      RoPE scaled to the context length                    longlora.rope
model       base frozen, LoRA + embeddings + norms in fp32       longlora.adapters, longlora.attention
train       the step loop, metrics, checkpoints                  trainer.py
output      adapter/ metrics.jsonl parameters.json, renamed into place as a whole
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora import adapters, attention, rope
from longlora.errors import UserError
from longlora.hardware import resolve_dtype
from longlora.models import load_tokenizer
from longlora.templates import choose_template
from longlora.train import data
from longlora.train.checkpoints import file_sha256, sync
from longlora.train.model import build_model, make_config
from longlora.train.settings import TrainSettings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

STAGE_VERSION = 2

Report = Callable[..., None]


def identity(settings: TrainSettings) -> dict[str, Any]:
    """What beyond the settings decides the output."""
    return {"adapter_format": adapters.FORMAT_VERSION, "dtype": resolve_dtype(settings.dtype)}


def run(settings: TrainSettings, inputs: dict[str, Path], work: Path, report: Report) -> dict[str, Any]:
    """Train an adapter; continues an interrupted attempt in ``work`` with the same result to the bit (CPU).

    Args:
        settings: see `TrainSettings`.
        inputs: ``model`` (Hugging Face directory), ``datasets_build`` (``data/train-*.parquet``,
            ``splits.json``) and, for ``data: text``, ``pdf2txt`` (``documents.parquet``) or ``text-<i>``;
            ``template``, where that is a file.
        work: scratch and, in the end, ``output/``.
        report: see docs/architecture.md.

    Returns:
        steps, rows, tokens, first_loss, last_loss, loss_start and loss_end (means of the first and last
        tenth of the steps), tokens_per_second, trainable_parameters (per group), peak_memory_bytes,
        resumed_from (step or None), context_length, group_tokens.

    Raises:
        UserError: a mistake in settings or data.
        LossNotFinite: training diverged.
    """
    result, output = work / "result.json", work / "output"
    work.mkdir(parents=True, exist_ok=True)

    import torch

    from longlora.train.metrics import peak_memory
    from longlora.train.trainer import LongTrainer, device_of

    if settings.threads:
        torch.set_num_threads(settings.threads)
    settings = settings.model_copy(update={"dtype": resolve_dtype(settings.dtype)})
    device = device_of(settings)

    # Data: samples -> packed rows -> the stream of all steps
    tokenizer = load_tokenizer(inputs["model"])
    config = make_config(inputs["model"], settings)
    context_length = settings.context_length or rope.window(config)
    row_tokens = settings.row_tokens or context_length
    if row_tokens > context_length:
        raise UserError(
            f"train.row_tokens ({row_tokens:,}) is above the model's context of {context_length:,} tokens",
            "set train.context_length to extend the model, or lower train.row_tokens",
        )
    record = inputs["datasets_build"] / "stats.json" if "datasets_build" in inputs else None
    template = choose_template(inputs.get("template", settings.template), record)
    samples = data.training_samples(
        settings, inputs, tokenizer, template.put_on(tokenizer), row_tokens, work / "tokens", report
    )
    rows = data.make_rows(samples, row_tokens, settings.packing)
    steps = settings.max_steps or max(1, round(settings.epochs * len(rows) / settings.global_batch_size))
    stream = data.stream(rows, steps * settings.global_batch_size, settings.seed)

    group = attention.group_tokens(settings.group, row_tokens) if settings.attention == "s2_attn" else None
    setattr(config, attention.GROUP_ATTRIBUTE, group)
    config.use_cache = False

    # Finished already?
    base_digests = model_digests(inputs["model"])
    fingerprint = run_fingerprint(settings, config, base_digests, stream)
    if output.exists() and result.exists():
        finished = json.loads(result.read_text())
        if finished.get("fingerprint") == fingerprint:
            return dict(finished["metrics"])
        report("warning", message=f"{output} is of other settings, data or base weights; it is trained anew")

    # Model: frozen base in settings.dtype, trained parts in fp32
    longest = int(rows.lengths.max())
    model = build_model(inputs["model"], config, settings)
    parameters = adapters.parameter_report(model)

    # Train
    trainer = LongTrainer(model, stream, settings, work, report, fingerprint, tokenizer.pad_token_id)
    resumed = trainer.resume_and_train(lambda message: report("warning", message=message))

    # Output
    curve = [json.loads(line) for line in trainer.metrics_file.read_text().splitlines()]
    losses = [line["loss"] for line in curve]
    quarter = max(1, len(losses) // 4)  # single steps of packed rows are noisy
    metrics = {
        "steps": steps,
        "rows": len(rows),
        "samples": len(samples),
        "tokens": sum(line["tokens"] for line in curve),
        "supervised_tokens": int(rows.learned[stream.order].sum()),
        "longest_row": longest,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "loss_start": sum(losses[:quarter]) / quarter,
        "loss_end": sum(losses[-quarter:]) / quarter,
        "tokens_per_second": sum(line["tokens"] for line in curve) / sum(line["seconds"] for line in curve),
        "trainable_parameters": {name: g["parameters"] for name, g in parameters["groups"].items()},
        "peak_memory_bytes": peak_memory(device),
        "resumed_from": resumed.step if resumed else None,
        "context_length": context_length,
        "group_tokens": group,
    }
    info = {
        "base_model": {"name": inputs["model"].name, "files": base_digests},
        "context_length": context_length,
        "template": template.name,
        "settings": digested_settings(settings),
    }
    _publish(
        model, trainer.metrics_file, parameters, info, output, result, {"fingerprint": fingerprint, "metrics": metrics},
        tokenizer if template.chat_template else None,
    )  # fmt: skip
    return metrics


def digested_settings(settings: TrainSettings) -> dict[str, Any]:
    """The settings without speed-only fields and without paths, as JSON."""
    left_out = {n for n, f in type(settings).model_fields.items() if f.json_schema_extra == {"digest": False}}
    left_out |= {"texts"} | ({"template"} if isinstance(settings.template, Path) else set())
    return settings.model_dump(mode="json", exclude=left_out)


def run_fingerprint(
    settings: TrainSettings, config: PretrainedConfig, base: dict[str, str], stream: data.Stream[data.Row]
) -> str:
    """What a checkpoint must agree on to be resumed: settings, model config, base weights, every token in order.

    ``base``: of `model_digests`. Where the base lies does not count.
    """
    model = {k: v for k, v in config.to_dict().items() if k != "_name_or_path"}
    parts: list[Any] = [STAGE_VERSION, digested_settings(settings), model, base]
    parts.append(data.stream_digest(stream))
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def model_digests(folder: Path) -> dict[str, str]:
    """sha256 of config and weight files of a model directory."""
    files = [p for p in folder.iterdir() if p.name == "config.json" or p.suffix in (".safetensors", ".bin")]
    return {p.name: file_sha256(p) for p in sorted(files)}


def _publish(
    model: PeftModel,
    metrics_file: Path,
    parameters: dict[str, Any],
    info: dict[str, Any],
    output: Path,
    result: Path,
    finished: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase | None,
) -> None:
    """Write ``output/`` aside and rename it, so that it is whole or absent; ``finished`` goes into ``result``.

    ``tokenizer``: where it is another than the base model's (a template file).
    """
    aside = output.with_name(".output.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    adapters.save_adapter(model, aside / "adapter", base_name=info["base_model"]["name"], info=info)
    if tokenizer is not None:
        tokenizer.save_pretrained(str(aside / "adapter"))
    (aside / "parameters.json").write_text(json.dumps(parameters, indent=2) + "\n")
    shutil.copyfile(metrics_file, aside / "metrics.jsonl")
    shutil.rmtree(output, ignore_errors=True)  # before the result: an older output must not pass for this one
    result.write_text(json.dumps(finished, indent=2) + "\n")
    for path in [*aside.rglob("*"), aside, result]:
        sync(path)
    aside.rename(output)
    sync(output.parent)
