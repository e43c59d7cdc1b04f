"""Peak memory of one training step with the loss in chunks, against full logits.

    python benchmarks/loss_memory.py                                # both variants, each in a process of its own
    python benchmarks/loss_memory.py --variant chunked --width 72   # one, in this process; a line of JSON, not kept

A step: forward, loss and backward of a random two-layer Llama with tied embeddings, S²-Attn and gradient checkpoints,
in fp32, at 16,384 tokens and a vocabulary of 49,152 (both can be set). The default width is SmolLM2-135M's. On a CPU
the peak is that of the process's resident set above what it was before the step, on a GPU that of torch's allocator.
Results are appended to results/loss_memory.jsonl; results/loss_memory.md is written anew from all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT)  # this folder has files with names of libraries
RESULTS = ROOT / "benchmarks" / "results"
VARIANTS = ("full", "chunked", "recomputed")


def resident() -> int:
    """Bytes of this process in memory now."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def step(
    variant: str, tokens: int, vocabulary: int, width: int, device: str, threads: int | None, gradients: Path | None
) -> dict[str, Any]:
    """One step in this process."""
    import torch
    import transformers
    from transformers import LlamaConfig, LlamaForCausalLM

    from longlora import attention
    from longlora.train.loss import supervised_loss
    from longlora.train.memory import checkpoint_layers

    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    attention.register()
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=2,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=max(8, width // 9),
        max_position_embeddings=tokens,
        tie_word_embeddings=True,
        use_cache=False,
        attn_implementation=attention.NAME,
    )
    setattr(config, attention.GROUP_ATTRIBUTE, 2048)
    model = LlamaForCausalLM(config).to(device).train()
    checkpoint_layers(model)
    head = model.get_output_embeddings()
    ids = torch.randint(0, vocabulary, (1, tokens), device=device)
    before = resident()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    began = time.perf_counter()
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    if variant == "full":
        loss = torch.nn.functional.cross_entropy(head(hidden)[0, :-1].float(), ids[0, 1:], reduction="sum")
    elif variant == "chunked":
        loss = supervised_loss(hidden, ids, head)
    else:  # a head that is not plain: checkpoints around its chunks
        loss = supervised_loss(hidden, ids, head.forward)
    (loss / (tokens - 1)).backward()
    if device == "cuda":
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = time.perf_counter() - began
    if gradients:
        torch.save({n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}, gradients)
    return {
        "variant": variant,
        "tokens": tokens,
        "vocabulary": vocabulary,
        "width": width,
        "logits_bytes": tokens * vocabulary * 4,
        "peak_bytes": peak - before,
        "seconds": round(seconds, 2),
        "loss": float(loss.detach()) / (tokens - 1),
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def compare(variants: tuple[str, ...], options: dict[str, Any]) -> list[dict[str, Any]]:
    """Each variant in a process of its own (a peak is of a whole process), and its differences from the first."""
    import torch

    lines = []
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for variant in variants:
            file = Path(folder) / f"{variant}.pt"
            arguments = [f"--{k}={v}" for k, v in {**options, "gradients": file}.items() if v is not None]
            command = [sys.executable, __file__, "--variant", variant, *arguments]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            line = json.loads(done.stdout.splitlines()[-1])
            found.append(torch.load(file))
            if lines:
                line["saved_bytes"] = lines[0]["peak_bytes"] - line["peak_bytes"]
                line["loss_difference"] = abs(line["loss"] / lines[0]["loss"] - 1)
                line["gradient_difference"] = max(
                    float((found[-1][n] - g).norm() / g.norm()) for n, g in found[0].items()
                )
            lines.append(line)
            print(json.dumps(line), flush=True)
    return lines


def table(lines: list[dict[str, Any]]) -> str:
    """All results, one row each; saved and Δ (relative) are against the full variant of the same run."""
    head = "device tokens vocabulary width variant peak_GB saved_GB fp32_logits_GB Δ_loss Δ_gradient seconds"
    rows = ["| " + head.replace(" ", " | ").replace("_", " ") + " |"]
    rows.append("|---|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|")
    for x in lines:
        gigabytes = [f"{x[k] / 1e9:.2f}" if k in x else "" for k in ("peak_bytes", "saved_bytes", "logits_bytes")]
        differences = [f"{x[k]:.1e}" if k in x else "" for k in ("loss_difference", "gradient_difference")]
        cells = [x[k] for k in ("device", "tokens", "vocabulary", "width", "variant")]
        rows.append("| " + " | ".join(str(c) for c in [*cells, *gigabytes, *differences, x["seconds"]]) + " |")
    return "# Peak memory of a training step: loss in chunks against full logits\n\n" + "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=VARIANTS, help="run this one here and keep no result")
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--vocabulary", type=int, default=49152)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--gradients", type=Path, help="with --variant: where to write them")
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(step(**vars(options))))
        return
    given = {k: v for k, v in vars(options).items() if k not in ("variant", "gradients")}
    lines = compare(VARIANTS, given)
    for x in lines[1:]:
        assert x["loss_difference"] <= 1e-5 and x["gradient_difference"] <= 1e-5, x
        assert x["saved_bytes"] >= x["logits_bytes"], x
    file = RESULTS / "loss_memory.jsonl"
    with file.open("a") as out:
        out.writelines(json.dumps(x) + "\n" for x in lines)
    (RESULTS / "loss_memory.md").write_text(table([json.loads(x) for x in file.read_text().splitlines()]))


if __name__ == "__main__":
    main()
