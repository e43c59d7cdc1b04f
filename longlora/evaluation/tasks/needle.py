"""Needle in a haystack: one fact of no relation to a text, at a grid of lengths and depths.

The form is Kamradt's (2023, LLMTest_NeedleInAHaystack); the fact and the question are our own, a new number for each
sample, so that nothing can be known beforehand. The haystack is the texts of ``evaluate.texts``, else the validation
documents, else filler sentences. Judged as text: the number stands in the answer.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from longlora.evaluation.data import Text, text_files, validation_documents
from longlora.evaluation.tasks.base import Context, Result, Sample, Task
from longlora.evaluation.tasks.haystack import PADDING, Endless, fit, planted
from longlora.prompts import encode_prompt

PLACES = ("Alder Point", "Birch Hollow", "Copper Bay", "Dunmore Ferry", "Elm Crossing", "Fallow Mill", "Grey Harbour",
          "Hazel Bridge", "Iron Quay", "Juniper Hill")  # fmt: skip
FACT = "The storage room of {place} is opened with the number {number}."
QUESTION = "Which number opens the storage room of {place}? Answer with the number."
OPENING = "Read the text. A question about it follows."
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[\"'“‘A-Z])")


class Needle(Task):
    """Accuracy at finding one fact in running text, by length and depth."""

    name = "needle"
    version = 1
    metric = "accuracy"
    better = "higher"
    scale = "proportion"
    groups = (("length",), ("length", "depth"))

    def samples(self, context: Context) -> list[Sample]:
        wanted = context.settings.needle
        hay = haystack(context, max(wanted.lengths) * 8)
        samples = []
        for length in wanted.lengths:
            for depth in wanted.depths:
                for trial in range(wanted.trials):
                    draw = random.Random(f"needle:{context.settings.seed}:{length}:{depth}:{trial}")
                    place, number = draw.choice(PLACES), str(draw.randint(10_000, 99_999))
                    at = draw.randrange(len(hay)) if hay else 0
                    sentences = Endless(draw) if not hay else None
                    text = ""

                    def encode(units: int, padding: int) -> list[int]:
                        nonlocal text
                        own = sentences.first(units) if sentences else [hay[(at + i) % len(hay)] for i in range(units)]  # noqa: B023
                        body = planted(own, [(depth, FACT.format(place=place, number=number))])  # noqa: B023
                        body += [PADDING] * padding
                        text = "\n\n".join([OPENING, " ".join(body), QUESTION.format(place=place)])  # noqa: B023
                        return encode_prompt(context.tokenizer, context.template, text)

                    ids = fit(encode, length, "evaluate.needle.lengths")
                    about = {"length": length, "depth": depth, "tokens": len(ids)}
                    name = f"{length}-{depth:g}-{trial}"
                    samples.append(Sample(name, ids, 0, number, about, text, max_new_tokens=wanted.max_new_tokens))
        return samples

    def judge(self, sample: Sample, output: str) -> Result:
        right = sample.expected in re.findall(r"\d+", output.replace(",", ""))
        return {"score": float(right), "verdict": "correct" if right else "wrong"}


def haystack(context: Context, characters: int) -> list[str]:
    """Sentences of the run's texts, about so many characters; empty where it has none."""
    sources = context.sources
    if sources.texts:
        texts: Iterator[Text] = (text for text in text_files(sources.texts) if text.tokens is None)
    elif sources.documents is not None and sources.splits is not None:
        texts = validation_documents(sources.documents, sources.splits)
    else:
        return []
    found: list[str] = []
    have = 0
    for text in texts:
        for part in text.parts:
            for sentence in SENTENCE.split(" ".join(part.split())):
                # no tables, no lists: a unit of filler is a sentence
                if 20 <= len(sentence) <= 400:
                    found.append(sentence)
                    have += len(sentence)
            if have >= characters:
                return found
    return found
