"""Which rows are taken: counts and shares by task and source, and no task above its bound."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_build.mix import sample
from datasets_build.select import Entry, divide_documents
from datasets_build.settings import DatasetSettings

TASKS = ("about", "caption", "needle", "quote", "title")


def entries(counts: dict[tuple[str, str], int], kind: str = "long") -> list[Entry]:
    """``counts``: rows of (task, document)."""
    return [
        Entry("unit", i, f"{task}-{doc}-{i}", task, kind, doc, doc, f"{task}{doc}{i}", 10, 100)
        for (task, doc), n in counts.items()
        for i in range(n)
    ]


def chosen(rows: list[Entry], **mix: object) -> list[Entry]:
    imports = [{"path": "rows.json"}]
    settings = DatasetSettings.model_validate({"validation_share": 0, "imports": imports, "mix": mix})
    return sample(rows, {e.group: "train" for e in rows}, settings, {"import:x": ["import-0"]})


def test_every_task_and_document_gets_its_turn() -> None:
    rows = entries({("quote", "a"): 100, ("quote", "b"): 5, ("title", "a"): 30, ("title", "b"): 30})
    assert Counter((e.task, e.source) for e in chosen(rows, long=20)) == {
        ("quote", "a"): 5, ("quote", "b"): 5, ("title", "a"): 5, ("title", "b"): 5,
    }  # fmt: skip


@given(
    st.dictionaries(st.tuples(st.sampled_from(TASKS), st.sampled_from("abc")), st.integers(1, 60), min_size=1),
    st.floats(0.05, 1),
    st.none() | st.integers(1, 200),
)
def test_no_task_is_above_its_share(counts: dict[tuple[str, str], int], share: float, long: int | None) -> None:
    rows = entries(counts)
    taken = chosen(rows, max_task_share=share, long=long)
    tasks = Counter(e.task for e in taken)
    bound = max(share, 1 / len({task for task, _ in counts}))
    assert taken and max(tasks.values()) <= max(1, bound * len(taken) + 1e-6)
    assert len(taken) <= (long or len(rows))
    assert [e for e in rows if e in set(taken)] == taken  # in their old order
    if share == 1:
        assert len(taken) == min(long or len(rows), len(rows))


def test_a_mix_may_bound_what_a_teacher_writes() -> None:
    DatasetSettings.model_validate({"mix": {"tasks": {"paper-qa": 0.2, "title": 3}}})
    with pytest.raises(ValueError, match=r"no 'paperqa'; there are .*paper-qa"):
        DatasetSettings.model_validate({"mix": {"tasks": {"paperqa": 0.2}}})


def test_a_mix_that_cannot_be_met_is_told(build) -> None:
    built = build(recipes=["title"], mix={"long": 9000, "short": 3000}, validation_share=0)
    told = [f["message"] for e, f in built.events if e == "warning"]
    n = built.metrics["rows"]
    assert f"dataset.mix.long wants 9000 rows and there are {n}: more come from documents" in told[0]
    assert "dataset.mix.short wants 3000 rows and there are 0: more come from dataset.imports" in told[1]
    assert json.loads((built.output / "stats.json").read_text())["mix"]["long"] == {"wanted": 9000, "got": n}
    assert f"`mix.long` wanted 9000 rows; there were {n}." in (built.output / "README.md").read_text()


def test_counts_and_shares_of_tasks_and_sources() -> None:
    rows = entries({("quote", "a"): 50, ("title", "a"): 50, ("needle", "b"): 50})
    assert Counter(e.task for e in chosen(rows, tasks={"quote": 5, "needle": 0.5})) == {
        "quote": 5, "title": 50, "needle": 50,
    }  # fmt: skip
    assert Counter(e.task for e in chosen(rows, long=40, tasks={"quote": 0.1, "title": 0})) == {
        "quote": 4,
        "needle": 36,
    }
    one = "a" * 16
    named = entries({("quote", one): 50, ("title", one): 50, ("needle", "b"): 50})
    assert Counter(e.source for e in chosen(named, sources={one: 10})) == {one: 10, "b": 50}
    short = [Entry("u", i, str(i), "import", "short", str(i), "import:x", str(i), 10, 10) for i in range(30)]
    assert Counter(e.kind for e in chosen(rows + short, sources={"import-0": 7, "documents": 20})) == {
        "long": 20, "short": 7,
    }  # fmt: skip


def test_the_same_rows_whatever_else_there_is() -> None:
    rows = entries({("quote", d): 10 for d in "abcdef"})
    few = chosen(rows[:-10], long=12)
    assert len({e.id for e in few} - {e.id for e in chosen(rows, long=12)}) <= 2


@pytest.mark.parametrize("mix", [{"tasks": {"quote": 1.5}}, {"sources": {"documents": -1}}, {"max_task_share": 0}])
def test_what_is_no_amount_is_refused(mix: dict) -> None:
    with pytest.raises(ValueError, match=r"count|greater than 0"):
        DatasetSettings.model_validate({"mix": mix})


@pytest.mark.parametrize("mix", [{"tasks": {"quotes": 5}}, {"sources": {"import-0": 5}}, {"sources": {"a.pdf": 5}}])
def test_what_is_not_there_is_refused(mix: dict) -> None:
    with pytest.raises(ValueError, match=r"there are (about, abstract|documents)"):
        DatasetSettings.model_validate({"mix": mix})


def test_lengths_beyond_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="lengths has 9000 tokens, above max_tokens"):
        DatasetSettings.model_validate({"max_tokens": 8192, "lengths": [{"tokens": 4096}, {"tokens": 9000}]})


@given(st.lists(st.integers(20, 40), min_size=60, max_size=120), st.integers(0, 50))
def test_one_more_document_moves_few_to_the_other_split(sizes: list[int], seed: int) -> None:
    rows = Counter({f"d{i}": n for i, n in enumerate(sizes)})
    settings = DatasetSettings(seed=seed, validation_share=0.3)
    before = divide_documents(rows, settings)
    after = divide_documents(rows + Counter(new=30), settings)
    held = sum(rows[d] for d, split in before.items() if split == "validation")
    assert abs(held - 0.3 * rows.total()) <= 20
    assert sum(before[d] != after[d] for d in before) <= 4
