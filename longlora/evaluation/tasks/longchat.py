"""LongEval's two tests of LongChat (Li et al. 2023, lmsys.org/blog/2023-06-29-longchat), from their data files.

Lines: many lines that each give a label a number; the number of one label is asked for. Topics: a long conversation
about one topic after the other; the first topic is asked for. Both are judged as text: the first number in the answer
must be the right one; the words of the topic must stand in the first line of the answer. (LongChat leaves topics to
another model's judgement.) ``make_lines`` writes records of the first form, so that none need be fetched.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from longlora.evaluation.scoring.numbers import first_number_is
from longlora.evaluation.scoring.words import contains, first_line
from longlora.evaluation.tasks.base import Context, Result, Sample, Task
from longlora.evaluation.tasks.records import Question, Record, asked, records, truncation

_TOKENS = {"lines": 32, "topics": 64}


class LongChat(Task):
    """Accuracy at recalling a line's number, or a conversation's first topic, by how many there are."""

    name = "longchat"
    version = 1
    metric = "accuracy"
    better = "higher"
    scale = "proportion"
    groups = (("kind",), ("kind", "size"))

    def samples(self, context: Context) -> list[Sample]:
        settings = context.settings.longchat
        return asked(context, (_question(record, settings.max_new_tokens) for record in records(settings, self.name)))

    def judge(self, sample: Sample, output: str) -> Result:
        if sample.about["kind"] == "lines":
            score = first_number_is(output, sample.expected)
        else:
            score = contains(first_line(output), sample.expected)
        return {"score": score, "verdict": "correct" if score else "wrong"}

    def details(self, samples: Sequence[Sample], results: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
        return truncation(samples)


def _question(record: Record, max_new_tokens: int | None) -> Question:
    prompt = record.text("prompt")
    if record.fields.get("expected_number") is not None:
        kind, expected = "lines", str(record.fields["expected_number"])
        size = len(re.findall(r"^line ", prompt, re.MULTILINE))
    elif record.fields.get("topics") is not None:
        topics = record.texts("topics")
        kind, expected, size = "topics", topics[0], len(topics)
    else:
        raise record.wrong("expected_number (of lines) or topics (of a conversation) is missing")
    id = f"{record.file.stem}/{record.index}"
    about = {"subset": record.file.stem, "measure": "accuracy", "document": id, "kind": kind, "size": size}
    body, question = _split(prompt)
    return Question(id, ("", body, question), expected, max_new_tokens or _TOKENS[kind], about, id)


def _split(prompt: str) -> tuple[str, str]:
    """What may be cut, and the question: the last line, or the user's last turn of a conversation written out."""
    text = re.sub(r"\s*\bASSISTANT:\s*$", "", prompt).rstrip()
    at = max(text.rfind("\n"), 0)
    if (turn := text.rfind("USER:")) > 0:
        at = turn
    return text[:at], text[at:]


_HUES = (
    "amber", "ashen", "azure", "bare", "bold", "brisk", "broad", "calm", "clear", "cold", "coral", "crisp",
    "damp", "deep", "dim", "dry", "early", "faint", "fair", "firm", "flat", "fresh", "grand", "green", "grey",
    "hollow", "ivory", "keen", "late", "light", "lone", "loud", "mild", "narrow", "pale", "plain", "proud",
    "quick", "quiet", "rough", "sharp", "slow", "smooth", "steep", "stern", "still", "tall", "warm", "wide",
    "young",
)  # fmt: skip
_THINGS = (
    "anchor", "arch", "barge", "barn", "basin", "beacon", "bench", "bridge", "brook", "canal", "cellar",
    "chapel", "cliff", "court", "cove", "dock", "dune", "farm", "ferry", "field", "forge", "gate", "glade",
    "grove", "harbour", "hedge", "inn", "island", "jetty", "lane", "ledge", "marsh", "meadow", "mill", "moor",
    "orchard", "path", "pier", "pond", "quarry", "reef", "ridge", "shed", "shore", "spire", "spring", "stable",
    "tower", "valley", "wharf",
)  # fmt: skip
MAX_LINES = len(_HUES) * len(_THINGS)


def make_lines(n: int, seed: int) -> dict[str, Any]:
    """A record of ``n`` lines in LongEval's form: ``prompt``, ``expected_number``, ``random_idx``, ``correct_line``.

    Raises:
        ValueError: n is below 1 or above ``MAX_LINES``.
    """
    if not 1 <= n <= MAX_LINES:
        raise ValueError(f"{n} lines: from 1 to {MAX_LINES}")
    draw = random.Random(f"longchat:{seed}:{n}")
    labels = draw.sample([f"{hue}-{thing}" for hue in _HUES for thing in _THINGS], n)
    values = [draw.randint(1, 50_000) for _ in labels]
    lines = [f"line {label}: REGISTER_CONTENT is <{value}>" for label, value in zip(labels, values, strict=True)]
    at = draw.randrange(n)
    opening = "Below are lines of a register. Keep them in mind: you will be asked for the REGISTER_CONTENT of one."
    question = f"That was the register. What is the REGISTER_CONTENT in line {labels[at]}? Answer with the number."
    return {
        "prompt": "\n".join([opening, *lines, question]),
        "expected_number": values[at],
        "random_idx": [labels[at], at],
        "correct_line": lines[at],
    }
