"""Perplexity of raw text, in disjoint windows.

A document is cut into windows of exactly ``window`` tokens from its beginning; what is left over is not used.
In each window every token but the first is scored, given the tokens before it in the window. The result is
exp(sum of -log p / number of scored tokens) over all windows. No token is scored twice, unlike LongLoRA's
eval.py, whose windows overlap (stride 256) and count a token at every position it takes.

A tokenizer that begins texts with a token of its own (Llama's <s>) has it at the head of every window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from longlora.errors import UserError
from longlora.evaluation.data import Sources, Text, text_files, validation_documents
from longlora.evaluation.settings import EvaluateSettings
from longlora.evaluation.statistics import Bootstrap
from longlora.evaluation.tasks.base import Comparison, Context, Sample, Skipped
from longlora.prompts import begins_with_bos, plain_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from longlora.evaluation.model import LanguageModel

# Characters of a document that are looked at per token wanted; no tokenizer makes longer tokens on average.
CHARACTERS_PER_TOKEN = 16


def windows(tokenizer: PreTrainedTokenizerBase, text: Text, window: int, limit: int) -> list[Sample]:
    """At most ``limit`` full windows of ``window`` tokens from the beginning of ``text``."""
    head = text.text[: window * limit * CHARACTERS_PER_TOKEN]
    ids = plain_ids(tokenizer, head)
    begin = [tokenizer.bos_token_id] if begins_with_bos(tokenizer) else []
    step = window - len(begin)
    return [
        Sample(
            f"{text.id}#{i}",
            begin + ids[i * step : (i + 1) * step],
            1,
            about={"document": text.id, "window": i},
        )
        for i in range(min(limit, len(ids) // step))
    ]


class Perplexity:
    """Of the converted documents of the validation split."""

    name = "perplexity"
    version = 1
    metric = "perplexity"
    better = "lower"

    def applies(self, sources: Sources) -> bool:
        return sources.documents is not None and sources.splits is not None

    def texts(self, sources: Sources) -> Iterator[Text]:
        assert sources.documents is not None and sources.splits is not None
        return validation_documents(sources.documents, sources.splits)

    def settings(self, settings: EvaluateSettings) -> dict[str, Any]:
        return {}

    def samples(self, context: Context) -> list[Sample]:
        limits = context.settings.perplexity
        most = min(limits.max_windows, limits.max_windows_per_document)
        documents = [windows(context.tokenizer, t, limits.window, most) for t in self.texts(context.sources)]
        if not any(documents):
            self.nothing(len(documents), limits.window)
        # Round by round, so that a small total still sees every document.
        rounds = [d[i] for i in range(most) for d in documents if i < len(d)]
        return sorted(rounds[: limits.max_windows], key=lambda s: (s.about["document"], s.about["window"]))

    def nothing(self, documents: int, window: int) -> None:
        if documents == 0:
            raise Skipped("no converted document is in the validation split")
        raise Skipped(
            f"the {documents} documents of the validation split are shorter than one window of {window} "
            "tokens: lower evaluate.perplexity.window"
        )

    def measure(self, model: LanguageModel, sample: Sample, settings: EvaluateSettings) -> dict[str, Any]:
        tokens = len(sample.input_ids) - sample.start
        loss = model.loss(sample.input_ids, sample.start)
        return {"loss": loss / tokens, "loss_sum": loss, "tokens": tokens, "verdict": "scored"}

    def compare(self, base: list[dict[str, Any]], merged: list[dict[str, Any]] | None, by: Bootstrap) -> Comparison:
        a, tokens = [r["loss_sum"] for r in base], [r["tokens"] for r in base]
        if merged is None:
            return Comparison(by.perplexity(a, tokens))
        b = [r["loss_sum"] for r in merged]
        difference, ratio = by.perplexity_change(a, b, tokens)
        return Comparison(by.perplexity(a, tokens), by.perplexity(b, tokens), difference, ratio)


class TextPerplexity(Perplexity):
    """Of the text files that the user names."""

    name = "text_perplexity"

    def applies(self, sources: Sources) -> bool:
        return bool(sources.texts)

    def texts(self, sources: Sources) -> Iterator[Text]:
        return text_files(sources.texts)

    def nothing(self, documents: int, window: int) -> None:
        raise UserError(
            f"evaluate.texts: none of the {documents} texts is as long as one window of {window} tokens",
            "give longer texts, or lower evaluate.perplexity.window",
        )
