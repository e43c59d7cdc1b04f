"""The whole chain, in this process, on a small real input: what is run, reused, explained and kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import runner
from flows.child import run_in_child
from flows.config import load
from flows.errors import UsageError
from flows.housekeeping import find_garbage, verify_output
from flows.plan import Selection, make_plan
from flows.runner import RunInterrupted, StageFailed, Watcher, run
from flows.runs import find_run, list_runs
from flows.stages import NAMES
from flows.store import Store
from flows.trace import trace
from pdf2txt import stage as pdf2txt_stage


def actions(record: Any) -> list[str]:
    return [row["action"] for row in record.data["stages"]]


def plan_of(path: Path, store: Store, *overrides: str, **selection: Any) -> dict[str, tuple[str, str]]:
    plan = make_plan(load(str(path), overrides=overrides), store, Selection(**selection))
    return {s.name: (s.action, s.why) for s in plan.stages}


@pytest.fixture
def finished(small_run: Callable[..., Path], tmp_path: Path) -> tuple[Path, Store]:
    path, store = small_run(), Store(tmp_path / "store")
    record = run(load(str(path)), store, Selection(), Watcher(), name="small")
    assert actions(record) == ["ran"] * 5
    return path, store


def test_chain_runs_then_everything_is_cached_and_explained(finished: tuple[Path, Store], documents: Path) -> None:
    path, store = finished
    assert [verify_output(*item).problems for item in store.outputs()] == [[]] * 5

    again = run(load(str(path)), store, Selection(), Watcher())
    assert actions(again) == ["cached"] * 5

    # A setting: what is before it stays, and the reason names the key all the way down.
    plan = plan_of(path, store, "dataset.seed=2")
    assert plan["pdf2txt"][0] == "cached"
    for stage in NAMES[1:]:
        assert plan[stage][0] == "run" and "dataset.seed changed 1 -> 2" in plan[stage][1]
    changed = run(load(str(path), overrides=["dataset.seed=2"]), store, Selection(), Watcher())
    assert actions(changed) == ["cached", "ran", "ran", "ran", "ran"]

    # A speed setting changes nothing.
    plan = plan_of(path, store, "pdf2txt.workers=2")
    assert {action for action, _ in plan.values()} == {"cached"}, plan

    # One more document: only that one is converted.
    (documents / "new.txt").write_text((documents / "bees.txt").read_text().replace("Bees", "Wasps"))
    assert plan_of(path, store)["pdf2txt"] == ("run", "1 document added")
    more = run(load(str(path)), store, Selection(until="pdf2txt"), Watcher())
    assert actions(more) == ["ran", "skipped", "skipped", "skipped", "skipped"]
    manifest = store.manifest("pdf2txt", more.data["stages"][0]["digest"])
    assert manifest is not None and len(manifest["units"]) == 4
    assert more.data["stages"][0]["metrics"]["units_reused"] == 3

    # Trace: from the model to its documents, and from a row to its own.
    merged = again.data["stages"][3]["path"]
    lineage = trace(store, f"{merged}/model")
    assert [s["stage"] for s in lineage["chain"]] == ["merge", "train", "datasets_build", "pdf2txt"]
    assert {Path(n).name for d in lineage["documents"] for n in d["names"]} == {
        "lakes.txt",
        "mills.txt",
        "bees.txt",
    }

    # gc: with one run kept, only what the others used alone goes.
    garbage = find_garbage(store, keep=1)
    garbage.delete()
    assert len(list(store.outputs())) == 1
    assert plan_of(path, store, until="pdf2txt")["pdf2txt"][0] == "cached"
    assert find_garbage(store, keep=1).paths == []


def test_several_devices_are_several_processes(
    small_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks under torchrun, without Prefect; what is wrong with the settings is said as ever."""
    started: list[str] = []
    monkeypatch.setattr(runner, "run_in_child", lambda *args: started.append(args[0].name) or run_in_child(*args))
    config, store = load(str(small_run()), overrides=["train.devices=2"]), Store(tmp_path / "store")
    record = run(config, store, Selection(until="train"), Watcher())
    row = record.data["stages"][2]
    assert row["action"] == "ran" and row["metrics"]["steps"] == 2
    assert started == ["train"]
    uneven = load(str(small_run()), overrides=["train.devices=2", "train.global_batch_size=3"])
    with pytest.raises(StageFailed, match="cannot be shared by 2 devices"):
        run(uneven, store, Selection(until="train"), Watcher())


def test_from_needs_what_is_before_it(small_run: Callable[..., Path], tmp_path: Path) -> None:
    path, store = small_run(), Store(tmp_path / "store")
    with pytest.raises(UsageError, match="no output of pdf2txt"):
        plan_of(path, store, start="train")
    run(load(str(path)), store, Selection(until="datasets_build"), Watcher())
    plan = plan_of(path, store, start="train")
    assert plan["datasets_build"] == ("cached", "--from train") and plan["train"][0] == "run"


def test_rerun_ignores_the_store(small_run: Callable[..., Path], tmp_path: Path) -> None:
    path, store = small_run(), Store(tmp_path / "store")
    first = run(load(str(path)), store, Selection(until="datasets_build"), Watcher())
    before = {p: p.stat().st_mtime_ns for p in store.units.glob("*/*")}
    second = run(load(str(path)), store, Selection(until="datasets_build", rerun=("datasets_build",)), Watcher())
    assert actions(second)[:2] == ["cached", "ran"]
    made_again = {p.parent.name for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert made_again == {"rows", "gates"}  # nothing of pdf2txt
    assert first.data["stages"][1]["metrics"]["row_digest"] == second.data["stages"][1]["metrics"]["row_digest"]


def test_failed_stage_is_recorded_and_resumed(
    small_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, store = small_run(), Store(tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr("datasets_build.stage.run", lambda *_: 1 / 0)
        with pytest.raises(StageFailed, match="datasets_build"):
            run(load(str(path)), store, Selection(until="datasets_build"), Watcher())
    record = find_run(store, "latest")
    assert record.status == "failed"
    assert actions(record) == ["ran", "failed", "skipped", "skipped", "skipped"]
    resumed = run(load(str(path)), store, Selection(until="datasets_build"), Watcher(), resume=record)
    assert resumed.run_id == record.run_id and len(list_runs(store)) == 1
    assert actions(resumed)[:2] == ["cached", "ran"]


def test_incomplete_output_is_used_but_tried_again(
    small_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, store, real = small_run(), Store(tmp_path / "store"), pdf2txt_stage.run

    def flaky(settings: Any, inputs: Any, work: Path, report: Any) -> Any:
        report("transient", message="bees.txt: the network share went away")
        return real(settings, inputs, work, report)

    with monkeypatch.context() as patch:
        patch.setattr("pdf2txt.stage.run", flaky)
        run(load(str(path)), store, Selection(until="datasets_build"), Watcher())
    plan = plan_of(path, store)
    assert plan["pdf2txt"] == ("run", "incomplete: 1 transient failure to try again")
    assert plan["datasets_build"] == ("run", "pdf2txt runs again")
    # pdf2txt comes out the same, so what was made from it is still right.
    second = run(load(str(path)), store, Selection(until="datasets_build"), Watcher())
    assert [(r["action"], r["why"]) for r in second.data["stages"][:2]] == [
        ("ran", "incomplete: 1 transient failure to try again"),
        ("cached", "what it is made from came out the same"),
    ]
    assert plan_of(path, store)["datasets_build"][0] == "cached"


def test_changed_upstream_content_is_noticed_and_its_attempts_are_not_continued(
    small_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digests name what was asked for; if it came out otherwise, everything after it is made anew."""
    path, store = small_run(), Store(tmp_path / "store")
    first = run(load(str(path)), store, Selection(until="datasets_build"), Watcher())
    pdf2txt, dataset = first.data["stages"][:2]
    # An attempt that was killed when its output was whole, made from today's documents.
    leftover = store.attempt("datasets_build", dataset["digest"])
    leftover.mkdir(parents=True)
    note = {"rerun": False, "upstream_outputs": {"pdf2txt": "of other documents"}, "run_id": "killed"}
    (leftover / "attempt.json").write_text(json.dumps(note))
    (leftover / "output").mkdir()
    (leftover / "output" / "poison.txt").write_text("made from other documents")

    manifest_file = Path(pdf2txt["path"]) / "manifest.json"
    manifest = json.loads(manifest_file.read_text())
    manifest_file.write_text(json.dumps({**manifest, "outputs_sha256": "0" * 64}))
    assert plan_of(path, store)["datasets_build"] == ("run", "the output of pdf2txt was replaced since")
    again = run(load(str(path)), store, Selection(until="datasets_build"), Watcher())
    assert actions(again)[:2] == ["cached", "ran"]
    assert not (Path(dataset["path"]) / "poison.txt").exists()


def test_interrupted_rerun_is_continued_by_the_same_command(
    small_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, store = small_run(), Store(tmp_path / "store")
    run(load(str(path)), store, Selection(until="pdf2txt"), Watcher())
    rerun = Selection(until="pdf2txt", rerun=("pdf2txt",))

    def interrupted(settings: Any, inputs: Any, work: Path, report: Any) -> Any:
        (work / "progress").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pdf2txt.stage.run", interrupted)
        with pytest.raises(RunInterrupted) as caught:
            run(load(str(path)), store, rerun, Watcher())
    assert caught.value.record.status == "interrupted"
    digest = caught.value.record.data["stages"][0]["digest"]
    seen = []
    real = pdf2txt_stage.run

    def looking(settings: Any, inputs: Any, work: Path, report: Any) -> Any:
        seen.append((work / "progress").read_text())
        return real(settings, inputs, work, report)

    monkeypatch.setattr("pdf2txt.stage.run", looking)
    run(load(str(path)), store, rerun, Watcher())
    assert seen == ["half"] and store.manifest("pdf2txt", digest) is not None


def test_gc_leaves_a_working_run_alone(finished: tuple[Path, Store]) -> None:
    _, store = finished
    (store.units / "rows" / "unused").write_bytes(b"x")
    (store.attempt("train", "f" * 64)).mkdir(parents=True)
    with store.lock("train", "f" * 64):
        garbage = find_garbage(store, keep=1)
        assert garbage.busy and garbage.paths == []
    garbage = find_garbage(store, keep=1)
    assert sorted((kind, path.name) for kind, path, _ in garbage.paths) == [("attempt", "f" * 64), ("unit", "unused")]


def test_store_and_hidden_folders_below_the_documents_are_no_documents(
    small_run: Callable[..., Path], documents: Path
) -> None:
    store = Store(documents / "store")
    path = small_run()
    first = run(load(str(path)), store, Selection(until="datasets_build"), Watcher())
    (documents / ".venv").mkdir()
    (documents / ".venv" / "LICENSE.txt").write_text("not a document of ours")
    again = run(load(str(path)), store, Selection(until="datasets_build"), Watcher())
    assert actions(again)[:2] == ["cached", "cached"]
    assert len(first.data["documents"]) == 3


def test_file_names_need_not_be_utf8(small_run: Callable[..., Path], tmp_path: Path, documents: Path) -> None:
    (documents / "bees.txt").rename(documents / os.fsdecode(b"caf\xe9.txt"))
    store = Store(tmp_path / "store")
    record = run(load(str(small_run())), store, Selection(until="datasets_build"), Watcher())
    assert record.status == "done" and len(find_run(store, "latest").data["documents"]) == 3


def test_damaged_record_does_not_hide_the_others(finished: tuple[Path, Store]) -> None:
    _, store = finished
    (store.runs / "broken.json").write_text("{")
    assert len(list_runs(store)) == 1
    assert json.loads((store.runs / f"{list_runs(store)[0].run_id}.json").read_text())["status"] == "done"
