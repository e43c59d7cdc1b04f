"""L-Eval's file format and rules, on small documents of our own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longlora.errors import UserError
from longlora.evaluation.data import Sources
from longlora.evaluation.settings import EvaluateSettings
from longlora.evaluation.tasks.base import Context, Sample, Skipped
from longlora.evaluation.tasks.leval import SUBSETS, LEval

TASK = LEval()
STORY = "The ferry left at dawn with nine sheep and the postman on board. " * 30
OPTIONS = "\n(A) At dawn\n(B) At noon\n(C) At night"


def record(
    instructions: list[str], outputs: list[str], document: str = STORY, evaluation: str = "exam"
) -> dict[str, Any]:
    return {
        "instructions": instructions, "outputs": outputs, "input": document, "source": "x", "evaluation": evaluation,
    }  # fmt: skip


@pytest.fixture
def made(tmp_path: Path, tokenizer) -> Callable[..., list[Sample]]:
    """Write files, and make their samples."""

    def make(
        files: dict[str, list[dict[str, Any]]], limit: int = 8192, draw: int | None = None, **settings: Any
    ) -> list[Sample]:
        for name, rows in files.items():
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        given = {"leval": {"path": tmp_path}, "limit": draw, **settings}
        return TASK.samples(Context(EvaluateSettings.model_validate(given), Sources(), tokenizer, limit))

    return make


def score(sample: Sample, output: str) -> float:
    return float(TASK.judge(sample, output)["score"])


def test_a_sample_per_question_with_its_document(made, tokenizer) -> None:
    samples = made({
        "quality": [
            record([f"When did it leave?{OPTIONS}", f"When did it return?{OPTIONS}"], ["(A) At dawn", "(C) At night"]),
            record([f"When?{OPTIONS}"], ["(B) At noon"], "Another story."),
        ],
        "gov_report_summ": [record(["Sum it up."], ["Sheep went over the sea"], evaluation="rouge")],
    })  # fmt: skip
    assert [s.id for s in samples] == ["gov_report_summ/0/0", "quality/0/0", "quality/0/1", "quality/1/0"]
    assert [s.document for s in samples] == ["gov_report_summ/0", "quality/0", "quality/0", "quality/1"]
    first = samples[1]
    assert first.about | {"tokens": 0} == {
        "subset": "quality", "document": "quality/0", "measure": "option_letters", "tokens": 0, "truncated": 0,
    }  # fmt: skip
    assert STORY in first.prompt and first.prompt.index("When did it leave?") > first.prompt.index(STORY)
    assert first.prompt in tokenizer.decode(first.input_ids) and first.about["tokens"] == len(first.input_ids)
    assert "5 words" in samples[0].prompt and "words" not in first.prompt.rpartition("\n")[2]
    assert samples[0].max_new_tokens == 512 and first.max_new_tokens < 64


@pytest.mark.parametrize(
    ("subset", "truth", "right", "wrong"),
    [
        ("quality", "(A) At dawn", "(A) At dawn", "The answer is (B), not A"),
        ("tpo", "C", "The correct option is C.", "C, D"),
        ("coursera", "ACD", "A, C and D", "B"),
        ("sci_fi", "True", "True, in this story.", "False"),
        ("gsm100", "1,200", "2 x 600 = 1200. So it is $1,200.00.\nQuestion: 7?", "1200 is not 12"),
        ("topic_retrieval_longchat", "The art of nets", "It was: the art of nets!\n", "Nets\nThe art of nets"),
        ("codeU", "[1, 2, 3]", "First 7.\nSo the output is: `[1,2,3]`.\n", "[1,2,3] or\n[11,2,3]"),
        ("scientific_qa", "relu", "ReLU", "tanh"),
        ("news_summ", "Sheep went over", "sheep went over", "no such"),
    ],
)  # fmt: skip
def test_the_rule_of_each_subset(made, subset: str, truth: str, right: str, wrong: str) -> None:
    (sample,) = made({subset: [record(["What now?"], [truth])]})
    assert score(sample, right) == 1 and score(sample, wrong) == score(sample, "") == 0
    assert score(sample, truth) == 1


def test_partly_right(made) -> None:
    (sample,) = made({"coursera": [record(["Which?"], ["ACD"])]})
    assert TASK.judge(sample, "A and C") == {"score": 0.25, "verdict": "wrong"}
    assert TASK.judge(sample, "ACD") == {"score": 1.0, "verdict": "correct"}
    (answer, summary) = made({
        "coursera": [], "news_summ": [record(["Sum it up."], ["nine sheep left the harbour"])],
        "natural_question": [record(["Who?"], ["the old postman"])],
    })  # fmt: skip
    assert TASK.judge(answer, "a postman") == {"score": pytest.approx(2 / 3), "verdict": "scored"}
    # "sheep the harbour" is common: 3 of 4 and of 5 words
    assert TASK.judge(summary, "sheep near the harbour") == {"score": pytest.approx(6 / 9), "verdict": "scored"}


def test_science_fiction_is_asked_by_its_world_and_by_ours(made) -> None:
    question = "Ships can fly, True or False? Answer this question based on the world described in the document."
    story, fact = made({"sci_fi": [record([question], ["True [fact: False]"])]})
    assert (story.id, story.expected, fact.id, fact.expected) == ("sci_fi/0/0", "True", "sci_fi/0/0-fact", "False")
    assert "Ships can fly, True or False?" in story.prompt and "Ships can fly, True or False?" in fact.prompt
    assert "real world" in fact.prompt and "real world" not in story.prompt
    assert "based on the world described" not in story.prompt + fact.prompt
    assert story.document == fact.document


def test_files_of_other_names_go_by_what_they_say_of_their_evaluation(made) -> None:
    files = {
        "mine": [
            record(["Q?"], ["B"]),
            record(["Q?"], ["boat"], evaluation="f1"),
            record(["Q?"], ["b"], evaluation="rouge"),
        ]
    }
    assert [s.about["measure"] for s in made(files)] == ["option_letters", "f1", "rouge_l"]
    with pytest.raises(UserError, match=r"mine.jsonl, line 1: mine is no subset of L-Eval"):
        made({"mine": [record(["Q?"], ["B"], evaluation="taste")]})


def test_too_long_a_document_loses_its_middle_and_that_is_told(made, tokenizer) -> None:
    long = "It begins here. " + STORY * 3 + " It ends here."
    files = {"tpo": [record([f"When?{OPTIONS}"], ["A"], long), record([f"When?{OPTIONS}"], ["A"], "Short.")]}
    cut, whole = made(files, limit=600)
    assert len(cut.input_ids) + cut.max_new_tokens <= 600 and cut.about["truncated"] > 500
    text = tokenizer.decode(cut.input_ids)
    assert "It begins here." in text and "It ends here." in text and f"When?{OPTIONS}" in text
    assert whole.about["truncated"] == 0
    assert TASK.details([cut, whole], {}) == {
        "subsets": [{
            "subset": "tpo", "measure": "option_letters", "n": 2, "truncated": 1,
            "mean_tokens_cut": cut.about["truncated"],
        }]
    }  # fmt: skip


def test_settings_choose_files_answer_length_and_a_drawn_part(made, tmp_path) -> None:
    files = {"tpo": [record([f"Q{i}?" for i in range(9)], ["A"] * 9)], "quality": [record(["Q?"], ["A"])]}
    assert {s.about["subset"] for s in made(files, leval={"path": tmp_path, "subsets": ["tpo"]})} == {"tpo"}
    assert {s.max_new_tokens for s in made(files, leval={"path": tmp_path, "max_new_tokens": 7})} == {7}
    by_seed = [[s.id for s in made(files, draw=3, seed=seed)] for seed in (0, 0, 1)]
    assert by_seed[0] == by_seed[1] != by_seed[2]
    assert [name.partition("/")[0] for name in by_seed[0]] == ["quality", "tpo", "tpo", "tpo"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"instructions": ["a"], "outputs": ["A"]}', "line 2: input is missing"),
        ('{"input": "d", "outputs": ["A"]}', "line 2: instructions is missing"),
        ('{"input": "d", "instructions": "a", "outputs": ["A"]}', "line 2: instructions is no list of texts"),
        ('{"input": "d", "instructions": ["a", "b"], "outputs": ["A"]}', "line 2: 2 instructions and 1 outputs"),
        ('{"input": 3, "instructions": ["a"], "outputs": ["A"]}', "line 2: input is no text"),
        ('{"input": "d", ', "line 2: no JSON"),
        ("[]", "line 2: no JSON object"),
    ],
)
def test_a_malformed_record_is_named(made, tmp_path, text: str, what: str) -> None:
    (tmp_path / "tpo.jsonl").write_text(f"\n{text}\n")
    with pytest.raises(UserError, match=f"tpo.jsonl, {what}") as error:
        made({})
    assert error.value.remedy


def test_missing_files(made, tmp_path) -> None:
    with pytest.raises(UserError, match=r"holds no \.jsonl file"):
        made({})
    with pytest.raises(UserError, match="is no folder"):
        made({}, leval={"path": tmp_path / "none"})
    with pytest.raises(Skipped, match="no records"):
        made({"tpo": []})
    with pytest.raises(UserError, match=r"has no quality.jsonl") as error:
        made({}, leval={"path": tmp_path, "subsets": ["quality"]})
    assert "tpo" in error.value.remedy
    (tmp_path / "tpo.jsonl").write_bytes(b'{"input": "\xff"}')
    with pytest.raises(UserError, match="not UTF-8"):
        made({})


def test_without_its_files_it_says_which_setting_is_missing(tokenizer) -> None:
    with pytest.raises(Skipped, match=r"evaluate\.leval\.path"):
        TASK.samples(Context(EvaluateSettings(), Sources(), tokenizer))
    assert len(SUBSETS) == 20


def test_the_published_files_if_they_are_there(shared: Path, tokenizer) -> None:
    """An oracle is right, a constant answer is not, and no prompt is too long."""
    settings = EvaluateSettings.model_validate({"leval": {"path": shared / "leval"}, "limit": 4})
    samples = TASK.samples(Context(settings, Sources(), tokenizer, 4096))
    assert {s.about["subset"] for s in samples} >= {"quality", "tpo", "gov_report_summ", "scientific_qa", "multidoc_qa"}
    assert all(score(s, s.expected) == 1 for s in samples)
    assert sum(score(s, "I do not know") for s in samples) / len(samples) < 0.05
    assert all(len(s.input_ids) + s.max_new_tokens <= 4096 for s in samples)
    assert any(s.about["truncated"] for s in samples)
