"""The gate in runs of a real chain: no champion, a champion, a regression; eval, promote, gc and the history."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from prefect_api import longfolio
from small_chain import make_place

from flows.champion import Champion, of_run, path_of, read_champion, write_champion
from flows.config import load
from flows.errors import UsageError
from flows.gate import failed
from flows.history import COLUMNS, add_to_history, read_history
from flows.housekeeping import find_garbage
from flows.orchestration.request import evaluation_of
from flows.plan import PlannedStage, Selection
from flows.report import write_report
from flows.runner import Executor, StageFailed, Watcher, public_result, run
from flows.runs import RunRecord, find_run, list_runs
from flows.store import Store

GOOD = ("train.max_steps=6", "train.learning_rate=0.05")  # far better than two small steps


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    return make_place(tmp_path_factory.mktemp("gate"), tiny_model_dir)


@pytest.fixture(scope="module")
def store(place: Path) -> Store:
    return Store(place / "store")


def chain(place: Path, store: Store, *overrides: str, **selection: Any) -> RunRecord:
    config = load(str(place / "small.yaml"), overrides=overrides)
    return run(config, store, Selection(**selection), Watcher(), name="small")


@pytest.fixture(scope="module")
def better(place: Path, store: Store) -> RunRecord:
    return chain(place, store, *GOOD)


@pytest.fixture(scope="module")
def worse(place: Path, store: Store) -> RunRecord:
    return chain(place, store)


@pytest.fixture(autouse=True)
def nobody(store: Store) -> Iterator[None]:
    """No champion at first, nor afterwards."""
    path_of(store).unlink(missing_ok=True)
    yield
    path_of(store).unlink(missing_ok=True)


def promote(store: Store, record: RunRecord) -> Champion:
    champion = of_run(store, record)
    write_champion(store, champion)
    return champion


def again(place: Path, store: Store, record: RunRecord) -> dict[str, Any]:
    """The same run once more, all of it cached; its gate."""
    job = evaluation_of(store, record)
    found: dict[str, Any] = run(job.config, store, job.selection, Watcher()).data["gate"]
    return found


# ------------------------------------------------------------------- in every run


def test_without_a_champion_nothing_fails_and_the_command_is_named(worse: RunRecord, store: Store) -> None:
    gate = worse.data["gate"]
    assert gate["verdict"] == "no champion" and f"longfolio promote {worse.run_id}" in gate["reason"]
    assert gate["champion"] is None and not failed(worse.data) and public_result(worse)["gate"] == gate
    assert json.loads((store.runs / worse.run_id / "gate.json").read_text()) == gate


def test_verdict_follows_the_champion_and_everything_is_cached(
    place: Path, store: Store, better: RunRecord, worse: RunRecord
) -> None:
    promote(store, better)
    regressed = chain(place, store)
    assert [row["action"] for row in regressed.data["stages"]] == ["cached"] * 5 and regressed.status == "done"
    gate = regressed.data["gate"]
    assert gate["verdict"] == "fail" and gate["headline"] == "answers" and failed(regressed.data)
    assert gate["champion"] == {"run_id": better.run_id, "model": better.data["stages"][3]["digest"],
                                "evaluation": better.data["stages"][4]["digest"]}  # fmt: skip
    assert len(gate["worst"]) == 5 and gate["worst"][0]["candidate"] > gate["worst"][0]["champion"]
    html = write_report(regressed, store).read_text()
    assert "<h2>Gate</h2>" in html and "Samples that lost most" in html

    promote(store, worse)
    gate = chain(place, store).data["gate"]
    assert gate["verdict"] == "pass" and gate["reason"] == "this model is the champion"
    assert chain(place, store, *GOOD).data["gate"]["verdict"] in ("pass", "warn")


def test_a_run_that_does_not_evaluate_has_no_gate(place: Path, store: Store, better: RunRecord) -> None:
    promote(store, better)
    assert chain(place, store, until="merge").data["gate"] is None
    assert chain(place, store, gate=False).data["gate"] is None


def test_settings_of_the_gate_make_nothing_anew(place: Path, store: Store, worse: RunRecord) -> None:
    record = chain(place, store, "evaluate.gate.floors.passkey=0.5", "evaluate.gate.headline=perplexity")
    assert [row["action"] for row in record.data["stages"]] == ["cached"] * 5
    assert failed(record.data) and "below the floor" in record.data["gate"]["reason"]


def test_other_data_are_incomparable_until_the_champion_is_evaluated_on_them(
    place: Path, store: Store, worse: RunRecord
) -> None:
    champion = promote(store, worse)
    other = chain(place, store, "dataset.seed=5")
    gate = other.data["gate"]
    assert gate["verdict"] == "incomparable" and f"longfolio eval {other.run_id}" in gate["reason"]
    assert {t["task"]: t["verdict"] for t in gate["tasks"]}["passkey"] == "pass"

    job = evaluation_of(store, other)
    alike = run(job.config, store, job.selection, Watcher())
    assert alike.data["champion_evaluation"]["action"] == "ran"
    assert alike.data["gate"]["verdict"] in ("pass", "warn", "fail")
    assert alike.data["gate"]["champion"]["evaluation"] not in (champion.evaluate, other.data["stages"][4]["digest"])
    second = run(job.config, store, job.selection, Watcher())
    assert second.data["champion_evaluation"]["action"] == "cached" and second.data["gate"]["tasks"]
    # Now that it is there, an ordinary run of these settings uses it.
    assert chain(place, store, "dataset.seed=5").data["gate"]["champion"] == alike.data["gate"]["champion"]


def test_a_champion_of_another_base_is_evaluated_beside_its_own(
    place: Path, store: Store, worse: RunRecord, tiny_model_dir: Path, tmp_path: Path
) -> None:
    """Same tokenizer, so the samples are the same, and the models comparable."""
    from safetensors.torch import load_file, save_file

    other = tmp_path / "base"
    shutil.copytree(tiny_model_dir, other)
    weights = load_file(other / "model.safetensors")
    save_file({name: w * 1.5 for name, w in weights.items()}, other / "model.safetensors", {"format": "pt"})
    champion = promote(store, chain(place, store, f"model.path={other}"))
    job = evaluation_of(store, worse)
    record = run(job.config, store, job.selection, Watcher())
    gate = record.data["gate"]
    theirs = store.manifest("evaluate", gate["champion"]["evaluation"])
    own = store.manifest("evaluate", champion.evaluate)
    assert theirs is not None and own is not None
    assert theirs["identity"]["external"]["model"] == own["identity"]["external"]["model"]
    assert theirs["metrics"]["passkey"]["base"] == own["metrics"]["passkey"]["base"]
    assert {t["task"]: t["verdict"] for t in gate["tasks"]}["answers"] in ("pass", "warn", "fail")


def test_trouble_with_the_champion_is_trouble_and_no_regression(
    place: Path, store: Store, better: RunRecord, worse: RunRecord
) -> None:
    class Broken(Executor):
        def champion(self, planned: PlannedStage, perform: Any) -> Any:
            raise ConnectionResetError("the file server went away")

    promote(store, better)
    job = evaluation_of(store, worse, ["evaluate.passkey.trials=4"])
    with pytest.raises(StageFailed, match="evaluate of the champion"):
        run(job.config, store, job.selection, Watcher(), executor=Broken())
    broken = find_run(store, "latest")
    assert broken.status == "failed" and broken.data["gate"] is None and not failed(broken.data)
    assert [row["action"] for row in broken.data["stages"]] == ["cached"] * 4 + ["ran"]
    resumed = run(job.config, store, job.selection, Watcher(), resume=broken)
    assert resumed.run_id == broken.run_id and resumed.data["gate"]["verdict"] == "fail"


def test_a_champion_whose_output_is_gone_is_no_regression(
    place: Path, store: Store, better: RunRecord, tmp_path: Path
) -> None:
    champion = promote(store, better)
    for stage, digest in (("merge", champion.merge), ("evaluate", champion.evaluate)):
        aside = tmp_path / stage
        shutil.move(store.finished(stage, digest), aside)
        assert chain(place, store).data["gate"]["verdict"] == "incomplete"
        shutil.move(aside, store.finished(stage, digest))
    path_of(store).write_text("{")
    assert chain(place, store).data["gate"]["verdict"] == "incomplete"
    with pytest.raises(UsageError, match="cannot be read"):
        find_garbage(store, keep=1)


# ------------------------------------------------------------------- promote, gc


def test_gc_spares_the_champion_and_what_it_is_made_from(
    place: Path, store: Store, better: RunRecord, worse: RunRecord
) -> None:
    champion = promote(store, better)
    chain(place, store)
    gone = {(path.parent.name, path.name) for kind, path, _ in find_garbage(store, keep=1).paths if kind == "output"}
    needed = {(row["stage"], row["digest"]) for row in better.data["stages"]}
    assert not needed & gone and set(champion.outputs()) <= needed
    better.path.rename(better.path.with_suffix(".aside"))  # the record is not needed for that
    gone = {(path.parent.name, path.name) for kind, path, _ in find_garbage(store, keep=1).paths if kind == "output"}
    assert not needed & gone
    better.path.with_suffix(".aside").rename(better.path)
    path_of(store).unlink()
    gone = {(path.parent.name, path.name) for kind, path, _ in find_garbage(store, keep=1).paths if kind == "output"}
    assert set(champion.outputs()) <= gone


def test_promote_shows_what_changes_and_refuses_what_is_not_finished(
    place: Path, store: Store, better: RunRecord, worse: RunRecord
) -> None:
    unfinished = chain(place, store, until="datasets_build")
    refused = longfolio("promote", unfinished.run_id, cwd=place)
    assert refused.returncode == 2 and "no finished output of merge" in refused.stderr and "do:" in refused.stderr
    assert longfolio("promote", cwd=place).returncode == 2 and not path_of(store).exists()
    assert "no champion yet" in longfolio("promote", "--show", cwd=place).stdout
    first = json.loads(longfolio("promote", worse.run_id, "--json", cwd=place).stdout)
    assert first["before"] is None and first["champion"]["run_id"] == worse.run_id
    done = longfolio("promote", better.run_id, cwd=place)
    assert done.returncode == 0 and worse.run_id in done.stdout and better.run_id in done.stdout
    shown = json.loads(longfolio("promote", "--show", "--json", cwd=place).stdout)["champion"]
    assert shown["run_id"] == better.run_id and shown["before"] == worse.run_id and shown["metrics"]["answers"]["n"]
    status = longfolio("status", "-n", "2", cwd=place).stdout
    assert f"of run {better.run_id}" in status
    assert longfolio("promote", "--clear", cwd=place).returncode == 0 and read_champion(store) is None


# ------------------------------------------------------------------- exit codes


def test_exit_code_3_of_run_resume_and_eval(place: Path, store: Store, better: RunRecord, worse: RunRecord) -> None:
    promote(store, better)
    done = longfolio("run", "small.yaml", "--no-prefect", "--json", cwd=place)
    result = json.loads(done.stdout)
    assert done.returncode == 3 and result["status"] == "done" and result["gate"]["verdict"] == "fail"
    done = longfolio("resume", result["run_id"], "--no-prefect", cwd=place)
    assert done.returncode == 3 and "against champion" in done.stdout and "answers: worse by" in done.stdout
    done = longfolio("eval", worse.run_id, "--no-prefect", "--json", cwd=place)
    assert done.returncode == 3 and [s["action"] for s in json.loads(done.stdout)["stages"]] == ["cached"] * 5
    assert longfolio("eval", better.run_id, "--no-prefect", cwd=place).returncode == 0


def test_eval_of_some_tasks_with_other_settings(place: Path, store: Store, better: RunRecord, worse: RunRecord) -> None:
    """The champion is measured alike, and its other metrics are not missed."""
    promote(store, better)
    command = ("eval", worse.run_id, "--tasks", "passkey", "--set", "passkey.trials=3", "--no-prefect", "--json")
    done = longfolio(*command, cwd=place)
    assert done.returncode == 0, done.stderr
    gate = json.loads(done.stdout)["gate"]
    assert gate["verdict"] == "pass" and [(t["task"], t["n"]) for t in gate["tasks"]] == [("passkey", 3)]
    wrong = longfolio("eval", worse.run_id, "--tasks", "passkeys", cwd=place)
    assert wrong.returncode == 2 and "evaluate.tasks" in wrong.stderr
    wrong = longfolio("eval", worse.run_id, "--dataset", ".", cwd=place)
    assert wrong.returncode == 2 and "model directory" in wrong.stderr


def test_eval_of_a_model_directory(place: Path, store: Store, better: RunRecord, tiny_model_dir: Path) -> None:
    model = Path(better.data["stages"][3]["path"]) / "model"
    texts = ("--text", place / "documents", "--tasks", "text_perplexity", "--set", "perplexity.window=64")
    done = longfolio("eval", model, "--against", tiny_model_dir, *texts, "--out", "alone", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["metrics"]["text_perplexity"]["merged"] < result["metrics"]["text_perplexity"]["base"]
    assert (Path(result["output"]) / "samples.jsonl").is_file()
    wrong = longfolio("eval", place, cwd=place)
    assert wrong.returncode == 2 and "no model directory" in wrong.stderr


def test_latest_is_the_latest_run_with_a_model(place: Path, store: Store, worse: RunRecord) -> None:
    chain(place, store, until="pdf2txt")
    done = longfolio("eval", "--tasks", "passkey", "--no-prefect", "--json", cwd=place)
    assert done.returncode == 0 and json.loads(done.stdout)["gate"]["verdict"] == "no champion"


# ------------------------------------------------------------------- history


def test_history_has_a_run_once_with_both_models(
    place: Path, store: Store, better: RunRecord, worse: RunRecord
) -> None:
    promote(store, better)
    again(place, store, worse)
    record = find_run(store, "latest")
    old = {"run_id": "old", "date": "2025-01-01T00:00:00Z", "model": "m", "evaluation": "e", "action": "ran",
           "metrics": {"perplexity": {"metric": "perplexity", "better": "lower", "n": 4, "base": 2.0, "merged": 1.5,
                                      "difference": -0.5, "low": -1, "high": 0}}}  # fmt: skip
    (store.root / "history.jsonl").write_text(json.dumps(old) + '\n{"run_id": "torn')
    first = add_to_history(store, record)
    content = (store.root / "history.parquet").read_bytes()
    assert add_to_history(store, record) == first == read_history(store)
    assert (store.root / "history.parquet").read_bytes() == content
    assert pq.read_schema(store.root / "history.parquet").names == list(COLUMNS)
    assert [(row["run_id"], row["value"]) for row in first if row["run_id"] == "old"] == [("old", 1.5)]
    mine = [row for row in first if row["run_id"] == record.run_id]
    assert {(row["role"], row["model"]) for row in mine} == {
        ("candidate", worse.data["stages"][3]["digest"]), ("champion", better.data["stages"][3]["digest"])
    }  # fmt: skip
    answers = {row["role"]: row for row in mine if row["task"] == "answers"}
    assert answers["candidate"]["verdict"] == "fail" and answers["candidate"]["headline"]
    assert answers["candidate"]["value"] > answers["champion"]["value"] and answers["champion"]["low"] is not None
    assert answers["candidate"]["data_digest"] == answers["champion"]["data_digest"]

    promote(store, worse)
    again(place, store, worse)
    rows = add_to_history(store, find_run(store, "latest"))
    assert rows[: len(first)] == first and {row["role"] for row in rows[len(first) :]} == {"candidate"}
    assert len(list_runs(store)) >= 2


def test_damaged_history_is_said_not_overwritten(store: Store, worse: RunRecord, tmp_path: Path) -> None:
    other = Store(tmp_path)
    (tmp_path / "history.parquet").write_bytes(b"not Parquet")
    with pytest.raises(UsageError, match=r"history\.parquet cannot be read"):
        add_to_history(other, worse)
    assert (tmp_path / "history.parquet").read_bytes() == b"not Parquet"
