"""Training steps with S²-Attn against full attention: time, memory, and the share of what FLOPs allow that is reached.

    python benchmarks/train_step.py                                        # all CPU variants, each in its own process
    python benchmarks/train_step.py --length 8192 --group full 0.25        # one length; both in turn, in one process
    python benchmarks/train_step.py --length 8192 --group 0.25 --no-paired # one variant, its peak of memory its own
    python benchmarks/train_step.py --device cuda                          # all GPU variants, one after the other
    python benchmarks/train_step.py --device cuda --length 1000000 --group 2048

A step is the trainer's own (`longlora.train.trainer`): forward, loss in chunks, backward with checkpoints, clipping,
AdamW; LoRA with trained embeddings and norms, a micro batch of one row, which is one document of random tokens. On a
CPU the model is SmolLM2-135M, on a GPU one of Llama-2-7B's shape with random weights, made on the device: nothing is
downloaded. Without a memory option, `longlora.train.advice` chooses for a GPU what the length needs: checkpoints of
several layers, checkpoints on the host, tiled MLPs. Where it finds nothing that fits, what is predicted to need least
is tried all the same.

utilisation   operations of the step (longlora.flops, S²-Attn's pairs counted exactly) by its seconds and the peak
speed-up      full / S² seconds of a step; paired: the median over rounds, in which both see the same machine, else
              against the newest full line of the same length and settings. By the clock; of a CPU that others use
              as well, by processor time too, which they disturb less
ceiling       full / S² operations of a step; `forward_ceiling` in the lines: of the forward pass alone
share         speed-up / ceiling. Above 1 the kernels of S²-Attn make better use of the machine than full attention's
memory        GPU: torch's allocator (allocated, reserved). CPU: the process's resident set, of all paired variants
              together; S²-Attn saves none, see --no-paired
predicted     what `longlora.train.estimate` says the memory is

A step that does not fit is a line with the status "out of memory". Lines are appended to results/train_step.jsonl,
results/train_step.md is the table of the newest of each variant.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # this folder has files with names of libraries
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, TrainerCallback

from benchmarks.lines import device_name, keep, markdown, newest, read
from longlora import adapters, attention, models
from longlora.errors import UserError
from longlora.flops import Work, device_peak
from longlora.hardware import resolve_dtype
from longlora.models import EMBEDDED, ModelSettings
from longlora.train import memory
from longlora.train.advice import advise
from longlora.train.data import Sample
from longlora.train.device import Device, this_device
from longlora.train.estimate import estimate, with_settings
from longlora.train.metrics import peak_memory, work_of
from longlora.train.model import build_model, make_config
from longlora.train.settings import TrainSettings
from longlora.train.sizes import Sizes, measure
from longlora.train.trainer import LongTrainer

RESULTS = Path(__file__).parent / "results" / "train_step.jsonl"
FULL = "full"
CPU_VARIANTS = {4096: [FULL, "0.25"], 8192: [FULL, "0.25"], 16384: [FULL, "0.25", "2048"]}
GPU_VARIANTS = {n: [FULL, "0.25", "2048"] for n in (8192, 16384, 32768, 65536, 100352)}
GPU_VARIANTS |= {262144: ["0.25", "2048"], 524288: ["0.25", "2048"], 1000000: ["2048"]}
SHAPES: dict[str, dict[str, Any]] = {  # of models with random weights
    "llama2-7b": {"max_position_embeddings": 4096},  # the rest are LlamaConfig's defaults
    "tiny": {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 128,
    },
}  # fmt: skip
MEMORY_MEANS = ("gradient_checkpointing", "layers_per_checkpoint", "offload", "tile_mlp")
LONG = 131072  # tokens
OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class Step:
    """What one optimizer step took: seconds of the clock and of the processor; bytes of a GPU's memory."""

    seconds: float
    processor: float
    allocated: int
    reserved: int


class Rounds(TrainerCallback):
    """Gives each step its group of tokens (None: full attention) and measures it."""

    def __init__(self, config: Any, groups: Sequence[int | None]) -> None:
        self.config, self.groups = config, groups
        self.steps: list[tuple[int | None, Step]] = []
        self.began = (0.0, 0.0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        setattr(self.config, attention.GROUP_ATTRIBUTE, self.groups[state.global_step])
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self.began = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        used = (0, 0)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            used = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        clock, processor = self.began
        step = Step(time.perf_counter() - clock, time.process_time() - processor, *used)
        self.steps.append((self.groups[state.global_step - 1], step))


# ------------------------------------------------------------------ one run


def run(options: argparse.Namespace, length: int, groups: Sequence[str]) -> list[dict[str, Any]]:
    """The steps of one length with each of ``groups`` in turn; a line for each."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = model_folder(options, Path(temporary))
        settings, about = choose_settings(options, folder, length)
        tokens = tokens_of(groups, length)
        warm_up, steps = counts(options, length)
        try:
            model = make_model(options, folder, settings)
            work = work_of(model, settings)
            config = adapters.causal_lm(model).config
            order = list(tokens.values()) * (warm_up + steps)
            rounds = Rounds(config, order)
            train(model, settings, rounds, length, Path(temporary))
            about |= {"status": "ok", "peak_flops": device_peak(options.device, settings.dtype)}
        except (RuntimeError, MemoryError, UserError) as error:
            if not is_out_of_memory(error):
                raise
            print(error, file=sys.stderr)
            about["status"] = OUT_OF_MEMORY
            return [{**about, "group": name, "group_tokens": count} for name, count in tokens.items()]
    assert work is not None
    measured = {g: [s for of, s in rounds.steps if of == g][warm_up:] for g in tokens.values()}
    lines = [
        {**about, "group": name, "group_tokens": g, **numbers(about, replace(work, group=g), measured[g])}
        for name, g in tokens.items()
    ]
    if None in measured:
        for line in lines:
            line |= paired(measured[None], measured[line["group_tokens"]], line)
    return lines


def tokens_of(groups: Sequence[str], length: int) -> dict[str, int | None]:
    """Each group in tokens, None for full attention; of two that are the same only the first."""
    found: dict[str, int | None] = {}
    for name in groups:
        tokens = None if name == FULL else attention.group_tokens(float(name), length)
        if tokens not in found.values():
            found[name] = tokens
    return found


def model_folder(options: argparse.Namespace, temporary: Path) -> Path:
    """A model directory; of a shape it holds the config alone."""
    if options.model in SHAPES:
        shape = SHAPES[options.model] | ({"num_hidden_layers": options.layers} if options.layers else {})
        LlamaConfig(**shape, use_cache=False, tie_word_embeddings=False).save_pretrained(temporary / "shape")
        return temporary / "shape"
    if options.model in EMBEDDED:
        cache = os.environ.get("LONGFOLIO_TEST_MODELS")
        return models.prepare(ModelSettings.model_validate(options.model), Path(cache) if cache else temporary)
    return Path(options.model)


def choose_settings(options: argparse.Namespace, folder: Path, length: int) -> tuple[TrainSettings, dict[str, Any]]:
    """The settings of the training, and what of a line is known before it."""
    wanted = {name: getattr(options, name) for name in MEMORY_MEANS if getattr(options, name) is not None}
    settings = TrainSettings.model_validate({
        "context_length": length, "row_tokens": length, "attention": "s2_attn_wrap" if options.wrap else "s2_attn",
        "dtype": "bfloat16" if options.device == "cuda" and options.dtype == "auto" else resolve_dtype(options.dtype),
        "trainable": options.trainable, "device": options.device, "threads": options.threads, "devices": 1,
        "global_batch_size": 1, "save_every_minutes": 1e9, **wanted,
    })  # fmt: skip
    sizes, device = measure(ModelSettings(path=folder), settings), this_device(options.device, settings.dtype)
    if options.device == "cuda" and not wanted:
        settings = save_memory(settings, sizes, device)
    about = {
        "model": options.model if options.model in (*SHAPES, *EMBEDDED) else folder.name,
        "random": options.model in SHAPES,
        "layers": sizes.shape.layers,
        "length": length,
        "mode": "wrap" if options.wrap else "split",
        "dtype": settings.dtype,
        "device": device_name(options.device),
        "threads": torch.get_num_threads() if options.device == "cpu" else None,
        "trainable": "+".join(["lora", *options.trainable]),
        **{name: getattr(settings, name) for name in MEMORY_MEANS},
        "paired": options.paired,
        "steps": counts(options, length)[1],
        "predicted_bytes": round(estimate(settings, sizes, device).memory),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return settings, about


def save_memory(settings: TrainSettings, sizes: Sizes, device: Device) -> TrainSettings:
    """With the memory means that the library advises; with those that need least where it advises another training."""
    advice = advise(settings, sizes, device)
    if advice.result is not None and advice.changes.keys() <= set(MEMORY_MEANS):
        return with_settings(settings, **advice.changes)
    every = [with_settings(settings, offload=True, tile_mlp=2048, layers_per_checkpoint=n) for n in (1, 2, 4, 8)]
    needs = {n: estimate(each, sizes, device) for n, each in enumerate(every)}
    on_host = [n for n in needs if needs[n].host <= (device.host_memory or 0)]
    return every[min(on_host or needs, key=lambda n: needs[n].memory)]


def counts(options: argparse.Namespace, length: int) -> tuple[int, int]:
    """Steps to warm up and to measure. Minutes long, the first step of a GPU is as good as any other."""
    long = options.device == "cuda" and length > LONG
    warm_up = options.warm_up if options.warm_up is not None else 0 if long else 1
    return warm_up, options.steps or (1 if long else 2 if options.device == "cuda" else 3)


def make_model(options: argparse.Namespace, folder: Path, settings: TrainSettings) -> Any:
    """With adapters and memory means; random weights are drawn on the device, as nothing of them matters."""
    attention.register()
    config = make_config(folder, settings)
    config.use_cache = False
    setattr(config, attention.GROUP_ATTRIBUTE, None)  # each step sets its own
    if options.model not in SHAPES:
        return build_model(folder, config, settings)
    torch.manual_seed(settings.seed)
    dtype: torch.dtype = getattr(torch, settings.dtype)
    name = attention.WRAP_NAME if options.wrap else attention.NAME
    with torch.device(options.device):
        base = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=name)
    assert settings.lora is not None
    model = adapters.add_adapters(base, settings.lora, settings.trainable, seed=settings.seed, compute_dtype=dtype)
    memory.enable(base, settings)
    return model


def train(model: Any, settings: TrainSettings, rounds: Rounds, length: int, work: Path) -> None:
    """As many steps as ``rounds`` has groups, by the product's trainer, on one random row."""
    vocabulary = adapters.causal_lm(model).config.vocab_size
    ids = torch.randint(3, vocabulary, (length,), generator=torch.Generator().manual_seed(1)).int().numpy()
    labels = ids.copy()
    labels[0] = -100
    rows = [[Sample("random", ids, labels)]] * len(rounds.groups)
    trainer = LongTrainer(model, rows, settings, work, progress, fingerprint="", pad_id=0)
    trainer.add_callback(rounds)
    trainer.train()


def progress(event: str, **fields: Any) -> None:
    if event == "progress":
        print(f"step {fields['done']} of {fields['total']}", file=sys.stderr, flush=True)


def is_out_of_memory(error: BaseException) -> bool:
    """Of the device; of the host, where pinning fails or a CPU's allocator does."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in ("out of memory", "can't allocate memory", "host memory is used up"))


# ------------------------------------------------------------------ numbers


def numbers(about: dict[str, Any], work: Work, steps: Sequence[Step]) -> dict[str, Any]:
    """What the measured steps of one group say."""
    length = about["length"]
    seconds = statistics.median(s.seconds for s in steps)
    flops, full = work.step([length], length - 1).total, replace(work, group=None)
    gpu = about["threads"] is None
    return {
        "seconds": round(seconds, 4),
        "all_seconds": [round(s.seconds, 4) for s in steps],
        "processor_seconds": None if gpu else round(statistics.median(s.processor for s in steps), 4),
        "tokens_per_second": round(length / seconds, 1),
        "flops": flops,
        "utilisation": round(flops / seconds / about["peak_flops"], 4) if about["peak_flops"] else None,
        "memory_bytes": max(s.allocated for s in steps) if gpu else peak_memory("cpu"),
        "reserved_bytes": max(s.reserved for s in steps) if gpu else None,
        "speedup": None,
        "speedup_processor": None,
        "ceiling": None if work.group is None else round(full.step([length], length - 1).total / flops, 4),
        "forward_ceiling": None if work.group is None else round(forward(full, length) / forward(work, length), 4),
        "share_of_ceiling": None,
    }


def forward(work: Work, length: int) -> float:
    """Operations of one forward pass: what one more recomputation of layers and head would cost."""
    once, twice = (replace(work, recomputed=n, head_recomputed=n).step([length], length - 1).total for n in (1, 2))
    return twice - once


def paired(full: Sequence[Step], sparse: Sequence[Step], line: dict[str, Any]) -> dict[str, Any]:
    """The speed-up by rounds."""
    if line["group_tokens"] is None:
        return {}
    speedup = statistics.median(f.seconds / s.seconds for f, s in zip(full, sparse, strict=True))
    processor = sum(f.processor for f in full) / sum(s.processor for s in sparse)
    found = {"speedup": round(speedup, 4), "share_of_ceiling": round(speedup / line["ceiling"], 4)}
    return found | ({"speedup_processor": round(processor, 4)} if line["threads"] is not None else {})


SAME = ("model", "layers", "length", "mode", "dtype", "device", "threads", "trainable", *MEMORY_MEANS)


def against_full(line: dict[str, Any], lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """``line`` with its speed-up over the newest full one of the same settings, where it was not paired with one."""
    if line["status"] != "ok" or line["group_tokens"] is None or line["speedup"] is not None:
        return line
    fulls = [x for x in lines if x["status"] == "ok" and x["group_tokens"] is None]
    same = [x for x in fulls if all(x[key] == line[key] for key in SAME)]
    if not same:
        return line
    full = same[-1]
    speedup = full["seconds"] / line["seconds"]
    found = {"speedup": round(speedup, 4), "share_of_ceiling": round(speedup / line["ceiling"], 4)}
    if line["processor_seconds"]:
        found["speedup_processor"] = round(full["processor_seconds"] / line["processor_seconds"], 4)
    return line | found


# ------------------------------------------------------------------ results


COLUMNS = {
    "model": "model", "device": "device", "threads": "threads", "dtype": "dtype", "length": "tokens",
    "group_tokens": "group", "mode": "mode", "status": "status", "seconds": "s/step", "tokens_per_second": "tokens/s",
    "utilisation": "utilisation", "memory": "peak, GB", "reserved": "reserved, GB", "predicted": "predicted, GB",
    "speedup": "speed-up", "speedup_processor": "by processor time", "ceiling": "ceiling",
    "share_of_ceiling": "share", "means": "memory saved by",
    "torch": "torch",
}  # fmt: skip


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The newest line of each variant, as Markdown."""
    order = ("model", "device", "dtype", "length")
    rows = newest(lines, (*SAME, "group_tokens"))
    rows.sort(key=lambda x: ([x[key] for key in order], -(x["group_tokens"] or 10**9)))
    text = [
        "# Training steps: S²-Attn against full attention",
        "",
        "`python benchmarks/train_step.py`; the newest result of each variant. Columns: see there. Speed-up: full / S²",
        "seconds; ceiling: full / S² operations; share: of the ceiling that is reached.",
        "",
        *markdown(COLUMNS.values(), map(cells, rows)),
    ]
    return "\n".join(text) + "\n"


def cells(row: dict[str, Any]) -> Iterator[object]:
    """In the order of `COLUMNS`."""
    gigabytes = {
        name: f"{row[f'{name}_bytes'] / 1e9:.2f}"
        for name in ("memory", "reserved", "predicted")
        if row.get(f"{name}_bytes")
    }
    shown = {**row, **gigabytes, "group_tokens": row["group_tokens"] or FULL, "means": means(row)}
    if row["status"] == "ok":
        shown["tokens_per_second"] = round(row["tokens_per_second"])
    shown["model"] += f" shape, {row['layers']} layers, random" if row["random"] else ""
    return (shown.get(name) for name in COLUMNS)


def means(row: dict[str, Any]) -> str:
    """The memory settings in words."""
    words = []
    if row["gradient_checkpointing"]:
        per = row["layers_per_checkpoint"]
        words.append(f"checkpoints of {per} layer{'s' * (per > 1)}" + " on the host" * row["offload"])
    if row["tile_mlp"]:
        words.append(f"MLP in {row['tile_mlp']:,}")
    return ", ".join(words)


# ------------------------------------------------------------------ all runs


def plan(options: argparse.Namespace) -> list[tuple[int, list[str]]]:
    """Lengths, each with the groups that are measured in turn in one go."""
    known = CPU_VARIANTS if options.device == "cpu" else GPU_VARIANTS
    default = [FULL, "0.25"]
    variants = [(n, list(tokens_of(options.group or known.get(n, default), n))) for n in options.length or known]
    if options.paired:
        return variants
    return [(n, [group]) for n, groups in variants for group in groups]


def in_own_process(options: argparse.Namespace, given: Sequence[str], length: int, groups: Sequence[str]) -> None:
    """Have a process of its own do it, and say so where the system kills that for its memory.

    Raises:
        subprocess.CalledProcessError: it failed otherwise.
    """
    one = ["--length", str(length), "--group", *groups]
    done = subprocess.run([sys.executable, __file__, *given, *one], stdout=sys.stdout)
    if done.returncode == -signal.SIGKILL:
        with tempfile.TemporaryDirectory() as temporary:
            _, about = choose_settings(options, model_folder(options, Path(temporary)), length)
        about["status"] = OUT_OF_MEMORY
        for group, tokens in tokens_of(groups, length).items():
            keep(options.results, {**about, "group": group, "group_tokens": tokens}, table)
    else:
        done.check_returncode()


def parse(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--length", type=int, nargs="+", help="tokens; without it, all variants of the device")
    add("--group", nargs="+", help="full, a share of the length, or tokens; default: the variants of the length")
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--dtype", choices=["auto", "bfloat16", "float32"], default="auto", help="auto: bfloat16 where it is fast")
    add("--model", help=f"embedded name, directory, or a shape with random weights ({', '.join(SHAPES)})")
    add("--layers", type=int, help="of a shape: fewer, for a quick look")
    add("--steps", type=int, help=f"measured for each group; default: 3, on a GPU 2, or 1 above {LONG:,} tokens")
    add("--warm-up", type=int, help=f"steps of each group before those; default: 1, on a GPU none above {LONG:,}")
    add("--paired", action=argparse.BooleanOptionalAction, help="groups in turn in one process; default: on a CPU")
    add("--isolate", action="store_true", help="on a GPU too: a process for each run")
    add("--wrap", action="store_true", help="the paper's roll")
    add("--trainable", nargs="*", default=["embed", "norm"], help="in full beside LoRA: embed, norm, head")
    add("--threads", type=int, help="of the CPU; default: torch's choice")
    add("--no-checkpoints", dest="gradient_checkpointing", action="store_false", default=None)
    add("--layers-per-checkpoint", type=int)
    add("--offload", action="store_true", default=None, help="checkpoints in host memory")
    add("--tile-mlp", type=int, help="tokens at once")
    add("--results", type=Path, default=RESULTS)
    options = parser.parse_args(given)
    cuda = options.device == "cuda"
    options.model = options.model or ("llama2-7b" if cuda else next(iter(EMBEDDED)))
    options.paired = not cuda if options.paired is None else options.paired
    if options.layers and options.model not in SHAPES:
        parser.error("--layers is for a shape: a model with weights has its own layers")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(given)
    if options.threads:
        torch.set_num_threads(options.threads)
    runs = plan(options)
    for length, groups in runs:
        if len(runs) > 1 and (options.device == "cpu" or options.isolate):
            in_own_process(options, given, length, groups)
            continue
        for line in run(options, length, groups):
            keep(options.results, against_full(line, read(options.results)), table)
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
