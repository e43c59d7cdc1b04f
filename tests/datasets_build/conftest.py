from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from handmade import TOPICS, paper, write_input

__all__ = ["TOPICS"]


class Built:
    """Metrics, events and output folder of one run of the stage."""

    def __init__(self, metrics: dict[str, Any], events: list[tuple[str, dict[str, Any]]], output: Path) -> None:
        self.metrics, self.events, self.output = metrics, events, output

    def rows(self, split: str | None = None) -> list[dict[str, Any]]:
        import pyarrow.parquet as pq

        files = sorted((self.output / "data").glob(f"{split or '*'}-*.parquet"))
        return [row for file in files for row in pq.read_table(file).to_pylist()]

    def rejects(self) -> list[dict[str, Any]]:
        import pyarrow.parquet as pq

        return pq.read_table(self.output / "rejects.parquet").to_pylist()

    def reused(self) -> list[bool]:
        return [fields["reused"] for event, fields in self.events if event == "unit" and fields["kind"] == "rows"]


@pytest.fixture
def build(smollm2_dir: Path, tmp_path: Path) -> Callable[..., Built]:
    """Run the stage: ``build(documents, work="a", **settings)``; units are shared between calls."""
    from datasets_build.settings import DatasetSettings
    from datasets_build.stage import run

    def call(documents: list | None = None, work: str = "work", **settings: Any) -> Built:
        chosen = [paper(t) for t in TOPICS] if documents is None else documents
        source = write_input(tmp_path / f"{work}-in", chosen)
        events: list[tuple[str, dict[str, Any]]] = []
        parsed = DatasetSettings.model_validate({"max_tokens": 1024, "min_validation_rows": 1, **settings})
        inputs = {"pdf2txt": source, "model": smollm2_dir, "units": tmp_path / "units"}
        inputs |= {f"import-{i}": one.path for i, one in enumerate(parsed.imports) if one.path}
        inputs |= {f"decontaminate-{i}": path for i, path in enumerate(parsed.decontaminate)}
        if parsed.teacher is not None and parsed.teacher.local is not None:
            inputs["teacher"] = smollm2_dir
        (tmp_path / work).mkdir(exist_ok=True)
        metrics = run(parsed, inputs, tmp_path / work, lambda event, **fields: events.append((event, fields)))
        return Built(metrics, events, tmp_path / work / "output")

    return call
