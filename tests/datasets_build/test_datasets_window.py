"""Windows: the evidence inside, whole passages, never longer than the window, never a cut answer."""

from __future__ import annotations

from functools import cache

import pytest
from handmade import make_document, paper
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets_build.build import Builder
from datasets_build.measure import Measure
from datasets_build.reading import Reading, fold
from datasets_build.recipes import RECIPES
from datasets_build.settings import DatasetSettings
from datasets_build.window import Window, fit, shrink
from longlora.prompts import render


@given(st.data())
def test_fit_and_shrink(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=30))
    first = data.draw(st.integers(0, len(counts) - 1))
    last = data.draw(st.integers(first, len(counts) - 1))
    budget = data.draw(st.integers(0, 400))
    window = fit(counts, first, last, budget, data.draw(st.floats(0, 1)))
    if window is None:
        assert sum(counts[first : last + 1]) > budget
        return
    assert 0 <= window.first <= first <= last <= window.last < len(counts)
    used = sum(counts[window.first : window.last + 1])
    assert used <= budget
    # Nothing more would have fitted on either side.
    assert window.first == 0 or used + counts[window.first - 1] > budget
    assert window.last == len(counts) - 1 or used + counts[window.last + 1] > budget

    excess = data.draw(st.integers(1, 60))
    smaller = shrink(window, counts, first, last, excess)
    if smaller is not None:
        assert window.first <= smaller.first <= first <= last <= smaller.last <= window.last
        assert used - sum(counts[smaller.first : smaller.last + 1]) >= excess
    else:
        assert used - sum(counts[first : last + 1]) < excess


def test_evidence_moves_with_the_share() -> None:
    counts = [10] * 100
    assert fit(counts, 50, 50, 200, 0.0) == Window(50, 69)
    assert fit(counts, 50, 50, 200, 1.0) == Window(31, 50)


@pytest.fixture(scope="module")
def measure(smollm2_dir):
    return Measure(smollm2_dir, "chat")


@cache
def _long_reading(boxes: bool) -> Reading:
    pieces = [("title", "A Long Document of Several Crafts")]
    for topic in ("bookbinding", "joinery", "basketry", "glazing"):
        source = paper(topic)
        pieces.append(("heading", f"On the Craft of {topic}"))
        pieces += [
            (b.kind, source.text[b.start : b.end])
            for b in source.blocks
            if b.kind in ("text", "caption") and "Institute" not in source.text[b.start : b.end]
        ]
    return Reading(make_document(pieces, boxes=boxes))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(max_tokens=st.integers(100, 900), fill=st.floats(0.1, 1), seed=st.integers(0, 999), boxes=st.booleans())
def test_rows_of_any_window(measure: Measure, max_tokens: int, fill: float, seed: int, boxes: bool) -> None:
    reading = _long_reading(boxes)
    chosen = DatasetSettings(max_tokens=max_tokens, fill=fill, seed=seed)
    builder = Builder.of(reading, measure, chosen)
    texts = [p.text for p in reading.passages]
    for recipe in RECIPES:
        unit = builder.unit(recipe, 2)
        assert len(unit["rows"]) <= 2
        for row in unit["rows"]:
            instruction, output = row["instruction"], row["output"]
            # The stated length is training's, and it fits.
            ids = render(measure.tokenizer, "chat", instruction, output).input_ids
            assert len(ids) == row["n_tokens"] <= max_tokens
            # The answer is in what the model sees (the abstract's is taken out on purpose).
            seen = fold(instruction)
            if recipe != "abstract":
                assert all(fold(line) in seen for line in output.splitlines())
            if row["answer_source"] == "planted":
                assert instruction.count(output) == 1 and not row["evidence"]
                continue
            # Whole passages, contiguous: the joined run stands in the instruction.
            shown = [i for i, text in enumerate(texts) if f"\n\n{text}" in f"\n\n{instruction}"]
            run = range(shown[0], shown[-1] + 1)
            assert "\n\n".join(texts[i] for i in run) in instruction
            assert row["evidence"]


def test_whole_document_recipe_skips_a_long_document(measure: Measure) -> None:
    document = paper("joinery")
    unit = Builder.of(Reading(document), measure, DatasetSettings(max_tokens=300)).unit("abstract", 6)
    assert not unit["rows"]
    assert [r["reason"] for r in unit["rejects"]] == ["document-too-long"]
    whole = Builder.of(Reading(document), measure, DatasetSettings(max_tokens=2048)).unit("abstract", 6)
    (row,) = whole["rows"]
    assert row["output"] not in row["instruction"]
    assert "Abstract" not in row["instruction"].split("\n\n")


def test_evidence_larger_than_the_window_is_a_reject(measure: Measure) -> None:
    sentence = "This sentence is repeated with number {} until the paragraph is far too long for it."
    document = make_document([("text", " ".join(sentence.format(i) for i in range(60)))])
    unit = Builder.of(Reading(document), measure, DatasetSettings(max_tokens=200)).unit("continuation", 3)
    assert not unit["rows"]
    assert unit["rejects"][0]["reason"] == "evidence-too-long"


def test_evidence_names_the_page_of_the_sentence() -> None:
    reading = Reading(paper("glazing"))
    index = next(p.index for p in reading.passages if "12.5%" in p.text)
    (place,) = reading.evidence(index, "Workshops that measured twice")
    block = next(b for b in reading.document.blocks if "12.5%" in reading.document.text[b.start : b.end])
    assert (place["page"], tuple(place["box"])) == (block.page, block.box)
