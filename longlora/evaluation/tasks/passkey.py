"""Passkey retrieval: a five-digit number in filler text, asked for at the end.

The structure is that of LongLoRA's test (passkey_retrivial.py; the task is from Mohtashami & Jaggi 2023,
arXiv 2305.16300): what to look for, filler, the number said twice, filler, the question. Wording and filler
are our own. Lengths are counted in tokens of the whole prompt, template included, and met within 1 %; the
answer is judged as text: the first number in it must be the right one.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any

from longlora.errors import UserError
from longlora.evaluation.data import Sources
from longlora.evaluation.settings import EvaluateSettings
from longlora.evaluation.statistics import Bootstrap, paired_proportions, wilson
from longlora.evaluation.tasks.base import Comparison, Context, Sample
from longlora.prompts import Template, encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from longlora.evaluation.model import LanguageModel

OPENING = "Somewhere in these notes stands a pass key, a number. Find it and keep it in mind: you will be asked."
NEEDLE = "The pass key is {key}. Keep it in mind. {key} is the pass key."
QUESTION = "What is the pass key? Answer with the number."
FILLER = (
    "The harbour is quiet in the morning.",
    "A boat leaves and another one comes back.",
    "The wind turns a little to the west.",
    "Bread is baked in the street behind the church.",
    "Someone opens a window and closes it again.",
    "The clouds move slowly over the hills.",
    "Two children count the gulls on the pier.",
    "The road bends twice before it meets the river.",
    "Old ropes lie drying in the sun.",
    "At noon the bell is heard across the water.",
)
PADDING = "again"  # one short word, repeated where sentences are too coarse to meet a length


class Passkey:
    """Accuracy at finding a number in filler text, by length and depth."""

    name = "passkey"
    version = 1
    metric = "accuracy"
    better = "higher"

    def applies(self, sources: Sources) -> bool:
        return True

    def settings(self, settings: EvaluateSettings) -> dict[str, Any]:
        return {"max_new_tokens": settings.passkey.max_new_tokens}

    def samples(self, context: Context) -> list[Sample]:
        wanted = context.settings.passkey
        samples = []
        for length in wanted.lengths:
            for depth in wanted.depths:
                for trial in range(wanted.trials):
                    draw = random.Random(f"passkey:{context.settings.seed}:{length}:{depth}:{trial}")
                    key = str(draw.randint(10_000, 99_999))
                    ids = prompt(context.tokenizer, context.template, length, depth, key, draw)
                    about = {"length": length, "tokens": len(ids), "depth": depth}
                    name = f"{length}-{depth:g}-{trial}"
                    samples.append(Sample(name, ids, expected=key, about=about))
        return samples

    def measure(self, model: LanguageModel, sample: Sample, settings: EvaluateSettings) -> dict[str, Any]:
        output = model.greedy(sample.input_ids, settings.passkey.max_new_tokens)
        return {"output": output, "expected": sample.expected, "verdict": judge(output, sample.expected)}

    def compare(self, base: list[dict[str, Any]], merged: list[dict[str, Any]] | None, by: Bootstrap) -> Comparison:
        a = [r["verdict"] == "correct" for r in base]
        first = wilson(sum(a), len(a), by.confidence)
        if merged is None:
            return Comparison(first)
        b = [r["verdict"] == "correct" for r in merged]
        return Comparison(first, wilson(sum(b), len(b), by.confidence), paired_proportions(a, b, by.confidence))


def prompt(
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    length: int,
    depth: float,
    key: str,
    draw: random.Random,
) -> list[int]:
    """Token ids of one prompt of ``length`` tokens (1 % either way), the key at ``depth`` of the filler.

    Raises:
        UserError: the length leaves no room for the question.
    """
    tolerance = length // 100

    def encode(sentences: list[str], padding: int) -> list[int]:
        at = round(depth * len(sentences))
        parts = [sentences[:at], [NEEDLE.format(key=key)], sentences[at:], [PADDING] * padding]
        text = "\n".join([OPENING, *(" ".join(p) for p in parts if p), QUESTION])
        return encode_prompt(tokenizer, template, text)

    ids = encode([], 0)
    room = length + tolerance - len(ids)
    if room < 0:
        raise UserError(
            f"evaluate.passkey.lengths: {length} is too short, the question alone takes {len(ids)} tokens",
            f"use lengths from {len(ids) + 10} on",
        )
    cost = {s: len(tokenizer(f" {s}", add_special_tokens=False)["input_ids"]) for s in FILLER}
    sentences: list[str] = []
    while room > 0:
        sentences.append(draw.choice(FILLER))
        room -= cost[sentences[-1]]
    while len(ids := encode(sentences, 0)) > length and sentences:
        sentences.pop()
    padding = 0
    for _ in range(8):
        if abs(len(ids) - length) <= tolerance:
            return ids
        padding = max(padding + length - len(ids), 0)
        ids = encode(sentences, padding)
    raise UserError(f"evaluate.passkey.lengths: no prompt of {length} tokens can be made", "use another length")


def judge(output: str, key: str) -> str:
    """``correct`` if the first number in the answer is the key (12,345 counts as 12345), else ``wrong``."""
    found = re.search(r"\d+(,\d{3})*", output)
    return "correct" if found and found.group().replace(",", "") == key else "wrong"
