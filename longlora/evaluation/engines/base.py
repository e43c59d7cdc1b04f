"""What an engine is, and which samples it is given at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from longlora.evaluation.tasks.base import Sample

if TYPE_CHECKING:
    import numpy as np

SIMILAR = 1.25  # prompts of one batch differ in length by no more: the shorter ones are padded


@dataclass(frozen=True)
class Batch:
    """Samples measured at once. ``prefix``: tokens at their beginning that all samples of their document share."""

    samples: tuple[Sample, ...]
    prefix: int = 0


class Engine(Protocol):
    """A model that is loaded when first asked."""

    scores: bool  # whether it can tell losses
    kind: str  # how it computes; numbers of two kinds are not compared
    stops: frozenset[int]  # tokens that end an answer, besides the model's own
    longest: int  # tokens of the longest sample with its answer

    def identity(self) -> str:
        """Names what its numbers depend on, the model's content and ``kind``."""

    def losses(self, input_ids: list[int], start: int) -> np.ndarray:
        """-log p(token | all before it), in nats, of each of ``input_ids[start:]``."""

    def answers(self, batch: Batch) -> list[str]:
        """What the model writes after each prompt, most likely token by token, without special tokens."""

    def close(self) -> None:
        """Free the model."""


def batches(samples: Sequence[Sample], size: int, tokens: int, answers: bool) -> list[Batch]:
    """One document's questions together, in order; prompts without a document by length, the longest first.

    Args:
        size: samples of a batch at most.
        tokens: prompt tokens of a batch at most (one sample may have more).
        answers: whether they are written; losses are taken one by one.
    """
    if not answers:
        return [Batch((sample,)) for sample in samples]
    found: list[Batch] = []
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.document, []).append(sample)
    groups[""] = sorted(groups.get("", []), key=lambda s: -len(s.input_ids))
    for document, members in groups.items():
        prefix = _common(members) if document and len(members) > 1 else 0
        current: list[Sample] = []
        for sample in members:
            several = [*current, sample]
            lengths = [len(s.input_ids) for s in several]
            alike = document or max(lengths) <= SIMILAR * min(lengths)
            same = sample.max_new_tokens == several[0].max_new_tokens
            if current and not (alike and same and len(several) <= size and max(lengths) * len(several) <= tokens):
                found.append(Batch(tuple(current), prefix))
                several = [sample]
            current = several
        if current:
            found.append(Batch(tuple(current), prefix))
    return found


def _common(samples: Sequence[Sample]) -> int:
    """Tokens that all begin with; every prompt keeps one of its own, to go on from."""
    first, last = min(s.input_ids for s in samples), max(s.input_ids for s in samples)
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return min(shared, min(len(s.input_ids) for s in samples) - 1)
