"""The train stage: what is learned, where it stops, and that a killed run ends the same."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from train_options import SMALL

from longlora.errors import UserError
from longlora.train import checkpoints, data
from longlora.train.settings import TrainSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def other_base(tiny_model_dir, tmp_path) -> Path:
    """The tiny model with one tensor changed; all else, the name too, is the same."""
    folder = shutil.copytree(tiny_model_dir, tmp_path / "other" / tiny_model_dir.name)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] *= 1.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def weights_sha(work: Path) -> str:
    return hashlib.sha256((work / "output/adapter/adapter_model.safetensors").read_bytes()).hexdigest()


def curve(work: Path) -> list[tuple]:
    """What each step did, without times."""
    lines = [json.loads(line) for line in (work / "output/metrics.jsonl").read_text().splitlines()]
    return [tuple(d[k] for k in ("step", "loss", "grad_norm", "learning_rate", "tokens")) for d in lines]


# ------------------------------------------------------------------ the stage


def test_learns_and_reports(train, tmp_path):
    metrics, events = train(tmp_path, max_steps=12)
    assert metrics["loss_end"] < metrics["loss_start"] - 0.5 and metrics["steps"] == 12
    assert set(metrics["trainable_parameters"]) == {"A", "B", "embed", "norm"}
    curve = [json.loads(line) for line in (tmp_path / "output/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in curve] == list(range(1, 13))
    assert curve[0]["learning_rate"] == 0 and curve[2]["learning_rate"] == 1e-2  # two warm-up steps
    progress = [f for e, f in events if e == "progress"]
    assert progress[-1]["done"] == 12 and progress[-1]["total"] == 12 and "loss" in progress[-1]
    assert json.loads((tmp_path / "output/parameters.json").read_text())["tied"]
    again, events = train(tmp_path, max_steps=12)  # finished: nothing happens
    assert again == metrics and not events


def test_first_loss_is_the_base_models(train, tmp_path, dataset, tiny_model_dir, tokenizer):
    """An adapter starts at zero: step 1 measures the base model, row by row and without packing."""
    from longlora.models import load_model

    metrics, _ = train(tmp_path, max_steps=1, global_batch_size=4, dtype="float32", micro_batch_size=2, group=400)
    samples = data.sft_samples(dataset, tokenizer, "chat", 96, tmp_path / "tokens")
    rows = data.stream(data.make_rows(samples, 96, True), 4, seed=0)
    model = load_model(tiny_model_dir, dtype="float32").eval()
    total = count = 0.0
    with torch.no_grad():
        for sample in (s for row in rows for s in row):
            ids, labels = (torch.from_numpy(x.astype(np.int64))[None] for x in (sample.input_ids, sample.labels))
            n = int((labels != -100).sum())
            total, count = total + float(model(input_ids=ids, labels=labels).loss) * n, count + n
    assert metrics["first_loss"] == pytest.approx(total / count, rel=1e-5)


def test_text_mode_extends_the_context(train, tmp_path):
    metrics, _ = train(tmp_path, data="text", context_length=1024, row_tokens=128, max_steps=2)
    assert metrics["context_length"] == 1024 and metrics["group_tokens"] == 32
    config = json.loads((tmp_path / "output/adapter/config.json").read_text())
    assert config["max_position_embeddings"] == 1024 and config["rope_parameters"]["factor"] == 2
    assert json.loads((tmp_path / "output/adapter/longfolio.json").read_text())["context_length"] == 1024


def test_micro_batches_do_not_change_the_loss(train, tmp_path):
    curves = []
    for micro in (1, 4):
        work = tmp_path / str(micro)
        train(
            work,
            max_steps=3,
            global_batch_size=4,
            micro_batch_size=micro,
            dtype="float32",
            gradient_checkpointing=False,
        )
        lines = (work / "output/metrics.jsonl").read_text().splitlines()
        curves.append([json.loads(line)["loss"] for line in lines])
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


def test_interrupted_run_ends_in_the_same_bytes(train, tmp_path):
    options = {"max_steps": 9, "save_every_steps": 2, "lora": {"dropout": 0.1}, "schedule": "cosine"}
    straight, _ = train(tmp_path / "a", **options)
    for stop in (1, 3, 7):  # before the first checkpoint, between two, late
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "b", stop_after=stop, **options)
        assert not (tmp_path / "b/output").exists()
    resumed, events = train(tmp_path / "b", **options)
    assert resumed["resumed_from"] == 6 and straight["resumed_from"] is None
    assert next(f["done"] for e, f in events if e == "progress") == 6
    assert weights_sha(tmp_path / "a") == weights_sha(tmp_path / "b")
    assert curve(tmp_path / "a") == curve(tmp_path / "b")
    assert len(list((tmp_path / "b/checkpoints").iterdir())) == checkpoints.KEEP


def test_killed_process_ends_in_the_same_bytes(train, tmp_path, dataset, tiny_model_dir):
    options = {"max_steps": 60, "save_every_steps": 3}
    pairs = [f"{k}={v}" for k, v in {**SMALL, **options}.items()]
    command = [sys.executable, "-m", "longlora.train", "--dataset", dataset, "--model", tiny_model_dir]
    command += ["--out", tmp_path / "killed", *(x for pair in pairs for x in ("--set", pair))]
    process = subprocess.Popen(
        [str(c) for c in command],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 180
    while not list((tmp_path / "killed").glob("checkpoints/step-*6")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed/output").exists()
    resumed, _ = train(tmp_path / "killed", **options)
    train(tmp_path / "straight", **options)
    assert resumed["resumed_from"] >= 6
    assert weights_sha(tmp_path / "killed") == weights_sha(tmp_path / "straight")


def test_damaged_checkpoint_is_skipped(train, tmp_path):
    options = {"max_steps": 7, "save_every_steps": 2}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_after=7, **options)
    last = tmp_path / "checkpoints/step-00000006/optimizer.pt"
    last.write_bytes(last.read_bytes()[:-100])
    metrics, events = train(tmp_path, **options)
    assert metrics["resumed_from"] == 4
    assert any(e == "warning" and "damaged" in f["message"] for e, f in events)


def test_checkpoint_of_other_settings_is_not_resumed(train, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_after=5, max_steps=6, save_every_steps=2)
    metrics, events = train(tmp_path, max_steps=6, save_every_steps=2, seed=1)
    assert metrics["resumed_from"] is None
    assert any(e == "warning" and "other settings" in f["message"] for e, f in events)
    assert any("settings.seed 0, now 1" in f["message"] for e, f in events if e == "warning")


def test_settings_put_back_continue_where_they_were(train, tmp_path):
    options = {"max_steps": 6, "save_every_steps": 2}
    train(tmp_path / "straight", **options)
    work = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        train(work, stop_after=5, **options)
    with pytest.raises(KeyboardInterrupt):  # by mistake, and far enough to have checkpoints of the same steps
        train(work, stop_after=5, **options, seed=1)
    metrics, _ = train(work, **options)
    assert metrics["resumed_from"] == 4
    assert weights_sha(work) == weights_sha(tmp_path / "straight") and curve(work) == curve(tmp_path / "straight")


def test_another_transformers_continues(train, tmp_path, monkeypatch):
    """Its configs name its version, and have defaults that others lack."""
    from transformers import LlamaConfig, configuration_utils

    options = {"max_steps": 6, "save_every_steps": 2}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_after=5, **options)
    before = LlamaConfig().to_dict()
    monkeypatch.setattr(configuration_utils, "__version__", "99.0")
    plain = LlamaConfig.to_dict
    monkeypatch.setattr(LlamaConfig, "to_dict", lambda self: {**plain(self), "new_default": 1, "dtype": "spelt anew"})
    changed = {k for k, v in LlamaConfig().to_dict().items() if before.get(k) != v}
    assert changed == {"transformers_version", "new_default", "dtype"}
    metrics, events = train(tmp_path, **options)
    assert metrics["resumed_from"] == 4 and not [f for e, f in events if e == "warning"]


def test_after_the_last_step_only_the_output_is_made_again(train, tmp_path, monkeypatch):
    from longlora.train import stage, trainer

    options = {"max_steps": 5, "lora": {"dropout": 0.1}}
    train(tmp_path / "straight", **options)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "_publish", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            train(tmp_path / "work", **options)
    assert not (tmp_path / "work/output").exists()
    monkeypatch.setattr(trainer.LongTrainer, "compute_loss", lambda *args, **kwargs: pytest.fail("trained again"))
    metrics, _ = train(tmp_path / "work", **options)
    assert metrics["resumed_from"] == 5 and metrics["steps"] == 5
    assert weights_sha(tmp_path / "work") == weights_sha(tmp_path / "straight")
    assert curve(tmp_path / "work") == curve(tmp_path / "straight")


def test_what_is_trained_is_told_before_it_is(train, tmp_path):
    events = train(tmp_path, max_steps=1)[1]
    notes = [f["message"] for e, f in events if e == "note"]
    first_step = next(i for i, (e, f) in enumerate(events) if e == "progress" and f["unit"] == "steps")
    assert all(i < first_step for i, (e, _) in enumerate(events) if e == "note")
    report = json.loads((tmp_path / "output/parameters.json").read_text())
    assert f"{report['trainable']:,} of {report['total']:,}" in notes[0]
    for name, group in report["groups"].items():
        assert any(f"{name}: {group['parameters']:,} " in note for note in notes[1:])


def test_checkpoint_of_another_base_is_not_resumed(train, tmp_path, tiny_model_dir, other_base):
    """Other weights at the same place."""
    base = shutil.copytree(tiny_model_dir, tmp_path / "base")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_after=5, max_steps=6, save_every_steps=2, model=base)
    shutil.copyfile(other_base / "model.safetensors", base / "model.safetensors")
    metrics, events = train(tmp_path, max_steps=6, save_every_steps=2, model=base)
    assert metrics["resumed_from"] is None
    assert any(e == "warning" and "other settings" in f["message"] for e, f in events)


def test_finished_work_counts_for_its_own_settings_and_base_only(train, tmp_path, other_base, tiny_model_dir):
    first, _ = train(tmp_path, max_steps=2)
    shas = [weights_sha(tmp_path)]
    for options in ({"max_steps": 3}, {"max_steps": 2, "seed": 1}, {"max_steps": 2, "model": other_base}):
        metrics, events = train(tmp_path, **options)
        assert metrics["steps"] == options["max_steps"] and metrics["resumed_from"] is None
        assert any(e == "warning" and "trained anew" in f["message"] for e, f in events)
        shas.append(weights_sha(tmp_path))
        again, events = train(tmp_path, threads=2, **options)  # a speed-only setting changes nothing
        assert again == metrics and not events
    assert len(set(shas)) == 4
    moved = shutil.copytree(other_base, tmp_path / "moved")
    assert not train(tmp_path, max_steps=2, model=moved)[1]
    again, _ = train(tmp_path, max_steps=2)
    assert weights_sha(tmp_path) == shas[0] and again["last_loss"] == first["last_loss"]


def test_a_started_anew_attempt_leaves_no_foreign_result(train, tmp_path):
    """Until the new output is whole, the old one stands, under its own settings."""
    first, _ = train(tmp_path, max_steps=2)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_after=1, max_steps=2, seed=1)
    again, events = train(tmp_path, max_steps=2)
    assert again == first and not events
    metrics, events = train(tmp_path, max_steps=2, seed=1)
    assert metrics["last_loss"] != first["last_loss"] and events


def test_nan_stops_with_the_rows(train, tmp_path):
    from longlora.train.finite import LossNotFinite

    with pytest.raises(LossNotFinite, match=r"r\d\d") as caught:
        train(tmp_path, max_steps=30, learning_rate=1e30, warmup_steps=0)
    assert "learning_rate" in caught.value.remedy and "rows" in caught.value.remedy
    assert not (tmp_path / "output").exists()


# ------------------------------------------------------------------ warm-up


def rates(work: Path) -> list[float]:
    return [step[3] for step in curve(work)]


def test_warm_up_is_a_tenth_of_a_short_training(train, tmp_path):
    assert [TrainSettings().warmup(steps) for steps in (1, 9, 10, 100, 200, 5000)] == [0, 0, 1, 10, 20, 20]
    assert TrainSettings(warmup_steps=20).warmup(5) == 20 and TrainSettings(warmup_steps=0).warmup(500) == 0
    _, events = train(tmp_path, max_steps=5, warmup_steps=None)
    assert rates(tmp_path) == [1e-2] * 5 and not [f for e, f in events if e == "warning"]


def test_warm_up_that_takes_all_steps_is_told(train, tmp_path):
    _, events = train(tmp_path, max_steps=3, warmup_steps=3)
    (message,) = [f["message"] for e, f in events if e == "warning"]
    assert "train.warmup_steps (3)" in message and "3 steps" in message
    assert max(rates(tmp_path)) < 1e-2


# ------------------------------------------------------------------ mistakes


def test_memory_that_is_used_up(train, tmp_path, monkeypatch):
    from longlora.train import trainer

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.\nSee documentation")

    monkeypatch.setattr(trainer.LongTrainer, "compute_loss", full)
    with pytest.raises(UserError, match=r"memory is used up.* 96 tokens.*Tried to allocate 3.00 GiB") as caught:
        train(tmp_path, max_steps=2, micro_batch_size=2, offload=True)
    remedy = caught.value.remedy
    assert "lower train.micro_batch_size" in remedy and "train.tile_mlp" in remedy and "--estimate" in remedy
    assert "gradient_checkpointing" not in remedy and "offload" not in remedy  # they are on


@pytest.mark.parametrize("config", [None, "{", "[]", '{"model_type": "unheard-of"}', "{}"])
def test_a_config_that_is_no_models(train, tmp_path, tiny_model_dir, config):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    (folder / "config.json").unlink() if config is None else (folder / "config.json").write_text(config)
    with pytest.raises(UserError, match=r"config\.json") as caught:
        train(tmp_path / "work", model=folder, max_steps=1)
    assert "Llama" in caught.value.remedy


def test_no_rows(train, tmp_path, dataset, tiny_model_dir):
    from longlora.train.stage import run

    empty = tmp_path / "empty"
    (empty / "data").mkdir(parents=True)
    with pytest.raises(UserError, match="no training rows"):
        run(
            TrainSettings(max_steps=3),
            {"datasets_build": empty, "model": tiny_model_dir},
            tmp_path / "w",
            print,
        )


def test_rows_above_the_context(train, tmp_path):
    with pytest.raises(UserError, match="above the model's context") as caught:
        train(tmp_path, row_tokens=1000)
    assert "train.context_length" in caught.value.remedy


def test_samples_that_fit_a_group_have_full_attention(train, tmp_path):
    """Rows of several samples are longer than the group: what counts is a sample, and the warning says so."""
    curves, warned = {}, {}
    for name, options in {
        "large": {"group": 5000},
        "of a sample": {"group": 60},
        "small": {"group": 16},
        "full": {"attention": "full"},
    }.items():
        metrics, events = train(tmp_path / name, max_steps=2, **options)
        curves[name] = metrics["last_loss"]
        warned[name] = [e["message"] for kind, e in events if kind == "warning" and "attention is full" in e["message"]]
    assert metrics["longest_row"] > 60
    assert curves["large"] == curves["of a sample"] == curves["full"] != curves["small"]
    assert warned["of a sample"] == ["no sample is longer than train.group (60 tokens): the attention is full"]
    assert warned["large"] and not warned["small"] and not warned["full"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"global_batch_size": 3, "micro_batch_size": 2},
        {"context_length": 64, "row_tokens": 96},
        {"group": 1.5},
        {"group": 1.0},
        {"group": 15},
        {"unknown": 1},
    ],
)
def test_settings_refuse(wrong):
    with pytest.raises(ValueError):
        TrainSettings(**wrong)


def test_every_setting_is_described():
    assert all(field.description for field in TrainSettings.model_fields.values())
