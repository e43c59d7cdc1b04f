"""The command as a person meets it: exit codes, messages, JSON on stdout and nothing else there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

LONGFOLIO = Path(sys.executable).parent / "longfolio"


def longfolio(*args: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([str(LONGFOLIO), *map(str, args)], capture_output=True, text=True, cwd=cwd, env=env)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "demo", "--pdfs", "no-such-folder"], "no such file or folder"),
        (["run", "demo", "--pdfs", "."], "no document to convert"),
        (["run", "demo", "--set", "train.max_stepz=1"], "did you mean 'train.max_steps'?"),
        (["run", "demo", "--set", "dataset.max_tokens=many"], "dataset.max_tokens"),
        (["run", "demo", "--until", "trian"], "did you mean 'train'?"),
        (["run", "demo", "--from", "merge", "--until", "train"], "comes after"),
        (["run", "no-such-recipe"], "no-such-recipe"),
        (["run", "demo", "--store", "/proc/store"], "cannot be written"),
        (["run", "demo", "--set", "model.path=nowhere"], "does not exist"),
        (["run", "demo", "--set", "dataset.imports=[path: bad.json]"], "bad.json, line 1"),
        (["resume"], "has no runs"),
        (["trace", "something"], "something"),
        (["pdf2txt", "no-such-folder", "--out", "out"], "no-such-folder"),
    ],
)
def test_mistake_is_one_message_with_a_remedy_and_exit_code_2(tmp_path: Path, args: list[str], message: str) -> None:
    (tmp_path / "bad.json").write_text("[{")
    done = longfolio(*args, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and "do:" in done.stderr
    assert "Traceback" not in done.stderr and not done.stdout


@pytest.mark.parametrize("damage", ["config", "weights", "no weights"])
def test_unreadable_model_is_found_before_the_first_stage(
    small_run: Callable[..., Path], tmp_path: Path, tiny_model_dir: Path, damage: str
) -> None:
    import shutil

    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    if damage == "config":
        (model / "config.json").write_text("{")
    elif damage == "weights":
        (model / "model.safetensors").write_bytes(b"not a tensor")
    else:
        (model / "model.safetensors").unlink()
    done = longfolio("run", small_run(model={"path": str(model)}), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "do:" in done.stderr
    assert not list((tmp_path / "store" / "stages").glob("*/*"))


def test_help_loads_nothing_heavy() -> None:
    assert longfolio("--help").returncode == 0
    heavy = "[m for m in ('torch', 'pydantic', 'pyarrow') if m in sys.modules]"
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys, flows.cli; print({heavy})"], capture_output=True, text=True
    )
    assert loaded.stdout.strip() == "[]"


def test_json_is_one_object_with_five_stages_and_absolute_paths(small_run: Callable[..., Path], tmp_path: Path) -> None:
    path = small_run()
    planned = longfolio("plan", path, "--until", "pdf2txt", "--json", cwd=tmp_path)
    assert json.loads(planned.stdout)["run_id"] is None
    done = longfolio("run", path, "--until", "pdf2txt", "--no-prefect", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) == {"run_id", "status", "stages", "gate"} and result["status"] == "done"
    assert [s["action"] for s in result["stages"]] == ["ran", "skipped", "skipped", "skipped", "skipped"]
    for stage in result["stages"]:
        assert set(stage) == {"stage", "action", "why", "digest", "path", "seconds", "metrics"}
        assert Path(stage["path"]).is_absolute()
    assert longfolio("status", cwd=tmp_path).stdout.count(result["run_id"]) == 1


def test_kill_then_the_same_command_completes(small_run: Callable[..., Path], tmp_path: Path) -> None:
    """SIGKILL while the dataset is built; the same command reuses pdf2txt and finishes."""
    path = small_run()
    process = subprocess.Popen(
        [str(LONGFOLIO), "run", str(path), "--until", "datasets_build", "--no-prefect"], cwd=tmp_path,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    store = tmp_path / "store"
    while process.poll() is None and not list(store.glob("work/datasets_build/*/attempt.json")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "killed" in longfolio("status", cwd=tmp_path).stdout
    done = longfolio("run", path, "--until", "datasets_build", "--no-prefect", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [s["action"] for s in json.loads(done.stdout)["stages"]][:2] == ["cached", "ran"]


def test_sigterm_is_an_orderly_interruption(small_run: Callable[..., Path], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [str(LONGFOLIO), "run", str(small_run()), "--until", "datasets_build", "--no-prefect"], cwd=tmp_path,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and not list(tmp_path.glob("store/work/*/*/attempt.json")):
        time.sleep(0.01)
    process.terminate()
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert "longfolio resume" in stderr and "Traceback" not in stderr
    assert longfolio("resume", "--no-prefect", cwd=tmp_path).returncode == 0


def test_two_runs_of_one_thing_share_the_work(small_run: Callable[..., Path], tmp_path: Path) -> None:
    command = [str(LONGFOLIO), "run", str(small_run()), "--until", "datasets_build", "--json"]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    ended = [(process.communicate(), process.returncode) for process in both]
    assert [code for _, code in ended] == [0, 0], ended
    results = [json.loads(out) for (out, _), _ in ended]
    for stage in range(2):
        assert sorted(r["stages"][stage]["action"] for r in results) == ["cached", "ran"]
    assert len({r["run_id"] for r in results}) == 2


def test_commands_about_the_store(small_run: Callable[..., Path], tmp_path: Path) -> None:
    """diff, trace, verify --repair, gc, doctor on a store with two runs."""
    path = small_run()
    for seed in (1, 2):
        command = ("run", path, "--until", "datasets_build", "--no-prefect", "--set", f"dataset.seed={seed}")
        done = longfolio(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    difference = json.loads(longfolio("diff", "--json", cwd=tmp_path).stdout)
    assert {"key": "dataset.seed", "first": 1, "second": 2} in difference["settings"]

    dataset = sorted((tmp_path / "store" / "stages" / "datasets_build").iterdir())[0]
    shown = longfolio("dataset", "view", dataset, "-n", "1", "--json", cwd=tmp_path)
    row = json.loads(shown.stdout)["rows"][0]
    lineage = json.loads(longfolio("trace", row["id"], "--json", cwd=tmp_path).stdout)
    assert [d["doc_id"] for d in lineage["documents"]] == row["doc_ids"]

    assert longfolio("verify", cwd=tmp_path).returncode == 0
    (dataset / "stats.json").write_text("{}")
    damaged = longfolio("verify", cwd=tmp_path)
    assert damaged.returncode == 1 and "stats.json was changed" in damaged.stderr
    assert longfolio("verify", "--repair", cwd=tmp_path).returncode == 1
    assert longfolio("verify", cwd=tmp_path).returncode == 0 and not dataset.exists()
    command = ("run", path, "--until", "datasets_build", "--no-prefect", "--json")
    again = [longfolio(*command, "--set", f"dataset.seed={seed}", cwd=tmp_path) for seed in (1, 2)]
    assert sorted(json.loads(done.stdout)["stages"][1]["action"] for done in again) == ["cached", "ran"]

    shown = longfolio("gc", "--keep", "1", cwd=tmp_path)
    assert "can be deleted" in shown.stdout and len(list(dataset.parent.iterdir())) == 2
    assert longfolio("gc", "--keep", "1", "--delete", cwd=tmp_path).returncode == 0
    assert len(list(dataset.parent.iterdir())) == 1
    checks = json.loads(longfolio("doctor", "--json", cwd=tmp_path).stdout)["checks"]
    assert {c["name"] for c in checks} >= {"torch", "store", "rapidocr", "poppler", "model smollm2-135m-q4"}


def test_chat_answers_from_a_model_directory(tiny_model_dir: Path, tmp_path: Path) -> None:
    done = longfolio("chat", tiny_model_dir, "--question", "What is a page?", "--max-new-tokens", "4", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout, done.stderr
    missing = longfolio("chat", "nope", "--question", "?", cwd=tmp_path)
    assert missing.returncode == 2 and "nope is no model directory" in missing.stderr


def test_the_converter_alone_takes_settings(tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("A note about ships and cargo, long enough to be read as English by anybody.")
    command = ("pdf2txt", note, "--out", tmp_path / "out")
    done = longfolio(*command, "--set", "language=de", "--set", "pdf2txt.footnotes=drop", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "note.json").read_text())["language"] == "de"
    wrong = longfolio(*command, "--set", "langauge=de", cwd=tmp_path)
    assert wrong.returncode == 2 and "did you mean" in wrong.stderr and "Traceback" not in wrong.stderr
