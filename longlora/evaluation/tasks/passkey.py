"""Passkey retrieval: a number in filler text, asked for at the end.

The structure is that of LongLoRA's test (passkey_retrivial.py; the task is from Mohtashami & Jaggi 2023,
arXiv 2305.16300): what to look for, filler, the number said twice, filler, the question. Wording and filler are our
own, or from a file. The answer is judged as text, not as token ids: the first number in it must be the right one.

``exact``: lengths are counted in tokens of the whole prompt, prompt format included, and met within 1 %; the number has
five digits and stands at the depths asked for.

``longlora``: its rule of lengths and its seeds. Length i has ``int(3.75 * (i + 1) * interval // 1024 * 1024)``
characters of filler, cut wherever that falls; seed s gives, by NumPy's old generator, the characters before the number
and the number from 1 to 49,999. Raw text without a prompt format, that ends where the number is to follow.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longlora.errors import UserError
from longlora.evaluation.settings import PasskeySettings
from longlora.evaluation.tasks.base import Context, Result, Sample, Task
from longlora.evaluation.tasks.haystack import FILLER, PADDING, Endless, fit, planted
from longlora.prompts import begins_with_bos, encode_prompt, plain_ids

CHARACTERS_PER_TOKEN = 3.75  # LongLoRA's estimate


@dataclass(frozen=True)
class Wording:
    """What the prompt says; ``needle`` has ``{key}``. ``ending``: where the answer to raw text is to follow."""

    opening: str = (
        "Somewhere in these notes stands a pass key, a number. Find it and keep it in mind: you will be asked."
    )
    filler: tuple[str, ...] = FILLER
    needle: str = "The pass key is {key}. Keep it in mind. {key} is the pass key."
    question: str = "What is the pass key? Answer with the number."
    ending: str = "What is the pass key? The pass key is"


class Passkey(Task):
    """Accuracy at finding a number in filler text, by length and depth."""

    name = "passkey"
    version = 2
    metric = "accuracy"
    better = "higher"
    scale = "proportion"
    groups = (("length",), ("length", "depth"))

    def samples(self, context: Context) -> list[Sample]:
        wanted = context.settings.passkey
        wording = read_wording(wanted.wording) if wanted.wording else Wording()
        return (
            self._exact(context, wanted, wording) if wanted.method == "exact" else _longlora(context, wanted, wording)
        )

    def _exact(self, context: Context, wanted: PasskeySettings, wording: Wording) -> list[Sample]:
        samples = []
        for length in wanted.lengths:
            for depth in wanted.depths:
                for trial in range(wanted.trials):
                    draw = random.Random(f"passkey:{context.settings.seed}:{length}:{depth}:{trial}")
                    key = str(draw.randint(10_000, 99_999))
                    sentences = Endless(draw, wording.filler)
                    text = ""

                    def encode(units: int, padding: int) -> list[int]:
                        nonlocal text
                        body = planted(sentences.first(units), [(depth, wording.needle.format(key=key))])  # noqa: B023
                        body += [PADDING] * padding
                        text = "\n".join([wording.opening, " ".join(body), wording.question])
                        return encode_prompt(context.tokenizer, context.template, text)

                    ids = fit(encode, length, "evaluate.passkey.lengths")
                    about = {"length": length, "depth": depth, "tokens": len(ids)}
                    name = f"{length}-{depth:g}-{trial}"
                    samples.append(Sample(name, ids, 0, key, about, text, max_new_tokens=wanted.max_new_tokens))
        return samples

    def judge(self, sample: Sample, output: str) -> Result:
        """``correct`` if the first number in the answer is the key (12,345 counts as 12345), else ``wrong``."""
        found = re.search(r"\d+(,\d{3})*", output)
        right = bool(found) and found.group().replace(",", "") == sample.expected  # type: ignore[union-attr]
        return {"score": float(right), "verdict": "correct" if right else "wrong"}


def _longlora(context: Context, wanted: PasskeySettings, wording: Wording) -> list[Sample]:
    import numpy as np

    begin = [context.tokenizer.bos_token_id] if begins_with_bos(context.tokenizer) else []
    samples = []
    for i in range(wanted.max_tokens // wanted.interval):
        characters = int(CHARACTERS_PER_TOKEN * (i + 1) * wanted.interval // 1024 * 1024)
        filler = " ".join(wording.filler)
        filler = (filler + " ") * (characters // len(filler) + 1)
        for seed in range(wanted.trials):
            draw = np.random.RandomState(seed)
            before = int(draw.randint(0, characters))
            key = str(draw.randint(1, 50_000))
            needle = wording.needle.format(key=key)
            after = characters - before
            text = "\n".join([wording.opening, filler[:before], needle, filler[:after], wording.ending])
            ids = begin + plain_ids(context.tokenizer, text)
            about = {"length": (i + 1) * wanted.interval, "characters": characters, "tokens": len(ids)}
            name = f"{(i + 1) * wanted.interval}-seed{seed}"
            samples.append(Sample(name, ids, 0, key, about, text, max_new_tokens=wanted.max_new_tokens))
    return samples


def read_wording(path: Path) -> Wording:
    """The wording of a YAML file; what it leaves out is ours.

    Raises:
        UserError: it cannot be read, has other keys, or a needle without ``{key}``.
    """
    import yaml

    remedy = "give opening, filler (a list of sentences), needle (with {key}), question, ending; each may be left out"
    try:
        value: Any = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        filler = value.pop("filler", list(FILLER))
        if (
            not isinstance(filler, list)
            or not filler
            or not all(isinstance(v, str) for v in (*filler, *value.values()))
        ):
            raise ValueError("filler is a list of sentences, everything else is text")
        wording = Wording(filler=tuple(filler), **value)
        if "{key}" not in wording.needle:
            raise ValueError("needle lacks {key}")
        wording.needle.format(key=1)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"evaluate.passkey.wording: {path}: {error}", remedy) from error
    return wording
