"""Imported rows: many formats, whole or rejected, and messages that name file and line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets_build.conversations import conversation_pairs
from datasets_build.imports import common_lines, pairs
from datasets_build.rows import import_group
from datasets_build.settings import ImportSettings
from pdf2txt.errors import UserError

ROWS = [
    {"instruction": "Name a colour.", "input": "", "output": "Blue."},
    {"instruction": "Translate to French.", "input": "Good morning", "output": "Bonjour"},
    {"instruction": "Name a number.", "output": "Seven."},
]


def write(path: Path, rows: list) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            names = ["instruction", "input", "output"]
            writer = csv.DictWriter(file, names, delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.parquet", "a.csv", "a.tsv"])
def test_formats_are_told_by_content_and_read_row_for_row(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, ROWS)
    renamed = path.rename(tmp_path / "data")
    assert [(i, o) for _, i, o in pairs(renamed, ImportSettings(path=renamed), "0")] == [
        ("Name a colour.", "Blue."),
        ("Translate to French.\n\nGood morning", "Bonjour"),
        ("Name a number.", "Seven."),
    ]


def test_rows_in_the_dataset(build, tmp_path: Path) -> None:
    rows = [
        *ROWS,
        {"instruction": "Too long. " * 400, "output": "Yes."},
        {"instruction": "No answer?", "output": ""},
        {"instruction": "name a  COLOUR.", "output": "blue."},
    ]
    path = write(tmp_path / "qa.json", rows)
    built = build(imports=[{"path": str(path), "license": "cc0-1.0"}], validation_share=0.2)
    imported = [r for r in built.rows() if r["task"] == "import"]
    assert sorted(r["output"] for r in imported) == ["Blue.", "Bonjour", "Seven."]
    assert {r["license"] for r in imported} == {"cc0-1.0"}
    assert {r["answer_source"] for r in imported} == {"import"}
    reasons = {r["reason"]: r["detail"] for r in built.rejects() if r["task"] == "import"}
    assert reasons["too-long"].startswith("row 4: ") and reasons["empty"] == "row 5" and "duplicate" in reasons
    assert "cc0-1.0" in (built.output / "README.md").read_text()


def test_other_column_names(tmp_path: Path) -> None:
    path = write(tmp_path / "qa.jsonl", [{"q": "Why?", "a": "So."}])
    with pytest.raises(UserError, match=r"row 1: no field 'instruction'.*'a', 'q'") as caught:
        list(pairs(path, ImportSettings(path=path), "0"))
    assert "dataset.imports[0].fields" in caught.value.remedy
    named = ImportSettings.model_validate({"path": path, "fields": {"instruction": "q", "output": "a"}})
    assert list(pairs(path, named, "0")) == [(1, "Why?", "So.")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[{"instruction": "a",\n "output": }]', "line 2"),
        ('{"instruction": "a", "output": "b"}\nnonsense\n', "line 2: not JSON"),
        ("[1, 2]", "row 1: int instead of an object"),
        ('[{"instruction": ["a"], "output": "b"}]', "'instruction' is a list"),
        ("PAR1 but not really", "not Parquet"),
        ("instruction,output\na,b,c\n", "row 1: more cells"),
        ('instruction,output\na,"b"c\n', "line 2: not CSV"),
        ('[{"messages": "hello"}]', "row 1, 'messages': a conversation is a str"),
        ('[{"conversations": [{"value": "a"}]}]', "neither role nor from"),
        (b"\xff\xfe\x00[", "not UTF-8"),
        ('[{"instruction": "Is it?", "output": true}]', "'output' is a bool, not text"),
        ("", "has no rows"),
        ("\n\n", "has no rows"),
        ("[]", "has no rows"),
        ("instruction,output\n", "has no rows"),
    ],
)
def test_bad_files(tmp_path: Path, content: str | bytes, words: str) -> None:
    path = tmp_path / "qa"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=words) as caught:
        list(pairs(path, ImportSettings(path=path), "0"))
    assert str(path) in str(caught.value) and caught.value.remedy


def test_parquet_that_is_damaged_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "qa.parquet"
    rows = [{"instruction": f"Question {i}? {i * 7919 % 1009}", "output": f"Answer {i}."} for i in range(600)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=300)
    with pq.ParquetFile(path) as file:
        start = file.metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 200] = b"\xff" * 200
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged after row ") as caught:
        list(pairs(path, ImportSettings(path=path), "0"))
    assert str(path) in str(caught.value) and caught.value.remedy


def test_an_empty_cell_of_pandas_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "qa.jsonl"
    path.write_text('{"instruction": "Why?", "input": NaN, "output": NaN}\n')
    assert list(pairs(path, ImportSettings(path=path), "0")) == [(1, "Why?", "")]
    table = pa.table({"instruction": ["Why?", "How many?"], "output": [float("nan"), 7.0]})
    pq.write_table(table, tmp_path / "qa.parquet")
    found = list(pairs(tmp_path / "qa.parquet", ImportSettings(path=tmp_path / "qa.parquet"), "0"))
    assert found == [(1, "Why?", ""), (2, "How many?", "7.0")]


def test_a_row_with_half_a_character_is_a_reject(build, tmp_path: Path) -> None:
    half = {"instruction": f"half \ud83d char {'word ' * 50}", "output": "Yes."}
    chat = {"messages": [{"role": "user", "content": "Whole?"}, {"role": "assistant", "content": "No: \udc00"}]}
    path = write(tmp_path / "qa.jsonl", [ROWS[0], half, chat, ROWS[2]])
    settings = {"imports": [{"path": str(path)}], "recipes": ["title"], "validation_share": 0.2}
    built = build(**settings)
    assert {r["output"] for r in built.rows() if r["task"] == "import"} == {"Blue.", "Seven."}
    rejects = {r["detail"].split(":")[0]: r for r in built.rejects() if r["reason"] == "not-unicode"}
    assert set(rejects) == {"row 2", "row 3"} and built.metrics["rejects"]["not-unicode"] == 2
    assert "half \\ud83d char" in rejects["row 2"]["detail"] and "\\udc00" in rejects["row 3"]["detail"]
    assert all(build(**settings).reused())


def test_missing_file(build, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        build(imports=[{"path": str(tmp_path / "absent.json")}])


def test_questions_on_one_long_text_share_a_group() -> None:
    text = "A long paragraph of a paper that is asked about twice, " * 5
    one = import_group(f"Below is a paper.\n{text}\nNow answer.\nWhat is it about?")
    assert one == import_group(f"Below is a paper.\n{text}\nNow answer.\nWho wrote it?")
    assert one != import_group("What is it about?")


def test_a_preamble_or_a_short_line_makes_no_group(build, tmp_path: Path) -> None:
    short = [import_group(f"Answer in one short and polite sentence please.\n{q}") for q in ("Why?", "Who?")]
    assert len(set(short)) == 2

    preamble = "You are an assistant who answers with care. " * 10
    texts = ["One long paragraph of the first paper. " * 8, "Another long paragraph of the second paper. " * 8]
    rows = [
        {"instruction": f"{preamble}\n{text}\nQuestion {i}?", "output": f"Answer {t} {i}."}
        for t, text in enumerate([*texts, *("" for _ in range(3))])
        for i in range(2)
    ]
    path = write(tmp_path / "qa.json", rows)
    assert len(common_lines(path, ImportSettings(path=path), "0")) == 1
    built = build(imports=[{"path": str(path)}], recipes=["title"])
    groups = {r["output"]: r["split_group"] for r in built.rows() if r["task"] == "import"}
    assert groups["Answer 0 0."] == groups["Answer 0 1."] != groups["Answer 1 0."] == groups["Answer 1 1."]
    assert len(set(groups.values())) == 4  # the two papers, and the two questions without one


def test_longalpaca_row_for_row(build, tmp_path: Path) -> None:
    """LongAlpaca's form: a list of instruction and output, papers of many thousand characters, no input."""
    paper = "A paragraph of the paper, with its own words and \u201cquotes\u201d.\n" * 40
    rows = [
        {"instruction": f"Below is a paper. {i}\n{paper}\n Now the material ends. What is number {i} about? ",
         "output": f" It is about number {i}.\nAnd nothing else.\n"}
        for i in range(300)
    ]  # fmt: skip
    rows[7]["instruction"] = rows[7]["instruction"] * 40  # longer than the window
    rows[9]["output"] = " \n"
    path = write(tmp_path / "LongAlpaca.json", rows)
    built = build(
        [], recipes=["title"], imports=[{"path": str(path), "kind": "long", "license": "cc-by-nc-4.0"}],
        gates={"levels": {"near-duplicates": "off"}}, validation_share=0,
    )  # fmt: skip
    got = {(r["instruction"], r["output"]) for r in built.rows()}
    assert got == {(r["instruction"], r["output"]) for i, r in enumerate(rows) if i not in (7, 9)}
    assert sorted((r["reason"], r["detail"].split(":")[0]) for r in built.rejects()) == [
        ("empty", "row 10"),
        ("too-long", "row 8"),
    ]
    assert len(built.rows()) + len(built.rejects()) == len(rows)


CHAT = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "Name a bird."},
    {"from": "gpt", "value": "Heron."},
    {"from": "human", "value": "And what does it eat?"},
    {"from": "gpt", "value": "Fish."},
]


def test_conversations(tmp_path: Path) -> None:
    messages = [
        {"role": {"human": "user", "gpt": "assistant"}.get(t["from"], t["from"]), "content": t["value"]} for t in CHAT
    ]
    share = write(tmp_path / "share.json", [{"id": "1", "conversations": CHAT}, {"conversations": CHAT[:2]}])
    chat = write(tmp_path / "chat.jsonl", [{"messages": messages}])
    first = [(1, "Be brief.\n\nName a bird.", "Heron.")]
    assert list(pairs(share, ImportSettings(path=share), "0")) == [*first, (2, "", "")]
    assert list(pairs(chat, ImportSettings(path=chat), "0")) == first
    each = ImportSettings(path=chat, turns="each")
    assert list(pairs(chat, each, "0")) == [
        *first,
        (1, "Be brief.\n\nUser: Name a bird.\n\nAssistant: Heron.\n\nUser: And what does it eat?", "Fish."),
    ]


def test_conversations_that_are_not_plain_turns() -> None:
    def pairs_of(*turns: tuple[str, object]) -> list[tuple[str, str]]:
        return conversation_pairs([{"role": role, "content": text} for role, text in turns], "each")

    assert pairs_of(("assistant", "Hello!"), ("user", "Hi."), ("assistant", "Yes?")) == [("Hi.", "Yes?")]
    assert pairs_of(("user", "One."), ("user", "Two."), ("assistant", "Three.")) == [("One.\n\nTwo.", "Three.")]
    assert pairs_of(("user", "Weather?"), ("assistant", None), ("tool", "rain"), ("assistant", "Rain.")) == []
    assert pairs_of(("user", [{"type": "text", "text": "See."}]), ("assistant", "I see.")) == [("See.", "I see.")]
    assert pairs_of(("user", [{"type": "image"}]), ("assistant", "A cat.")) == []


def test_turns_of_a_conversation_are_in_one_split(build, tmp_path: Path) -> None:
    chats = [
        {"messages": [
            message
            for k in range(4)
            for message in (
                {"role": "user", "content": f"Question {k} of conversation {i}: what is {i * 17 + k}?"},
                {"role": "assistant", "content": f"It is the number {i * 17 + k} of list {i}."},
            )
        ]}
        for i in range(20)
    ]  # fmt: skip
    path = write(tmp_path / "chat.jsonl", chats)
    built = build(
        [], recipes=["title"], imports=[{"path": str(path), "turns": "each"}], validation_share=0.3,
        gates={"levels": {"near-duplicates": "off"}},
    )  # fmt: skip
    assert len(built.rows()) == 80 and built.rows("validation") and built.rows("train")
    for i in range(20):
        mine = [r["split_group"] for r in built.rows() if f"of list {i}." in r["output"]]
        assert len(mine) == 4 and len(set(mine)) == 1
    held = {r["split_group"] for r in built.rows("validation")}
    assert not held & {r["split_group"] for r in built.rows("train")}


def _dataset_folder(folder: Path) -> Path:
    """As it lies on the hub: a card with a licence, two splits."""
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(
        "---\nlicense: cc-by-4.0\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - {split: train, path: data/train.jsonl}\n  - {split: test, path: data/test.jsonl}\n---\n# Rows\n"
    )
    write(folder / "data" / "train.jsonl", ROWS[:2])
    write(folder / "data" / "test.jsonl", ROWS[2:])
    return folder


def test_a_folder_that_load_dataset_opens(build, tmp_path: Path) -> None:
    folder = _dataset_folder(tmp_path / "qa")
    built = build(imports=[{"path": str(folder)}], recipes=["title"], validation_share=0.2)
    imported = [r for r in built.rows() if r["task"] == "import"]
    assert {r["output"] for r in imported} == {"Blue.", "Bonjour"}
    assert {r["license"] for r in imported} == {"cc-by-4.0"}
    assert "| cc-by-4.0 | 2 |" in (built.output / "README.md").read_text()
    named = ImportSettings.model_validate({"path": folder, "split": "test"})
    assert [o for _, _, o in pairs(folder, named, "0")] == ["Seven."]
    with pytest.raises(UserError, match="split 'dev'") as caught:
        list(pairs(folder, ImportSettings(path=folder, split="dev"), "0"))
    assert "set split" in caught.value.remedy


def test_a_hub_dataset_that_is_not_to_be_had(build) -> None:
    with pytest.raises(UserError, match="import hub: 'nobody/no-such-rows' is not to be had") as caught:
        build(imports=[{"hub": "nobody/no-such-rows"}], recipes=["title"])
    assert "name its folder as path" in caught.value.remedy
    with pytest.raises(ValueError, match="either path or hub"):
        ImportSettings.model_validate({})
