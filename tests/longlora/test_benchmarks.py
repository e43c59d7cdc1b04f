"""The benchmarks of training, in their smallest form: what their lines say, and that it fits together."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import save_base

from longlora.flops import Shape, Work
from longlora.models import ModelSettings
from longlora.train.device import named_device
from longlora.train.settings import TrainSettings

sys.path.append(str(Path(__file__).parents[2]))
from benchmarks import context_extension, train_step


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in file.read_text().splitlines()]


def steps(results: Path, *more: str) -> list[dict[str, Any]]:
    """The lines of all runs so far, after one more of a tiny model."""
    fixed = ["--model", "tiny", "--length", "256", "--steps", "2", "--dtype", "float32", "--threads", "1"]
    train_step.main([*fixed, *more, "--results", str(results)])
    return lines_of(results)


def test_training_steps_in_turn(tmp_path):
    full, quarter, fixed = steps(tmp_path / "r.jsonl", "--group", "full", "0.25", "32")
    assert [x["group_tokens"] for x in (full, quarter, fixed)] == [None, 64, 32]
    assert full["speedup"] is None and full["ceiling"] is None
    for x in (full, quarter, fixed):
        assert x["status"] == "ok" and len(x["all_seconds"]) == 2 and x["memory_bytes"] > 1e8
        assert x["tokens_per_second"] == pytest.approx(256 / x["seconds"], rel=0.01)
        assert x["utilisation"] == pytest.approx(x["flops"] / x["seconds"] / x["peak_flops"], rel=0.05)
    for x in (quarter, fixed):
        # attention is more of a step than of its forward pass, so a step can gain more
        assert x["ceiling"] == pytest.approx(full["flops"] / x["flops"], abs=1e-3) and x["forward_ceiling"] > 1
        assert x["share_of_ceiling"] == pytest.approx(x["speedup"] / x["ceiling"], abs=1e-3)
        rounds = sorted(f / s for f, s in zip(full["all_seconds"], x["all_seconds"], strict=True))
        assert x["speedup"] == pytest.approx(sum(rounds) / 2, rel=0.01)
    assert fixed["ceiling"] > quarter["ceiling"]
    assert "| 256 | 64 | split | ok |" in (tmp_path / "r.md").read_text()


def test_training_steps_one_by_one(tmp_path):
    """Against the full line before them, if memory was saved alike."""
    file = tmp_path / "r.jsonl"
    steps(file, "--no-paired", "--group", "full", "--warm-up", "0")
    alike = steps(file, "--no-paired", "--group", "0.25", "--warm-up", "0")[-1]
    assert alike["speedup"] == pytest.approx(lines_of(file)[0]["seconds"] / alike["seconds"], rel=1e-3)
    assert alike["speedup_processor"] > 0
    blocks = steps(file, "--no-paired", "--group", "0.25", "--layers-per-checkpoint", "2", "--warm-up", "0")[-1]
    assert blocks["speedup"] is None and blocks["flops"] > alike["flops"]


def test_a_step_that_does_not_fit_is_a_line(tmp_path, monkeypatch):
    def too_long(*args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(train_step, "train", too_long)
    for line in steps(tmp_path / "r.jsonl", "--group", "full", "0.25"):
        assert line["status"] == "out of memory" and line["length"] == 256 and "seconds" not in line
    assert "| 256 | 64 | split | out of memory |" in (tmp_path / "r.md").read_text()


def test_a_killed_process_is_a_line(tmp_path, monkeypatch):
    killed = subprocess.CompletedProcess([], -signal.SIGKILL)
    monkeypatch.setattr(train_step.subprocess, "run", lambda *args, **more: killed)
    lines = steps(tmp_path / "r.jsonl", "--group", "full", "64", "--no-paired")
    assert [(x["status"], x["group_tokens"]) for x in lines] == [("out of memory", None), ("out of memory", 64)]


def test_ceiling_of_a_forward_pass_of_llama_2_7b():
    """The analysis says that 0.501 of full attention's operations are left at 100,352 tokens."""
    config = train_step.LlamaConfig(**train_step.SHAPES["llama2-7b"])
    full = Work(Shape.of(config))
    quarter = replace(full, group=100352 // 4, wrap=True)
    ratio = train_step.forward(full, 100352) / train_step.forward(quarter, 100352)
    assert ratio == pytest.approx(1 / 0.501, abs=5e-3)


def test_memory_means_for_a_length(tmp_path):
    """None where it fits, the advised ones where they make it fit, all of them where nothing does."""
    options = train_step.parse(["--device", "cuda"])
    folder = train_step.model_folder(options, tmp_path)
    device = replace(named_device("H100 80GB", "bfloat16"), host_memory=128 * 2**30)

    def chosen(length: int) -> TrainSettings:
        fields = {"context_length": length, "row_tokens": length, "dtype": "bfloat16", "global_batch_size": 1}
        return train_step.save_memory(TrainSettings(**fields), sizes, device)

    sizes = train_step.measure(ModelSettings(path=folder), TrainSettings(context_length=8192))
    assert not chosen(8192).offload and chosen(8192).layers_per_checkpoint == 1
    assert chosen(262144).tile_mlp and train_step.estimate(chosen(262144), sizes, device).fits
    longest = chosen(1000000)
    assert longest.offload and longest.tile_mlp == 2048 and longest.row_tokens == 1000000
    assert train_step.estimate(longest, sizes, device).host < device.host_memory


def test_same_groups_are_measured_once():
    assert train_step.plan(train_step.parse(["--length", "8192", "--group", "0.25", "2048"])) == [(8192, ["0.25"])]
    lengths = [length for length, _ in train_step.plan(train_step.parse(["--device", "cuda"]))]
    assert lengths.count(8192) == 2 and lengths.count(1000000) == 1  # unpaired: a run each


@pytest.mark.parametrize("variant", ["none", "pi", "lora+embed+norm"])
def test_context_extension(tmp_path, variant):
    base = save_base(tmp_path / "base", "llama")
    text = tmp_path / "text.txt"
    text.write_text("THE CAT SAT ON THE MAT. " * 40)
    fixed = ["--model", base, "--train", text, "--test", text, "--row-tokens", 64, "--windows", 32, 64, "--steps", 2]
    more = [
        "--device",
        "cpu",
        "--test-windows",
        2,
        "--threads",
        1,
        "--variant",
        variant,
        "--results",
        tmp_path / "r.jsonl",
    ]
    context_extension.main([str(x) for x in (*fixed, *more)])
    (line,) = lines_of(tmp_path / "r.jsonl")
    assert line["context_length"] == (64 if variant == "none" else 256)
    assert line["test_windows"] == {"32": 2, "64": 2} and all(20 < p < 200 for p in line["perplexity"].values())
    if variant == "lora+embed+norm":
        assert line["trained_parameters"] == sum(line["trained"].values())
        assert set(line["trained"]) == {"A", "B", "embed", "norm"} and line["group_tokens"] == 16
        assert line["learning_rates"] == {"base": 5e-4, "embed": 1e-4} and line["memory_bytes"] > 1e8
    assert f"| {variant} |" in (tmp_path / "r.md").read_text()
