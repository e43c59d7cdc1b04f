"""S²-Attn against SDPA's full causal attention: forward and backward, in one run, one after the other.

    python benchmarks/attention.py --threads 2                      # all CPU variants
    python benchmarks/attention.py --length 16384 --group 2048 --dtype float32 --threads 2
    python benchmarks/attention.py --device cuda --backend torch_varlen --length 131072 --group 0.25

A result is a JSON line in benchmarks/results/attention.jsonl, and all lines together are the table
benchmarks/results/attention.md. The speed-up is the median over rounds of a round's full / S² time: both see the
same state of the machine. The processor's seconds are given beside the clock's, for machines that others use too.

Full attention is `scaled_dot_product_attention(is_causal=True)` on the same tensors in the same number format.
On a CPU without bfloat16 the backend widens to float32, so there bfloat16's speed-up has two causes; the float32
line is S²-Attn's alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # this folder has files with names of libraries
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.lines import device_name, keep, markdown, newest
from longlora.attention.backends import choose, s2_attention
from longlora.attention.heads import Part
from longlora.attention.plan import Span, group_tokens, make_plan
from longlora.attention.sdpa import stock
from longlora.hardware import cpu_bfloat16

RESULTS = Path(__file__).parent / "results" / "attention.jsonl"
CPU_VARIANTS = [(8192, 0.25), (16384, 0.25), (16384, 2048)]
TARGETS = {(8192, 2048): 3.3, (16384, 4096): 3.8, (16384, 2048): 6.8}  # (length, group tokens): bf16, 8 x 64, 2 threads


class Stock:
    """S²-Attn by SDPA's own kernels alone: what the rectangles of `longlora.attention.cpu` add to."""

    name = "sdpa-stock"

    def why_not(self, q: Any, k: Any, v: Any, dropout: float) -> str | None:
        return None

    def __call__(self, q: Any, k: Any, v: Any, parts: list[Part], scale: float | None, dropout: float) -> Any:
        return stock(q, k, v, parts, scale, dropout)


def timed(work: Callable[[], None], device: str) -> tuple[float, float]:
    """Seconds of clock and of the processor."""
    if device == "cuda":
        torch.cuda.synchronize()
    clock, processor = time.perf_counter(), time.process_time()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - clock, time.process_time() - processor


def measure(options: argparse.Namespace, length: int, group: float, dtype: str) -> dict[str, Any]:
    """One variant; the result line."""
    torch.manual_seed(0)
    device, tokens = options.device, group_tokens(group, length)

    def tensor(heads: int) -> torch.Tensor:  # (B, H, L, D) as models make it
        x = torch.randn(1, length, heads, options.head_dim, device=device).to(getattr(torch, dtype))
        return x.transpose(1, 2).requires_grad_()

    q, k, v = tensor(options.heads), tensor(options.kv_heads), tensor(options.kv_heads)
    upstream = torch.randn(1, length, options.heads, options.head_dim, device=device).to(q.dtype)
    plan = make_plan([[Span(0, length)]], length, tokens, "wrap" if options.wrap else "split")
    wanted: Any = Stock() if options.backend == "sdpa-stock" else options.backend
    backend = choose(wanted, q, k, v)
    grouped = {"enable_gqa": True} if options.heads != options.kv_heads else {}

    def full() -> None:
        out = scaled_dot_product_attention(q, k, v, is_causal=True, **grouped)
        torch.autograd.grad(out, (q, k, v), upstream.transpose(1, 2))

    def sparse() -> None:
        out = s2_attention(q, k, v, plan, backend=backend)
        torch.autograd.grad(out, (q, k, v), upstream)

    rounds = []
    for work in (sparse, full) if options.warm_up else ():
        timed(work, device)
    for _ in range(options.repeats):
        rounds.append((timed(full, device), timed(sparse, device)))

    def of(which: int, clock: int, fold: Callable[[list[float]], float]) -> float:
        return round(fold([r[which][clock] for r in rounds]), 5)

    return {
        "length": length,
        "group": group,
        "group_tokens": tokens,
        "mode": "wrap" if options.wrap else "split",
        "dtype": dtype,
        "backend": backend.name,
        "device": device_name(device),
        "threads": torch.get_num_threads() if device == "cpu" else None,
        "heads": options.heads,
        "kv_heads": options.kv_heads,
        "head_dim": options.head_dim,
        "speedup": round(statistics.median(f[0] / s[0] for f, s in rounds), 3),
        "speedup_of_fastest": round(of(0, 0, min) / of(1, 0, min), 3),
        "speedup_processor": round(of(0, 1, sum) / of(1, 1, sum), 3) if device == "cpu" else None,
        "full_seconds": of(0, 0, statistics.median),
        "s2_seconds": of(1, 0, statistics.median),
        "full_processor_seconds": of(0, 1, statistics.median) if device == "cpu" else None,
        "s2_processor_seconds": of(1, 1, statistics.median) if device == "cpu" else None,
        "repeats": options.repeats,
        "target": TARGETS.get((length, tokens)) if device == "cpu" else None,
        "native_bfloat16": cpu_bfloat16() if device == "cpu" else True,
        "torch": torch.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


COLUMNS = {
    "length": "tokens", "group_tokens": "group", "mode": "mode", "dtype": "dtype", "backend": "backend",
    "heads": "heads", "kv_heads": "KV heads", "device": "device", "threads": "threads", "full_seconds": "full, s",
    "s2_seconds": "S², s", "speedup": "speed-up", "speedup_processor": "by processor time", "target": "target",
    "torch": "torch",
}  # fmt: skip
SAME = ("length", "group_tokens", "mode", "dtype", "backend", "device", "threads", "heads", "kv_heads", "head_dim")


def table(lines: list[dict[str, Any]]) -> str:
    """The newest line of each variant, as Markdown."""
    order = ("device", "dtype", "length", "group_tokens", "backend")
    rows = sorted(newest(lines, SAME), key=lambda row: [row[key] for key in order])
    text = [
        "# S²-Attn against full causal SDPA, forward + backward",
        "",
        "`python benchmarks/attention.py`; the newest result of each variant. Both run in turn in one process on the",
        "same tensors; the speed-up is the median over rounds. Where a CPU has no bfloat16, the bfloat16 lines gain",
        "from computing in float32 as well: there float32 is what S²-Attn itself brings.",
        "",
        *markdown(COLUMNS.values(), ([row[key] for key in COLUMNS] for row in rows)),
    ]
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--length", type=int, help="tokens; without it, all variants of the CPU")
    parser.add_argument("--group", type=float, default=0.25, help="share of the length, or tokens")
    parser.add_argument("--backend", default="auto", help="auto, flash_attn, torch_varlen, sdpa or sdpa-stock")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], help="default: both on a CPU, bfloat16 on a GPU")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, help="default: as many as heads")
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--wrap", action="store_true", help="the paper's roll")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-warm-up", dest="warm_up", action="store_false")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.kv_heads = options.kv_heads or options.heads
    torch.set_num_threads(options.threads)
    variants = [(options.length, options.group)] if options.length else CPU_VARIANTS
    dtypes = [options.dtype] if options.dtype else ["bfloat16", "float32"] if options.device == "cpu" else ["bfloat16"]
    for dtype in dtypes:
        for length, group in variants:
            keep(options.results, measure(options, length, group, dtype), table)


if __name__ == "__main__":
    main()
