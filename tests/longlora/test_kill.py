"""kill -9 at random moments of training, again and again: the end is that of an undisturbed run, to the bit."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import time
from pathlib import Path

import pytest
import ranks
from train_options import SMALL

OPTIONS = {**SMALL, "save_every_steps": 2, "lora": {"dropout": 0.1}, "schedule": "cosine", "dtype": "float32"}


def outcome(work: Path) -> tuple[str, list[tuple[float, ...]]]:
    """Digest of the adapter, and the loss curve without times."""
    lines = [json.loads(line) for line in (work / "output/metrics.jsonl").read_text().splitlines()]
    keys = ("step", "loss", "grad_norm", "learning_rate", "tokens")
    weights = (work / "output/adapter/adapter_model.safetensors").read_bytes()
    return hashlib.sha256(weights).hexdigest(), [tuple(line[key] for key in keys) for line in lines]


def steps_done(work: Path) -> int:
    try:
        return len((work / "metrics.jsonl").read_text().splitlines())
    except FileNotFoundError:
        return 0


def kill_at(command: list[str], work: Path, step: int, delay: float) -> int:
    """Start, wait for ``step`` and then ``delay`` seconds, kill; returns the steps done by then."""
    process = subprocess.Popen(command, env=ranks.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and steps_done(work) < step:
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()
    process.wait()
    return steps_done(work)


@pytest.mark.parametrize(("kills", "steps"), [(3, 24), pytest.param(10, 80, marks=pytest.mark.slow)])
def test_killed_again_and_again(tmp_path, dataset, tiny_model_dir, kills, steps):
    draw = random.Random(kills)
    calm, work = tmp_path / "calm", tmp_path / "killed"
    assert ranks.run(dataset, tiny_model_dir, calm, **OPTIONS, max_steps=steps).returncode == 0
    seconds = [json.loads(line)["seconds"] for line in (calm / "metrics.jsonl").read_text().splitlines()]
    pace = sorted(seconds)[len(seconds) // 2]
    command = ranks.command(dataset, tiny_model_dir, work, **OPTIONS, max_steps=steps)
    reached = []
    for aim in sorted(draw.sample(range(1, steps - 4), kills)):
        # Anywhere within a step, or within the checkpoint that follows it.
        reached.append(kill_at(command, work, aim, draw.uniform(0, 2 * pace)))
        assert not (work / "output").exists(), "it was done before the kill"
    assert ranks.run(dataset, tiny_model_dir, work, **OPTIONS, max_steps=steps).returncode == 0
    assert json.loads((work / "result.json").read_text())["metrics"]["resumed_from"] > 0
    assert outcome(work) == outcome(calm), f"killed at steps {reached}"
