"""Merging and verifying hold one tensor at a time, however many there are."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_models import save_base, shake, silent
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM

from longlora.adapters import LoraSettings, add_adapters, save_adapter
from longlora.merge import MergeSettings, run


def peak_bytes(call, folder: Path) -> int:
    """Most bytes that torch held at once for tensors made by ``call``, files below ``folder`` that it mapped left out.

    A mapped file is an event of exactly its size; its pages are the kernel's to drop.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    mapped = {path.stat().st_size for path in folder.rglob("*.safetensors")}
    held = peak = 0
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        if abs(event.nbytes()) not in mapped:
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def test_peak_is_three_tensors_not_a_model(tmp_path) -> None:
    base = save_base(tmp_path / "base", "llama", hidden_size=256, intermediate_size=256, num_hidden_layers=14,
                     num_key_value_heads=4)  # fmt: skip
    model = add_adapters(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), LoraSettings(r=4))
    shake(model)
    save_adapter(model, tmp_path / "train/adapter")
    tensors = [p.numel() for name, p in model.named_parameters() if ".lora_" not in name]
    assert sum(n > 10_000 for n in tensors) >= 100
    whole, largest = 4 * sum(tensors), 8 * max(tensors)  # the model in float32, its largest tensor in float64
    del model
    inputs = {"model": base, "train": tmp_path / "train"}
    peak = peak_bytes(
        lambda: run(MergeSettings(dtype="float32", probe_tokens=16), inputs, tmp_path / "work", silent), tmp_path
    )
    print(f"peak {peak / 1e6:.2f} MB; largest tensor {largest / 1e6:.2f} MB in float64, model {whole / 1e6:.2f} MB")
    assert largest < peak <= 3 * largest < whole / 10
