"""Keep the store small and whole: gc and verify."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets_build.teacher.responses import CALLS
from flows.champion import read_champion
from flows.runs import list_runs
from flows.store import OUTPUT, UNITS_LOG, Store, list_files, read_manifest, remove
from pdf2txt.units import READING


@dataclass
class Garbage:
    """What no kept run uses."""

    store: Store
    kept_runs: list[str]
    busy: bool  # a run is in progress: its units cannot be told from unused ones, so none are listed
    paths: list[tuple[str, Path, int]] = field(default_factory=list)  # (kind, path, bytes)

    @property
    def bytes(self) -> int:
        return sum(size for _, _, size in self.paths)

    def delete(self) -> None:
        for kind, path, _ in self.paths:
            if kind in ("output", "attempt"):
                # Looked at again: a run may have started since.
                if not self.store.locked(path.parent.name, path.name):
                    self.store.discard(path)
            else:
                remove(path)


def find_garbage(store: Store, keep: int) -> Garbage:
    """Outputs, attempts and units that neither the newest ``keep`` runs, a running one, nor the champion use.

    Attempts that another process is working on now are never garbage. A run that uses an output also keeps
    the units it was assembled from, so that adding one PDF later converts one PDF.
    """
    records, champion = list_runs(store), read_champion(store)
    newest = records[-keep:] if keep > 0 else []
    promoted = champion.run_id if champion else ""
    kept = [r for r in records if r in newest or r.status == "running" or r.run_id == promoted]
    rows = [row for r in kept for row in (*r.data["stages"], r.data.get("champion_evaluation")) if row]
    used = {(row["stage"], row["digest"]) for row in rows} | set(champion.outputs() if champion else ())
    # An output stays useful only with what it was made from: trace and --from walk upstream.
    for stage, digest in list(used):
        _add_upstream(store, stage, digest, used)

    busy = any(r.status == "running" for r in records) or any(store.locked(s, d) for s, d, _ in store.attempts())
    garbage = Garbage(store, [r.run_id for r in kept], busy)
    units: set[str] = set()
    interrupted = False
    for stage, digest, path in store.outputs():
        if (stage, digest) in used:
            units.update((read_manifest(path) or {}).get("units", []))
        elif not store.locked(stage, digest):
            garbage.paths.append(("output", path, _size(path)))
    for stage, digest, path in store.attempts():
        if (stage, digest) in used or store.locked(stage, digest):
            log = path / UNITS_LOG
            units.update(log.read_text().split() if log.exists() else ())
            interrupted = True
        else:
            garbage.paths.append(("attempt", path, _size(path)))
    for path in () if busy else sorted(store.units.glob("*/*")):
        if path.parent.name == READING and interrupted:
            continue  # half-read documents, which the attempt goes on with
        if path.parent.name == CALLS:
            continue  # of a teacher: what may have been paid without a reply counts against its budget
        if f"{path.parent.name}/{path.name}" not in units:
            garbage.paths.append(("unit", path, _size(path)))
    # What a killed process was writing aside or deleting.
    left = [*store.models.glob(".*.tmp"), *(store.root / "trash").glob("*")]
    garbage.paths += [("remains", path, _size(path)) for path in ([] if busy else left)]
    return garbage


def _add_upstream(store: Store, stage: str, digest: str, used: set[tuple[str, str]]) -> None:
    manifest = store.manifest(stage, digest)
    for name, key in (manifest or {}).get("identity", {}).get("upstream", {}).items():
        used.add((name, key))
        _add_upstream(store, name, key, used)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files)


@dataclass
class Verdict:
    """One finished output, hashed again."""

    stage: str
    digest: str
    path: Path
    problems: list[str]
    files: int
    bytes: int


def verify_output(stage: str, digest: str, path: Path) -> Verdict:
    """Compare an output's files with its manifest: missing, added, changed."""
    manifest = read_manifest(path)
    if manifest is None:
        return Verdict(stage, digest, path, ["manifest.json is missing or unreadable"], 0, 0)
    expected: dict[str, Any] = {f["path"]: f for f in manifest["outputs"]}
    actual = {f["path"]: f for f in list_files(path)}
    problems = [f"{name} is missing" for name in sorted(expected.keys() - actual.keys())]
    problems += [f"{name} was added" for name in sorted(actual.keys() - expected.keys())]
    for name in sorted(expected.keys() & actual.keys()):
        if expected[name]["sha256"] != actual[name]["sha256"]:
            problems.append(
                f"{name} was changed: {expected[name]['bytes']:,} -> {actual[name]['bytes']:,} bytes, other sha256"
            )
    return Verdict(stage, digest, path, problems, len(actual), sum(f["bytes"] for f in actual.values()))


def set_aside(store: Store, verdict: Verdict) -> Path:
    """Take a damaged output out of the way, so that the next run makes it anew; returns where it went."""
    target = store.attempt(verdict.stage, f"damaged-{verdict.digest}")
    remove(target)
    target.mkdir(parents=True)
    verdict.path.replace(target / OUTPUT)
    return target
