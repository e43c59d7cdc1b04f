"""What has to be trained for a longer context: LongLoRA's Table 3 (arXiv 2309.12307) on SmolLM2-135M, 8k -> 32k.

    python benchmarks/context_extension.py                          # all variants of the machine's form, a process each
    python benchmarks/context_extension.py --variant lora+embed+norm
    python benchmarks/context_extension.py --form gpu --device cuda # the real one
    python benchmarks/context_extension.py --train BOOKS --test OTHER-BOOKS

none              the base as it is (SmolLM2-135M-Instruct, from 4 bits)
pi                position interpolation (linear RoPE, factor 4), nothing trained
lora              ... with low-rank matrices on attention trained (q, k, v, o)
lora+norm         ... and the norms in full
lora+embed        ... and the embedding in full (tied to the output head in this model, unlike the paper's Llama)
lora+embed+norm   ... and both: the paper's LoRA+
full              every parameter

Every trained variant runs the product's stages on the same rows in the same order: train (S²-Attn, groups of a quarter
row), merge, and evaluate (full attention): perplexity of the first windows of every test text.

--form gpu: rows of 32,768 tokens, windows of 8k, 16k and 32k. It shows what the paper's table does: where untrained
models fail beyond their window, and which parameters repair that.

--form cpu: the same RoPE factor, but rows of 1,024 tokens and windows of 512, 1,024 and 2,048: minutes for a variant
on two cores. Interpolation moves the angle of every position, so it harms short texts as well (pi against none), and
the table shows how much of that each set of parameters repairs in the same steps; the order of the variants is what is
to be compared with the paper's. It does not show that distances beyond the base's window are learned, since none of
them occurs, and `none`, which never leaves its window here, is the mark to reach instead of the one that fails.

The paper takes a rate of 2e-5 for a thousand steps of 64 rows. Sixty steps of a row or two need more: by default 5e-4
for LoRA and norms, 1e-4 for the embedding and for full fine-tuning, where 5e-4 would spoil what the base knows; all
fall to 0 linearly. Merged weights are kept and evaluated in float32, so that rounding hides no difference.

Lines are appended to results/context_extension.jsonl; results/context_extension.md is the table of the newest ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # this folder has files with names of libraries
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
import transformers
from transformers import AutoConfig

from benchmarks.lines import device_name, keep
from longlora import models, rope
from longlora.evaluation.data import Sources
from longlora.evaluation.settings import EvaluateSettings
from longlora.evaluation.stage import evaluate
from longlora.hardware import resolve_device, resolve_dtype
from longlora.merge import stage as merge_stage
from longlora.merge.settings import MergeSettings
from longlora.models import EMBEDDED, ModelSettings
from longlora.train import stage as train_stage
from longlora.train.settings import TrainSettings

RESULTS = Path(__file__).parent / "results" / "context_extension.jsonl"
SHARED = Path(os.environ.get("LONGFOLIO_SHARED", Path(__file__).resolve().parents[2] / "shared"))
VARIANTS: dict[str, tuple[str, ...] | None] = {  # roles trained in full beside LoRA; None: no LoRA
    "none": None, "pi": None, "lora": (), "lora+norm": ("norm",), "lora+embed": ("embed",),
    "lora+embed+norm": ("embed", "norm"), "full": None,
}  # fmt: skip
UNTRAINED = ("none", "pi")
FORMS: dict[str, dict[str, Any]] = {
    "cpu": {"row_tokens": 1024, "windows": [512, 1024, 2048], "batch": 1, "checkpoints": False},
    "gpu": {"row_tokens": 32768, "windows": [8192, 16384, 32768], "batch": 2, "checkpoints": True},
}


# ------------------------------------------------------------------ one variant


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The line of ``options.variant``."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        base = base_folder(options.model, work)
        window = rope.window(AutoConfig.from_pretrained(str(base), local_files_only=True))
        context = window * options.factor
        trained: dict[str, Any] = {}
        if options.variant == "none":
            folder = base
        elif options.variant == "pi":
            folder = interpolated(base, context, work / "pi")
        else:
            trained, folder = train(options, base, context, work)
        perplexity, count = perplexities(options, folder, work / "evaluation")
    return {
        "variant": options.variant,
        "form": options.form,
        "model": options.model if options.model in EMBEDDED else Path(options.model).name,
        "window": window,
        "context_length": window if options.variant == "none" else context,
        "factor": options.factor,
        "row_tokens": options.row_tokens,
        "steps": options.steps,
        "rows_per_step": options.batch,
        "perplexity": perplexity,
        "test_windows": count,
        **trained,
        "seconds": round(time.perf_counter() - began, 1),
        "device": device_name(options.device),
        "threads": torch.get_num_threads() if options.device == "cpu" else None,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def base_folder(model: str, work: Path) -> Path:
    if model not in EMBEDDED:
        return Path(model)
    cache = os.environ.get("LONGFOLIO_TEST_MODELS")
    return models.prepare(ModelSettings.model_validate(model), Path(cache) if cache else work / "models")


def interpolated(base: Path, context: int, folder: Path) -> Path:
    """``base`` with a config of the longer context, its other files linked."""
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).symlink_to(path.resolve())
    (folder / "config.json").unlink()
    config = AutoConfig.from_pretrained(str(base), local_files_only=True)
    rope.extend(config, context, "linear").save_pretrained(folder)
    return folder


def settings_of(options: argparse.Namespace, context: int) -> TrainSettings:
    """Of a trained variant."""
    whole, roles = options.variant == "full", VARIANTS[options.variant] or ()
    return TrainSettings.model_validate({
        "data": "text", "texts": (options.train.resolve(),),
        "context_length": context, "row_tokens": options.row_tokens, "rope": "linear",
        "attention": "s2_attn", "group": 0.25,
        "lora": None if whole else {"r": options.rank, "alpha": 2 * options.rank}, "trainable": roles,
        "learning_rate": options.full_rate if whole else options.rate,
        "learning_rates": {"embed": options.embed_rate} if "embed" in roles else {},
        "schedule": "linear", "warmup_steps": min(2, options.steps - 1), "max_steps": options.steps,
        "global_batch_size": options.batch, "seed": 0,
        "gradient_checkpointing": FORMS[options.form]["checkpoints"],
        "device": options.device, "devices": 1, "save_every_minutes": 1e9,
    })  # fmt: skip


def train(options: argparse.Namespace, base: Path, context: int, work: Path) -> tuple[dict[str, Any], Path]:
    """What is known of the training, and the merged model."""
    settings = settings_of(options, context)
    metrics = train_stage.run(settings, {"model": base}, work / "train", report)
    merge = MergeSettings(dtype="float32", device=options.device)
    merge_stage.run(merge, {"model": base, "train": work / "train" / "output"}, work / "merge", report)
    trained = {
        "dtype": resolve_dtype(settings.dtype),
        "group_tokens": metrics["group_tokens"],
        "trained": metrics["trainable_parameters"],
        "trained_parameters": sum(metrics["trainable_parameters"].values()),
        "rank": None if options.variant == "full" else options.rank,
        "learning_rates": {"base": settings.learning_rate, **settings.learning_rates.model_dump(exclude_none=True)},
        "tokens": metrics["tokens"],
        "loss_start": round(metrics["loss_start"], 4),
        "loss_end": round(metrics["loss_end"], 4),
        "last_loss": round(metrics["last_loss"], 4),
        "train_seconds": round(metrics["tokens"] / metrics["tokens_per_second"], 1),
        "memory_bytes": metrics["peak_memory_bytes"],
    }
    return trained, work / "merge" / "output" / "model"


def perplexities(options: argparse.Namespace, model: Path, work: Path) -> tuple[dict[str, float], dict[str, int]]:
    """Perplexity by window, and how many windows that is the mean of."""
    found, count = {}, {}
    for window in options.windows:
        settings = EvaluateSettings.model_validate({
            "tasks": ("text_perplexity",), "texts": (options.test,), "dtype": "float32", "device": options.device,
            "perplexity": {"window": window, "max_windows": options.test_windows},
        })  # fmt: skip
        sources = Sources(texts=settings.texts)
        metrics = evaluate({"model": model}, sources, settings, work / str(window), report, work / "units")
        found[str(window)] = round(metrics["text_perplexity"]["base"], 4)
        count[str(window)] = metrics["text_perplexity"]["n"]
    return found, count


def report(event: str, **fields: Any) -> None:
    if event == "warning":
        print(fields["message"], file=sys.stderr)
    elif event == "progress" and fields["unit"] != "tensors":
        loss = f", loss {fields['loss']:.3f}" if "loss" in fields else ""
        print(f"{fields['unit']} {fields['done']:,}{loss}", file=sys.stderr, flush=True)


# ------------------------------------------------------------------ results


TOGETHER = ("form", "model", "window", "factor", "row_tokens", "rows_per_step", "steps", "device")  # one table


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The newest line of each variant, as Markdown: a table for each set of conditions."""
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for line in lines:
        key = json.dumps([*(line[name] for name in TOGETHER), list(line["perplexity"])])
        tables.setdefault(key, {})[line["variant"]] = line
    text = [
        "# What has to be trained for a longer context",
        "",
        "`python benchmarks/context_extension.py`; the newest result of each variant. What each form shows, and what",
        "it does not, is said there. Perplexity with full attention, on texts that were not trained on.",
    ]
    for found in tables.values():
        text += ["", *section([found[name] for name in VARIANTS if name in found])]
    return "\n".join(text) + "\n"


def section(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Heading and rows of one table."""
    first = lines[0]
    windows = list(first["perplexity"])
    counts = ", ".join(str(first["test_windows"][w]) for w in windows)
    yield f"## {first['model']}, {first['window']:,} -> {first['window'] * first['factor']:,} tokens, {first['device']}"
    yield ""
    yield (
        f"Form {first['form']}: {first['steps']} steps of {first['rows_per_step']} x {first['row_tokens']:,} tokens, "
        f"linear RoPE factor {first['factor']}; {counts} windows measured."
    )
    yield ""
    heads = ["variant", "trained, M", *(f"ppl {int(w):,}" for w in windows), "loss", "train s", "peak, GB", "torch"]
    yield "| " + " | ".join(heads) + " |"
    yield "|---|" + "---:|" * (len(heads) - 1)
    for x in lines:
        of_training = [""] * 3
        if "loss_end" in x:
            of_training = [f"{x['loss_end']:.3f}", f"{x['train_seconds']:.0f}", f"{x['memory_bytes'] / 1e9:.2f}"]
        perplexity = [f"{x['perplexity'][w]:.2f}" for w in windows]
        row = [x["variant"], f"{x.get('trained_parameters', 0) / 1e6:.2f}", *perplexity, *of_training, x["torch"]]
        yield "| " + " | ".join(row) + " |"


# ------------------------------------------------------------------ command line


def parse(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--variant", choices=list(VARIANTS), help="without it, all, each in a process of its own")
    add("--form", choices=list(FORMS), help="default: that of the device")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--model", default=next(iter(EMBEDDED)), help="embedded name or directory")
    add("--train", type=Path, default=SHARED / "books" / "train", help="text file or folder of text files")
    add("--test", type=Path, default=SHARED / "books" / "test", help="likewise")
    add("--factor", type=int, default=4, help="of the model's window")
    add("--row-tokens", type=int, help="of a row in training; default: the form's")
    add("--windows", type=int, nargs="+", help="tokens of a window in evaluation; default: the form's")
    add("--test-windows", type=int, default=12, help="for each perplexity; every text gives one before any gives two")
    add("--steps", type=int, default=60)
    add("--batch", type=int, help="rows of a step; default: the form's")
    add("--rank", type=int, default=8, help="of LoRA; alpha is twice as much")
    add("--rate", type=float, default=5e-4, help="of LoRA and norms")
    add("--embed-rate", type=float, default=1e-4, help="of the embedding")
    add("--full-rate", type=float, default=1e-4, help="of the variant full")
    add("--threads", type=int, help="of the CPU; default: torch's choice")
    add("--results", type=Path, default=RESULTS)
    options = parser.parse_args(given)
    options.device = resolve_device(options.device)
    options.form = options.form or ("gpu" if options.device == "cuda" else "cpu")
    for name in ("row_tokens", "windows", "batch"):
        setattr(options, name, getattr(options, name) or FORMS[options.form][name])
    for path in (options.train, options.test):
        if not path.exists():
            parser.error(f"{path} does not exist: give --train and --test, or set LONGFOLIO_SHARED")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(given)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.variant:
        keep(options.results, run(options), table)
        return
    for variant in VARIANTS:  # a peak of memory is of a whole process
        subprocess.run([sys.executable, __file__, *given, "--variant", variant], check=True)


if __name__ == "__main__":
    main()
