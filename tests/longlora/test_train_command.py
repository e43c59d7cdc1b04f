"""``python -m longlora.train``: every mistake is one message with what to do, and exit code 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from train_options import SMALL

from longlora.train import distributed
from longlora.train.__main__ import main


@pytest.fixture
def command(dataset, tiny_model_dir, tmp_path, capsys):
    """Run it with more arguments, after those that are right; ``key=None`` leaves an option out."""

    def go(*more: object, **options: object) -> tuple[int, str]:
        given = {"dataset": dataset, "model": tiny_model_dir, "out": tmp_path / "work"} | options
        arguments = [part for key, value in given.items() if value is not None for part in (f"--{key}", value)]
        code = main([str(part) for part in [*arguments, *more]])
        return code, capsys.readouterr().err

    return go


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("a: [", "is not YAML"),
        ("- a\n- b", "holds no settings but a list"),
        ("max_step: 3", "unknown key 'max_step', did you mean 'max_steps'?"),
        ("lora: {ranks: 3}", "unknown key 'lora.ranks'"),
        ("max_steps: many", "max_steps: "),
        ("group: 1.0", "would be 1 token"),
    ],
)
def test_settings_file(command, tmp_path, content, message):
    file = tmp_path / "settings.yaml"
    if content is not None:
        file.write_text(content)
    code, said = command("--settings", file)
    assert code == 2 and message in said and "validation error" not in said and len(said.splitlines()) >= 2


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("max_steps=[", "the value is not YAML"),
        ("max_steps", "is not KEY=VALUE"),
        ("max_step=3", "did you mean 'max_steps'?"),
        ("seed.a=3", "seed has no keys below it"),
        ("micro_batch_size=3", "must be a multiple"),
    ],
)
def test_set(command, tmp_path, pair, message):
    file = tmp_path / "settings.yaml"
    file.write_text("seed: 1")
    code, said = command("--settings", file, "--set", pair)
    assert code == 2 and message in said


def test_a_section_that_is_null_is_made(command, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump({**SMALL, "lora": None, "max_steps": 1}))
    code, said = command("--settings", file, "--set", "lora.r=4")
    assert code == 0, said
    adapter = json.loads((tmp_path / "work/output/adapter/adapter_config.json").read_text())
    assert adapter["r"] == 4


@pytest.mark.parametrize("harm", ["missing", "config", "kind", "weights"])
def test_model(command, tmp_path, tiny_model_dir, harm):
    folder = tmp_path / "model"
    if harm != "missing":
        shutil.copytree(tiny_model_dir, folder)
    if harm == "config":
        (folder / "config.json").unlink()
    if harm == "kind":
        (folder / "config.json").write_text('{"model_type": "unheard-of"}')
    if harm == "weights":
        (folder / "model.safetensors").unlink()
    code, said = command(model=folder)
    assert code == (1 if harm == "kind" else 2) and "model" in said and "Traceback" not in said


def test_out_is_a_file(command, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        code, said = command(out=out)
        assert code == 2 and "--out" in said and "elsewhere" in said


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({"dataset": None}, "sft", "needs --dataset"),
        ({"dataset": None, "pdf2txt": "."}, "text", "needs --dataset"),
        ({}, "text", "needs --pdf2txt"),
        ({"dataset": "nowhere"}, "sft", "--dataset nowhere is no folder"),
        ({"pdf2txt": "nowhere"}, "text", "--pdf2txt nowhere is no folder"),
    ],
)
def test_data(command, options, data, message):
    code, said = command("--set", f"data={data}", **options)
    assert code == 2 and message in said
    if options.get("pdf2txt") == ".":
        assert "splits.json" in said


def test_each_process_says_its_own_error(command, monkeypatch):
    """What only the second of two meets is not lost, and what both meet is said once."""
    said: set[str] = set()

    def first(message: str) -> bool:
        return message not in said and not said.add(message)

    monkeypatch.setattr(distributed, "first_to_say", first)
    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    monkeypatch.setattr("longlora.train.launch.accumulation", lambda *args: 1)
    monkeypatch.setattr("longlora.train.stage.run", fail)
    code, text = command()
    assert code == 1 and text.startswith("rank 1: no room here")
    assert command() == (1, "")


def fail(*args: object) -> Path:
    from longlora.errors import UserError

    raise UserError("no room here", "make some")
