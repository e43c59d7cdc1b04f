"""A model trained on the built set, by the product's own stages: does it answer questions about unseen papers better?

Seventeen papers, some held out whole; the embedded model, LoRA with embedding and norms, nearly two epochs; then base
and merged model write answers to the same questions of the held-out papers, with their windows before them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.datasets_bench.common import Bench, Part

_DATASET: dict[str, Any] = {
    "max_tokens": 1024, "license": "cc-by-4.0", "validation_share": 0.25, "seed": 1, "per_document": 4,
    "mix": {"max_task_share": 0.25},
}  # fmt: skip
_TRAIN: dict[str, Any] = {
    "attention": "s2_attn", "row_tokens": 2048, "group": 1024, "lora": {"r": 16, "alpha": 32},
    "trainable": ["embed", "norm"], "learning_rate": 5e-4, "learning_rates": {"embed": 5e-5}, "warmup_steps": 5,
    "global_batch_size": 4, "max_steps": 80, "gradient_checkpointing": False, "seed": 0, "save_every_minutes": 1e9,
}  # fmt: skip
_EVALUATE: dict[str, Any] = {
    "tasks": ["answers", "written_answers"], "answers": {"max_rows": 120},
    "written_answers": {"max_rows": 120, "max_answer_tokens": 48},
}  # fmt: skip


def run(bench: Bench) -> Part:
    from longlora.evaluation import stage as evaluation
    from longlora.evaluation.settings import EvaluateSettings
    from longlora.merge import stage as merging
    from longlora.merge.settings import MergeSettings
    from longlora.train import stage as training
    from longlora.train.settings import TrainSettings

    part = Part()
    documents = bench.convert(bench.files("pdfbench/jose", "*.pdf"))
    built = bench.build(documents, "learning", **_DATASET)
    folders = {name: bench.work / name for name in ("train", "merge", "evaluate")}
    inputs = {"model": bench.model, "datasets_build": built.folder}
    trained = training.run(TrainSettings.model_validate(_TRAIN), inputs, folders["train"], _silent)
    inputs["train"] = folders["train"] / "output"
    merging.run(MergeSettings(), inputs, folders["merge"], _silent)
    inputs["merge"] = folders["merge"] / "output"
    metrics = evaluation.run(EvaluateSettings.model_validate(_EVALUATE), inputs, folders["evaluate"], _silent)

    held = built.metrics["documents_validation"]
    note = f"{built.metrics['rows_train']} of them trained on, the others of {held} held-out papers"
    part.add("rows", built.metrics["rows"], note=note)
    note = f"{trained['tokens']:,} tokens, {trained['tokens'] / trained['tokens_per_second']:.0f} s"
    part.add("training loss, last quarter", trained["loss_end"], note=f"{trained['loss_start']:.3f} before; {note}")
    for task, name in (("answers", "loss of the true answer"), ("written_answers", "F1 of written answers, %")):
        found, scale = metrics[task], 100 if task == "written_answers" else 1
        part.add(f"{name}, base", scale * found["base"], note=f"n {found['n']}")
        part.add(f"{name}, trained", scale * found["merged"])
        low, high = scale * found["low"], scale * found["high"]
        note = f"95 % interval, paired: [{low:+.2f}, {high:+.2f}]"
        part.add(f"{name}, gain", scale * found["difference"], note=note)
        if task == "written_answers":
            part.add(f"{name}, lower end of the gain's interval", low, least=0)
    part.data |= {"f1_by_task": _by_task(folders["evaluate"] / "output" / "samples.jsonl")}
    return part


def _by_task(samples: Path) -> dict[str, dict[str, float]]:
    """Mean F1 of base and trained model, and how many questions, of each recipe."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in samples.read_text(encoding="utf-8").splitlines():
        sample = json.loads(line)
        if sample["task"] == "written_answers":
            found[sample["task_of_row"]][sample["model"]].append(sample["score"])
    means = {task: {m: round(sum(f) / len(f), 3) for m, f in by.items()} for task, by in sorted(found.items())}
    return {task: {**mean, "n": len(found[task]["base"])} for task, mean in means.items()}


def _silent(event: str, **fields: Any) -> None:
    if event == "warning":
        print(fields["message"], flush=True)
