"""The stage as a whole: what is on disk, what is reused, what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import TOPICS, KillingUnits, make_document, paper, write_input

from datasets_build import pool
from datasets_build.__main__ import main
from datasets_build.build import Job
from datasets_build.corpus import Corpus
from datasets_build.gates.scan import Scanner
from datasets_build.gates.settings import GatesSettings
from datasets_build.packs import Packs
from datasets_build.pool import Share, Task, Worker, make_units
from datasets_build.rows import COLUMNS
from datasets_build.select import divide_documents
from datasets_build.settings import DatasetSettings
from datasets_build.stage import identity
from datasets_build.view import diff, format_row, rows
from pdf2txt.errors import UserError
from pdf2txt.schema import Document
from pdf2txt.units import Units


def test_load_dataset_opens_the_output(build, tmp_path: Path) -> None:
    import datasets

    from datasets_build import publish

    built = build()
    again = build(work="again", seed=2)
    for one in (built, again):  # two folders called "output" must not share a cache entry
        loaded = datasets.load_dataset(str(one.output), cache_dir=str(tmp_path / "hf"))
        assert {split: len(rows) for split, rows in loaded.items()} == {
            "train": one.metrics["rows_train"],
            "validation": one.metrics["rows_validation"],
        }
        assert loaded["train"].column_names == list(COLUMNS)
        assert loaded["train"].features == publish.features()
        assert {r["id"] for split in loaded.values() for r in split} == {r["id"] for r in one.rows()}


def test_output_is_complete_and_consistent(build) -> None:
    bad = Document("f" * 64, "locked.pdf", "encrypted")
    built = build([*(paper(t) for t in TOPICS), bad])
    m, output = built.metrics, built.output
    stats = json.loads((output / "stats.json").read_text())
    assert m["rows"] == len(built.rows()) == sum(m["tasks"].values()) == stats["rows"]
    assert m["tokens"] == sum(r["n_tokens"] for r in built.rows())
    assert Counter(r["reason"] for r in built.rejects()) == m["rejects"]
    assert m["rejects"]["not-converted"] == 1
    assert (output / "lengths.png").read_bytes().startswith(b"\x89PNG")
    assert m["row_digest"] in (output / "README.md").read_text()
    assert len(m["tasks"]) >= 10
    assert all(n >= 15 for n in Counter(r["doc_ids"][0] for r in built.rows()).values())
    ids = [r["id"] for r in built.rows()]
    assert len(set(ids)) == len(ids)


def test_no_document_is_in_both_splits(build) -> None:
    built = build()
    splits = json.loads((built.output / "splits.json").read_text())
    assert set(splits) == {paper(t).doc_id for t in TOPICS}
    for split in ("train", "validation"):
        rows_of = built.rows(split)
        assert rows_of
        assert {d for r in rows_of for d in r["doc_ids"]} == {d for d, s in splits.items() if s == split}


def test_determinism_and_seeds(build) -> None:
    first, again = build(work="a"), build(work="b")
    assert again.rows() == first.rows()
    assert again.metrics["row_digest"] == first.metrics["row_digest"]
    assert all(again.reused()) and not any(first.reused())
    other = build(work="c", seed=2)
    assert other.metrics["row_digest"] != first.metrics["row_digest"]


def test_only_what_is_new_is_computed(build) -> None:
    # All papers hold some of the same sentences, and which of two near duplicates stays depends on what else is there.
    keep = {"gates": {"levels": {"near-duplicates": "warn"}}}
    first = build([paper(t) for t in TOPICS[:3]], work="a", recipes=["quote", "title"], **keep)
    more_documents = build([paper(t) for t in TOPICS[:4]], work="b", recipes=["quote", "title"], **keep)
    assert Counter(more_documents.reused()) == {True: 6, False: 2}
    more_recipes = build([paper(t) for t in TOPICS[:3]], work="c", recipes=["quote", "title", "section"], **keep)
    assert Counter(more_recipes.reused()) == {True: 6, False: 3}
    known = {r["id"] for r in first.rows()}
    assert known <= {r["id"] for r in more_documents.rows()}
    assert known <= {r["id"] for r in more_recipes.rows()}


def test_a_kill_in_the_middle_changes_nothing(build, monkeypatch) -> None:
    from datasets_build import publish

    undisturbed = build(work="a")

    def die(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(publish, "write_rejects", die)
    with pytest.raises(KeyboardInterrupt):
        build(work="b")
    monkeypatch.undo()
    resumed = build(work="b")
    assert resumed.metrics["row_digest"] == undisturbed.metrics["row_digest"]
    assert not (resumed.output.parent / "assembling").exists()
    assert build(work="b").metrics["row_digest"] == undisturbed.metrics["row_digest"]  # run again after the end


def test_workers_give_the_same_rows(build, monkeypatch) -> None:
    monkeypatch.setattr(pool, "START_TOKENS", 0)
    settings = {"recipes": ["quote"], "lengths": [{"tokens": 1000}], "per_document": 2}
    here = build(work="a", **settings)
    for unit in (here.output.parent.parent / "units").glob("*/*"):
        unit.unlink()
    there = build(work="b", workers=2, **settings)
    assert there.metrics["row_digest"] == here.metrics["row_digest"]
    assert not any(there.reused())


def test_a_few_documents_start_no_process(build, monkeypatch) -> None:
    def start(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(pool, "ProcessPoolExecutor", start)
    assert build(workers=2).metrics["rows"]
    monkeypatch.setattr(pool, "START_TOKENS", 0)
    with pytest.raises(AssertionError, match="was started"):
        build(work="b", workers=2, seed=2)


@pytest.mark.parametrize(("documents", "chunks"), [(9, [5, 4]), (32, [16, 16]), (40, [16, 16, 8])])
def test_documents_are_shared_out_to_all_processes(monkeypatch, documents: int, chunks: list[int]) -> None:
    given: list[int] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, processes: int, *_: object, **__: object) -> None:
            super().__init__(processes)

        def submit(self, make: object, tasks: Sequence[int]) -> Future[list[list[object]]]:  # type: ignore[override]
            given.append(len(tasks))
            return super().submit(lambda: [[task] for task in tasks])

    monkeypatch.setattr(pool, "ProcessPoolExecutor", Pool)
    made = list(make_units(iter(range(documents)), SimpleNamespace(few=8), 2))  # type: ignore[arg-type]
    assert made == [(task, [task]) for task in range(documents)] and given == chunks


def test_a_killed_worker_is_an_error_with_a_remedy(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(pool, "START_TOKENS", 0)
    corpus = Corpus(write_input(tmp_path, [paper(t) for t in TOPICS]) / "documents.parquet")
    job = Job(DatasetSettings(recipes=["title"]), "digest")  # type: ignore[list-item]
    packs = Packs(KillingUnits(tmp_path, "rows"))
    worker = Worker(job, tmp_path, packs, corpus, Scanner(GatesSettings(), 1024, packs, Units(tmp_path, "gates")))
    tasks = [Task(k, (Share("0" * 64, ("title",), ()),)) for k in corpus.known()]
    with pytest.raises(UserError, match="one of 2 worker processes was killed") as caught:
        list(make_units(tasks, worker, 2))
    assert "dataset.workers lower than 2" in caught.value.remedy


def test_duplicates(build) -> None:
    twin = replace(paper("joinery"), sha256="0" * 64)  # the same text from another file
    built = build([paper("joinery"), twin, paper("glazing")])
    assert [r["detail"] for r in built.rejects() if r["reason"] == "duplicate-document"]
    splits = json.loads((built.output / "splits.json").read_text())
    assert splits[twin.doc_id] == splits[paper("joinery").doc_id]
    kept = build([paper("joinery"), twin, paper("glazing")], work="b", exclude_duplicates=False)
    assert kept.metrics["rows"] > built.metrics["rows"]
    train = {r["instruction"] for r in kept.rows("train")}
    assert not train & {r["instruction"] for r in kept.rows("validation")}


def test_min_tokens_rejects_short_rows(build) -> None:
    built = build(recipes=["title", "quote"], min_tokens=400)
    assert all(r["n_tokens"] >= 400 for r in built.rows())


@pytest.mark.parametrize(
    ("documents", "settings", "words"),
    [
        ([make_document([("text", "Too short.")])], {}, "no rows"),
        ([Document("f" * 64, "a.pdf", "empty")], {}, "no rows"),
        ([paper("joinery")], {}, "validation split has 0 rows"),
        ([paper("joinery"), paper("glazing")], {"min_validation_rows": 500}, "validation split has"),
        ([paper("joinery"), paper("glazing")], {"min_rows": 5000}, "min_rows"),
    ],
)
def test_too_little_is_an_error_with_a_remedy(build, documents, settings, words) -> None:
    with pytest.raises(UserError, match=words) as caught:
        build(documents, **settings)
    assert caught.value.remedy


def test_one_document_without_validation(build) -> None:
    built = build([paper("joinery")], validation_share=0)
    assert built.metrics["rows_validation"] == 0
    assert not list((built.output / "data").glob("validation-*"))


def test_gates_name_the_row(build, monkeypatch) -> None:
    from datasets_build import build as build_module
    from datasets_build.gates.base import GateError

    make_row = build_module.make_row
    monkeypatch.setattr(build_module, "make_row", lambda **row: make_row(**{**row, "n_tokens": 99_999}))
    with pytest.raises(GateError, match=r"row [0-9a-f]{16} .*99999 tokens") as caught:
        build(recipes=["title"])
    assert "dataset.recipes" in caught.value.remedy


def test_split_takes_whole_documents_near_the_share() -> None:
    rows = Counter({f"d{i}": 10 for i in range(20)})
    for seed in range(5):
        splits = divide_documents(rows, DatasetSettings(seed=seed, validation_share=0.2))
        assert Counter(splits.values()) == {"train": 16, "validation": 4}
    # One large document never swallows the training set; one of two is held out.
    assert divide_documents(Counter(a=100, b=6), DatasetSettings()) == {"a": "train", "b": "validation"}


def test_settings_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValueError, match="did you mean 'quote'"):
        DatasetSettings.model_validate({"recipes": ["quotes"]})
    with pytest.raises(ValueError, match="listed twice"):
        DatasetSettings.model_validate({"recipes": ["quote", {"name": "quote"}]})
    with pytest.raises(ValueError, match="Extra inputs"):
        DatasetSettings.model_validate({"max_token": 5})
    chosen = DatasetSettings.model_validate({"recipes": ["title", {"name": "quote", "per_document": 9}]})
    assert chosen.chosen_recipes() == {"quote": 9, "title": 6}
    assert identity(chosen)["recipes"] == {"quote": 1, "title": 1}


def test_view_and_diff(build) -> None:
    a, b = build(work="a", recipes=["quote"]), build(work="b", recipes=["quote", "title"])
    shown = rows(a.output, 3, seed=7)
    assert len(shown) == 3 and shown == rows(a.output, 3, seed=7)
    assert shown[0]["id"] in format_row(shown[0])
    changed = diff(a.output, b.output)
    assert changed["tasks"]["title"]["only_b"] == len(changed["only_b"]) == 5
    assert not changed["only_a"] and changed["common"] == a.metrics["rows"]
    with pytest.raises(UserError):
        rows(a.output / "data", 1)


def test_another_licence_makes_no_row_anew_and_diff_tells(build) -> None:
    first = build(work="a", recipes=["title", "needle"], license="cc-by-4.0", validation_share=0)
    second = build(work="b", recipes=["title", "needle"], license="mit", validation_share=0)
    assert all(second.reused()) and {r["license"] for r in second.rows()} == {"mit"}
    assert first.metrics["row_digest"] != second.metrics["row_digest"]
    found = diff(first.output, second.output)
    assert not found["only_a"] and found["changed"] == {"license": first.metrics["rows"]}


def test_the_card_tells_where_answers_come_from_and_of_which_files(build) -> None:
    built = build(recipes=["title", "needle"], license="cc0-1.0", validation_share=0)
    by_source = Counter(r["answer_source"] for r in built.rows())
    card = (built.output / "README.md").read_text()
    assert set(by_source) == {"document", "planted"}
    assert f"- `document`, {by_source['document']} rows: the answer stands in the document" in card
    assert f"- `planted`, {by_source['planted']} rows: the answer stands in a sentence that was put" in card
    assert all(f"| {paper(t).doc_id} | {t}.pdf | cc0-1.0 |" in card for t in TOPICS)


def test_alone_from_the_shell(build, smollm2_dir: Path, tmp_path: Path) -> None:
    built = build(recipes=["title"])
    command = [
        sys.executable, "-m", "datasets_build", "--documents", str(tmp_path / "work-in"),
        "--model", str(smollm2_dir), "--out", str(tmp_path / "alone"), "--set", "recipes=[title]",
        "--set", "max_tokens=1024",
        "--set", "min_validation_rows=1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["row_digest"] == built.metrics["row_digest"]
    assert (tmp_path / "alone" / "README.md").is_file()
    wrong = subprocess.run([*command, "--set", "min_rows=999"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1 and "what to do" in wrong.stderr and "Traceback" not in wrong.stderr


def test_wrong_input_is_told_before_anything_is_built(smollm2_dir: Path, tmp_path: Path, capsys) -> None:
    write_input(tmp_path / "in", [paper("joinery")])
    (tmp_path / "bad.json").write_text('[{"instruction": "a"')
    (tmp_path / "list.yaml").write_text("[1]")
    (tmp_path / "broken.yaml").write_text("a: [")
    junk, foreign = tmp_path / "junk" / "documents.parquet", tmp_path / "foreign" / "documents.parquet"
    for file in (junk, foreign):
        file.parent.mkdir()
    junk.write_bytes(b"junk")
    pq.write_table(pa.table({"text": ["a"]}), foreign)

    def call(*changes: object, documents: Path = tmp_path / "in", model: Path = smollm2_dir) -> str:
        args = ["--documents", documents, "--model", model, "--out", tmp_path / "out", *changes]
        assert main([str(a) for a in args]) == 2
        error = capsys.readouterr().err
        assert "what to do: " in error and "pydantic" not in error
        assert not list(tmp_path.glob("out*"))
        return error

    assert "--documents /nope does not exist" in call(documents=Path("/nope"))
    assert f"{tmp_path} has no documents.parquet" in call(documents=tmp_path)
    assert "bad.json has no documents.parquet" in call(documents=tmp_path / "bad.json")
    assert f"{junk} is not Parquet" in call(documents=junk)
    assert f"{foreign} was not made by pdf2txt (no column blocks" in call(documents=foreign.parent)
    assert str(tmp_path / "none") in call(model=tmp_path / "none")
    assert "no such file" in call("--set", f"imports=[path: {tmp_path}/none.json]")
    assert "bad.json, line 1" in call("--set", f"imports=[path: {tmp_path}/bad.json]")
    assert "does not exist" in call("--set", f"decontaminate=[{tmp_path}/none.txt]")
    assert "evaluation file" in call("--set", f"decontaminate=[{tmp_path}/bad.json]")
    assert "unknown key 'max_token', did you mean 'max_tokens'?" in call("--set", "max_token=5")
    assert "did you mean 'gates.similarity'?" in call("--set", "gates.similarty=0.5")
    assert "max_tokens: " in call("--set", "max_tokens=many")
    assert "is not KEY=VALUE" in call("--set", "max_tokens")
    assert "has no keys below it" in call("--set", "max_tokens=5", "--set", "max_tokens.x=5")
    assert "not YAML" in call("--set", "seed=[")
    for name in ("none.yaml", "list.yaml", "broken.yaml"):
        call("--settings", tmp_path / name)


def test_out_is_never_a_folder_of_something_else(build, smollm2_dir: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    earlier = build(recipes=["title"])

    def run_into(out: str) -> int:
        settings = ["recipes=[title]", "max_tokens=1024", "min_validation_rows=1"]
        pairs = [word for pair in settings for word in ("--set", pair)]
        documents = tmp_path / "work-in"
        return main(["--documents", str(documents), "--model", str(smollm2_dir), "--out", out, *pairs])

    papers = tmp_path / "papers"
    papers.mkdir()
    (papers / "mine.pdf").write_text("x")
    monkeypatch.chdir(papers)
    for out in (str(papers), ".", str(papers / "mine.pdf"), "/"):
        assert run_into(out) == 2
        assert "what to do" in capsys.readouterr().err
    assert (papers / "mine.pdf").read_text() == "x" and not (tmp_path / "papers.work").exists()

    for empty_or_dataset in range(2):
        fresh = tmp_path / "fresh"
        fresh.mkdir(exist_ok=True)
        monkeypatch.chdir(fresh)
        assert run_into(".") == 0, empty_or_dataset
        assert json.loads(capsys.readouterr().out)["row_digest"] == earlier.metrics["row_digest"]
        assert (fresh / "stats.json").is_file()


def test_files_are_as_hugging_face_writes_them(build) -> None:
    import yaml

    built = build(recipes=["title", "quote"])
    for file in (built.output / "data").iterdir():
        with pq.ParquetFile(file) as parquet:
            metadata = parquet.metadata.metadata
            assert json.loads(metadata[b"huggingface"])["info"]["features"]["n_tokens"]["dtype"] == "int32"
            assert json.loads(metadata[b"content_defined_chunking"])["min_chunk_size"] == 262144
            assert parquet.metadata.row_group(0).column(0).has_offset_index
    head = yaml.safe_load((built.output / "README.md").read_text().split("---")[1])
    assert head["language"] == ["en"] and head["size_categories"] == ["n<1K"]
    sizes = {split["name"]: split["num_examples"] for split in head["dataset_info"]["splits"]}
    assert sizes == {"train": built.metrics["rows_train"], "validation": built.metrics["rows_validation"]}
    stats = json.loads((built.output / "stats.json").read_text())
    assert stats["settings"]["recipes"][0]["name"] == "title" and "workers" not in stats["settings"]
    assert str(built.output.parent) not in json.dumps(stats)
    assert "max_tokens: 1024" in (built.output / "README.md").read_text()
