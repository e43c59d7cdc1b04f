"""`longfolio up` as a whole: real server, scheduler, workers; what a person does in the UI, over its API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prefect_api import Api, longfolio
from small_chain import make_place

from flows.history import read_history
from flows.orchestration.server import Home
from flows.orchestration.up import UpSettings, _workers
from flows.runs import list_runs
from flows.stages import NAMES
from flows.store import Store

DEPLOYED = ["end-to-end", "pdf2txt", "datasets-build", "train", "evaluate", "nightly-evals"]
STEPS = 150
LONG = [f"train.max_steps={STEPS}", "train.save_every_minutes=60"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    return make_place(tmp_path_factory.mktemp("place"), tiny_model_dir)


@pytest.fixture(scope="module")
def api(place: Path) -> Iterator[Api]:
    """Up, with a nightly evaluation every minute."""
    done = longfolio("up", "--detach", "--nightly", "* * * * *", "--timezone", "Europe/Berlin", cwd=place)
    assert done.returncode == 0, done.stderr
    note = json.loads((Home.of(place / "store").path / "up.json").read_text())
    processes = [psutil.Process(note["pid"]), *psutil.Process(note["pid"]).children(recursive=True)]
    yield Api(note["url"])
    assert longfolio("down", cwd=place).returncode == 0
    _, left = psutil.wait_procs(processes, 10)
    assert not [process.cmdline() for process in left]


@pytest.fixture(scope="module")
def model(api: Api) -> str:
    """An end-to-end run started from the UI; everything below finds its outputs in the store."""
    run = api.start("end-to-end/end-to-end", config="small.yaml")
    assert api.wait(run)["state"]["type"] == "COMPLETED", api.logs(run)
    return run


def test_deployments_pools_queues_and_schedule_are_there_once(api: Api, place: Path) -> None:
    """Also after deploying again; and what a person chose for the night stays."""

    def seen() -> Any:
        deployments = api.post("/deployments/filter")
        pools = api.post("/work_pools/filter")
        queues = {q["name"]: q["priority"] for q in api.post("/work_pools/gpu/queues/filter")}
        nightly = next(d for d in deployments if d["work_queue_name"] == "nightly")
        return (
            sorted((d["name"], d["entrypoint"], d["work_pool_name"]) for d in deployments),
            sorted(p["name"] for p in pools),
            queues,
            [(s["schedule"]["cron"], s["schedule"]["timezone"], s["active"]) for s in nightly["schedules"]],
            nightly["concurrency_options"],
            sorted(a["name"] for a in api.post("/automations/filter")),
        )  # fmt: skip

    first = seen()
    assert [name for name, _, _ in first[0]] == sorted(DEPLOYED)
    for flow in DEPLOYED:
        assert api.get(f"/deployments/name/{flow}/{flow}")["entrypoint"].startswith("flows.orchestration.flows.")
    assert first[1] == ["cpu", "gpu"] and first[2] | {"interactive": 1, "train": 5, "nightly": 10} == first[2]
    assert first[3] == [("* * * * *", "Europe/Berlin", True)]
    assert first[4]["collision_strategy"] == "CANCEL_NEW" and len(first[5]) == 3
    assert longfolio("deploy", cwd=place).returncode == 0
    assert seen() == first
    assert longfolio("deploy", "--nightly", "at night", cwd=place).returncode == 2
    refused = longfolio("up", cwd=place)
    assert refused.returncode == 2 and "already up" in refused.stderr


def test_parameters_are_a_form(api: Api) -> None:
    schema = api.get("/deployments/name/end-to-end/end-to-end")["parameter_openapi_schema"]
    form = schema["definitions"]["RunRequest"]["properties"]
    assert form["config"]["default"] == "demo" and all(field["description"] for field in form.values())
    refused = api.http.post(
        f"/deployments/{api.get('/deployments/name/train/train')['id']}/create_flow_run",
        json={"parameters": {"request": {"until": "nowhere"}}, "state": {"type": "SCHEDULED"}},
    )
    assert refused.status_code in (409, 422)


def test_a_run_from_the_ui_and_a_rebuild_of_the_dataset(api: Api, model: str) -> None:
    assert [name for name in api.tasks(model) if not name.startswith("convert")] == list(NAMES)
    again = api.start("end-to-end/end-to-end", config="small.yaml")
    rebuilt = api.start("datasets-build/datasets-build", config="small.yaml", overrides=["dataset.seed=5"])
    assert api.wait(again)["state"]["message"] == "5 cached"
    assert api.tasks(again) == dict.fromkeys(NAMES, "Cached")
    assert api.wait(rebuilt)["state"]["type"] == "COMPLETED"
    assert api.tasks(rebuilt) == {"pdf2txt": "Cached", "datasets_build": "Completed"}
    wrong = api.start("datasets-build/datasets-build", config="small.yaml", overrides=["dataset.sed=5"])
    state = api.wait(wrong)["state"]
    assert state["type"] == "FAILED" and "did you mean 'dataset.seed'" in state["message"]


def test_a_training_cancelled_in_the_ui_leaves_a_checkpoint_and_a_retry_resumes_it(api: Api, place: Path) -> None:
    run = api.start("train/train", config="small.yaml", overrides=LONG)
    wait_for(lambda: [p for p in place.glob("store/work/train/*/metrics.jsonl") if len(p.read_text()) > 2000])
    trainer = [p for p in psutil.process_iter(["cmdline"]) if "flows.child" in (p.info["cmdline"] or [])
               and str(place) in " ".join(p.info["cmdline"])]  # fmt: skip
    assert trainer
    began = time.monotonic()
    api.set_state(run, "CANCELLING", "Cancelling")
    assert api.wait(run)["state"]["type"] == "CANCELLED"
    _, left = psutil.wait_procs(trainer, max(0.0, 40 - (time.monotonic() - began)))
    assert not left
    assert list(place.glob("store/work/train/*/checkpoints/step-*"))
    assert api.tasks(run)["train"] == "Cancelled"

    api.set_state(run, "SCHEDULED", "AwaitingRetry")
    wait_for(lambda: api.get(f"/flow_runs/{run}")["run_count"] == 2)
    assert api.wait(run)["state"]["type"] == "COMPLETED", api.logs(run)
    manifests = [json.loads(path.read_text()) for path in place.glob("store/stages/train/*/manifest.json")]
    [resumed] = [m for m in manifests if m["metrics"]["steps"] == STEPS]
    assert resumed["metrics"]["resumed_from"] > 0


def test_training_on_another_deployment_is_asked_for_once(api: Api, place: Path) -> None:
    """Two runs that want the same training, elsewhere: one flow run of the train deployment."""
    there = ["flows.train_on=train/train", "train.seed=11"]
    both = [api.start("end-to-end/end-to-end", config="small.yaml", until="train", overrides=there) for _ in range(2)]
    for run in both:
        assert api.wait(run)["state"]["type"] == "COMPLETED", api.logs(run)
        assert api.tasks(run)["train"] in ("Completed", "Cached")
    asked = [r for r in api.post("/flow_runs/filter", flows={"name": {"any_": ["train"]}}) if r["idempotency_key"]]
    assert len(asked) == 1 and asked[0]["state"]["type"] == "COMPLETED"
    for run in both:
        assert set(api.task_states(run)) == {"COMPLETED"}


def test_the_scheduler_evaluates_by_night_and_keeps_the_history(api: Api, model: str, place: Path) -> None:
    """Every minute here: twice by itself; the second reuses everything, and the history has both."""

    def nights() -> list[Any]:
        return [r for r in api.flow_runs("nightly-evals") if r["auto_scheduled"] and r["state"]["type"] == "COMPLETED"]

    wait_for(lambda: len(nights()) >= 2, 200)
    assert longfolio("deploy", "--nightly", "off", cwd=place).returncode == 0
    assert not api.get("/deployments/name/nightly-evals/nightly-evals")["schedules"][0]["active"]
    waiting = ("SCHEDULED", "PENDING", "RUNNING")  # a late one would measure what the next test trains
    wait_for(lambda: not [run for run in api.flow_runs("nightly-evals") if run["state"]["type"] in waiting])
    history = read_history(Store(place / "store"))
    by_run = [[(row["task"], row["model"]) for row in history if row["run_id"] == run]
              for run in dict.fromkeys(row["run_id"] for row in history)]  # fmt: skip
    assert len(by_run) >= 2 and all(rows == by_run[0] and len(set(rows)) == len(rows) for rows in by_run)
    assert set(api.tasks(nights()[-1]["id"]).values()) == {"Cached"}
    shown = api.artifacts(nights()[-1]["id"])
    assert shown["evaluation-history"].count(history[-1]["model"][:8]) >= 2
    assert shown["evaluation-nightly"].startswith("# no champion") and "xychart" in shown["evaluation-nightly"]


def test_a_night_measures_the_champion_alike_and_a_regression_is_red(api: Api, model: str, place: Path) -> None:
    """The champion was trained on the same documents, and evaluated with other settings before."""
    store = Store(place / "store")
    longfolio("run", "small.yaml", "--set", "train.seed=21", "--set", "evaluate.passkey.trials=1", cwd=place)
    champion = list_runs(store)[-1]
    longfolio("run", "small.yaml", "--set", "train.seed=22", cwd=place)
    newest = list_runs(store)[-1]
    assert champion.status == newest.status == "done"
    assert longfolio("promote", champion.run_id, cwd=place).returncode == 0

    night = api.start("nightly-evals/nightly-evals")
    assert api.wait(night)["state"]["name"] == "Completed", api.logs(night)
    assert api.tasks(night) == dict.fromkeys(NAMES, "Cached") | {"champion": "Completed"}
    record = list_runs(store)[-1]
    assert record.data["gate"]["champion"]["run_id"] == champion.run_id
    assert {t["verdict"] for t in record.data["gate"]["tasks"]} <= {"pass", "warn"}
    assert {row["role"] for row in read_history(store) if row["run_id"] == record.run_id} == {"candidate", "champion"}
    shown = api.artifacts(night)["evaluation-nightly"]
    assert f"longfolio eval {record.run_id} --store {store.root}" in shown and "| champion |" in shown

    red = api.start("nightly-evals/nightly-evals", overrides=["evaluate.gate.floors.perplexity=1.5"])
    state = api.wait(red)["state"]
    assert (state["type"], state["name"]) == ("FAILED", "Regressed") and "above the ceiling" in state["message"]
    assert set(api.tasks(red).values()) == {"Cached"}
    before = len(read_history(store))
    api.set_state(red, "SCHEDULED", "AwaitingRetry")
    wait_for(lambda: api.get(f"/flow_runs/{red}")["run_count"] == 2)
    assert api.wait(red)["state"]["name"] == "Regressed" and len(read_history(store)) == before
    assert [e["payload"]["reason"] for e in api.events("longfolio.evaluation.regressed")]
    assert longfolio("promote", "--clear", cwd=place).returncode == 0


def test_a_dead_worker_is_replaced(api: Api, place: Path) -> None:
    note = json.loads((Home.of(place / "store").path / "up.json").read_text())
    worker = next(p for p in psutil.Process(note["pid"]).children() if "cpu" in p.cmdline())
    worker.kill()

    def replaced() -> bool:
        children = psutil.Process(note["pid"]).children()
        return any("cpu" in p.cmdline() and p.pid != worker.pid for p in children if p.is_running())

    wait_for(replaced)
    run = api.start("pdf2txt/pdf2txt", config="small.yaml")
    assert api.wait(run)["state"]["type"] == "COMPLETED"


def test_each_device_has_a_worker_of_its_own(tmp_path: Path) -> None:
    settings = UpSettings(Store(tmp_path / "store"), devices=("0", "3"))
    workers = _workers(settings, "http://127.0.0.1:1/api", Home.of(tmp_path))
    gpu = [w for w in workers if "gpu" in w.command]
    assert [w.environment["CUDA_VISIBLE_DEVICES"] for w in gpu] == ["0", "3"]
    assert all(w.command[w.command.index("--limit") + 1] == "1" for w in gpu)
    [cpu] = [w for w in workers if "cpu" in w.command]
    assert cpu.environment["CUDA_VISIBLE_DEVICES"] == "" and cpu.environment["LONGFOLIO_TRAIN_ON"] == "train/train"


def wait_for(what: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if what():
                return
        except (httpx.HTTPError, psutil.NoSuchProcess):
            pass
        time.sleep(0.1)
    raise AssertionError("waited in vain")
