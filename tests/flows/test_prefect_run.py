"""`longfolio run` under Prefect, as the UI's data show it. One server for the module; every test its own run."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect_api import LONGFOLIO, Api, longfolio
from small_chain import make_place

from flows.orchestration.server import Home, joined
from flows.orchestration.tasks import MAX_SHARDS, shards_of
from flows.runs import list_runs
from flows.stages import NAMES
from flows.store import Store

SECRET = "word-that-only-the-environment-has-4711"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    return make_place(tmp_path_factory.mktemp("place"), tiny_model_dir)


@pytest.fixture(scope="module")
def api(place: Path) -> Iterator[Api]:
    """The server of the place's store, which runs join."""
    with joined(place / "store") as url:
        yield Api(url)


def run(place: Path, *args: str, code: int = 0, **environment: str) -> dict[str, Any]:
    done = longfolio("run", "small.yaml", "--json", *args, cwd=place, **environment)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "prefect" not in done.stderr.lower(), done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def latest(place: Path) -> dict[str, Any]:
    return list_runs(Store(place / "store"))[-1].data


def test_run_is_seen_whole_and_a_second_one_is_five_times_cached(api: Api, place: Path) -> None:
    first = run(place, TEACHER_KEY=SECRET)
    assert [s["action"] for s in first["stages"]] == ["ran"] * 5
    [flow_run] = latest(place)["flow_runs"]
    seen = api.get(f"/flow_runs/{flow_run}")
    assert seen["state"]["type"] == "COMPLETED" and seen["name"] == f"small {first['run_id']}"
    tasks = api.tasks(flow_run)
    assert [name for name in tasks if not name.startswith("convert")] == list(NAMES)
    assert set(tasks.values()) == {"Completed"}
    artifacts = api.artifacts(flow_run)
    assert {
        "plan", "pdf2txt-report", "datasets-build-report", "dataset", "train-report", "training-curve", "merge-report",
        "evaluation", "run-summary",
    } <= set(artifacts)  # fmt: skip
    assert "ran" in artifacts["run-summary"] and first["run_id"] in artifacts["run-summary"]
    report = place / "store" / "runs" / first["run_id"] / "report.html"
    assert "<svg" in report.read_text()

    second = run(place)
    assert [s["action"] for s in second["stages"]] == ["cached"] * 5
    [flow_run] = latest(place)["flow_runs"]
    assert api.tasks(flow_run) == dict.fromkeys(NAMES, "Cached")
    states = api.post("/task_runs/filter", flow_runs={"id": {"any_": [flow_run]}})
    assert {t["state"]["message"] for t in states} == {f"unchanged since run {first['run_id']}"}


def test_a_failed_gate_is_a_state_of_its_own_and_an_event(api: Api, place: Path) -> None:
    """Everything is done: a regression is no infrastructure trouble, and nothing of it is run again."""
    assert longfolio("promote", run(place)["run_id"], cwd=place).returncode == 0
    passed = run(place)
    assert passed["gate"]["verdict"] == "pass"
    [flow_run] = latest(place)["flow_runs"]
    assert api.get(f"/flow_runs/{flow_run}")["state"]["message"] == "5 cached; gate: pass"
    floor = ("--set", "evaluate.gate.floors.perplexity=1.5")
    failed = run(place, *floor, code=3)
    assert failed["status"] == "done" and [s["action"] for s in failed["stages"]] == ["cached"] * 5
    [flow_run] = latest(place)["flow_runs"]
    state = api.get(f"/flow_runs/{flow_run}")["state"]
    assert (state["type"], state["name"]) == ("FAILED", "Regressed") and "above the ceiling" in state["message"]
    assert api.tasks(flow_run) == dict.fromkeys(NAMES, "Cached")
    assert api.artifacts(flow_run)["evaluation-gate"].startswith("# Gate: fail")
    seen = api.events("longfolio.evaluation.regressed")
    assert [e["payload"]["run_id"] for e in seen] == [failed["run_id"]] and seen[0]["payload"]["tasks"] == [
        "perplexity"
    ]
    assert longfolio("resume", failed["run_id"], cwd=place).returncode == 3
    again = longfolio("eval", failed["run_id"], "--json", cwd=place)  # a flow run of its own, with those settings
    assert again.returncode == 3 and "Traceback" not in again.stderr, again.stderr
    assert api.get(f"/flow_runs/{latest(place)['flow_runs'][0]}")["state"]["name"] == "Regressed"
    assert longfolio("promote", "--clear", cwd=place).returncode == 0


def test_the_server_gets_no_data_and_no_pickle(api: Api, place: Path) -> None:
    """Of every file that Prefect keeps: no document text beyond the samples, no secret, nothing pickled."""
    home = Home.of(place / "store").path
    results = [path for path in (home / "storage").rglob("*") if path.is_file()]
    assert results
    for path in results:
        json.loads(path.read_text())
    kept = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert SECRET.encode() not in kept
    # A sample shows the ends of a row; the middle of a document is in no place.
    for source in (place / "documents").iterdir():
        middle = source.read_text().splitlines()[len(source.read_text().splitlines()) // 2 - 1 :][:2]
        assert not any(line.encode() in kept for line in middle if len(line) > 60)


def test_failure_has_its_remedy_in_the_state_and_is_not_retried(api: Api, place: Path) -> None:
    done = longfolio("run", "small.yaml", "--set", "evaluate.tasks=[answers]", "--set", "evaluate.answers.max_rows=1",
                     "--set", "train.learning_rate=1e30", "--set", "train.max_steps=4", cwd=place)  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "do:" in done.stderr and "longfolio resume" in done.stderr and "Traceback" not in done.stderr
    [flow_run] = latest(place)["flow_runs"]
    seen = api.get(f"/flow_runs/{flow_run}")
    assert seen["state"]["type"] == "FAILED" and "lower train.learning_rate" in seen["state"]["message"]
    assert api.tasks(flow_run)["train"] == "Failed"
    assert not any("Retry" in line for line in api.logs(flow_run))


def test_a_mistake_starts_no_server(place: Path, tmp_path: Path) -> None:
    done = longfolio("run", place / "small.yaml", "--pdfs", "nowhere", cwd=tmp_path)
    assert done.returncode == 2 and not Home.of(tmp_path / "store").path.exists()
    done = longfolio("run", place / "small.yaml", cwd=tmp_path, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 2 and "PREFECT_API_URL" in done.stderr and "Traceback" not in done.stderr


def training(place: Path, *args: str) -> subprocess.Popen[str]:
    """A run in the middle of its training: some steps are done, none is saved."""
    begun = set(place.glob("store/work/train/*/metrics.jsonl"))
    process = subprocess.Popen(
        [str(LONGFOLIO), "run", "small.yaml", "--until", "train", "--set", "train.max_steps=30", "--set",
         "train.save_every_minutes=60", *args], cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None:
        new = set(place.glob("store/work/train/*/metrics.jsonl")) - begun
        if new and len(new.pop().read_text().splitlines()) > 5:
            return process
        time.sleep(0.02)
    raise AssertionError(process.communicate()[1])


def trainers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [c for c in psutil.Process(process.pid).children(recursive=True) if "flows.child" in c.cmdline()]


def resumed(place: Path) -> dict[str, Any]:
    done = longfolio("resume", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    stages = {s["stage"]: s for s in json.loads(done.stdout)["stages"]}
    assert stages["train"]["action"] == "ran"
    return stages["train"]


def adapter(train: dict[str, Any]) -> bytes:
    return (Path(train["path"]) / "adapter" / "adapter_model.safetensors").read_bytes()


def test_stopped_and_killed_trainings_continue_with_the_same_result(api: Api, place: Path) -> None:
    whole = run(place, "--until", "train", "--set", "train.max_steps=30")["stages"][2]
    expected = adapter(whole)
    shutil.rmtree(whole["path"])

    process = training(place)
    [trainer] = trainers(process)
    process.terminate()
    _, stderr = process.communicate(timeout=40)
    assert process.returncode == 130 and "longfolio resume" in stderr and "Traceback" not in stderr
    assert not trainer.is_running()
    [flow_run] = latest(place)["flow_runs"]
    assert api.get(f"/flow_runs/{flow_run}")["state"]["type"] == "CANCELLED"
    assert api.tasks(flow_run)["train"] == "Cancelled"
    train = resumed(place)
    assert train["metrics"]["resumed_from"] > 0 and adapter(train) == expected
    shutil.rmtree(train["path"])

    process = training(place, "--set", "train.save_every_steps=3")
    [trainer] = trainers(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    trainer.wait(10)
    [killed] = latest(place)["flow_runs"]
    assert api.get(f"/flow_runs/{killed}")["state"]["type"] == "RUNNING"  # nobody was left to say otherwise ...
    train = resumed(place)
    assert train["metrics"]["resumed_from"] >= 3 and adapter(train) == expected
    assert latest(place)["flow_runs"][0] == killed
    assert api.get(f"/flow_runs/{killed}")["state"]["type"] == "CRASHED"  # ... until it was continued
    assert api.tasks(killed)["train"] == "Crashed"


def test_states_of_killed_runs_are_mended(api: Api, place: Path) -> None:
    """What the next run does first, without its half minute of patience."""
    code = """
import sys
from datetime import timedelta
from pathlib import Path
from flows.orchestration import settle
from flows.store import Store
settle._JUST_STARTED = timedelta(0)
print(settle.reconcile(Store(Path(sys.argv[1]))))
"""
    process = subprocess.Popen(
        [str(LONGFOLIO), "run", "small.yaml", "--until", "datasets_build", "--set", "dataset.seed=77"], cwd=place,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None and not list(place.glob("store/work/datasets_build/*/attempt.json")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    [killed] = latest(place)["flow_runs"]
    assert api.get(f"/flow_runs/{killed}")["state"]["type"] == "RUNNING"
    environment = {**os.environ, "PREFECT_API_URL": api.url}
    mended = subprocess.run([sys.executable, "-c", code, str(place / "store")], env=environment, stdout=subprocess.PIPE)
    assert mended.stdout.split() == [b"1"]
    assert api.get(f"/flow_runs/{killed}")["state"]["type"] == "CRASHED"
    # What it did not get to say before it was killed is taken for crashed.
    assert set(api.tasks(killed).values()) <= {"Cached", "Crashed"}
    running = api.post("/task_runs/count", task_runs={"state": {"type": {"any_": ["RUNNING", "PENDING"]}}})
    assert running == 0


def test_a_server_that_dies_does_not_take_the_run_along(place: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    process = subprocess.Popen(
        [str(LONGFOLIO), "run", "small.yaml", "--store", str(store), "--until", "datasets_build", "--json"],
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and not list(store.glob("work/pdf2txt/*/attempt.json")):
        time.sleep(0.01)
    note = Home.of(store).running()
    assert note is not None
    psutil.Process(note["pid"]).kill()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out)["status"] == "done" and "Traceback" not in err
    # It was started again meanwhile: every state is known, and nothing runs on when the run is over.
    database = sqlite3.connect(Home.of(store).path / "prefect.db")
    for table in ("flow_run", "task_run"):
        assert {kind for (kind,) in database.execute(f"select state_type from {table}")} == {"COMPLETED"}


def test_every_shard_of_a_large_conversion_is_final(api: Api, place: Path, tmp_path: Path) -> None:
    """A task run each, and every one final in the database when the run is."""
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(40):
        (folder / f"{n}.txt").write_text(f"Note {n}\n\nOn day {n} the lake was {n % 9} degrees cold at noon.\n")
    result = run(place, "--pdfs", str(folder), "--until", "pdf2txt", "--set", "flows.shard_documents=1")
    assert result["stages"][0]["metrics"]["documents"] == 40
    [flow_run] = latest(place)["flow_runs"]
    states = api.task_states(flow_run)
    assert states == ["COMPLETED"] * 41 and MAX_SHARDS + len(NAMES) < 300


MANY = """
from uuid import UUID
from prefect import flow
from prefect.runtime import flow_run
from prefect.utilities.annotations import quote
from flows.orchestration.settle import settle
from flows.orchestration.tasks import convert_shard
class Executor: task_runs = []
@flow
def many():
    for _ in range(300):
        convert_shard(quote(lambda: (1, 0)), quote(Executor))
    print(flow_run.id, len(settle(UUID(flow_run.id), Executor.task_runs)))
many()
"""


def test_three_hundred_task_runs_are_all_recorded(api: Api) -> None:
    environment = {**os.environ, "PREFECT_API_URL": api.url}
    done = subprocess.run([sys.executable, "-c", MANY], env=environment, capture_output=True, text=True, timeout=120)
    run, lost = done.stdout.split()[-2:]
    assert lost == "0", done.stderr
    assert api.task_states(run) == ["COMPLETED"] * 300


@given(st.integers(0, 3000), st.integers(1, 500))
def test_shards_hold_every_document_once_and_are_few(documents: int, size: int) -> None:
    sources = {f"{n:064x}": Path(f"{n}.pdf") for n in range(documents)}
    shards = list(shards_of(sources, size))
    assert len(shards) <= MAX_SHARDS and [key for shard in shards for key in shard] == list(sources)
    if documents == 1000 and size == 64:
        assert len(shards) == 16


HOLD = """
import sys, time
from flows.orchestration.device import device_slots
with device_slots("train", int(sys.argv[1])):
    print(time.time(), flush=True)
    time.sleep(1.5)
    print(time.time(), flush=True)
"""


SERVER_DIES = """
import os, signal, sys, time
from pathlib import Path
from flows.orchestration.device import device_slots
from flows.orchestration.server import Home, joined
store = Path(sys.argv[1])
with joined(store) as url:
    os.environ["PREFECT_API_URL"] = url
    with device_slots("train"):
        died = Home.of(store).running()["pid"]
        os.kill(died, signal.SIGKILL)
        while (Home.of(store).running() or {"pid": died})["pid"] == died:
            time.sleep(0.1)
        time.sleep(5)
    with device_slots("train"):
        print("free again")
"""


def test_a_slot_outlives_the_server_that_lent_it(tmp_path: Path) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "0"}
    done = subprocess.run([sys.executable, "-c", SERVER_DIES, str(tmp_path)], env=environment, capture_output=True,
                          text=True, timeout=120)  # fmt: skip
    assert "free again" in done.stdout, done.stderr


TROUBLE = """
import sys
from prefect import flow
from flows.orchestration.tasks import Outcome, carry_out_stage
from prefect.utilities.annotations import quote
class Executor: task_runs = []
tries = []
def stage():
    tries.append(1)
    if len(tries) < int(sys.argv[1]):
        raise ConnectionResetError("the file server went away")
    return {"action": "ran", "why": "", "seconds": 0.0}
@flow
def run():
    task = carry_out_stage.with_options(retry_delay_seconds=0)
    state = task(quote(Outcome(stage)), quote(Executor), return_state=True)
    print(len(tries), state.name)
run()
"""


@pytest.mark.parametrize(("needed", "seen"), [(3, "3 Completed"), (9, "3 Failed")])
def test_trouble_that_may_pass_is_tried_three_times(api: Api, needed: int, seen: str) -> None:
    environment = {**os.environ, "PREFECT_API_URL": api.url}
    done = subprocess.run([sys.executable, "-c", TROUBLE, str(needed)], env=environment, capture_output=True, text=True)
    assert seen in done.stdout, done.stdout + done.stderr


def test_modules_of_the_user_are_not_taken_for_ours(place: Path, tmp_path: Path) -> None:
    """In a directory with a package of the commonest name in Prefect projects."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "__init__.py").write_text("raise SystemExit('not this one')")
    (tmp_path / "queue.py").write_text("raise SystemExit('nor this one')")
    done = longfolio("run", place / "small.yaml", "--until", "pdf2txt", "--json", cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["status"] == "done", done.stderr


def test_a_device_is_used_by_one_run_at_a_time(api: Api) -> None:
    def hold(devices: str, count: int = 1) -> subprocess.Popen[str]:
        environment = {**os.environ, "PREFECT_API_URL": api.url, "CUDA_VISIBLE_DEVICES": devices}
        command = [sys.executable, "-c", HOLD, str(count)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    same, other = [hold("0"), hold("0"), hold("2,0,1", 2)], hold("1,0")
    spans = sorted(tuple(map(float, p.communicate(timeout=60)[0].split())) for p in same)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans)), "two runs held device 0 at once"
    begun, ended = map(float, other.communicate(timeout=60)[0].split())
    assert ended - begun < 5 and {limit["limit"] for limit in api.post("/v2/concurrency_limits/filter")} == {1}


def test_only_end_to_end_has_others_train_and_evaluate(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow that is delegated to would wait for the worker that it occupies itself."""
    from flows.orchestration.request import RunRequest

    request = RunRequest(config=str(place / "small.yaml"), overrides=["flows.evaluate_on=evaluate/evaluate"])
    monkeypatch.setenv("LONGFOLIO_TRAIN_ON", "train/train")
    settings = request.resolve(delegates=True).config.flows
    assert (settings.train_on, settings.evaluate_on) == ("train/train", "evaluate/evaluate")
    settings = request.resolve("train").config.flows
    assert (settings.train_on, settings.evaluate_on) == ("local", "local")


def test_a_run_that_is_alive_is_not_taken_over(api: Api, place: Path) -> None:
    process = training(place, "--set", "train.seed=5")
    refused = longfolio("resume", "latest", cwd=place)
    assert refused.returncode == 2 and "still running" in refused.stderr
    process.terminate()
    process.communicate(timeout=60)
