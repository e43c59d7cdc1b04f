"""What the store knows of a document: where its file is, what was made of it, and whether it was taken down.

The exclusion list is ``excluded.json`` in the store. ``stages.gather`` leaves its documents out of every run, so that
they are in no text, row, training or evaluation made from then on; the digests of all stages follow, since what is
left out is no input.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets_build.view_html import DocumentFile
from flows.errors import UsageError
from flows.inputs import FileHashes
from flows.runs import list_runs, now
from flows.store import Store, read_manifest
from pdf2txt.schema import Page
from pdf2txt.sources import find_sources
from pdf2txt.units import write_atomic

EXCLUDED = "excluded.json"
DOC_ID = 16  # hex digits of a document's sha256


@dataclass(frozen=True)
class Known:
    """A document of the store."""

    sha256: str
    names: tuple[str, ...]  # every path that runs found it under

    @property
    def doc_id(self) -> str:
        return self.sha256[:DOC_ID]


def excluded(store: Path) -> dict[str, dict[str, Any]]:
    """The exclusion list: sha256 -> {"names", "since"}.

    Raises:
        UsageError: it cannot be read. A list that is damaged is not an empty one.
    """
    path = store / EXCLUDED
    try:
        value = json.loads(path.read_text(encoding="utf-8"))["documents"]
        return {str(sha): dict(entry) for sha, entry in value.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(
            f"the exclusion list {path} cannot be read ({type(error).__name__})",
            "repair it or restore it from a backup; without it, documents that were taken down would come back",
        ) from error


def write_excluded(store: Store, documents: Iterable[Known], *, undo: bool) -> None:
    """Put documents on the exclusion list, or take them from it."""
    listed = excluded(store.root)
    for document in documents:
        if undo:
            listed.pop(document.sha256, None)
        else:
            listed.setdefault(document.sha256, {"names": list(document.names), "since": now()})
    text = json.dumps({"documents": listed}, indent=1, sort_keys=True)
    write_atomic(store.root / EXCLUDED, text.encode())


def known_documents(store: Store) -> dict[str, Known]:
    """Every document that a run of the store was given or converted, and those taken down; by sha256."""
    names: dict[str, list[str]] = {sha: list(entry.get("names", [])) for sha, entry in excluded(store.root).items()}
    for record in list_runs(store):
        for sha, paths in record.data.get("documents", {}).items():
            found = names.setdefault(sha, [])
            found += [path for path in paths if path not in found]
    for _, digest, _ in store.outputs("pdf2txt"):
        for row in _documents(store, digest, ("sha256", "source")):
            found = names.setdefault(row["sha256"], [])
            if not any(Path(name).name == Path(row["source"]).name for name in found):
                found.append(row["source"])
    return {sha: Known(sha, tuple(found)) for sha, found in sorted(names.items())}


def find(store: Store, wanted: Sequence[str]) -> list[Known]:
    """The documents of the given ids: a doc_id, a sha256 or its beginning (6 digits and more), or a file's name.

    Raises:
        UsageError: one is unknown, with the nearest, or stands for several.
    """
    known = known_documents(store)
    found: list[Known] = []
    for name in wanted:
        by_id = [d for sha, d in known.items() if len(name) >= 6 and sha.startswith(name.lower())]
        matches = by_id or [d for d in known.values() if any(name in (n, Path(n).name) for n in d.names)]
        if len(matches) > 1:
            ids = ", ".join(d.doc_id for d in matches)
            raise UsageError(f"{name!r} stands for {len(matches)} documents: {ids}", "give one of these ids")
        if not matches:
            all_ = [d.doc_id for d in known.values()] + [Path(n).name for d in known.values() for n in d.names]
            near = difflib.get_close_matches(name, all_, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UsageError(
                f"no document {name!r} in store {store.root}",
                f"{hint}`longfolio trace` lists the documents of a run with their ids",
            )
        found += [d for d in matches if d not in found]
    return found


def traces(store: Store, documents: Collection[Known]) -> dict[str, list[dict[str, Any]]]:
    """The finished outputs that hold or have seen one of the documents.

    Returns:
        datasets: {digest, path, run_id, rows: {split: n}}. models: of train and merge, {stage, digest, path, run_id,
        rows_trained} (None: it trained on texts). evaluations: {digest, path, run_id, rows: n held out}. An output
        that only had the document among its inputs, without a row or text of it, is not listed.
    """
    ids = {d.doc_id for d in documents}
    datasets: list[dict[str, Any]] = []
    rows: dict[str, dict[str, int]] = {}  # digest of a dataset -> rows by split
    splits: dict[str, set[str]] = {}  # digest of a dataset -> splits that the documents are in
    for _, digest, path in store.outputs("datasets_build"):
        counted, assigned = _rows_of(path, ids), _splits_of(path, ids)
        if counted or assigned:
            rows[digest], splits[digest] = counted, assigned
            datasets.append({**_output(store, "datasets_build", digest), "rows": counted})
    models: list[dict[str, Any]] = []
    trained: dict[str, int | None] = {}  # digest of a training -> rows, None for texts
    for _, digest, _ in store.outputs("train"):
        manifest = store.manifest("train", digest)
        if manifest is None:
            continue
        dataset = manifest["identity"]["upstream"].get("datasets_build", "")
        settings = manifest["settings"]
        on_text = settings.get("data") == "text"
        if on_text and not settings.get("texts") and "train" in splits.get(dataset, ()):
            trained[digest] = None
        elif not on_text and rows.get(dataset, {}).get("train"):
            trained[digest] = rows[dataset]["train"]
        else:
            continue
        models.append({**_output(store, "train", digest), "rows_trained": trained[digest]})
    merged = set()
    for _, digest, _ in store.outputs("merge"):
        manifest = store.manifest("merge", digest)
        of = manifest["identity"]["upstream"].get("train", "") if manifest else ""
        if of in trained:
            merged.add(digest)
            models.append({**_output(store, "merge", digest), "rows_trained": trained[of]})
    evaluations = []
    for _, digest, _ in store.outputs("evaluate"):
        manifest = store.manifest("evaluate", digest)
        upstream = manifest["identity"]["upstream"] if manifest else {}
        held = rows.get(upstream.get("datasets_build", ""), {}).get("validation", 0)
        of_model = upstream.get("merge", "") in merged
        if held or of_model or "validation" in splits.get(upstream.get("datasets_build", ""), ()):
            evaluations.append({**_output(store, "evaluate", digest), "rows": held, "of_such_a_model": of_model})
    return {"datasets": datasets, "models": models, "evaluations": evaluations}


def rebuild_commands(store: Store, found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What to run so that every run that has such an output gets one without: the newest of each run file."""
    digests = {item["digest"] for items in found.values() for item in items}
    newest = {}
    for record in list_runs(store):
        if digests & {row["digest"] for row in record.data["stages"]}:
            newest[record.data.get("config_name", "")] = record.run_id
    return [f"longfolio resume {run_id} --store {store.root}" for run_id in newest.values()]


def document_files(
    store: Store | None, dataset: Path, doc_ids: Collection[str], folders: Sequence[Path]
) -> dict[str, DocumentFile]:
    """Where the files of a dataset's documents are: those that runs of the store found, or below ``folders``.

    A file counts if its content is still that of the document.
    """
    hashes = FileHashes(store.cache / "sha256.json" if store is not None else None)
    pages, sources, shas = _pages(store, dataset, doc_ids)
    names: dict[str, list[str]] = {}
    for record in list_runs(store) if store is not None else ():
        for sha, paths in record.data.get("documents", {}).items():
            if sha[:DOC_ID] in doc_ids:
                shas[sha[:DOC_ID]] = sha
                names.setdefault(sha[:DOC_ID], []).extend(paths)
    given = hashes.many(find_sources(folders)) if folders else {}
    result = {}
    for doc_id in doc_ids:
        candidates = [path for path, sha in given.items() if sha.startswith(doc_id)]
        candidates += [Path(name) for name in dict.fromkeys(names.get(doc_id, []))]
        there = [path for path in candidates if path.is_file()]
        same = [path for path in there if hashes.sha256(path).startswith(doc_id)]
        name = (candidates[0].name if candidates else "") or sources.get(doc_id, doc_id)
        if same:
            result[doc_id] = DocumentFile(same[0].name, same[0], pages=pages.get(doc_id, {}))
            continue
        if there:
            problem = f"{there[0]} is another file now."
        elif candidates:
            problem = f"The file is gone: {candidates[0]}"
        else:
            problem = "Where the file is, is not known here; --pdfs FOLDER tells."
        result[doc_id] = DocumentFile(name, None, problem)
    hashes.save()
    return result


def _pages(
    store: Store | None, dataset: Path, doc_ids: Collection[str]
) -> tuple[dict[str, dict[int, Page]], dict[str, str], dict[str, str]]:
    """The pages of documents as pdf2txt saw them, their names, and their sha256, where the store has them."""
    manifest = read_manifest(dataset)
    digest = manifest["identity"]["upstream"].get("pdf2txt", "") if manifest and store is not None else ""
    pages: dict[str, dict[int, Page]] = {}
    sources: dict[str, str] = {}
    shas: dict[str, str] = {}
    if store is not None and digest:
        for row in _documents(store, digest, ("doc_id", "sha256", "source", "pages"), doc_ids):
            sources[row["doc_id"]], shas[row["doc_id"]] = row["source"], row["sha256"]
            pages[row["doc_id"]] = {page["number"]: Page(**page) for page in row["pages"]}
    return pages, sources, shas


def _documents(
    store: Store, digest: str, columns: Sequence[str], doc_ids: Collection[str] = ()
) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    file = store.finished("pdf2txt", digest) / "documents.parquet"
    if not file.is_file():
        return []
    filters = [("doc_id", "in", list(doc_ids))] if doc_ids else None
    rows: list[dict[str, Any]] = pq.read_table(file, columns=list(columns), filters=filters).to_pylist()
    return rows


def _rows_of(dataset: Path, ids: set[str]) -> dict[str, int]:
    """How many rows of a dataset are made from one of the documents, by split."""
    import pyarrow.parquet as pq

    counted: dict[str, int] = {}
    for file in sorted((dataset / "data").glob("*.parquet")):
        split = file.name.split("-")[0]
        n = sum(not ids.isdisjoint(row) for row in pq.read_table(file, columns=["doc_ids"])["doc_ids"].to_pylist())
        if n:
            counted[split] = counted.get(split, 0) + n
    return counted


def _splits_of(dataset: Path, ids: set[str]) -> set[str]:
    try:
        splits = json.loads((dataset / "splits.json").read_text())
    except (OSError, ValueError):
        return set()
    return {splits[doc_id] for doc_id in ids if doc_id in splits}


def _output(store: Store, stage: str, digest: str) -> dict[str, Any]:
    manifest = store.manifest(stage, digest) or {}
    return {
        "stage": stage,
        "digest": digest,
        "path": str(store.finished(stage, digest)),
        "run_id": manifest.get("run_id", ""),
    }
