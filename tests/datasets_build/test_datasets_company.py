"""Several documents in one context: who stands beside whom, what is asked, and what one more document changes."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import pytest
from handmade import make_document, paper, write_input
from hypothesis import given
from hypothesis import strategies as st

from datasets_build import rejects
from datasets_build.build import Builder
from datasets_build.company import MIN_CHARS, MIN_COMPANY, Rings
from datasets_build.corpus import Corpus, Known, Measured
from datasets_build.fingerprint import content_digest
from datasets_build.layout import LABEL, LABEL_TOKENS, Layout, Part, fill
from datasets_build.measure import Measure
from datasets_build.packs import Packs
from datasets_build.reading import Reading, fold
from datasets_build.recipes import RECIPES
from datasets_build.rejects import Rejects
from datasets_build.rows import facts
from datasets_build.scope import author_of
from datasets_build.settings import DatasetSettings
from datasets_build.window import Window
from pdf2txt.schema import as_table
from pdf2txt.units import Units

CRAFTS = [f"{a}{b}" for a in ("rope", "glove", "chair", "clock", "sail", "boat") for b in ("making", "mending", "lore")]


def known(names: list[str], chars: int = 1000) -> list[Known]:
    return [Known(name, "ok", f"content of {name}", f"text of {name}", chars, 0, i) for i, name in enumerate(names)]


def rings(documents: list[Known], split_of: dict[str, str]) -> Rings:
    return Rings(documents, split_of, {k.doc_id: k.doc_id for k in documents}, seed=1)


@given(st.integers(2, 60), st.integers(0, 5000), st.integers(1, 400), st.randoms())
def test_company_is_of_one_split_and_as_large_as_needed(n: int, chars: int, tokens: int, rng: Random) -> None:
    documents = known([f"d{i}" for i in range(n)], chars)
    split_of = {k.doc_id: rng.choice(("train", "validation")) for k in documents}
    found = rings(documents, split_of)
    assert sorted(found.order) == list(range(n))
    for i, k in enumerate(documents):
        company = found.company(i, tokens)
        assert k not in company and len(set(company)) == len(company)
        assert {split_of[c.doc_id] for c in company} <= {split_of[k.doc_id]}
        others = sum(split == split_of[k.doc_id] for split in split_of.values()) - 1
        if chars < MIN_CHARS:
            assert not company
        else:
            enough = max(MIN_COMPANY, -(-6 * tokens // chars))
            assert len(company) == min(others, enough)


@given(st.integers(30, 80), st.integers(1, 8))
def test_one_more_document_changes_the_company_of_few(n: int, size: int) -> None:
    documents = known([f"d{i}" for i in range(n + 1)])
    split_of = dict.fromkeys((k.doc_id for k in documents), "train")
    tokens = size * 1000 // 6
    before, after = rings(documents[:n], split_of), rings(documents, split_of)
    changed = [i for i in range(n) if before.company(i, tokens) != after.company(i, tokens)]
    assert len(changed) == max(MIN_COMPANY, size)  # those that stand before it on the ring


def test_a_copy_is_no_company() -> None:
    documents = known(["a", "b", "c"])
    leaders = {"a": "a", "b": "a", "c": "c"}
    found = Rings(documents, {"a": "train", "c": "train"}, leaders, 1)
    assert [k.doc_id for k in found.company(0, 9999)] == ["c"]
    assert [k.doc_id for k in found.company(1, 9999)] == ["c"]
    assert [k.doc_id for k in found.company(2, 9999)] == ["a"]


@pytest.fixture(scope="module")
def measure(smollm2_dir: Path) -> Measure:
    return Measure(smollm2_dir, "chat")


@given(st.data())
def test_fill_and_cut_keep_whole_passages(measure: Measure, data: st.DataObject) -> None:
    company = [Measured(Reading(paper(craft)), measure) for craft in CRAFTS[:4]]
    room = data.draw(st.integers(0, 3000))
    parts = fill(room, company, Random(data.draw(st.integers(0, 99))))
    main = Part(Measured(Reading(paper("joinery")), measure), Window(2, 5))
    layout = Layout(0, main, parts, place=data.draw(st.floats(0, 0.99)))
    used = sum(sum(p.source.counts[p.window.first : p.window.last + 1]) for p in parts)
    assert used <= room
    pieces = layout.context().split("\n\n")
    assert [p for p in pieces if p.startswith("[Document ")] == [
        LABEL.format(number=i + 1) for i in range(len(parts) + 1) if parts
    ]
    assert pieces[pieces.index(LABEL.format(number=layout.at + 1)) + 1 if parts else 0] == main.passages[0]
    parts_before = list(layout.others)
    excess = data.draw(st.integers(1, 500))
    left = layout.cut(excess)
    now = sum(sum(p.source.counts[p.window.first : p.window.last + 1]) for p in layout.others)
    labels = LABEL_TOKENS * (len(parts_before) - len(layout.others))
    assert left == bool(layout.others) and (now <= used + labels - excess or not layout.others)


@pytest.mark.parametrize("recipe", sorted(set(RECIPES) - {"abstract"}))
def test_questions_beside_other_documents_can_be_answered(measure: Measure, recipe: str) -> None:
    others = [Reading(paper(craft)) for craft in CRAFTS[:3]]
    chosen = DatasetSettings.model_validate({"max_tokens": 4096, "lengths": [{"tokens": 1900}], "fill": 1.0})
    reading = Reading(paper("joinery"))
    unit = Builder.of(reading, measure, chosen, *others).unit(recipe, 4)
    assert unit["rows"], unit["rejects"]
    for row in unit["rows"]:
        text = row["instruction"]
        assert 1500 < row["n_tokens"] <= 1900
        assert 2 <= len(row["doc_ids"]) <= 4 and row["doc_ids"][0] == reading.document.doc_id
        assert text.count("[Document ") == len(row["doc_ids"])
        assert all(fold(line) in fold(text) for line in row["output"].splitlines())
        if row["answer_source"] == "planted":
            assert not row["evidence"] and text.count(row["output"]) == 1
        else:
            assert {e["doc_id"] for e in row["evidence"]} == {reading.document.doc_id}
        # The question names its document, or quotes what stands in none of the others.
        named = any(f"{lead} {x}" in text for lead in ("about", "take") for x in ("document", "the document"))
        own = fold(reading.document.text)
        quoted = any(q in own and not any(q in other.flat for other in others) for q in _quotations(text))
        assert named or quoted or recipe in ("needle", "number", "order", "acronym")


def _quotations(text: str) -> list[str]:
    return [piece.split("”")[0] for piece in text.split("“")[1:]]


def test_without_lengths_a_context_holds_one_document(measure: Measure) -> None:
    others = [Reading(paper(craft)) for craft in CRAFTS[:3]]
    builder = Builder.of(Reading(paper("joinery")), measure, DatasetSettings(max_tokens=4096), *others)
    for recipe in ("quote", "title", "abstract"):
        assert {len(row["doc_ids"]) for row in builder.unit(recipe, 3)["rows"]} == {1}
    assert {len(row["doc_ids"]) for row in builder.unit("which_document", 3)["rows"]} <= {2, 3, 4}
    alone = Builder.of(Reading(paper("joinery")), measure, DatasetSettings(max_tokens=4096))
    assert [r["reason"] for r in alone.unit("which_document", 3)["rejects"]] == ["no-company"]


def test_a_sentence_that_another_document_has_too_is_not_asked_for(measure: Measure) -> None:
    reading = Reading(paper("joinery"))
    twin = Reading(make_document([("text", reading.document.text), ("text", "More. " * 80)], "twin.pdf"))
    builder = Builder.of(reading, measure, DatasetSettings(max_tokens=4096), twin)
    unit = builder.unit("which_document", 3)
    assert not unit["rows"] and {r["reason"] for r in unit["rejects"]} == {"no-scope"}


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Ada Example 1, Ben Sample 2, and Cy Third 1", "Ada Example"),
        ("Paul B. Govan¹", "Paul B. Govan"),
        ("Jaime A. Prudencio-Vázquez 1", "Jaime A. Prudencio-Vázquez"),
        ("Sarah E. de Vries*, Other Name", "Sarah E. de Vries"),
        ("Ann Alone", "Ann Alone"),
        ("1 Institute of Examples", None),
        ("In this paper we show what can be shown.", None),
    ],
)
def test_first_author(line: str, name: str | None) -> None:
    reading = Reading(make_document([("title", "A Title of Some Words"), ("text", line), ("text", "More.")]))
    found = author_of(reading)
    assert (found and found[1]) == name


def test_one_more_document_gives_the_rows_of_a_full_build(build, tmp_path: Path) -> None:
    import shutil

    settings = {
        "recipes": ["quote", "needle", "which_document"], "per_document": 1, "max_tokens": 700,
        "lengths": [{"tokens": 300}, {"tokens": 650}], "validation_share": 0.2,
    }  # fmt: skip
    documents = [paper(f"{place}{craft}") for craft in CRAFTS for place in ("", "river")]
    first = build(documents[:-1], work="a", **settings)
    more = build(documents, work="b", **settings)
    made = Counter(more.reused())
    assert 0 < made[False] < made[True]
    shutil.rmtree(tmp_path / "units")
    full = build(documents, work="c", **settings)
    assert not any(full.reused())
    assert full.metrics["row_digest"] == more.metrics["row_digest"] != first.metrics["row_digest"]

    sides = defaultdict(set)
    for split in ("train", "validation"):
        for row in full.rows(split):
            for doc_id in row["doc_ids"]:
                sides[doc_id].add(split)
    assert all(len(split) == 1 for split in sides.values())
    assert max(len(row["doc_ids"]) for row in full.rows()) > 1


def test_the_gate_refuses_a_row_of_both_splits(build, monkeypatch) -> None:
    from datasets_build import company
    from datasets_build.gates.base import GateError

    def anyone(self: Rings, index: int, tokens: int) -> list[Known]:
        return [k for i, k in enumerate(self.known) if i != index]

    monkeypatch.setattr(company.Rings, "company", anyone)
    with pytest.raises(GateError, match="in both splits"):
        build([paper(craft) for craft in CRAFTS[:6]], recipes=["which_document"], validation_share=0.3)


def test_content_digest_is_of_text_and_layout(tmp_path: Path) -> None:
    document = paper("joinery")
    again = next(Corpus(write_input(tmp_path, [document]) / "documents.parquet").known())
    assert again.content == Reading(document).content_digest == content_digest(as_table(document))
    from dataclasses import replace

    block = document.blocks[3]
    changed = [
        replace(document, text=document.text.replace("winter", "summer", 1)),
        replace(document, blocks=(replace(block, kind="list"), *document.blocks)),
        replace(document, blocks=(*document.blocks[:3], replace(block, box=(1.0, 2.0, 3.0, 4.0)))),
        replace(document, pages=document.pages[:-1]),
        replace(document, sha256="0" * 64),
    ]
    digests = {content_digest(as_table(d)) for d in changed}
    assert len(digests) == len(changed) and again.content not in digests
    assert content_digest(as_table(replace(document, source="other.pdf"))) == again.content


def test_packs_add_recipes_to_a_document(tmp_path: Path) -> None:
    row = {
        "instruction": "What?", "output": "That.", "id": "1", "task": "t", "doc_ids": ["d"], "source_sha256": "s",
        "split_group": "d", "n_tokens": 3,
    }  # fmt: skip
    key = "ab" * 32
    reject = {"doc_id": "d", "task": "u", "reason": "no", "detail": ""}
    packs = Packs(Units(tmp_path, "rows"))
    packs.put(key, {"title": {"rows": [row], "rejects": []}, "quote": {"rows": [], "rejects": [reject]}})
    Packs(Units(tmp_path, "rows")).put(key, {"number": {"rows": [row, row], "rejects": []}})
    assert len(list((tmp_path / "rows").iterdir())) == 2
    found = Packs(Units(tmp_path, "rows")).find(key)
    assert {part: (filed.rows, filed.rejects) for part, filed in found.items()} == {
        "title": ([facts(row)], []), "quote": ([], [reject]), "number": ([facts(row)] * 2, []),
    }  # fmt: skip
    assert packs.rows(found["number"].unit) == [row, row]
    assert Packs(Units(tmp_path, "rows")).find("cd" * 32) == {}


def test_rejects_are_counted_and_ordered(monkeypatch) -> None:
    monkeypatch.setattr(rejects, "CHUNK", 2)
    kept = Rejects()
    assert kept.table().to_pylist() == []
    made = [{"doc_id": d, "task": "t", "reason": "no-“x”", "detail": "a\nb"} for d in "bdac"]
    kept.append(made[0])
    kept += made[1:3]
    kept += made[3:]
    assert kept.table().to_pylist() == sorted(made, key=lambda reject: reject["doc_id"])
    assert kept.reasons == {"no-“x”": 4}
