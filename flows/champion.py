"""The champion: the model that others are compared with. ``<store>/champion.json``, changed by `longfolio promote`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flows.errors import UsageError
from flows.runs import RunRecord, now
from flows.store import Store
from pdf2txt.units import write_atomic

CHAMPION = "champion.json"


@dataclass(frozen=True)
class Champion:
    """``merge``, ``evaluate``: digests of its outputs. ``model``: the settings of its base. ``metrics``: as of the
    evaluation when it was promoted. ``gate``: that run's verdict. ``before``: run id of the champion it replaced."""

    run_id: str
    merge: str
    evaluate: str
    date: str
    model: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    gate: str = ""
    before: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def outputs(self) -> Iterator[tuple[str, str]]:
        yield "merge", self.merge
        yield "evaluate", self.evaluate


def path_of(store: Store) -> Path:
    return store.root / CHAMPION


def read_champion(store: Store) -> Champion | None:
    """None where nothing was promoted.

    Raises:
        UsageError: the file is there and damaged. Nobody guesses what it said: gc would delete the model.
    """
    path = path_of(store)
    try:
        data = json.loads(path.read_text())
        return Champion(**{key: data[key] for key in Champion.__dataclass_fields__ if key in data})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{path} cannot be read: {error}", "`longfolio promote RUN` writes it anew, `longfolio promote --clear` not"
        ) from None


def of_run(store: Store, record: RunRecord) -> Champion:
    """What this run would make the champion.

    Raises:
        UsageError: it has no finished model, or no finished evaluation, in the store.
    """
    rows = {row["stage"]: row for row in record.data["stages"]}
    for stage in ("merge", "evaluate"):
        row = rows[stage]
        if row["action"] not in ("ran", "cached") or store.manifest(stage, row["digest"]) is None:
            raise UsageError(
                f"run {record.run_id} has no finished output of {stage} in store {store.root}",
                f"finish it (`longfolio resume {record.run_id}`), or promote another run (`longfolio status`)",
            )
    return Champion(
        record.run_id, rows["merge"]["digest"], rows["evaluate"]["digest"], now(), record.data["config"]["model"],
        rows["evaluate"]["metrics"], (record.data.get("gate") or {}).get("verdict", ""),
    )  # fmt: skip


def write_champion(store: Store, champion: Champion) -> None:
    write_atomic(path_of(store), (json.dumps(champion.to_json(), indent=1) + "\n").encode())
