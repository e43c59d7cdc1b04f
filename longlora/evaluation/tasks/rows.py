"""The dataset's validation rows as they are put to a model."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from longlora.evaluation.data import validation_rows
from longlora.evaluation.tasks.base import Context, Skipped
from longlora.prompts import Rendered, render


def drawn_rows(
    context: Context, task: str, most: int, fits: Callable[[Rendered], bool], limits: str
) -> Iterator[tuple[dict[str, Any], Rendered]]:
    """At most ``most`` rows that fit, drawn by seed, ordered by id.

    Args:
        task: its name, which the draw depends on.
        limits: what ``fits`` asks for, for the message.

    Raises:
        Skipped: there are none.
    """
    assert context.sources.dataset is not None
    rows = validation_rows(context.sources.dataset)
    if not rows:
        raise Skipped("the dataset has no validation rows: raise dataset.validation_share, or add documents")
    random.Random(f"{task}:{context.settings.seed}").shuffle(rows)
    found: list[tuple[dict[str, Any], Rendered]] = []
    for row in rows:
        if len(found) == most:
            break
        rendered = render(context.tokenizer, context.template, row["instruction"], row["output"])
        if fits(rendered):
            found.append((row, rendered))
    if not found:
        raise Skipped(f"none of {len(rows)} validation rows is within {limits}")
    yield from sorted(found, key=lambda pair: str(pair[0]["id"]))
