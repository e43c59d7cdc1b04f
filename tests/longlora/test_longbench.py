"""LongBench's file format and measures, on small records of our own."""

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
from longlora.evaluation.tasks.longbench import DATASETS, LongBench, length_range

TASK = LongBench()


def record(dataset: str, answers: list[str], **fields: Any) -> dict[str, Any]:
    return {
        "input": "What {now}?", "context": "A boat came in. " * 40, "answers": answers, "length": 160,
        "dataset": dataset, "language": "en", "all_classes": None, "_id": "7f", **fields,
    }  # fmt: skip


@pytest.fixture
def made(tmp_path: Path, tokenizer) -> Callable[..., list[Sample]]:
    """Write files, and make their samples."""

    def make(files: dict[str, list[dict[str, Any]]], limit: int = 8192, **longbench: Any) -> list[Sample]:
        for name, rows in files.items():
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = EvaluateSettings.model_validate({"longbench": {"path": tmp_path, **longbench}})
        return TASK.samples(Context(settings, Sources(), tokenizer, limit))

    return make


def test_a_record_becomes_a_sample(made, tokenizer) -> None:
    plain, extended = made({
        "hotpotqa": [record("hotpotqa", ["a boat", "the boat"])],
        "hotpotqa_e": [record("hotpotqa", ["x"], length=9000, _id=None)],
    })  # fmt: skip
    assert (plain.id, extended.id) == ("hotpotqa/7f", "hotpotqa_e/0")
    assert plain.expected == {"answers": ["a boat", "the boat"]} and plain.max_new_tokens == 32
    assert (plain.about["subset"], plain.about["length_range"]) == ("hotpotqa", "0-4k")
    assert (extended.about["subset"], extended.about["dataset"], extended.about["length_range"]) == (
        "hotpotqa_e", "hotpotqa", "8k+",
    )  # fmt: skip
    assert plain.prompt.index("A boat came in.") < plain.prompt.index("What {now}?")
    assert plain.prompt in tokenizer.decode(plain.input_ids)


@pytest.mark.parametrize(
    ("dataset", "answers", "output", "score"),
    [
        ("qasper", ["grey cat", "cat"], "The cat.", 1),
        ("musique", ["grey cat"], "cat", 2 / 3),
        ("multifieldqa_zh", ["学校北门"], "北门", 2 * 2 / 6),
        ("dureader", ["去学校"], "不去学校", 2 * 3 / 7),
        ("gov_report", ["police killed the gunman"], "police kill the gunman", 3 / 4),
        ("samsum", ["Ann is late"], "\nAnn is late\nDialogue: and so on", 1),
        ("triviaqa", ["Bergen"], "Bergen\nPassage: more", 1),
        ("passage_count", ["5"], "There are 5, not 6", 1 / 2),
        ("passage_retrieval_en", ["Paragraph 12"], "Paragraph 12", 1),
        ("passage_retrieval_zh", ["段落3"], "段落4", 0),
        ("lcc", ["abcd"], "# so\nabed\nmore", 6 / 8),
        ("repobench-p", ["abcd"], "abcd", 1),
    ],
)
def test_the_measure_of_each_dataset(made, dataset: str, answers: list[str], output: str, score: float) -> None:
    (sample,) = made({dataset: [record(dataset, answers)]})
    assert TASK.judge(sample, output)["score"] == pytest.approx(score)


@pytest.mark.parametrize("dataset", ["trec", "lsht"])
def test_classes(made, dataset: str) -> None:
    (sample,) = made({dataset: [record(dataset, ["winter sport"], all_classes=["sport", "winter sport", "food"])]})
    assert TASK.judge(sample, " winter sport\nfood") == {"score": 1.0, "verdict": "correct"}
    assert TASK.judge(sample, "winter sport, food") == {"score": 0.5, "verdict": "wrong"}
    assert TASK.judge(sample, "sport") == {"score": 0.0, "verdict": "wrong"}


def test_examples_and_code_are_continued_without_the_chat_format(made, tokenizer) -> None:
    files = {name: [record(name, ["x"], all_classes=["x"])] for name in DATASETS}
    samples = made(files)
    assert {s.about["dataset"] for s in samples} == set(DATASETS) and len(DATASETS) == 21
    plain = {s.about["dataset"] for s in samples if "<|im_end|>" not in tokenizer.decode(s.input_ids)}
    assert plain == {"trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"}


def test_too_long_a_context_loses_its_middle(made, tokenizer) -> None:
    (sample,) = made({"lcc": [record("lcc", ["x"], context="begin()\n" + "step()\n" * 900 + "end()\n")]}, limit=300)
    text = tokenizer.decode(sample.input_ids)
    assert "begin()" in text and "end()" in text and len(sample.input_ids) == 300 - 64
    assert TASK.details([sample], {})["subsets"][0]["truncated"] == 1


def test_ranges() -> None:
    assert [length_range(n) for n in (0, 3999, 4000, 7999, 8000)] == ["0-4k", "0-4k", "4-8k", "4-8k", "8k+"]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"answers": None}, "answers is missing"),
        ({"answers": []}, "answers is no list"),
        ({"context": None}, "context is missing"),
        ({"length": None}, "length .* is missing"),
        ({"dataset": "mine"}, "dataset is mine"),
        ({"dataset": "trec"}, "all_classes is missing"),
    ],
)
def test_a_malformed_record_is_named(made, changed: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=f"qasper.jsonl, line 2: {what}"):
        made({"qasper": [record("qasper", ["x"]), record("qasper", ["x"]) | changed]})


def test_without_its_files_it_says_which_setting_is_missing(tokenizer) -> None:
    with pytest.raises(Skipped, match=r"evaluate\.longbench\.path"):
        TASK.samples(Context(EvaluateSettings(), Sources(), tokenizer))
