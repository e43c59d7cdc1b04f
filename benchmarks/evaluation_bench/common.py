"""What the parts share: the data, the model, and one evaluation."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.pdf2txt_bench.common import Part, Skip

__all__ = ["Bench", "Part", "Skip"]


@dataclass
class Bench:
    """Where things are, and how much is asked for."""

    shared: Path | None
    work: Path
    model_dir: Path | None
    runs: int
    limit: int

    def folder(self, name: str) -> Path:
        """A folder of the shared data.

        Raises:
            Skip: it is not there.
        """
        if self.shared is None or not (self.shared / name).is_dir():
            raise Skip(f"no {name}/: set LONGFOLIO_SHARED or --shared to the folder that holds it")
        return self.shared / name

    @cached_property
    def model(self) -> Path:
        from longlora.models import ModelSettings, prepare

        return self.model_dir or prepare(ModelSettings(name="smollm2-135m-q4"), self.work / "models")

    def evaluate(
        self, name: str, models: dict[str, Path], settings: dict[str, Any], **sources: Path
    ) -> tuple[dict[str, dict[str, Any]], float, Path]:
        """The items of metrics.json by task, the seconds it took, and the output folder."""
        from longlora.evaluation.data import Sources
        from longlora.evaluation.settings import EvaluateSettings
        from longlora.evaluation.stage import evaluate

        parsed = EvaluateSettings.model_validate(settings)
        work = self.work / name
        began = time.monotonic()
        evaluate(models, Sources(texts=parsed.texts, **sources), parsed, work, _silent, work / "units")
        seconds = time.monotonic() - began
        items = json.loads((work / "output" / "metrics.json").read_text())
        return {item["task"]: item for item in items}, seconds, work / "output"


def interval(value: dict[str, Any], scale: float = 1, sign: str = "") -> str:
    """``[low, high], n`` of a figure."""
    if value["low"] is None:
        return f"n {value['n']}"
    return f"95 % [{scale * value['low']:{sign}.2f}, {scale * value['high']:{sign}.2f}], n {value['n']}"


def _silent(event: str, **fields: Any) -> None:
    if event == "warning":
        print(fields["message"])
