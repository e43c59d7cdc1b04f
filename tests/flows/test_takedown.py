"""Taking a document down: who has seen it, no later run takes it in, and back again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.store import Store
from flows.takedown import excluded


def call(*args: object, code: int = 0) -> Any:
    done = CliRunner().invoke(app, [str(a) for a in args])
    assert done.exit_code == code, done.output
    return done


def as_json(*args: object) -> dict[str, Any]:
    return json.loads(call(*args, "--json").stdout)


def test_from_drop_to_undo(small_run: Callable[..., Path], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = small_run()
    first = as_json("run", config, "--no-prefect")
    stages = {row["stage"]: row for row in first["stages"]}
    ids = {Path(d["names"][0]).name: d["doc_id"] for d in as_json("trace")["documents"]}
    splits = json.loads((Path(stages["datasets_build"]["path"]) / "splits.json").read_text())
    trained = next(name for name, doc_id in ids.items() if splits[doc_id] == "train")
    held = next(name for name, doc_id in ids.items() if splits[doc_id] == "validation")

    shown = as_json("dataset", "drop", "--doc", trained)
    assert shown["applied"] is False and not excluded(tmp_path / "store")
    assert [d["doc_id"] for d in shown["documents"]] == [ids[trained]]
    (dataset,) = shown["datasets"]
    assert dataset["digest"] == stages["datasets_build"]["digest"] and dataset["rows"]["train"] > 0
    assert {m["stage"] for m in shown["models"]} == {"train", "merge"}
    assert {m["rows_trained"] for m in shown["models"]} == {dataset["rows"]["train"]}
    assert shown["evaluations"][0]["of_such_a_model"] and shown["rebuild"][0].startswith("longfolio resume ")
    assert not as_json("dataset", "drop", "--doc", held)["models"]

    done = call("dataset", "drop", "--doc", ids[trained][:8], "--yes")
    assert "trained on" in done.stdout and "--undo" in done.stdout
    planned = as_json("plan", config)
    assert planned["stages"][0]["why"] == "1 document removed"
    assert [row["action"] for row in planned["stages"]] == ["run"] * 5
    second = as_json("run", config, "--no-prefect", "--until", "datasets_build")
    rebuilt = Path(second["stages"][1]["path"])
    assert ids[trained] not in json.loads((rebuilt / "splits.json").read_text())
    assert ids[trained] in call("dataset", "drop").stdout  # the list
    changed = as_json("dataset", "diff", stages["datasets_build"]["path"], rebuilt)
    assert changed["documents"]["only_a"] == [ids[trained]]
    table = call("dataset", "diff", stages["datasets_build"]["path"], rebuilt).stdout
    assert "only in first" in table and ids[trained] in table

    call("dataset", "drop", "--doc", ids[trained], "--undo", "--yes")
    again = as_json("plan", config)
    assert [row["action"] for row in again["stages"]] == ["cached"] * 5
    assert [row["digest"] for row in again["stages"]] == [row["digest"] for row in first["stages"]]

    unknown = call("dataset", "drop", "--doc", trained[:-1], code=2)
    assert f"did you mean {trained}?" in unknown.output.replace("\n", " ")
    for name in ids:
        call("dataset", "drop", "--doc", name, "--yes")
    assert "every document was taken down" in call("plan", config, code=2).output

    (tmp_path / "store" / "excluded.json").write_text("{")
    assert "cannot be read" in call("plan", config, code=2).output

    page = tmp_path / "rows.html"
    shown_ = call("dataset", "view", stages["datasets_build"]["path"], "-n", 3, "--out", page)
    assert "3 rows" in shown_.stdout and "A text file: it has no pages to draw." in page.read_text()
    assert "page 1" in call("dataset", "view", stages["datasets_build"]["path"], "-n", 3, "--text").stdout


def test_nothing_to_drop(tmp_path: Path) -> None:
    assert "no document 'abcdef12'" in call("dataset", "drop", "--doc", "abcdef12", "--store", tmp_path, code=2).output
    assert "--undo needs --doc" in call("dataset", "drop", "--undo", "--store", tmp_path, code=2).output
    assert "no document was taken down" in call("dataset", "drop", "--store", tmp_path).output
    for document in ((), ("--doc", "abcdef12")):
        done = call("dataset", "drop", *document, "--store", tmp_path / "store", code=2)
        assert "does not exist" in done.output
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("text", ['{"documents": 3}', "[]"])
def test_a_damaged_list_is_not_an_empty_one(tmp_path: Path, text: str) -> None:
    from flows.errors import UsageError

    (tmp_path / "excluded.json").write_text(text)
    with pytest.raises(UsageError, match="cannot be read"):
        excluded(Store(tmp_path).root)


def test_files_are_found_by_content(tmp_path: Path) -> None:
    from flows.takedown import document_files

    pdfs = Path(__file__).parents[2] / "examples" / "pdfs"
    sha = hashlib.sha256((pdfs / "scanned-memo.pdf").read_bytes()).hexdigest()
    store = Store(tmp_path / "store")
    old = tmp_path / "old" / "memo.pdf"
    record = {"run_id": "r", "stages": [], "config": {}, "documents": {sha: [str(old)]}}
    store.runs.mkdir(parents=True)
    (store.runs / "r.json").write_text(json.dumps(record))

    def look(*folders: Path) -> Any:
        return document_files(store, tmp_path, [sha[:16]], folders)[sha[:16]]

    assert look().file is None and look().problem == f"The file is gone: {old}"
    old.parent.mkdir()
    old.write_bytes(b"%PDF-1.4 something else")
    assert look().problem == f"{old} is another file now."
    assert look(pdfs).file == pdfs / "scanned-memo.pdf"
    shutil.copy(pdfs / "scanned-memo.pdf", old)
    assert look().file == old
    assert "--pdfs" in document_files(None, tmp_path, ["0" * 16], ())["0" * 16].problem
