"""The teacher's parts alone: quotations, replies, pairs, budget, settings."""

from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from datasets_build.reading import Passage
from datasets_build.settings import DatasetSettings
from datasets_build.teacher.calls import Call, Usage
from datasets_build.teacher.courier import failure_of
from datasets_build.teacher.dialogue import f1
from datasets_build.teacher.limits import Purse, Stopped
from datasets_build.teacher.pairs import pair_up
from datasets_build.teacher.quotes import Shown, folded
from datasets_build.teacher.replies import Junk, parse_object, truth
from datasets_build.teacher.settings import TeacherSettings

ENDPOINT = {"base_url": "http://localhost:1/v1", "model": "m"}
TEXTS = (
    "Glue was made on the day and thrown away at night.",
    "The state-of-the-art method — “slow drying” — costs nothing.",
    "Eﬃcient workshops lost 12.5% less wood.",
)


def shown(*texts: str) -> Shown:
    return Shown(Passage(i, "text", text, 0, len(text)) for i, text in enumerate(texts, 3))


@pytest.mark.parametrize(
    ("quotation", "found"),
    [
        ("made on the\n  day and thrown", [(3, "made on the day and thrown")]),
        ("glue was MADE on the day", [(3, "Glue was made on the day")]),
        ('state of the art method - "slow drying" -', [(4, "state-of-the-art method — “slow drying")]),
        ("Efficient work-shops lost 12.5%", [(5, "Eﬃcient workshops lost 12.5%")]),
        ("thrown away at night.", [(3, "thrown away at night.")]),
        ("thrown away at night. The state-of", [(3, "thrown away at night."), (4, "The state-of")]),
        ("Glue was made [...] thrown away", [(3, "Glue was made"), (3, "thrown away")]),
        ("costs nothing,", [(4, "costs nothing")]),
        ("Glue was made on the night", None),
        ("thrown away ... Glue was", None),  # not in this order
        ("the day", None),  # stands everywhere
        ("", None),
        ("...", None),
    ],
)  # fmt: skip
def test_quotations_are_found_however_they_are_written(quotation: str, found) -> None:
    result = shown(*TEXTS).find(quotation)
    assert (None if result is None else [(f.passage, f.text) for f in result]) == found


@given(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=4), st.data())
def test_a_part_of_a_text_is_found_where_it_stands(texts: list[str], data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(texts) - 1))
    text = texts[which]
    start = data.draw(st.integers(0, len(text) - 1))
    part = text[start : data.draw(st.integers(start + 1, len(text)))]
    result = shown(*texts).find(part)
    if len(folded(part)) < 12:
        assert result is None or folded("".join(f.text for f in result))
    elif "..." not in part and "…" not in part:
        assert result is not None
        assert folded("".join(f.text for f in result)).rstrip(".,;:") == folded(part).rstrip(".,;:")


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        'Sure:\n```json\n{"a": 1,}\n```\nI hope this helps {you}.',
        '<think>{"a": 2}</think>{"a": 1}',
        'The form is {"b": 3}. Here: {"a": 1}',
        '{"note": "line\nbreak", "a": 1}',
    ],
)
def test_replies_are_read_leniently(text: str) -> None:
    assert parse_object(text, ("a",))["a"] == 1


@given(st.text())
def test_any_text_is_an_object_or_junk(text: str) -> None:
    try:
        assert "a" in parse_object(text, ("a",))
    except Junk as junk:
        assert "a" in str(junk)


@given(st.dictionaries(st.text(), st.text() | st.booleans() | st.none()), st.text("abc {}[]", max_size=20))
def test_an_object_is_found_among_words(value: dict, around: str) -> None:
    assert parse_object(f"{around}\n{json.dumps({**value, 'a': 1})}", ("a",))["a"] == 1


def test_truth() -> None:
    assert truth("Yes", "x") is truth(True, "x") is True and truth("false", "x") is False
    with pytest.raises(Junk):
        truth("perhaps", "x")


@given(st.sets(st.integers(0, 5000), max_size=60), st.integers(0, 3))
def test_pairs_are_disjoint_and_those_of_the_set(numbers: set[int], seed: int) -> None:
    ids = [f"{n:04x}" for n in numbers]
    pairs = pair_up(ids, seed)
    assert len({d for pair in pairs for d in pair}) == 2 * len(pairs) == len(ids) // 2 * 2
    assert pair_up(ids[::-1], seed) == pairs


def test_one_more_document_changes_few_pairs() -> None:
    ids = [f"{n:016x}" for n in range(2000)]
    changed = [len(set(pair_up([*ids, f"new{k}"], 1)) - set(pair_up(ids, 1))) for k in range(10)]
    assert sum(changed) / len(changed) < 11  # log2(2000)


def test_the_budget_waits_for_calls_in_flight_and_is_never_exceeded() -> None:
    purse = Purse(TeacherSettings.model_validate({**ENDPOINT, "budget": "1k tokens"}), Usage(3, 300, 100))
    most = Usage(1, 200, 100)
    purse.reserve(most)  # 700 at most
    purse.reserve(most)  # 1000 at most
    third = threading.Thread(target=purse.reserve, args=(most,))
    third.start()
    third.join(0.1)
    assert third.is_alive()  # may fit once the others turn out cheaper
    purse.settle(most, Usage(1, 50, 10))
    third.join(0.1)
    assert third.is_alive()
    purse.settle(most, Usage(1, 50, 10))
    third.join(5)
    assert not third.is_alive()
    purse.settle(most, Usage(1, 200, 100))
    with pytest.raises(Stopped, match=r"820 of 1,000 tokens"):
        purse.reserve(most)


def test_where_a_call_goes_does_not_count() -> None:
    a, b = Call("m", "p", "{}"), Call("m", "p", "{}", 1)
    assert len({a.key, b.key, Call("n", "p", "{}").key, Call("m", "q", "{}").key, Call("m", "p", '{"x": 1}').key}) == 5


@pytest.mark.parametrize(
    ("status", "body", "headers", "trouble", "after"),
    [
        (429, {}, {"retry-after": "3"}, "passing", 3),
        (429, {}, {"retry-after-ms": "500"}, "passing", 0.5),
        (429, {"code": "insufficient_quota"}, {}, "exhausted", None),
        (503, {}, {"retry-after": "soon"}, "passing", None),
        (401, {}, {}, "fatal", None),
        (404, {}, {}, "fatal", None),
        (400, {}, {}, "refused", None),
    ],
)
def test_what_a_status_means(status, body, headers, trouble, after) -> None:
    failure = failure_of(status, headers, body, "words")
    assert (failure.trouble, failure.retry_after) == (trouble, after)


def test_f1() -> None:
    assert f1("The cat sat.", "the cat sat") == 1.0
    assert f1("a b", "c d") == 0.0
    assert f1("", "c") == 0.0


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ({"model": "m"}, "either teacher.base_url"),
        ({**ENDPOINT, "local": "smollm2-135m-q4"}, "either teacher.base_url"),
        ({"base_url": "http://h/v1"}, "teacher.model is missing"),
        ({**ENDPOINT, "base_url": "h/v1"}, "must begin with http"),
        ({**ENDPOINT, "base_url": "https://me:secret@h/v1"}, "password"),
        ({**ENDPOINT, "budget": 5}, "price_input"),
        ({**ENDPOINT, "budget": "much"}, "neither an amount"),
        ({**ENDPOINT, "budget": -1}, "negative"),
        ({**ENDPOINT, "api_key": "sk-1"}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_be_meant(teacher: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DatasetSettings.model_validate({"teacher": teacher})


def test_a_recipe_of_the_teacher_needs_one() -> None:
    with pytest.raises(ValidationError, match="needs a teacher"):
        DatasetSettings.model_validate({"recipes": ["paper-qa"]})
    with pytest.raises(ValidationError, match="did you mean 'paper-qa'"):
        DatasetSettings.model_validate({"recipes": ["papr-qa"]})
    alone = DatasetSettings.model_validate({})
    assert not alone.chosen_teacher_recipes() and "title" in alone.chosen_recipes()
    taught = DatasetSettings.model_validate({"teacher": ENDPOINT})
    assert len(taught.chosen_teacher_recipes()) == 5 and taught.chosen_recipes() == alone.chosen_recipes()


def test_what_changes_no_row_is_not_digested() -> None:
    from flows.digest import digested

    def of(**teacher):
        return digested(DatasetSettings.model_validate({"teacher": {**ENDPOINT, **teacher}}))

    same = {
        "base_url": "https://other/v1", "budget": "5M tokens", "api_key_env": "OTHER", "concurrency": 1,
        "requests_per_minute": 3, "timeout_seconds": 9, "retries": 0, "price_input": 1, "price_output": 2,
    }  # fmt: skip
    assert of(**same) == of()
    assert of(temperature=0.5) != of() and of(extra={"seed": 1}) != of() and of(model="n") != of()
