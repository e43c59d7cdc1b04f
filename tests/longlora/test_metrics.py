"""metrics.jsonl, the loss plot, TensorBoard and W&B, on real small trainings."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from longlora.errors import UserError
from longlora.train import metrics as m
from longlora.train.sinks import check_sinks, open_sinks

OPTIONS = {"max_steps": 4, "dtype": "float32"}


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_line_says_where_it_is_and_what_it_did(train, tmp_path):
    result, _ = train(tmp_path, **OPTIONS, learning_rates={"embed": 1e-3})
    curve = lines(tmp_path / "output")
    assert [line["row"] for line in curve] == [2, 4, 6, 8]  # two rows a step
    assert [line["epoch"] for line in curve] == [pytest.approx(r / result["rows"], abs=1e-4) for r in (2, 4, 6, 8)]
    for line in curve:
        assert line["flops"] > 0 and 0 < line["utilisation"] < 1.5
        assert line["utilisation"] == pytest.approx(line["flops"] / line["seconds"] / _peak(curve), rel=0.1)
        assert line["memory_bytes"] > 1e8 and line["tokens"] <= 2 * 96
    rates = [line.get("learning_rates") for line in curve]
    assert rates[0] is None  # all zero in the first step of the warm-up
    assert rates[3] == {"A": 1e-2, "B": 1e-2, "embed": 1e-3, "norm": 1e-2} and curve[3]["learning_rate"] == 1e-2
    assert result["flops"] == sum(line["flops"] for line in curve)
    used = [line["utilisation"] for line in curve]
    assert min(used) <= result["utilisation"] <= max(used)


def _peak(curve: list[dict]) -> float:
    slow = max(curve, key=lambda line: line["seconds"])  # where rounding matters least
    return slow["flops"] / slow["seconds"] / slow["utilisation"]


def test_one_rate_for_all_is_said_once(train, tmp_path):
    train(tmp_path, **OPTIONS)
    assert not any("learning_rates" in line for line in lines(tmp_path / "output"))


def test_flops_are_of_the_documents_not_of_the_row(train, tmp_path):
    """Packed documents do not attend to each other; smaller groups make less work."""
    flops = {}
    for name, options in {
        "packed": {}, "apart": {"packing": False, "global_batch_size": 1}, "small": {"group": 16},
    }.items():  # fmt: skip
        train(tmp_path / name, **{**OPTIONS, "max_steps": 12, **options})
        curve = lines(tmp_path / name / "output")
        flops[name] = sum(line["flops"] for line in curve) / sum(line["tokens"] for line in curve)
    assert flops["packed"] == pytest.approx(flops["apart"], rel=0.02)
    assert flops["small"] < flops["packed"]


def test_time_of_a_checkpoint_is_not_a_steps(train, tmp_path, monkeypatch):
    from longlora.train import trainer

    save = trainer.LongTrainer._save_checkpoint

    def slow(*arguments):
        save(*arguments)
        time.sleep(3)

    monkeypatch.setattr(trainer.LongTrainer, "_save_checkpoint", slow)
    train(tmp_path, **OPTIONS, save_every_steps=1)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    assert all(line["seconds"] < 3 for line in lines(tmp_path / "output")[1:])


def test_unknown_architecture_trains_without_flops(train, tmp_path, monkeypatch):
    def refuse(config):
        raise ValueError("not known")

    monkeypatch.setattr(m.Shape, "of", refuse)
    result, _ = train(tmp_path, **OPTIONS)
    assert all(line["flops"] is None and line["utilisation"] is None for line in lines(tmp_path / "output"))
    assert result["flops"] is None and result["utilisation"] is None


def test_loss_plot(train, tmp_path):
    train(tmp_path, **OPTIONS)
    first = (tmp_path / "output/loss.svg").read_bytes()
    assert ElementTree.fromstring(first).tag.endswith("svg") and b"loss per supervised token" in first
    m.plot_loss(lines(tmp_path / "output"), tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == first
    m.plot_loss([{"step": i, "loss": 5 - i / 50} for i in range(1, 200)], tmp_path / "long.svg")
    assert "mean of 19 steps" in (tmp_path / "long.svg").read_text()


# ------------------------------------------------------------------ report_to


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_missing_package_is_refused_before_anything_is_done(train, tmp_path, monkeypatch, name):
    from longlora.train import sinks

    monkeypatch.setattr(sinks, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=name) as refused:
        train(tmp_path / "work", **OPTIONS, report_to=[name])
    assert refused.value.remedy.startswith(f"pip install {name}")
    assert not list((tmp_path / "work").iterdir())


def test_nothing_to_report_to_needs_nothing():
    check_sinks([])


def test_tensorboard_has_every_step_once_also_after_an_interruption(train, tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {
        **OPTIONS,
        "max_steps": 6,
        "save_every_steps": 2,
        "report_to": ["tensorboard"],
        "learning_rates": {"B": 0.02},
    }
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_after=3, **options)
    train(tmp_path, **options)
    events = EventAccumulator(str(tmp_path / "output/tensorboard"))
    events.Reload()
    curve = lines(tmp_path / "output")
    for name in ("loss", "grad_norm", "learning_rate", "utilisation", "row"):
        points = events.Scalars(f"train/{name}")
        assert [p.step for p in points] == [1, 2, 3, 4, 5, 6]
        assert [p.value for p in points] == pytest.approx([line[name] for line in curve], rel=1e-5)
    assert events.Scalars("train/learning_rates/B")[-1].value == pytest.approx(0.02)


def test_wandb_offline(train, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(tmp_path, **OPTIONS, report_to=["wandb"])
    (run,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    content = run.read_bytes()
    assert b"train/loss" in content and b"train/utilisation" in content


def test_a_sink_gets_finite_numbers_only(tmp_path):
    line = {
        "step": 3,
        "loss": 1.5,
        "utilisation": None,
        "grad_norm": float("inf"),
        "learning_rates": {"A": 0.1, "B": 0.2},
    }
    assert m.scalars(line) == {"loss": 1.5, "learning_rates/A": 0.1, "learning_rates/B": 0.2}
    assert open_sinks([], tmp_path, 0, "run", {}) == []
