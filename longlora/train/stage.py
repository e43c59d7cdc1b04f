"""The train stage: dataset (or documents) + base model -> adapter, or with full fine-tuning a model.

tokens      rows or text, rendered, packed                       data/
config      RoPE scaled to the context length                    longlora.rope
model       base frozen, LoRA + embeddings + norms in fp32       longlora.adapters, longlora.attention
train       the step loop, metrics, checkpoints                  trainer.py
output      adapter/ (or model/) metrics.jsonl loss.svg parameters.json, renamed into place as a whole
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora import adapters, attention, rope
from longlora.errors import UserError
from longlora.hardware import resolve_dtype
from longlora.models import load_tokenizer
from longlora.templates import choose_template
from longlora.train import data, distributed, finished, preflight
from longlora.train.checkpoints import sync
from longlora.train.lineage import dataset_lineage
from longlora.train.model import build_model, make_config
from longlora.train.settings import TrainSettings

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

STAGE_VERSION = 4

Report = Callable[..., None]


def identity(settings: TrainSettings) -> dict[str, Any]:
    """What beyond the settings decides the output."""
    return {"adapter_format": adapters.FORMAT_VERSION, "dtype": resolve_dtype(settings.dtype)}


def run(settings: TrainSettings, inputs: dict[str, Path], work: Path, report: Report) -> dict[str, Any]:
    """Train an adapter, or the model; continues an interrupted attempt in ``work``, with the same bits on a CPU.

    Where torchrun started several processes, each calls this alike; the first alone reports and writes.

    Args:
        settings: see `TrainSettings`.
        inputs: ``model`` (Hugging Face directory), ``datasets_build`` (``data/train-*.parquet``,
            ``splits.json``) and, for ``data: text``, ``pdf2txt`` (``documents.parquet``) or ``text-<i>``;
            ``template``, where that is a file.
        work: scratch and, in the end, ``output/``.
        report: see docs/architecture.md.

    Returns:
        steps, rows, tokens, first_loss, last_loss, loss_start and loss_end (means of the first and last
        quarter of the steps), tokens_per_second, flops, utilisation (see metrics.py), trainable_parameters
        (per group), peak_memory_bytes, resumed_from (step or None), context_length, group_tokens.

    Raises:
        UserError: a mistake in settings or data, or the GPU's memory is used up.
        LossNotFinite: training diverged.
    """
    result, output = work / "result.json", work / "output"
    work.mkdir(parents=True, exist_ok=True)

    import torch

    from longlora.train.launch import strategy_of
    from longlora.train.memory import give_back_freed
    from longlora.train.metrics import peak_memory, summary
    from longlora.train.sinks import check_sinks
    from longlora.train.trainer import LongTrainer, device_of

    check_sinks(settings.report_to)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    settings = settings.model_copy(update={"dtype": resolve_dtype(settings.dtype)})
    device = device_of(settings)
    if device == "cpu":
        give_back_freed()
    distributed.start(device)
    strategy_of(settings)
    if not distributed.is_main():
        report = silent

    # Data: samples -> packed rows -> the stream of all steps
    config = make_config(inputs["model"], settings)
    tokenizer = load_tokenizer(inputs["model"])
    context_length, row_tokens, group = preflight.check(config, settings, distributed.world())
    record = inputs["datasets_build"] / "stats.json" if "datasets_build" in inputs else None
    template = choose_template(inputs.get("template", settings.template), record)
    with distributed.main_first():  # it fills the cache of tokens, the others read it
        samples = data.training_samples(
            settings, inputs, tokenizer, template.put_on(tokenizer), row_tokens, work / "tokens", report
        )
    rows = data.make_rows(samples, row_tokens, settings.packing)
    steps = settings.max_steps or max(1, round(settings.epochs * len(rows) / settings.global_batch_size))
    stream = data.stream(rows, steps * settings.global_batch_size, settings.seed)

    longest = int(rows.lengths.max())
    if group is not None and int(samples.lengths.max()) <= group:  # not the row, whose samples are blind to each other
        report("warning", message=f"no sample is longer than train.group ({group:,} tokens): the attention is full")
    config.use_cache = False

    # Finished already?
    base_digests = distributed.from_main(lambda: finished.model_digests(inputs["model"], work, report))
    parts = run_parts(settings, config, base_digests, stream)
    fingerprint = run_fingerprint(parts)
    before = distributed.from_main(lambda: finished.metrics_of(output, result, fingerprint, report))
    if before is not None:
        return before

    # Model: frozen base in settings.dtype (or 4 bits), trained parts in fp32
    if rope.is_dynamic(config):
        report("warning", message=rope.DYNAMIC_WARNING)
    if settings.warmup(steps) >= steps:
        report(
            "warning",
            message=f"train.warmup_steps ({settings.warmup(steps)}) takes all of the {steps} steps: the rate never "
            "reaches train.learning_rate",
        )
    with memory_told(settings, row_tokens):
        model = build_model(inputs["model"], config, settings)
        parameters = adapters.parameter_report(model)
        for line in parameter_lines(parameters):
            report("note", message=line)

        # Train
        trainer = LongTrainer(model, stream, settings, work, report, fingerprint, tokenizer.pad_token_id, parts)
        trainer.rows_per_epoch = len(rows)
        resumed = trainer.resume_and_train(lambda message: report("warning", message=message))

    distributed.barrier()  # the first process has written its last line

    # Output
    curve = [json.loads(line) for line in trainer.metrics_file.read_text().splitlines()]
    losses = [line["loss"] for line in curve]
    quarter = max(1, len(losses) // 4)  # single steps of packed rows are noisy
    metrics = {
        "steps": steps,
        "rows": len(rows),
        "samples": len(samples),
        "supervised_tokens": int(rows.learned[stream.order].sum()),
        "longest_row": longest,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "loss_start": sum(losses[:quarter]) / quarter,
        "loss_end": sum(losses[-quarter:]) / quarter,
        **summary(curve),
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
        "dataset": dataset_lineage(inputs["datasets_build"]) if "datasets_build" in inputs else {},
        "settings": digested_settings(settings),
    }
    with distributed.gathered(model):
        if distributed.is_main():
            own_tokenizer = tokenizer if template.chat_template else None
            _publish(model, trainer.metrics_file, parameters, info, output, result, fingerprint, metrics, own_tokenizer)
    distributed.after_main()
    return metrics


def silent(event: str, **fields: Any) -> None:
    """The ``report`` of all processes but the first."""


def digested_settings(settings: TrainSettings) -> dict[str, Any]:
    """The settings without speed-only fields and without paths, as JSON."""
    left_out = {n for n, f in type(settings).model_fields.items() if f.json_schema_extra == {"digest": False}}
    left_out |= {"texts"} | ({"template"} if isinstance(settings.template, Path) else set())
    return settings.model_dump(mode="json", exclude=left_out)


def run_parts(
    settings: TrainSettings, config: PretrainedConfig, base: dict[str, str], stream: data.Stream[data.Row]
) -> dict[str, Any]:
    """What a checkpoint must agree on to be resumed: settings, model config, base weights, every token in order.

    Of the config what training sets; the rest is ``config.json``, by its digest in ``base``. All of it would hold the
    version and the defaults of the transformers that runs.

    Args:
        base: of `finished.model_digests`. Where the base lies does not count.
    """
    shown = config.to_dict()
    return {
        "version": STAGE_VERSION,
        "settings": digested_settings(settings),
        "model": {k: shown.get(k) for k in ("rope_parameters", "max_position_embeddings", attention.GROUP_ATTRIBUTE)},
        "base": base,
        "rows": data.stream_digest(stream),
    }


def run_fingerprint(parts: dict[str, Any]) -> str:
    """One name for all of them."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def parameter_lines(parameters: dict[str, Any]) -> list[str]:
    """The parameter report in words: what is trained of how much, then each group."""
    tied = ", embedding and head tied" if parameters["tied"] else ""
    first = f"{parameters['trainable']:,} of {parameters['total']:,} parameters are trained"
    return [
        f"{first} ({parameters['share']:.2%}{tied})",
        *(
            f"  {name}: {group['parameters']:,} in {group['tensors']} tensors, {group['dtype']}"
            for name, group in parameters["groups"].items()
        ),
    ]


@contextlib.contextmanager
def memory_told(settings: TrainSettings, row_tokens: int) -> Iterator[None]:
    """Say what to change where the GPU's memory does not suffice.

    Raises:
        UserError: in place of torch's error.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        lower = [] if settings.micro_batch_size == 1 else ["lower train.micro_batch_size"]
        for name, value in (
            ("gradient_checkpointing", True),
            ("offload", True),
            ("tile_mlp", 4096),
            ("quantize", "nf4"),
        ):
            if not getattr(settings, name) and (name != "quantize" or settings.lora is not None):
                lower.append(f"set train.{name}: {str(value).lower()}")
        lower.append("lower train.row_tokens")
        raise UserError(
            f"the GPU's memory is used up, with rows of {row_tokens:,} tokens, {settings.micro_batch_size} at a time: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}",
            f"{', or '.join(lower)}; `longfolio train RUN --estimate` says what suffices. Settings marked ° in "
            "docs/settings.md change memory only: with them the last checkpoint is continued",
        ) from error


def _publish(
    model: nn.Module,
    metrics_file: Path,
    parameters: dict[str, Any],
    info: dict[str, Any],
    output: Path,
    result: Path,
    fingerprint: str,
    metrics: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase | None,
) -> None:
    """Write ``output/`` aside and rename it, so that it is whole or absent; ``result`` says what it is of.

    ``tokenizer``: where it is another than the base model's (a template file).
    """
    from longlora.train.metrics import plot_loss

    aside = output.with_name(".output.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    adapters.save_trained(model, aside, base_name=info["base_model"]["name"], info=info)
    if tokenizer is not None:
        tokenizer.save_pretrained(str(aside / ("adapter" if (aside / "adapter").is_dir() else "model")))
    (aside / "parameters.json").write_text(json.dumps(parameters, indent=2) + "\n")
    shutil.copyfile(metrics_file, aside / "metrics.jsonl")
    plot_loss([json.loads(line) for line in metrics_file.read_text().splitlines()], aside / "loss.svg")
    if (metrics_file.parent / "tensorboard").is_dir():
        shutil.copytree(metrics_file.parent / "tensorboard", aside / "tensorboard")
    shutil.rmtree(output, ignore_errors=True)  # before the result: an older output must not pass for this one
    finished.write(result, aside, fingerprint, metrics)
    for path in [*aside.rglob("*"), aside, result]:
        sync(path)
    aside.rename(output)
    sync(output.parent)
