"""A step whose loss or gradient is not a number ends training, and says which rows it was on."""

from __future__ import annotations

import json
import math
from pathlib import Path

from longlora.errors import UserError
from longlora.train import distributed

REPORT = "not_finite.json"
NAMED = 10  # rows in the message; the file has all


class LossNotFinite(UserError):
    """Loss or gradient became NaN or infinite; names the rows of the step."""


def judge(work: Path, step: int, loss: float, norm: float, row_ids: list[list[str]]) -> None:
    """Stop unless ``loss`` and ``norm`` are finite; they must be the same on every rank.

    Args:
        work: ``not_finite.json`` is written here: step, what, value, and ``rows``: per rank, per packed row, ids.
        step: the optimizer step, from 1.
        loss: mean per supervised token, of all ranks.
        norm: of the whole gradient.
        row_ids: ids of the samples in each packed row that this rank had in the step.

    Raises:
        LossNotFinite: on all ranks.
    """
    what, value = ("loss", loss) if not math.isfinite(loss) else ("gradient norm", norm)
    if math.isfinite(value):
        return
    rows = distributed.everyone(row_ids)
    if distributed.is_main():
        aside = work / f".{REPORT}.tmp"
        aside.write_text(json.dumps({"step": step, "what": what, "value": str(value), "rows": rows}, indent=1) + "\n")
        aside.replace(work / REPORT)
    ids = [i for rank in rows for row in rank for i in row]
    more = f" and {len(ids) - NAMED} more (all in {work / REPORT})" if len(ids) > NAMED else ""
    raise LossNotFinite(
        f"{what} is {value} in step {step}, on the rows {', '.join(ids[:NAMED])}{more}; "
        "the last checkpoint is from before",
        "lower train.learning_rate, or look at the named rows",
    )
