"""Perplexity of raw text: exp(sum of -log p / number of scored tokens).

Three definitions (``evaluate.perplexity.method``), for a context of L tokens and a stride of s:

- ``disjoint``: windows of L tokens side by side. Every token but a window's first is scored, given what stands before
  it in the window: half of them have less than L / 2 tokens of context.
- ``strided``: the first window as above; after it each window moves on by s tokens and scores these alone, given the
  L - s before them (Press et al. 2021, "Shortformer", section 2; the sliding window of the transformers guide).
- ``longlora``: as LongLoRA's eval.py: all documents in a row, windows of L tokens that begin every s (256) tokens, the
  last of them dropped, all of each window scored. A token counts once for each window that it lies in.

No token is scored twice, and no document's text stands in another's window, but for ``longlora``.

A tokenizer that begins texts with a token of its own (Llama's <s>) has it at the head of every window, but for
``longlora``, whose token files have what their writer put there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from longlora.errors import UserError
from longlora.evaluation.data import Sources, Text, text_files, validation_documents
from longlora.evaluation.settings import EvaluateSettings, PerplexitySettings
from longlora.evaluation.tasks.base import Context, Result, Sample, Skipped, Task
from longlora.prompts import begins_with_bos

if TYPE_CHECKING:
    import numpy as np

BUCKETS = 8  # equal parts of the window, for perplexity by position


def windows(ids: Sequence[int], begin: list[int], length: int, stride: int) -> Iterator[tuple[int, list[int], int]]:
    """``(place of the first scored token, input_ids, start)`` of windows that score every token of ``ids`` once.

    The first window is as long as ``length`` allows; each one after it begins ``stride`` tokens later and scores what
    is new. Without ``begin`` the text's first token has no context and is not scored, nor is the first of any window
    in which all is new.
    """
    body = length - len(begin)
    low, done = 0, 0
    while done < len(ids):
        high = min(low + body, len(ids))
        start = max(len(begin) + done - low, 1)
        yield done, begin + list(ids[low:high]), start
        low, done = low + stride, high


class Perplexity(Task):
    """Of the converted documents of the validation split."""

    name = "perplexity"
    version = 2
    metric = "perplexity"
    better = "lower"
    scale = "perplexity"
    answers = False
    groups = (("length",),)
    draws = False  # the same text at all lengths

    def applies(self, sources: Sources, settings: EvaluateSettings) -> bool:
        return sources.documents is not None and sources.splits is not None

    def texts(self, context: Context) -> Iterator[Text]:
        assert context.sources.documents is not None and context.sources.splits is not None
        return validation_documents(context.sources.documents, context.sources.splits)

    def samples(self, context: Context) -> list[Sample]:
        limits = context.settings.perplexity
        if (most := context.settings.limit) is not None:
            limits = limits.model_copy(update={"max_windows": min(most, limits.max_windows or most)})
        return self._overlapping(context, limits) if limits.method == "longlora" else self._once(context, limits)

    def _once(self, context: Context, limits: PerplexitySettings) -> list[Sample]:
        """Each token scored once: disjoint and strided."""
        begin = [context.tokenizer.bos_token_id] if begins_with_bos(context.tokenizer) else []
        body = limits.window - len(begin)
        step = limits.stride if limits.method == "strided" else body
        documents: list[tuple[str, list[int]]] = []
        count = 0
        for text in self.texts(context):
            for name, ids in self._heads(context, text, limits.max_document_tokens):
                count += 1
                if len(ids) >= body:
                    documents.append((name, ids))
        if not documents:
            self.nothing(count, limits.window)
        available = [1 + (len(ids) - body) // step for _, ids in documents]
        samples = []
        for (name, ids), used in zip(documents, _share(available, limits.max_windows), strict=True):
            text_end = body + (used - 1) * step if used else 0
            for length in (limits.window, *limits.shorter):
                stride = limits.stride if limits.method == "strided" else length - len(begin)
                for place, input_ids, start in windows(ids[:text_end], begin, length, stride):
                    if start == len(input_ids):  # one token without any before it
                        continue
                    about = {"document": name, "place": place, "length": length, "tokens": len(input_ids)}
                    main = length == limits.window
                    samples.append(Sample(f"{name}#{place}@{length}", input_ids, start, about=about, counts=main))
        return samples

    def _heads(self, context: Context, text: Text, most: int) -> Iterator[tuple[str, list[int]]]:
        """A document's beginning; of a token file, which has many documents in a row, every piece of that length."""
        if text.tokens is None:
            yield text.id, text.head(context.tokenizer, most)
            return
        ids = text.head(context.tokenizer, None)
        bos = context.tokenizer.bos_token_id
        for at in range(0, len(ids), most):
            piece = ids[at : at + most]
            yield f"{text.id}@{at}", piece[1:] if piece[0] == bos else piece  # every window gets one of its own

    def _overlapping(self, context: Context, limits: PerplexitySettings) -> list[Sample]:
        ids: list[int] = []
        count = 0
        for text in self.texts(context):
            ids += text.head(context.tokenizer, None)
            count += 1
        starts = range(0, len(ids) - limits.window, limits.stride)[:-1]
        if not starts:
            self.nothing(count, limits.window + limits.stride)
        few = min(len(starts), limits.max_windows or len(starts))
        chosen = [starts[round(i * (len(starts) - 1) / max(few - 1, 1))] for i in range(few)]  # over all documents
        return [
            Sample(
                f"{at}@{limits.window}",
                ids[at : at + limits.window],
                1,
                about={"place": at, "length": limits.window, "tokens": limits.window},
            )
            for at in chosen
        ]

    def nothing(self, documents: int, window: int) -> None:
        if documents == 0:
            raise Skipped("no converted document is in the validation split")
        raise Skipped(
            f"the {documents} documents of the validation split are shorter than one window of {window} "
            "tokens: lower evaluate.perplexity.window"
        )

    def measured(self, sample: Sample, losses: np.ndarray) -> Result:
        """Also ``by_position``: sum of losses and number of tokens in each eighth of the window."""
        import numpy as np

        places = np.arange(sample.start, len(sample.input_ids)) * BUCKETS // sample.about["length"]
        sums, counts = (np.bincount(places, weights, BUCKETS) for weights in (losses, None))
        parts = [[float(s), int(n)] for s, n in zip(sums, counts, strict=True)]
        return {**super().measured(sample, losses), "by_position": parts}

    def details(self, samples: Sequence[Sample], results: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
        """Perplexity of each eighth of the window, for each model, and how many tokens were scored."""
        import math

        rows = []
        length = max(s.about["length"] for s in samples)
        for part in range(BUCKETS):
            row: dict[str, Any] = {"from": part * length // BUCKETS, "to": (part + 1) * length // BUCKETS}
            for name, measured in results.items():
                own = [r["by_position"][part] for s, r in zip(samples, measured, strict=True) if s.counts]
                row["tokens"] = sum(n for _, n in own)
                if row["tokens"]:
                    row[name] = math.exp(math.fsum(loss for loss, _ in own) / row["tokens"])
            rows.append(row)
        scored = sum(len(s.input_ids) - s.start for s in samples if s.counts)
        return {"tokens": scored, "by_position": [row for row in rows if row.get("tokens")]}


class TextPerplexity(Perplexity):
    """Of the texts that the user names."""

    name = "text_perplexity"

    def applies(self, sources: Sources, settings: EvaluateSettings) -> bool:
        return bool(sources.texts)

    def texts(self, context: Context) -> Iterator[Text]:
        return text_files(context.sources.texts)

    def nothing(self, documents: int, window: int) -> None:
        raise UserError(
            f"evaluate.texts: none of the {documents} texts is as long as one window of {window} tokens",
            "give longer texts, or lower evaluate.perplexity.window",
        )


def _share(available: list[int], most: int | None) -> list[int]:
    """How many of each, round by round, until ``most`` are there."""
    used = [0] * len(available)
    left = sum(available) if most is None else min(most, sum(available))
    while left:
        for i, n in enumerate(available):
            if left and used[i] < n:
                used[i] += 1
                left -= 1
    return used
