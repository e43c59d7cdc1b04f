"""The chain with a teacher: the budget on the command line, an incomplete output, its continuation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from teacher_server import KEY, TeacherServer

from flows.config import load
from flows.housekeeping import find_garbage
from flows.plan import Selection, make_plan
from flows.runner import Watcher, run
from flows.store import Store

ONLY_DATA = Selection(until="datasets_build")


def test_a_budget_stops_and_a_larger_one_goes_on(
    small_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_TEST_KEY", KEY)
    store = Store(tmp_path / "store")
    with TeacherServer() as server:
        teacher = {"base_url": server.url, "model": "scripted", "api_key_env": "TEACHER_TEST_KEY"}
        path = small_run(dataset={
            "max_tokens": 384, "validation_share": 0.3, "min_validation_rows": 1, "recipes": ["quote", "paper-qa"],
            "per_document": 2, "teacher": teacher,
        })  # fmt: skip

        def build(budget: str) -> dict:
            config = load(str(path), overrides=[f"dataset.teacher.budget={budget}"])
            return run(config, store, ONLY_DATA, Watcher()).data["stages"][1]

        row = build("5000 tokens")
        assert row["metrics"]["teacher_stopped"] == "budget" and "--budget" in row["transient"][-1]
        plan = make_plan(load(str(path)), store, ONLY_DATA).stages[1]
        assert (plan.action, plan.why.split(":")[0]) == ("run", "incomplete")
        row = build("1M tokens")
        assert row["metrics"]["teacher_stopped"] is None and row["metrics"]["tasks"]["paper-qa"] == 6
        assert len(set(server.sent())) == len(server.sent()) == row["metrics"]["teacher_calls"]
        assert make_plan(load(str(path)), store, ONLY_DATA).stages[1].action == "cached"

        # Paid replies outlive --rerun, and gc.
        again = run(load(str(path)), store, Selection(until="datasets_build", rerun=("datasets_build",)), Watcher())
        assert again.data["stages"][1]["metrics"]["row_digest"] == row["metrics"]["row_digest"]
        assert row["metrics"]["teacher_calls"] == len(server.sent())
        assert not [p for kind, p, _ in find_garbage(store, keep=1).paths if p.parent.name == "responses"]
    secrets = [p for p in store.root.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    assert not secrets
    assert json.loads(next((store.root / "runs").glob("*.json")).read_text())["config"]["dataset"]["teacher"]


def test_the_option_sets_the_budget(small_run: Callable[..., Path], tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from flows.cli import app

    path = small_run()
    result = CliRunner().invoke(app, ["dataset", "build", str(path), "--store", str(tmp_path / "s"), "--budget", "5"])
    assert result.exit_code == 2 and "teacher" in result.output
