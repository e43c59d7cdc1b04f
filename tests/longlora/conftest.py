"""A small dataset, and the train stage on it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from train_options import SMALL

from longlora.train.settings import TrainSettings


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """Twelve rows about six words, in the layout of datasets_build."""
    folder = tmp_path_factory.mktemp("dataset")
    words = ["kernel", "margin", "ledger", "column", "glyph", "vellum"]
    rows = [
        {
            "id": f"r{i:02}",
            "instruction": f"Repeat the word {w}." + " Please." * (i % 5),
            "output": f"{w} {w}",
        }
        for i, w in enumerate(words * 2)
    ]
    (folder / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "data" / "train-00000-of-00001.parquet")
    (folder / "splits.json").write_text(json.dumps({"d1": "train", "d2": "validation"}))
    documents = [
        {"doc_id": "d1", "text": "The quick brown fox. " * 60},
        {"doc_id": "d2", "text": "Held out. " * 60},
    ]
    pq.write_table(pa.Table.from_pylist(documents), folder / "documents.parquet")
    return folder


@pytest.fixture
def train(dataset, tiny_model_dir):
    """Run the stage; returns metrics, the work folder and the events."""
    from longlora.train.stage import run

    def go(work: Path, stop_after: int | None = None, model: Path = tiny_model_dir, **settings):
        events = []

        def report(event, **fields):
            events.append((event, fields))
            if event == "progress" and stop_after is not None and fields["done"] >= stop_after:
                raise KeyboardInterrupt

        inputs = {"datasets_build": dataset, "pdf2txt": dataset, "model": model}
        return run(TrainSettings(**{**SMALL, **settings}), inputs, work, report), events

    return go
