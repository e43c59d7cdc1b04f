"""LongChat's lines and topics, on made records."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longlora.errors import UserError
from longlora.evaluation.data import Sources
from longlora.evaluation.settings import EvaluateSettings
from longlora.evaluation.tasks.base import Context, Sample, Skipped
from longlora.evaluation.tasks.longchat import MAX_LINES, LongChat, make_lines

TASK = LongChat()
TALK = "A chat. USER: Tell me of boats.\nASSISTANT: They float.\n" * 20
TOPICS = {
    "prompt": f"{TALK} USER: The talk is over. What came first? \n ASSISTANT:",
    "topics": ["The art of mending nets", "Bread"],
}


@pytest.fixture
def made(tmp_path: Path, tokenizer) -> Callable[..., list[Sample]]:
    """Write files, and make their samples."""

    def make(files: dict[str, list[dict[str, Any]]], limit: int = 8192) -> list[Sample]:
        for name, rows in files.items():
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = EvaluateSettings.model_validate({"longchat": {"path": tmp_path}})
        return TASK.samples(Context(settings, Sources(), tokenizer, limit))

    return make


def test_made_lines_ask_for_one_of_them() -> None:
    for seed in range(3):
        made = make_lines(50, seed)
        lines = re.findall(r"^line (\S+): REGISTER_CONTENT is <(\d+)>$", made["prompt"], re.MULTILINE)
        label, at = made["random_idx"]
        assert len(dict(lines)) == 50 and lines[at] == (label, str(made["expected_number"]))
        assert made["prompt"].rpartition("\n")[2].count(label) == 1 and made["correct_line"] in made["prompt"]
    assert make_lines(50, 1) == make_lines(50, 1) != make_lines(50, 2)
    assert len(make_lines(1350, 0)["prompt"].splitlines()) == 1352
    for n in (0, MAX_LINES + 1):
        with pytest.raises(ValueError, match="lines: from 1"):
            make_lines(n, 0)


def test_lines(made, tokenizer) -> None:
    files = {f"{n}_lines": [make_lines(n, seed) for seed in range(2)] for n in (20, 40)}
    samples = made(files)
    assert [(s.id, s.about["kind"], s.about["size"]) for s in samples] == [
        (f"{n}_lines/{i}", "lines", n) for n in (20, 40) for i in range(2)
    ]
    for sample in samples:
        assert f"<{sample.expected}>" in tokenizer.decode(sample.input_ids)
        label = re.search(r"in line (\S+)\?", sample.prompt)[1]
        assert TASK.judge(sample, f"In line {label} it is <{sample.expected}>, not 5.")["verdict"] == "correct"
        assert TASK.judge(sample, f"5 or {sample.expected}") == {"score": 0.0, "verdict": "wrong"}
        assert TASK.judge(sample, "I do not know")["score"] == 0


def test_topics(made) -> None:
    (sample,) = made({"2_topics": [TOPICS]})
    assert (sample.about["kind"], sample.about["size"], sample.expected) == ("topics", 2, "The art of mending nets")
    assert sample.prompt.endswith("USER: The talk is over. What came first?")
    assert TASK.judge(sample, "We first spoke of the art of mending nets.")["score"] == 1
    assert TASK.judge(sample, "Bread\nThe art of mending nets")["score"] == TASK.judge(sample, "nets")["score"] == 0


def test_the_question_is_never_cut(made, tokenizer) -> None:
    for sample in made({"200_lines": [make_lines(200, 0)], "2_topics": [TOPICS]}, limit=250):
        text = tokenizer.decode(sample.input_ids)
        assert sample.about["truncated"] > 0 and ("Answer with the number." in text or "What came first?" in text)


def test_a_record_of_neither_kind_is_named(made) -> None:
    with pytest.raises(UserError, match=r"x.jsonl, line 1: expected_number .* or topics"):
        made({"x": [{"prompt": "a\nb"}]})
    with pytest.raises(UserError, match=r"x.jsonl, line 1: prompt is missing"):
        made({"x": [{"expected_number": 3}]})


def test_without_its_files_it_says_which_setting_is_missing(tokenizer) -> None:
    with pytest.raises(Skipped, match=r"evaluate\.longchat\.path"):
        TASK.samples(Context(EvaluateSettings(), Sources(), tokenizer))
