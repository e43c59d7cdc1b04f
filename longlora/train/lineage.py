"""What the adapter says of the data it was trained on, for the merged model's card."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any


def dataset_lineage(dataset: Path) -> dict[str, Any]:
    """Facts about a datasets_build output; what its files do not say is None.

    Returns:
        ``row_digest`` of the dataset, ``rows`` (of both splits), ``documents`` (how many; which ones stands in
        ``rows_by_document`` of the dataset's stats.json), ``licences`` (of the training rows: name -> rows).
    """
    try:
        stats = dict(json.loads((dataset / "stats.json").read_text()))
    except (OSError, ValueError, TypeError):  # a dataset made by other hands
        stats = {}
    sources = stats.get("rows_by_document")
    return {
        "row_digest": stats.get("row_digest"),
        "rows": stats.get("rows"),
        "documents": None if sources is None else sum(not name.startswith("import:") for name in sources),
        "licences": _licences(dataset),
    }


def _licences(dataset: Path) -> dict[str, int] | None:
    import pyarrow.parquet as pq

    counts: Counter[str] = Counter()
    for path in sorted((dataset / "data").glob("train-*.parquet")):
        file = pq.ParquetFile(path)
        if "license" not in file.schema_arrow.names:
            return None
        for batch in file.iter_batches(columns=["license"]):
            counts.update(name or "unknown" for name in batch.column(0).to_pylist())
    return dict(sorted(counts.items())) or None
