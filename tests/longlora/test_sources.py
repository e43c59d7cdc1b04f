"""Documents of files and folders."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longlora.errors import UserError
from longlora.prompts import plain_ids
from longlora.train.data.sources import documents, parts, text_files
from longlora.train.data.tokens import text_pieces


def read(*paths) -> dict[str, str]:
    return {d.name: "".join(d.parts) for d in documents(text_files(paths))}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_text("Text ä\n")
    (tmp_path / "b.MD").write_text("# Title\n")
    lines = "\n".join(json.dumps({"text": t, "other": 1}) for t in ("first", "", "third"))
    (tmp_path / "c.jsonl").write_text(lines + "\n\n")
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(b'{"text": "zipped"}\n'))
    rows = [{"n": i, "text": t} for i, t in enumerate(["one", None, "two"])]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "e.parquet")
    (tmp_path / "f.pdf").write_text("no text")
    return tmp_path


def test_every_kind_of_file(folder):
    found = {
        "b.MD": "# Title\n", "c.jsonl#1": "first", "c.jsonl#2": "", "c.jsonl#3": "third", "d.jsonl.gz#1": "zipped",
        "deep/a.txt": "Text ä\n", "e.parquet#1": "one", "e.parquet#2": "", "e.parquet#3": "two",
    }  # fmt: skip
    assert read(folder) == found
    assert read(folder / "deep" / "a.txt", folder / "e.parquet") == {
        "a.txt": "Text ä\n", "e.parquet#1": "one", "e.parquet#2": "", "e.parquet#3": "two",
    }  # fmt: skip


def test_empty_documents_count_and_have_no_tokens(folder, tokenizer):
    pieces = list(text_pieces(documents(text_files([folder / "c.jsonl"])), tokenizer))
    assert [(p.name, len(p.tokens) > 0, p.ends) for p in pieces] == [
        ("c.jsonl#1", True, True), ("c.jsonl#2", False, True), ("c.jsonl#3", True, True),
    ]  # fmt: skip
    assert pieces[0].tokens.tolist() == [*plain_ids(tokenizer, "first"), tokenizer.eos_token_id]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": 1}\n', "line 1: text is a int"),
        ("a.jsonl", b'{"text": "x"}\n{"body": "y"}\n', "line 2 has no key text"),
        ("a.jsonl", b"{\n", "line 1 is not JSON"),
        ("a.jsonl.gz", b"not zipped", "cannot be read"),
        ("a.txt", b"\xff\xfe", "cannot be read"),
        ("a.parquet", b"PAR1", "cannot be read"),
        ("a.pdf", b"x", "no known kind"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / name)
    assert caught.value.remedy


def test_a_parquet_file_needs_a_column_text(tmp_path):
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="lacks the column text"):
        read(tmp_path / "a.parquet")


def test_paths_without_texts(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match=r"no \.parquet|does not exist"):
            text_files([path])


@given(st.lists(st.text(alphabet="ab \n", max_size=30), max_size=8), st.integers(1, 40))
def test_parts_are_the_text_cut_at_line_ends(chunks, size):
    text = "".join(chunks)
    found = list(parts(chunks, size))
    assert "".join(found) == text and all(found)
    for left, right in pairwise(found):
        assert size <= len(left) <= 2 * size
        line = left.endswith("\n") and not left[-2:-1].isspace() and not right[0].isspace()
        assert line or (right[0] == " " and not left[-1].isspace()) or len(left) == 2 * size
    assert found == list(parts([text], size))  # however it was read


def test_parts_have_the_tokens_of_the_whole(tokenizer):
    text = (
        "It was the best of times,\nit was the worst\n\n of times. \n1859\n\n\nEnd.\n" * 30 + "No line  at all. " * 90
    )
    pieces = list(parts([text], 30))
    assert len(pieces) > 20
    assert [i for piece in pieces for i in plain_ids(tokenizer, piece)] == plain_ids(tokenizer, text)
