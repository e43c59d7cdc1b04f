"""Text to packed rows: how fast a large set is tokenized, packed and streamed, and in how much memory.

    python benchmarks/train_data.py [--model DIR] [--tokens 50e6] [--row-tokens 8192] [--keep DIR]

The text is generated: words of the vocabulary, drawn by Zipf's law, in documents of 20 to 20,000 words (lengths
log-uniform), in a Parquet file, a gzipped JSON lines file and one large text file. Three processes, one after another:

    tokenize   the cache of tokens is made (longlora.train.data), samples and rows are packed
    again      the same call on the finished cache: what a restart costs before its first step
    stream     one epoch of rows in training order, each collated to tensors

Each tells its peak of resident memory, and what of it was there before the first text: interpreter, torch,
transformers and the tokenizer. Packing alone is also timed on a million samples of random lengths.
Results are appended to ``results/train_data.jsonl``; ``results/train_data.md`` is the table of them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # this folder has files with names of libraries
RESULTS = ROOT / "benchmarks" / "results" / "train_data.jsonl"
SEED = 1


def documents(tokenizer: Any, tokens: int, seed: int) -> Iterator[str]:
    """Generated documents of about ``tokens`` tokens together."""
    draw = np.random.default_rng(seed)
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    words = np.array([t for t in texts if t[:1] == " " and t[1:].isalpha() and t.isascii()])
    weights = 1 / np.arange(1, len(words) + 1)
    words, weights = draw.permutation(words), weights / weights.sum()
    while tokens > 0:
        count = int(np.exp(draw.uniform(np.log(20), np.log(20_000))))
        chosen = draw.choice(words, size=count, p=weights)
        ends = draw.choice(["", ".", ".\n"], size=count, p=[0.93, 0.05, 0.02])
        yield "".join(np.char.add(chosen, ends)).lstrip()
        tokens -= int(count * 1.07)


def generate(tokenizer: Any, tokens: int, folder: Path) -> None:
    """A third of the text in each kind of file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    third = tokens // 3
    with pq.ParquetWriter(folder / "a.parquet", pa.schema([("text", pa.string())])) as parquet:
        for text in documents(tokenizer, third, SEED):
            parquet.write_table(pa.table({"text": [text]}))
    with gzip.open(folder / "b.jsonl.gz", "wt", compresslevel=1) as lines:
        for text in documents(tokenizer, third, SEED + 1):
            lines.write(json.dumps({"text": text}) + "\n")
    with (folder / "c.txt").open("w") as file:
        for text in documents(tokenizer, third, SEED + 2):
            file.write(text + "\n\n")


def peak() -> int:
    """Bytes of resident memory at most, so far."""
    from benchmarks.pdf2txt_bench.common import high_water

    return high_water(os.getpid())


def step(name: str, model: Path, folder: Path, row_tokens: int) -> dict[str, Any]:
    """One of the three processes."""
    import torch  # noqa: F401  the trainer has it too

    from longlora.models import load_tokenizer
    from longlora.train import data

    tokenizer = load_tokenizer(model)
    if name == "generate":
        generate(tokenizer, row_tokens, folder / "texts")  # here: tokens of all
        return {}
    tokenizer("warm up")
    before, began = peak(), time.perf_counter()
    samples = data.plain_text_samples([folder / "texts"], tokenizer, row_tokens, folder / "tokens")
    tokenized = time.perf_counter()
    rows = data.make_rows(samples, row_tokens, True)
    stream = data.stream(rows, len(rows), 0)
    digest = data.stream_digest(stream)
    packed = time.perf_counter()
    result = {
        "tokens": int(rows.lengths.sum()), "documents": len(samples.cache), "samples": len(samples), "rows": len(rows),
        "filled": float(rows.lengths.sum() / len(rows) / row_tokens), "digest": digest[:16],
        "cache_seconds": tokenized - began, "packing_seconds": packed - tokenized,
    }  # fmt: skip
    if name == "stream":
        seen = sum(data.collate([row], pad_id=0)["tokens"] for row in stream)
        assert seen == result["tokens"]
        result["streaming_seconds"] = time.perf_counter() - packed
    result |= {"memory_before": before, "memory_peak": peak()}
    if name == "again":
        lengths = np.random.default_rng(SEED).integers(20, row_tokens // 2, size=1_000_000)
        began = time.perf_counter()
        data.pack(lengths, row_tokens)
        result["pack_a_million_seconds"] = time.perf_counter() - began
    return result


def table(lines: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    head = ("step", "tokens", "rows", "filled", "seconds", "tokens/s", "packing s", "before MB", "peak MB", "CPU")
    out = ["# Text to packed rows", "", "Made by `benchmarks/train_data.py`.", ""]
    out += [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for x in lines:
        seconds = x.get("streaming_seconds", x["cache_seconds"])
        speed = "" if x["step"] == "again" else f"{x['tokens'] / seconds:,.0f}"
        cells = (
            x["step"], f"{x['tokens']:,}", f"{x['rows']:,} x {x['row_tokens']:,}", f"{x['filled']:.2%}",
            f"{seconds:.1f}", speed, f"{x['packing_seconds']:.2f}", f"{x['memory_before'] / 1e6:.0f}",
            f"{x['memory_peak'] / 1e6:.0f}", f"{x['cores']} cores",
        )  # fmt: skip
        out.append(f"| {' | '.join(cells)} |")
    millions = [x["pack_a_million_seconds"] for x in lines if "pack_a_million_seconds" in x]
    out += ["", f"Packing a million samples of 20 to {lines[-1]['row_tokens'] // 2:,} tokens: {millions[-1]:.1f} s."]
    return "\n".join(out) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, help="model directory; default: the embedded model")
    parser.add_argument("--tokens", type=float, default=50e6)
    parser.add_argument("--row-tokens", type=int, default=8192)
    parser.add_argument("--keep", type=Path, help="folder for texts and cache; default: a temporary one")
    parser.add_argument("--step", choices=["generate", "tokenize", "again", "stream"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(step(options.step, options.model, options.keep, options.row_tokens)))
        return 0

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        (folder / "texts").mkdir(parents=True, exist_ok=True)
        model = options.model
        if model is None:
            from longlora.models import ModelSettings, prepare

            model = prepare(ModelSettings(name="smollm2-135m-q4"), folder / "models")
        for name in ("generate", "tokenize", "again", "stream"):
            size = int(options.tokens) if name == "generate" else options.row_tokens
            command = [sys.executable, __file__, "--step", name, "--model", str(model), "--keep", str(folder)]
            done = subprocess.run(
                [*command, "--row-tokens", str(size)], stdout=subprocess.PIPE, check=True, text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "true"},
            )  # fmt: skip
            result = json.loads(done.stdout.splitlines()[-1])
            if result:
                about = {"step": name, "row_tokens": options.row_tokens, "seed": SEED, "cores": os.cpu_count()}
                about |= {"python": platform.python_version(), "machine": platform.machine(), "time": time.time()}
                with RESULTS.open("a") as file:
                    file.write(json.dumps(about | result) + "\n")
                print(name, result, file=sys.stderr)
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    RESULTS.with_suffix(".md").write_text(table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
