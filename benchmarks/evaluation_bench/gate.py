"""The gate against models that are worse by a known amount, and against models that are not worse.

Worse: noise on every weight matrix, drawn anew in each run, as strong as made the perplexity of the first three per
cent worse.
Equal: the noise of one rounding to bfloat16, which moves every number and no quality. The champion is the model itself;
every run has windows of its own, from other places of the books.
"""

from __future__ import annotations

import math
import random
import shutil
from pathlib import Path
from typing import Any

from benchmarks.evaluation_bench.common import Bench, Part

WORSE = 1.03
WINDOW, WINDOWS = 512, 16


def run(bench: Bench) -> Part:
    from longlora.evaluation.gate import GateSettings, compare

    part = Part()
    books = [path.read_text(encoding="utf-8") for path in sorted(bench.folder("books/test").glob("*.txt"))]
    found: dict[str, list[Any]] = {"worse": [], "equal": []}
    strength = 0.0
    for seed in range(bench.runs):
        texts = _excerpts(books, bench.work / "texts", seed)
        champion, base = _output(bench, "champion", bench.model, texts)
        for kind in found:
            strength = strength or _strength(bench, texts, base)
            scale = strength if kind == "worse" else 2.0**-9
            folder = noisy(bench.model, bench.work / "noisy", seed, scale)
            candidate, value = _output(bench, kind, folder, texts)
            verdict = compare(candidate, champion, GateSettings())
            (task,) = verdict.tasks
            found[kind].append({"seed": seed, "ratio": value / base, "verdict": verdict.verdict, "p": task.p,
                                "detectable": task.detectable})  # fmt: skip
            print(kind, found[kind][-1], flush=True)
    for kind, runs in found.items():
        ratios = [r["ratio"] for r in runs]
        part.add(f"{kind}: perplexity against the champion's, mean", sum(ratios) / len(ratios),
                 note=f"from {min(ratios):.4f} to {max(ratios):.4f}")  # fmt: skip
        failed = sum(r["verdict"] == "fail" for r in runs)
        bounds = {"least": len(runs)} if kind == "worse" else {"most": len(runs) // 20}
        part.add(f"{kind}: failed, of {len(runs)}", failed, **bounds)
    effects = [r["detectable"] for runs in found.values() for r in runs]
    part.add(
        "detectable effect, mean, %", 100 * sum(effects) / len(effects), note=f"{WINDOWS} windows of {WINDOW} tokens"
    )
    part.data |= found
    return part


def _excerpts(books: list[str], folder: Path, seed: int) -> Path:
    """A piece of each book from a place drawn by seed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    draw = random.Random(seed)
    for i, book in enumerate(books):
        length = WINDOW * 30
        at = draw.randrange(max(len(book) - length, 1))
        (folder / f"{i:02}.txt").write_text(book[at : at + length])
    return folder


def _output(bench: Bench, name: str, model: Path, texts: Path) -> tuple[Path, float]:
    settings = {"tasks": ["text_perplexity"], "texts": [texts], "resamples": 1000,
                "perplexity": {"window": WINDOW, "max_windows": WINDOWS}}  # fmt: skip
    shutil.rmtree(bench.work / name, ignore_errors=True)
    items, _, output = bench.evaluate(name, {"model": model}, settings)
    return output, items["text_perplexity"]["base"]["value"]


def _strength(bench: Bench, texts: Path, base: float) -> float:
    """The noise that makes the first run's model three per cent worse: log perplexity rises with its square."""
    scale = 0.05
    for _ in range(3):
        _, value = _output(bench, "try", noisy(bench.model, bench.work / "noisy", 0, scale), texts)
        scale *= math.sqrt(math.log(WORSE) / max(math.log(value / base), 1e-4))
    return scale


def noisy(model: Path, folder: Path, seed: int, scale: float) -> Path:
    """A copy with Gaussian noise on every matrix, ``scale`` times the standard deviation of its entries."""
    import torch

    from longlora.models import load_model, load_tokenizer

    shutil.rmtree(folder, ignore_errors=True)
    network = load_model(model, dtype="float32")
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                noise = torch.randn(parameter.shape, generator=chance)
                parameter.add_(noise * parameter.std() * scale)
    network.save_pretrained(folder)
    load_tokenizer(model).save_pretrained(folder)
    return folder
