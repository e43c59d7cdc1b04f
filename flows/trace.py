"""Which documents, pages and settings stand behind a model, an output or a dataset row."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from flows.errors import UsageError
from flows.runs import find_run, list_runs
from flows.store import Store, read_manifest

HEX = re.compile(r"[0-9a-f]{6,64}")


def trace(store: Store, target: str) -> dict[str, Any]:
    """The lineage of ``target``: a path inside an output (a model), a run, a digest, or a dataset row's id.

    Returns ``{"target", "chain": [stage...], "documents": [...], "row": {...} | None}``; the chain goes
    upstream from the stage that made the target.

    Raises:
        UsageError: nothing of that name.
    """
    row = None
    found = _by_path(target) or _by_run(store, target) or _by_digest(store, target)
    if found is None:
        found, row = _by_row(store, target)
    if found is None:
        raise UsageError(
            f"trace: {target!r} is no path inside the store, run, digest or dataset row id",
            "`longfolio status` lists runs; row ids stand in the dataset's column id",
        )
    manifests = _chain(store, found)
    documents = _documents(store, manifests)
    if row is not None:
        documents = [d for d in documents if d["doc_id"] in row["doc_ids"]]
    chain = [
        {
            "stage": m["stage"], "digest": m["digest"], "version": m["identity"]["version"], "run_id": m["run_id"],
            "finished": m["finished"], "settings": m["settings"], "engines": m["identity"]["engines"],
            "external": {k: v for k, v in m["identity"]["external"].items() if k != "pdfs"},
            "path": str(store.finished(m["stage"], m["digest"])),
        }
        for m in manifests
    ]  # fmt: skip
    return {"target": target, "chain": chain, "documents": documents, "row": row}


def _by_path(target: str) -> dict[str, Any] | None:
    path = Path(target)
    if not path.exists():
        return None
    for folder in (path.resolve(), *path.resolve().parents):
        manifest = read_manifest(folder)
        if manifest is not None and "identity" in manifest:
            return manifest
    return None


def _by_run(store: Store, target: str) -> dict[str, Any] | None:
    try:
        rows = find_run(store, target).data["stages"]
    except UsageError:
        return None
    made = [m for row in rows if (m := store.manifest(row["stage"], row["digest"])) is not None]
    return made[-1] if made else None


def _by_digest(store: Store, target: str) -> dict[str, Any] | None:
    if not HEX.fullmatch(target):
        return None
    matches = [m for s, d, _ in store.outputs() if d.startswith(target) and (m := store.manifest(s, d)) is not None]
    return matches[0] if len(matches) == 1 else None


def _by_row(store: Store, target: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Newest dataset with a row of this id, and the row without its long text."""
    import pyarrow.parquet as pq

    datasets = [m for s, d, _ in store.outputs("datasets_build") if (m := store.manifest(s, d)) is not None]
    for manifest in sorted(datasets, key=lambda m: m["finished"], reverse=True):
        folder = store.finished("datasets_build", manifest["digest"]) / "data"
        for file in sorted(folder.glob("*.parquet")):
            rows = pq.read_table(file, filters=[("id", "=", target)]).to_pylist()
            if rows:
                row = rows[0]
                row["instruction"] = row["instruction"][-400:]
                return manifest, {"split": file.name.split("-")[0], **row}
    return None, None


def _chain(store: Store, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The manifest and all it was made from, nearest first."""
    chain: list[dict[str, Any]] = []
    waiting = [manifest]
    while waiting:
        current = waiting.pop(0)
        if any(m["digest"] == current["digest"] for m in chain):
            continue
        chain.append(current)
        upstream = current["identity"]["upstream"]
        waiting += [m for name, key in reversed(upstream.items()) if (m := store.manifest(name, key)) is not None]
    return chain


def _documents(store: Store, manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry per document: id, names, status, pages, split, and how many rows were made of it."""
    import json

    import pyarrow.parquet as pq

    names: dict[str, list[str]] = {}
    for record in list_runs(store):
        names.update(record.data.get("documents", {}))
    splits: dict[str, str] = {}
    rows: dict[str, int] = {}
    documents: list[dict[str, Any]] = []
    for manifest in manifests:
        folder = store.finished(manifest["stage"], manifest["digest"])
        if manifest["stage"] == "datasets_build":
            splits = json.loads((folder / "splits.json").read_text())
            for file in sorted((folder / "data").glob("*.parquet")):
                for ids in pq.read_table(file, columns=["doc_ids"])["doc_ids"].to_pylist():
                    for doc_id in ids:
                        rows[doc_id] = rows.get(doc_id, 0) + 1
        elif manifest["stage"] == "pdf2txt":
            columns = ["doc_id", "sha256", "source", "status", "n_pages"]
            documents = pq.read_table(folder / "documents.parquet", columns=columns).to_pylist()
    for document in documents:
        document["names"] = names.get(document["sha256"], [])
        document["split"] = splits.get(document["doc_id"], "")
        document["rows"] = rows.get(document["doc_id"], 0)
    return documents
