"""Each recipe on documents whose facts are known, and the reasons where there is nothing to ask."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from handmade import make_document, paper
from hypothesis import given
from hypothesis import strategies as st

from datasets_build.reading import Reading, fold, key_name
from datasets_build.recipes import RECIPES, Candidate, FromWindow, Reject
from datasets_build.recipes.about import topics_of
from datasets_build.recipes.acronym import long_form
from datasets_build.recipes.number import mentions
from datasets_build.recipes.reference import citations, entries_of
from datasets_build.sentences import can_stand_alone, split_sentences


def found(document, recipe: str, seed: int = 0) -> tuple[list[Candidate], list[Reject]]:
    reading = Reading(document)
    candidates, rejects = [], []
    for item in _resolved(reading, recipe, seed):
        (rejects if isinstance(item, Reject) else candidates).append(item)
    return candidates, rejects


def _resolved(reading: Reading, recipe: str, seed: int) -> Iterator[Candidate | Reject]:
    for item in RECIPES[recipe].find(reading, Random(seed)):
        if isinstance(item, FromWindow):
            made = item.make(0, len(reading.passages) - 1)
            if made:
                yield made
        else:
            yield item


@pytest.mark.parametrize("recipe", sorted(RECIPES))
@pytest.mark.parametrize("boxes", [True, False])
def test_every_recipe_finds_something_and_it_stands_in_the_document(recipe: str, boxes: bool) -> None:
    document = paper("bookbinding", boxes)
    if not boxes:  # a text file tells its headings by marks
        document = make_document(
            [
                ("text", {"title": "# ", "heading": "## "}.get(b.kind, "") + document.text[b.start : b.end])
                for b in document.blocks
            ],
            "a.md",
            boxes=False,
        )
    candidates, rejects = found(document, recipe)
    assert candidates, rejects
    for c in candidates:
        if c.plants:
            assert c.answer in c.plants[0] and not c.evidence
            continue
        assert c.evidence
        assert all(fold(line) in fold(document.text) for line in c.answer.splitlines())
        for passage, text in c.evidence:
            for place in Reading(document).evidence(passage, text):
                assert place["doc_id"] == document.doc_id
                assert (place["box"] is not None) == boxes
                assert place["page"] >= 1


def test_known_answers() -> None:
    document = paper("bookbinding")
    answers = {recipe: {c.answer for c in found(document, recipe)[0]} for recipe in RECIPES}
    assert answers["title"] == {"A Practical Study of bookbinding in Small Workshops"}
    assert answers["acronym"] == {"workshop record method"}
    assert answers["outline"] == {
        "Abstract\n1 Introduction\n2 Materials\n3 Results\n4 Conclusion\nReferences",
    }
    assert answers["abstract"].pop().startswith("We describe how bookbinding")
    assert answers["locate"] <= {"Abstract", "1 Introduction", "2 Materials", "3 Results", "4 Conclusion"}


def test_numbers_ask_for_dates_and_figures_stated_once() -> None:
    seen = set()
    for seed in range(20):
        for c in found(paper("bookbinding"), "number", seed)[0]:
            if "____" in c.question:
                seen.add(c.answer)
    assert seen == {"14 March 1987", "4,250", "12.5%"}


def test_a_number_in_a_date_or_an_amount_is_not_asked_for_by_value() -> None:
    document = make_document(
        [
            ("text", "The first workshop of the valley was opened in 1998 by two brothers of the miller."),
            ("text", "In May 1998 the river rose so high that nobody in the valley could work at all."),
            ("text", "About 45 apprentices came to the valley in that year and most of them stayed."),
            ("text", "No more than 45% of the masters had ever written down what they do every day."),
            ("text", "The valley counts 3,145 houses, some 450 of them with a workshop on the ground floor."),
        ]
    )
    asked, filled = set(), set()
    for seed in range(60):
        for c in found(document, "number", seed)[0]:
            value = re.search(r"(?:May )?[\d,]+%?", c.question)
            (filled if "____" in c.question else asked).add(c.answer if "____" in c.question else value.group())
    assert asked == {"May 1998", "45%", "3,145", "450"}
    assert filled == {"1998", "May 1998", "45", "45%", "3,145", "450"}


@pytest.mark.parametrize(
    ("value", "n"), [("45", 3), ("45%", 1), ("May 1998", 1), ("1998", 2), ("$45", 1), ("12.5", 1), ("12", 0)]
)
def test_mentions(value: str, n: int) -> None:
    assert mentions("May 1998, 1998. 45 and 45% of US$45, 145, 1,450, 45.2, B45, 45th, 12.5.", value) == n


def test_caption_by_label_and_label_by_caption() -> None:
    answers = {c.answer for seed in range(20) for c in found(paper("joinery"), "caption", seed)[0]}
    assert "Figure 1" in answers
    assert "Boards used for joinery in each of the nine workshops." in answers


def test_caption_labels_without_space_are_told_apart() -> None:
    document = make_document(
        [
            ("caption", "Figure3: Boards used in the first of the nine workshops."),
            ("caption", "Figure4: Boards used in the second of the nine workshops."),
            ("caption", "Table2: Hours spent in the first of the nine workshops."),
            ("caption", "Table 2: Hours spent in the second of the nine workshops."),
        ]
    )
    candidates, rejects = found(document, "caption")
    assert len(candidates) == 2
    assert sorted(r.detail for r in rejects) == ["Table 2", "Table2"]


def test_ambiguous_matters_are_skipped() -> None:
    document = make_document(
        [
            ("title", "First Title of Two"),
            ("title", "Second Title of Two"),
            ("heading", "Method"),
            ("text", "We use the position interpolation (PI) of earlier work for all of our models here."),
            ("heading", "Method"),
            ("text", "A second group prefers the principal investigator (PI) as reader of the record."),
            ("caption", "Figure 1: Two captions with one label, first."),
            ("caption", "Figure 1: Two captions with one label, second."),
        ]
    )
    for recipe, reason in (
        ("title", "ambiguous-title"),
        ("acronym", "ambiguous-acronym"),
        ("section", "ambiguous-heading"),
        ("caption", "ambiguous-caption"),
    ):
        candidates, rejects = found(document, recipe)
        assert not candidates
        assert {r.reason for r in rejects} == {reason}


def test_title_broken_over_two_blocks_is_not_cut() -> None:
    document = make_document([("title", "A Title That Goes on"), ("heading", "in the Next Line"), ("text", "x")])
    blocks = [document.blocks[0], document.blocks[1], document.blocks[2]]
    object.__setattr__(blocks[0], "box", (72.0, 100.0, 500.0, 124.0))
    object.__setattr__(blocks[1], "box", (72.0, 122.0, 300.0, 146.0))
    candidates, rejects = found(document, "title")
    assert not candidates
    assert rejects[0].reason == "broken-title"


def test_what_is_no_heading_is_not_asked_about() -> None:
    document = make_document(
        [
            ("heading", "Ada Example 1"),
            ("text", "1 Institute of Examples, Example City"),
            ("heading", "Summary"),
            ("text", "A whole sentence that can stand alone is needed below a heading here."),
            ("heading", "and on all platforms. Due to the tool"),
            ("text", "Another whole sentence that can stand alone is written down in this place."),
        ]
    )
    assert [s.name for s in Reading(document).sections] == ["Summary"]


@pytest.mark.parametrize(
    ("short", "before", "expected"),
    [
        ("PI", "we use position interpolation", "position interpolation"),
        ("LLMs", "training of Large Language Models", "Large Language Models"),
        ("DoD", "paid for by the Department of Defense", "Department of Defense"),
        (
            "NCAR",
            "at the National Center for Atmospheric Research",
            "National Center for Atmospheric Research",
        ),
        ("RMSD", "the root-mean-square deviation", "root-mean-square deviation"),
        ("OCR", "the engine reads pages", None),
        ("AB", "a. Big", None),
    ],
)
def test_long_form(short: str, before: str, expected: str | None) -> None:
    assert long_form(short, before) == expected


def test_sentences_keep_abbreviations_and_numbers_together() -> None:
    text = "Smith et al. (2020) saw it, e.g. in Fig. 3. Dr. Lee paid 3.5 million. “Why?” she asked. All left."
    assert split_sentences(text) == [
        "Smith et al. (2020) saw it, e.g. in Fig. 3.",
        "Dr. Lee paid 3.5 million.",
        "“Why?” she asked.",
        "All left.",
    ]


@given(st.text(alphabet="aB .!?)('\"“”é1", max_size=200))
def test_splitting_loses_nothing(text: str) -> None:
    folded = fold(text)
    assert " ".join(split_sentences(folded)).replace(" ", "") == folded.replace(" ", "")


@pytest.mark.parametrize(
    "text",
    [
        "lower case start makes this one no whole sentence at all.",
        "This one has no end and so it cannot stand alone here",
        "See https://example.org for the whole of the data and the code.",
        "An open bracket (that is never closed makes this one unfit.",
        "She said that it was enough, and they have gone home of late.'",
        "1 2 3 4 5 6 7 8 9 10 11 12 13.",
        "Tools have been developed to facilitate the analyses of all (Example, 2016). boxes is a package of them.",
    ],
)
def test_unfit_sentences(text: str) -> None:
    assert not can_stand_alone(text)


def test_headings_compare_without_numbers() -> None:
    assert key_name("## 2.1 Methods") == key_name("METHODS") == "methods"


@given(st.text(alphabet="aB \n\n\r\t\x0b\u2003", max_size=60))
def test_text_without_layout_is_split_at_empty_lines(text: str) -> None:
    document = replace(make_document([]), text=text)
    expected = [m.span() for m in re.finditer(r"\S(?:.|\n(?!\s*\n))*", text)]
    assert [(p.start, p.end) for p in Reading(document).passages] == expected


def test_text_without_empty_lines_needs_little_memory() -> None:
    text = "A line of a book that has no empty line in it at all.\n" * 20_000
    document = replace(make_document([]), text=text)
    tracemalloc.start()
    assert len(Reading(document).passages) == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * len(text)


def _paper_with(*entries: str, text: str = "") -> Reading:
    kinds = [("heading", "Introduction"), ("text", text or "Nothing is cited here at all."), ("heading", "References")]
    return Reading(make_document([*kinds, *(("reference", entry) for entry in entries)]))


@pytest.mark.parametrize(
    ("entry", "surname", "year", "title"),
    [
        ("Lee, A. B., & Ray, C. (2019). On glazing of bowls. Pots, 3(1), 5–9.", "Lee", "2019", "On glazing of bowls"),
        ("de Vries, S. (2020a). Glue: A history of it. Glue Press.", "de Vries", "2020a", "Glue: A history of it"),
        ("Prudencio-Vázquez, J. (2021). Who carves spoons? Wood, 7.", "Prudencio-Vázquez", "2021", "Who carves spoons"),
        (
            "Ray, C. (2018). Baskets in R, version 2.1 and later. https://doi.org/10.1000/xyz123",
            "Ray", "2018", "Baskets in R, version 2.1 and later",
        ),
        ("[7] Lee, A. (2019). On the glazing of bowls. Pots.", "Lee", "2019", "On the glazing of bowls"),
    ],
)  # fmt: skip
def test_entries_of_a_bibliography(entry: str, surname: str, year: str, title: str) -> None:
    (found,) = entries_of(_paper_with(entry))
    assert (found.surname, found.year, found.title.rstrip("?")) == (surname, year, title)
    assert found.text == entry


@pytest.mark.parametrize(
    "entries",
    [
        ["Lee, A. (2019). On the glazing of bowls. Pots, 3(1), 5–9. https://doi.org/10."],  # cut off
        ["Lee, A. (2019). On the glazing of bowls. Pots. https://doi.org/10. 1000/xyz123"],  # broken
        ["Lee, A. (2019). On the glazing of bowls. Pots,", "3(1), 5–9."],  # goes on in the next passage
        ["Lee, A. (n.d.). On the glazing of bowls. Pots."],
        ["Becke, A. D. (1993). The theory of bowls. III. The role of exact glazing. Pots."],  # title with stops
        ["Lee, A. (2019). Bowls. Pots."],  # no telling title
    ],
)
def test_entries_that_may_be_no_whole_ones_are_left_alone(entries: list[str]) -> None:
    assert not entries_of(_paper_with(*entries))


def test_citations_are_of_author_and_year() -> None:
    entry = "Lee, A. B., & Ray, C. (2019). On the glazing of bowls. Pots, 3(1), 5–9."
    sentences = [
        "The glazing of bowls is as old as the bowls themselves (Lee & Ray, 2019).",
        "That it need not be so has been shown by Lee and Ray (2019) in a large study.",
        "Others (Ray & Lee, 2019) have held that glazing is much younger than the bowls.",
        "A second study came to another result some years later (Lee & Ray, 2019a; Lee, 2021).",
    ]
    reading = _paper_with(entry, text=" ".join(sentences))
    (found,) = entries_of(reading)
    assert [(s.text, cite) for s, cite in citations(reading, found)] == [
        (sentences[0], "Lee & Ray (2019)"), (sentences[1], "Lee and Ray (2019)"),
    ]  # fmt: skip


def test_topics_are_whole_words_of_one_paragraph() -> None:
    document = make_document(
        [
            ("text", "Undergraduate students carve spoons. Undergraduate students carve bowls of river ash too."),
            ("text", "River ash is a hard wood. Nobody who has worked with river ash will forget it."),
            ("text", "A sharp knife helps. With a sharp knife, the whole work is done before the evening."),
            (
                "text",
                "The hidden joint holds best. Those who cut a hidden joint twice never cut the hidden joint again.",
            ),
            ("text", "Masters praise patience; they praise patience in winter, and say so to whoever will hear it."),
            ("text", "Good practical carpentry feeds a family, and of practical carpentry the songs tell little."),
        ]
    )
    reading = Reading(document)
    # No verb with its object, and no name without its end.
    assert [topics_of(p, reading) for p in reading.passages] == [
        [], [], ["sharp knife"], ["hidden joint"], [], ["practical carpentry"],
    ]  # fmt: skip


def test_needles_are_told_apart_by_their_owner_alone() -> None:
    for seed in range(30):
        for c in found(paper("joinery"), "needle", seed)[0][:3]:
            assert c.answer in c.plants[0] and not any(c.answer in other for other in c.plants[1:])
            assert len(c.keys) == len(c.plants) and c.keys[0] in c.question
            assert all(owner in plant for owner, plant in zip(c.keys, c.plants, strict=True))
