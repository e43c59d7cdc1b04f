"""What training reads from outside the store counts by content."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.config import parse
from flows.digest import digested
from flows.inputs import FileHashes
from flows.stages import gather
from longlora.errors import UserError
from pdf2txt.errors import UserError as DocumentsError


@pytest.fixture
def external(smollm2_dir, tmp_path):
    def of(dataset=None, **train):
        config = parse({"model": {"path": str(smollm2_dir)}, "train": train, "dataset": dataset or {}}, "test")
        return gather(config, FileHashes(None), tmp_path / "store", ["datasets_build", "train"])

    return of


def test_texts_count_by_content(external, tmp_path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.txt").write_text("one")
    (tmp_path / "t" / "note.pdf").write_text("not read")
    first = external(data="text", texts=[str(tmp_path / "t")])
    assert first.paths["train"] == {"text-0": tmp_path / "t"}
    (tmp_path / "t" / "note.pdf").write_text("changed")
    assert external(data="text", texts=[str(tmp_path / "t")]).content == first.content
    (tmp_path / "t" / "a.txt").write_text("two")
    assert external(data="text", texts=[str(tmp_path / "t")]).content["train"] != first.content["train"]
    with pytest.raises(UserError, match=r"train\.texts\.0"):
        external(data="text", texts=[str(tmp_path / "none")])


def test_template_files_count_by_content(external, tmp_path) -> None:
    file = tmp_path / "a.jinja"
    file.write_text("one")
    first = external(template=str(file), dataset={"template": str(file)})
    assert first.paths["train"]["template"] == first.paths["datasets_build"]["template"] == file
    file.write_text("two")
    second = external(template=str(file), dataset={"template": str(file)})
    assert second.content["train"] != first.content["train"]
    assert second.content["datasets_build"] != first.content["datasets_build"]
    assert "template" not in external(template="inst").paths["train"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", '[{"instruction": "a",', "not JSON"),
        ("a.csv", "Name a bird.,Heron.\nName a fish.,Pike.\n", "no field 'instruction'"),
        ("a.jsonl", '{"q": "a", "a": "b"}\n', "no field 'instruction'"),
        ("a.json", "[1, 2]", "int instead of an object"),
        ("a.jsonl", "", "has no rows"),
        ("folder", None, "import "),
    ],
)
def test_a_bad_import_is_told_before_the_first_stage(external, tmp_path, name, content, words) -> None:
    path = tmp_path / name
    path.mkdir() if content is None else path.write_text(content)
    with pytest.raises(DocumentsError, match=words) as caught:
        external(dataset={"imports": [{"path": str(path)}]})
    assert str(path) in str(caught.value) and caught.value.remedy


def test_a_bad_evaluation_file_is_told_before_the_first_stage(external, tmp_path) -> None:
    path = tmp_path / "held.json"
    path.write_text("[")
    with pytest.raises(DocumentsError, match="evaluation file"):
        external(dataset={"decontaminate": [str(path)]})


def test_a_template_is_digested_by_name_and_never_by_path() -> None:
    def of(template):
        return digested(parse({"model": {"name": "smollm2-135m-q4"}, "train": {"template": template}}, "test").train)

    assert of("inst")["template"] == "inst" and of(None)["template"] is None
    assert of("/a/x.jinja") == of("/b/y.jinja") and str(Path("x.jinja")) not in str(of("/a/x.jinja"))
    assert "texts" not in of("inst")
