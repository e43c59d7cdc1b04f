"""The gates: each catches what was planted, says so in rejects.parquet, and passes what is good."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import TOPICS, make_document, paper
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_build.gates import decontaminate, near, pii
from datasets_build.gates.base import GATES, GateError
from datasets_build.gates.leakage import Leakage
from datasets_build.gates.rows import problems
from datasets_build.gates.settings import KINDS, GatesSettings
from datasets_build.gates.sketch import Sketches, sketch
from datasets_build.rows import PLANTED, make_row
from datasets_build.settings import DatasetSettings
from pdf2txt.errors import UserError
from pdf2txt.units import Units

PASSAGE = (
    "The lighthouse keeper counted seventeen grey herons on the sandbank before the tide came in and covered "
    "every one of their tracks."
)
GOOD = [
    {"instruction": "Name three tools that a bookbinder uses every day.", "output": "A bone folder, an awl, a press."},
    {"instruction": "How long does hide glue keep once it was heated?", "output": "About a day, then it smells."},
    {"instruction": "Why are boards marked with a year in old stores?", "output": "So that the driest are used first."},
    {"instruction": "What is a scarf joint, in one sentence of plain words?", "output": "Two tapered ends glued flat."},
]


def written(path: Path, rows: list[dict[str, str]]) -> dict[str, str]:
    path.write_text(json.dumps(rows))
    return {"path": str(path)}


def caught(built, reason: str) -> list[dict[str, str]]:
    return [r for r in built.rejects() if r["reason"] == reason]


def gate(built, name: str) -> dict:
    stats = json.loads((built.output / "stats.json").read_text())
    return next(g for g in stats["gates"] if g["gate"] == name)


def test_what_was_planted_is_caught_with_its_reason(build, tmp_path: Path) -> None:
    evaluation = tmp_path / "evaluation.jsonl"
    evaluation.write_text(json.dumps({"input": [f"“{PASSAGE.upper()}”"], "outputs": ["seventeen"]}) + "\n")
    planted = [
        {"instruction": "Why are boards marked with a year in old stores?",
         "output": "So that the driest are used first!  "},  # exact but for its end
        {"instruction": "Could you tell me: how long does hide glue keep once it was heated?",
         "output": "About a day, then it smells."},  # near
        {"instruction": f"Read this.\n{PASSAGE}\nHow many herons were there?", "output": "17"},
        {"instruction": "word " * 3000, "output": "Too long."},
        {"instruction": "Whom do I ask about the press?", "output": "Write to ada.example@example.org about it."},
    ]  # fmt: skip
    built = build(
        recipes=["title"],
        imports=[written(tmp_path / "rows.json", [*GOOD, *planted])],
        decontaminate=[evaluation],
        gates={"levels": {"pii": "drop"}, "similarity": 0.6},
        validation_share=0.3,
    )
    imported = {r["output"] for r in built.rows() if r["task"] == "import"}
    assert imported == {row["output"] for row in GOOD}
    near_ones = caught(built, "near-duplicate")
    assert len(near_ones) == 2 and all("% like row" in r["detail"] for r in near_ones)
    (hit,) = caught(built, "decontamination")
    assert "evaluation.jsonl, record 1: “the lighthouse keeper counted" in hit["detail"]
    (long,) = caught(built, "too-long")
    assert long["detail"].startswith("row 8: ")
    (address,) = caught(built, "pii")
    assert "1 email" in address["detail"] and "ada" not in address["detail"]
    assert gate(built, "decontamination")["found"] == gate(built, "pii")["found"] == 1
    card = (built.output / "README.md").read_text()
    assert "| decontamination | drop | 1 |" in card
    assert built.metrics["gates"]["near-duplicates"] == 2


def test_levels(build, tmp_path: Path) -> None:
    rows = [*GOOD, {"instruction": "Whom do I ask about the press?", "output": "Write to ada.example@example.org."}]
    imports = [written(tmp_path / "rows.json", rows)]
    warned = build(recipes=["title"], imports=imports, work="a")
    messages = [fields["message"] for event, fields in warned.events if event == "warning"]
    assert any("gate pii: 1 found, first: row " in m for m in messages)
    assert any("ada.example@example.org" in r["output"] for r in warned.rows())

    with pytest.raises(GateError, match=r"gate pii.*1 found\n  row [0-9a-f]{16} \(task import") as stopped:
        build(recipes=["title"], imports=imports, gates={"levels": {"pii": "error"}}, work="b")
    assert "dataset.gates.levels.pii" in stopped.value.remedy

    masked = build(recipes=["title"], imports=imports, gates={"levels": {"pii": "mask"}}, work="c")
    (row,) = [r for r in masked.rows() if "Whom" in r["instruction"]]
    (before,) = [r for r in warned.rows() if "Whom" in r["instruction"]]
    assert row["output"] == "Write to [email]." and 0 < row["n_tokens"] < before["n_tokens"]
    assert row["id"] != before["id"]
    again = build(recipes=["title"], imports=imports, gates={"levels": {"pii": "mask"}}, work="d")
    assert again.metrics["row_digest"] == masked.metrics["row_digest"] and all(again.reused())

    off = build(recipes=["title"], imports=imports, gates={"levels": {"pii": "off"}}, work="e")
    assert "pii" not in off.metrics["gates"]


def test_a_rebuild_looks_at_new_rows_only(build) -> None:
    def looks(built) -> list[bool]:
        return [f["reused"] for e, f in built.events if e == "unit" and f["kind"] == "gates"]

    assert not any(looks(build([paper(t) for t in TOPICS[:3]], recipes=["title"], work="a")))
    # Of each document, a look at its text and one at its rows.
    again = looks(build([paper(t) for t in TOPICS[:4]], recipes=["title"], work="b"))
    assert sorted(again) == [False] * 2 + [True] * 6
    # Gates that look for something else look again, at rows that are there.
    other = build([paper(t) for t in TOPICS[:4]], recipes=["title"], gates={"pii": ["email"]}, work="c")
    assert sorted(looks(other)) == [False] * 4 + [True] * 4 and not other.metrics["units_made"]


def _nearly(topic: str):
    """A paper, and the same with one more paragraph and another title page."""
    first = paper(topic)
    pieces = [(b.kind, first.text[b.start : b.end]) for b in first.blocks]
    more = ("text", f"Since this was first printed, one more workshop has told us about its {topic} in a letter.")
    return first, make_document([pieces[0], *pieces[2:], more], name=f"{topic}-again.pdf")


@pytest.mark.parametrize("level", ["warn", "drop", "error", "off"])
def test_near_duplicate_documents(build, level: str) -> None:
    one, other = _nearly("glazing")
    documents = [one, other, *(paper(t) for t in ("joinery", "basketry"))]
    settings = {"recipes": ["quote", "title"], "gates": {"levels": {"near-duplicate-documents": level}}}
    if level == "error":
        with pytest.raises(GateError, match=r"near-duplicate-documents.*1 found\n  document [0-9a-f]{16}"):
            build(documents, **settings)
        return
    for seed in range(4):
        built = build(documents, work=f"w{seed}", seed=seed, **settings)
        splits = json.loads((built.output / "splits.json").read_text())
        pair = sorted((one.doc_id, other.doc_id))
        if level == "drop":
            assert pair[0] in splits and pair[1] not in splits
            assert [r["doc_id"] for r in caught(built, "near-duplicate-document")] == [pair[1]]
            assert not any(pair[1] in r["doc_ids"] for r in built.rows())
        elif level == "warn":
            assert splits[pair[0]] == splits[pair[1]]
            groups = {r["split_group"] for r in built.rows() if r["doc_ids"][0] in pair}
            assert groups == {pair[0]}
            assert gate(built, "near-duplicate-documents")["found"] == 1


def test_near_duplicate_documents_are_no_company(build) -> None:
    """Beside its near duplicate, a question about a document would have two answers."""
    one, other = _nearly("glazing")
    documents = [one, other, *(paper(t) for t in ("joinery", "basketry", "thatching"))]
    pair = {one.doc_id, other.doc_id}
    built = build(documents, recipes=["quote", "which_document"], lengths=[{"tokens": 1000}], max_tokens=1024)
    shown = [set(row["doc_ids"]) for row in built.rows()]
    assert max(map(len, shown)) > 1 and not any(pair <= ids for ids in shown)
    assert any(pair & ids for ids in shown)
    splits = json.loads((built.output / "splits.json").read_text())
    for split in ("train", "validation"):
        assert all(splits[d] == split for row in built.rows(split) for d in row["doc_ids"])


def test_a_planted_answer_stands_in_its_context_and_has_no_evidence() -> None:
    row = make_row(
        instruction="The code is 77. What is the code?", output="77", task="needle", n_tokens=9, source_sha256="0",
        answer_source=PLANTED, split_group="a", doc_ids=("a", "b"),
    )  # fmt: skip
    assert not list(problems(row, 100))
    for wrong in ({"output": "78"}, {"evidence": [{"doc_id": "a", "page": 1, "box": None}]}):
        assert [gate for gate, _ in problems({**row, **wrong}, 100)] == ["evidence"]
    assert [gate for gate, _ in problems({**row, "answer_source": "teacher:m"}, 100)] == ["evidence"]


def test_leakage_names_the_rows() -> None:
    leakage = Leakage([("a", "b")])
    rows = [{"id": str(i), "task": "t", "split_group": g, "doc_ids": [g]} for i, g in enumerate("abcc")]
    for row, split in zip(rows, ("train", "validation", "train", "validation"), strict=True):
        leakage.check(row, split)
    with pytest.raises(GateError) as caught_:
        leakage.finish()
    assert "row 3 (task t, documents ['c']): c is in both splits" in str(caught_.value)
    assert "a and b have the same text, in different splits" in str(caught_.value)


def test_language(build, tmp_path: Path) -> None:
    german = (
        "Die Werkstatt lag am Ende der Straße, und wer sie finden wollte, musste nach dem Geruch des Leims gehen. "
        "Im Winter wurde dort nur am Vormittag gearbeitet, weil das Licht am Nachmittag nicht mehr reichte, und "
        "die Lehrlinge kehrten dann die Späne zusammen und sortierten die Bretter nach ihrem Alter."
    )
    spoken = make_document([("title", "Die Werkstatt"), ("text", german)], name="de.pdf")
    import dataclasses

    spoken = dataclasses.replace(spoken, language="de")
    built = build(
        [*(paper(t) for t in TOPICS), spoken],
        recipes=["title", "quote"],
        imports=[written(tmp_path / "rows.json", [*GOOD, {"instruction": german, "output": "Ja."}])],
        gates={"languages": ["en"]},
        validation_share=0.3,
    )
    assert [(r["doc_id"], r["detail"]) for r in caught(built, "language") if r["task"] == ""] == [(spoken.doc_id, "de")]
    assert [r["detail"][-2:] for r in caught(built, "language") if r["task"] == "import"] == ["de"]
    assert {r["output"] for r in built.rows() if r["task"] == "import"} == {row["output"] for row in GOOD}


def test_documents_that_hold_evaluation_text_are_not_trained_on_as_text(build, tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    pq.write_table(pa.table({"context": [f"Once. {PASSAGE}"]}), tmp_path / "eval" / "q.parquet")
    marked = make_document([("title", "Birds of the Sandbank in Winter"), ("text", PASSAGE)], name="birds.pdf")
    built = build([*(paper(t) for t in TOPICS), marked], recipes=["title"], decontaminate=[tmp_path / "eval"])
    splits = json.loads((built.output / "splits.json").read_text())
    assert marked.doc_id not in splits and len(splits) == len(TOPICS)
    assert not any(marked.doc_id in r["doc_ids"] for r in built.rows())


def test_short_evaluation_texts_are_looked_for_as_a_whole(build, tmp_path: Path) -> None:
    """Questions and answers are; a phrase of a few words is not, and the card says how many those are."""
    questions = ["Our first visit took place on 14 March 1987,", "took place", "no paper has a word of this at all"]
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps({"q": q}) + "\n" for q in questions))
    built = build(recipes=["quote", "number"], decontaminate=[tmp_path / "qa.jsonl"], validation_share=0,
                  gates={"levels": {"decontamination": "warn"}})  # fmt: skip
    found = gate(built, "decontamination")
    assert found["found"] and all("qa.jsonl, record 1: “our first visit" in example for example in found["examples"])
    stats = json.loads((built.output / "stats.json").read_text())
    assert stats["decontamination"] == {"texts": 3, "too_short": 1, "min_words": 8}
    assert "looked for 2 of the 3 texts" in (built.output / "README.md").read_text()

    (tmp_path / "words.csv").write_text("answer\nyes\nno\n")
    built = build(recipes=["title"], decontaminate=[tmp_path / "words.csv"])
    assert any("decontaminate finds nothing" in f["message"] for e, f in built.events if e == "warning")


@pytest.mark.parametrize("whole", [True, False])
def test_imported_rows_on_a_document_are_in_its_split(build, tmp_path: Path, whole: bool) -> None:
    """As LongAlpaca beside the papers themselves would be; also where the rows hold a part of each."""
    texts = {
        name: " ".join(f"{name}{i} and {name}{i + 7} are words." for i in range(60)) for name in ("ash", "oak", "elm")
    }
    documents = [
        make_document([("title", f"All Words of the {name}"), ("text", text)], name=f"{name}.pdf")
        for name, text in texts.items()
    ]
    rows = [
        {"instruction": f"{text if whole else text[len(text) // 3 :]}\n\nWhat is {name}?", "output": f"A tree: {name}."}
        for name, text in texts.items()
    ]
    other = {"instruction": f"{'Nothing of the trees is in these words at all. ' * 30}\nWhy?", "output": "No reason."}
    imports = [written(tmp_path / "rows.json", [*rows, other]) | {"kind": "long"}]
    for seed in range(3):
        built = build(documents, recipes=["title"], imports=imports, validation_share=0.4, seed=seed)
        splits = json.loads((built.output / "splits.json").read_text())
        imported = {r["output"]: split for split in ("train", "validation") for r in built.rows(split)
                    if r["task"] == "import"}  # fmt: skip
        assert "No reason." in imported and set(splits.values()) == {"train", "validation"}
        for name, document in zip(texts, documents, strict=True):
            assert imported[f"A tree: {name}."] == splits[document.doc_id]


def test_a_sketch_finds_a_part_in_a_whole_whatever_stands_around_it() -> None:
    words = [f"word{i}" for i in range(4000)]
    texts = {f"book {i}": " ".join(words[1000 * i : 1000 * (i + 1)]) for i in range(4)}
    sketches = Sketches((name, sketch(text)) for name, text in texts.items())
    assert list(sketches.sharing(sketch("Of the author: " + " ".join(words[1100:1500]).upper()))) == ["book 1"]
    assert list(sketches.sharing(sketch(" ".join(words)))) == list(texts)
    assert not list(sketches.sharing(sketch(" ".join([*words[:40], *(f"other{i}" for i in range(2000))]))))
    assert not list(sketches.sharing(sketch("a few words"))) and not list(Sketches(()).sharing(sketch(texts["book 0"])))


def test_minimum_counts_can_be_a_warning(build) -> None:
    built = build(recipes=["title"], min_rows=500, gates={"levels": {"counts": "warn"}})
    assert any("fewer than dataset.min_rows" in f["message"] for e, f in built.events if e == "warning")
    assert gate(built, "counts")["found"] == 1


@pytest.mark.parametrize(
    ("path", "words"),
    [("absent.txt", "does not exist"), ("a.pdf", "no known kind"), ("empty", "no .txt"), ("bad.jsonl", "line 2")],
)
def test_evaluation_files_that_cannot_be_read(build, tmp_path: Path, path: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.pdf").write_text("x")
    (tmp_path / "bad.jsonl").write_text('{"a": "b"}\nnonsense\n')
    with pytest.raises(UserError, match=words) as error:
        build(recipes=["title"], decontaminate=[tmp_path / path])
    assert "decontaminate" in error.value.remedy + str(error.value)


def test_settings() -> None:
    with pytest.raises(ValueError, match="did you mean 'pii'"):
        GatesSettings.model_validate({"levels": {"pi": "drop"}})
    with pytest.raises(ValueError, match="gate split-leakage cannot be 'warn'"):
        GatesSettings.model_validate({"levels": {"split-leakage": "warn"}})
    with pytest.raises(ValueError, match="no ISO 639-1 code"):
        GatesSettings.model_validate({"languages": ["english"]})
    with pytest.raises(ValueError, match="no country code"):
        GatesSettings.model_validate({"phone_region": "XX"})
    chosen = DatasetSettings.model_validate({"gates": {"levels": {"pii": "mask"}}}).gates
    assert chosen.level("pii") == "mask"
    assert all(chosen.level(name) == g.levels[0] for name, g in GATES.items() if name != "pii")


WORDS = st.lists(st.sampled_from(["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]), min_size=0, max_size=60)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=4), WORDS, st.integers(5, 8))
def test_a_hit_is_a_run_of_words_in_common_and_none_is_missed(tmp_path_factory, evaluation, row, n) -> None:
    folder = tmp_path_factory.mktemp("ngrams")
    files = []
    for i, words in enumerate(evaluation):
        (folder / f"{i}.txt").write_text(", ".join(words))
        files.append((f"{i}.txt", folder / f"{i}.txt"))
    units = Units(folder, "ngrams")
    units.put("key", decontaminate.build_index(files, n))
    hit = decontaminate.Index(units, "key").hit("  ".join(row).upper())

    def runs(words: list[str]) -> set[str]:
        return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}

    common = {name: runs(words) & runs(row) for (name, _), words in zip(files, evaluation, strict=True)}
    assert bool(hit) == any(common.values())
    if hit:
        name, _, run = hit.partition(": ")
        assert run.strip("“”") in common[name]


def test_near_pairs_against_exact_similarity() -> None:
    """Nothing well above the threshold is missed, nothing well below it is taken."""
    rng = np.random.default_rng(1)
    texts = []
    for i in range(60):
        words = [f"w{i}x{k}" for k in range(100)]
        texts.append(words)
        texts.append([w if rng.random() > i / 600 else f"other{i}x{k}" for k, w in enumerate(words)])
    runs = [near._runs(words, near.ROW_RUN) for words in texts]
    signatures, shingles = [near._signature(r) for r in runs], [set(r) for r in runs]
    found = {(a, b) for a, b, _ in near.near_pairs(signatures, 0.8, leave_out=True)}
    for a in range(0, 120, 2):
        exact = len(shingles[a] & shingles[a + 1]) / len(shingles[a] | shingles[a + 1])
        if exact > 0.9:
            assert (a, a + 1) in found
        if exact < 0.68:
            assert (a, a + 1) not in found
    assert all(b == a + 1 for a, b in found)


def test_questions_with_the_same_answer_on_other_texts_are_no_duplicates() -> None:
    def row(group: str, output: str) -> dict:
        context = f"A long text about {group}. " * 20
        question = "Which heading comes right after the heading Introduction in this text?"
        return {
            "instruction": f"{context}\n\n{question}",
            "question": question,
            "output": output,
            "split_group": group,
        }

    def similar(a: dict, b: dict) -> bool:
        return bool(list(near.near_pairs([near.row_signature(a), near.row_signature(b)], 0.8, leave_out=True)))

    long = "The method asks the observer to write before speaking to anyone about the work that is done there."
    assert similar(row("a", "Methods"), row("a", "Methods"))
    assert not similar(row("a", "Methods"), row("b", "Methods"))
    assert similar(row("a", long), row("b", long))
    assert not similar(row("a", long), row("a", "Methods"))


def test_questions_on_one_imported_text_are_no_duplicates() -> None:
    """As in LongAlpaca: several questions on a paper, whose lines are as long as its columns."""
    text = "\n".join(f"Line {i} of a paper that was converted line by line" for i in range(300))

    def signature(question: str, output: str, text: str = text) -> bytes:
        instruction = f"Below is a paper. Memorize it.\n{text}\nNow the material ends. {question}"
        return near.row_signature({"instruction": instruction, "output": output, "split_group": "import:1"})

    answer = "They follow the same workshops over two winters and write down every step that is taken in each of them."
    base = signature("How do the authors find out what they report?", answer)

    def similar(other: bytes) -> bool:
        return bool(list(near.near_pairs([base, other], 0.8, leave_out=True)))

    assert not similar(signature("What do the authors report?", "That care at the start saves most of the time."))
    assert not similar(signature("Who wrote it?", "Ada Example."))
    assert similar(signature("How do the authors find out what they report?", answer, "A longer. " + text))


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("write to jo.doe+x@mail.example.co.uk, please", "email", "jo.doe+x@mail.example.co.uk"),
        ("the operator a@b and x @ y are none", "email", None),
        ("call +49 30 901820 now", "phone", "+49 30 901820"),
        ("call +1 (650) 253-0000.", "phone", "+1 (650) 253-0000"),
        ("a gain of +12 345 678 percent", "phone", None),
        ("tables hold 650 253 0000 and more", "phone", None),
        ("from 81.2.69.142 at night", "ip", "81.2.69.142"),
        ("see section 3.1.2.4 and host 192.168.0.1", "ip", None),
        ("at 2a00:1450:4001:81b::200e now", "ip", "2a00:1450:4001:81b::200e"),
        ("at 12:30:45 and 10:20", "ip", None),
        ("seen at ::1, fe80::1 and C::D", "ip", None),
        ("pay to DE89 3704 0044 0532 0130 00 today", "iban", "DE89 3704 0044 0532 0130 00"),
        ("pay to GB82WEST12345698765432 BEFORE NOON", "iban", "GB82WEST12345698765432"),
        ("pay to DE89 3704 0044 0532 0130 01 today", "iban", None),
        ("card 4111 1111 1111 1111 expires", "card", "4111 1111 1111 1111"),
        ("card 4111 1111 1111 1112 expires", "card", None),
        ("row 5105105105105100 sum", "card", "5105105105105100"),
        ("a sum of 9999999999999995 units", "card", None),
    ],
)
def test_personal_data_by_its_form(text: str, kind: str, found: str | None) -> None:
    hits = [text[f.start : f.end] for f in pii.find(text, KINDS) if f.kind == kind]
    assert hits == ([found] if found else [])
    if found:
        assert pii.mask(text, KINDS) == text.replace(found, f"[{kind}]")
        assert pii.mask(text, tuple(k for k in KINDS if k != kind)).count(f"[{kind}]") == 0


def test_national_phone_numbers_by_region() -> None:
    text = "Call 650-253-0000 or +1 650 253 0001."
    assert [text[f.start : f.end] for f in pii.find(text, ("phone",), "US")] == ["650-253-0000", "+1 650 253 0001"]
