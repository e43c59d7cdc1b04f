"""What a run would do, stage by stage, and why: computed from digests alone, nothing is run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.config import RunConfig, flatten
from flows.digest import digest, digested
from flows.errors import UsageError
from flows.inputs import FileHashes
from flows.stages import NAMES, STAGES, External, gather, stage_index
from flows.store import Store

FIRST = "not made before"
CONTINUES = "continues an unfinished attempt"


@dataclass(frozen=True)
class Selection:
    """Which part of the chain is wanted (``--from``, ``--until``, ``--rerun``)."""

    start: str | None = None
    until: str | None = None
    rerun: tuple[str, ...] = ()
    resuming: str = ""  # run id: what this run finished itself is not run again by its --rerun
    model: str = ""  # digest of a finished merge: it and what it is made from are taken as they are in the store
    gate: bool = True  # whether the evaluation is compared with the champion's
    champion: bool = False  # whether the champion is evaluated on the same data for that, if it has not been
    tasks: tuple[str, ...] = ()  # what the gate looks at, where the evaluation is of some tasks on purpose

    def __post_init__(self) -> None:
        first = stage_index(self.start) if self.start else 0
        last = stage_index(self.until) if self.until else len(NAMES) - 1
        if first > last:
            raise UsageError(
                f"--from {self.start} comes after --until {self.until}", f"the order is {', '.join(NAMES)}"
            )
        for name in self.rerun:
            if not first <= stage_index(name) <= last:
                raise UsageError(f"--rerun {name} lies outside --from/--until", "widen the range or drop --rerun")

    def to_json(self) -> dict[str, Any]:
        return {
            "start": self.start, "until": self.until, "rerun": list(self.rerun), "model": self.model,
            "gate": self.gate, "champion": self.champion, "tasks": list(self.tasks),
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Selection:
        """Of a run record; what is being resumed is not part of it."""
        return cls(
            data["start"], data["until"], tuple(data["rerun"]), model=data.get("model", ""),
            gate=data.get("gate", True), champion=data.get("champion", False), tasks=tuple(data.get("tasks", ())),
        )  # fmt: skip

    def wanted(self, name: str) -> bool:
        return self.until is None or stage_index(name) <= stage_index(self.until)

    def only_reused(self, name: str) -> bool:
        return self.start is not None and stage_index(name) < stage_index(self.start)

    def again(self, name: str) -> bool:
        return any(stage_index(name) >= stage_index(r) for r in self.rerun)


@dataclass(frozen=True)
class PlannedStage:
    name: str
    action: str  # "run" | "cached" | "skipped"
    why: str
    digest: str
    identity: dict[str, Any]  # everything that the digest counts
    path: Path  # of the finished output
    present: str = ""  # when the output that stands there now was finished; "" if there is none
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    stages: tuple[PlannedStage, ...]
    external: External
    selection: Selection = field(default_factory=Selection)

    def to_json(self) -> dict[str, Any]:
        """The object that ``plan --json`` prints (DESIGN section 5)."""
        rows = []
        for s in self.stages:
            rows.append(
                {"stage": s.name, "action": s.action, "why": s.why, "digest": s.digest, "path": str(s.path),
                 "seconds": 0.0, "metrics": {}}
            )  # fmt: skip
        return {"run_id": None, "status": "planned", "stages": rows}


def make_plan(config: RunConfig, store: Store, selection: Selection) -> Plan:
    """Decide for each stage whether it runs, is cached or skipped.

    Raises:
        UsageError: an input is missing, or ``--from`` needs an output that is not in the store.
    """
    hashes = FileHashes(store.cache / "sha256.json" if store.root.exists() else None)
    fixed = ancestry(store, "merge", selection.model) if selection.model else {}
    try:
        external = gather(config, hashes, store.root, [name for name in NAMES if name not in fixed])
    finally:
        hashes.save()  # also when interrupted: hashing a large model is worth keeping

    digests: dict[str, str] = {}
    planned: list[PlannedStage] = []
    cause: tuple[str, str] | None = None  # the first stage of the chain that will run, and why
    for stage in STAGES:
        if stage.name in fixed:
            taken = _taken(stage.name, fixed[stage.name], selection.model, store)
            digests[stage.name] = taken.digest
            planned.append(taken)
            continue
        library = stage.library()
        settings = stage.settings(config)
        identity = {
            "stage": stage.name,
            "version": library.STAGE_VERSION,
            "settings": digested(settings),
            "engines": library.identity(settings),
            "upstream": {name: digests[name] for name in stage.upstream},
            "external": external.content[stage.name],
        }
        key = digests[stage.name] = digest(identity)
        path = store.finished(stage.name, key)
        action, why, warnings = _decide(stage.name, key, identity, store, selection, cause)
        if action == "run" and cause is None:
            cause = stage.name, why
        manifest = store.manifest(stage.name, key)
        if action == "cached" and manifest and manifest.get("source_sha256") != stage.source_sha256():
            warnings = (*warnings, f"{stage.name}: code changed since, same STAGE_VERSION")
        present = str(manifest["finished"]) if manifest else ""
        planned.append(PlannedStage(stage.name, action, why, key, identity, path, present, tuple(warnings)))
    return Plan(tuple(planned), external, selection)


def ancestry(store: Store, stage: str, key: str) -> dict[str, dict[str, Any]]:
    """The manifests of a finished output and of everything it was made from, by stage.

    Raises:
        UsageError: one is not in the store (any more).
    """
    manifest = store.manifest(stage, key)
    if manifest is None:
        raise UsageError(f"the store has no output {key[:12]} of {stage}", "`longfolio status` lists the runs")
    found = {stage: manifest}
    for name, digest_ in manifest["identity"]["upstream"].items():
        found |= ancestry(store, name, digest_)
    return found


def _taken(name: str, manifest: dict[str, Any], model: str, store: Store) -> PlannedStage:
    key = manifest["digest"]
    why = (
        f"model {model[:12]} of run {manifest['run_id']}" if name == "merge" else f"model {model[:12]} is made from it"
    )
    return PlannedStage(name, "cached", why, key, manifest["identity"], store.finished(name, key), manifest["finished"])


def _decide(
    name: str,
    key: str,
    identity: dict[str, Any],
    store: Store,
    selection: Selection,
    cause: tuple[str, str] | None,
) -> tuple[str, str, tuple[str, ...]]:
    manifest = store.manifest(name, key)
    if not selection.wanted(name):
        return "skipped", f"--until {selection.until}", ()
    if selection.only_reused(name):
        if manifest is None:
            raise UsageError(
                f"--from {selection.start}: the store has no output of {name} for these settings "
                f"({_reason(name, identity, store)})",
                f"run without --from, or with --from {name}",
            )
        return "cached", f"--from {selection.start}", ()
    if selection.again(name) and (manifest is None or manifest["run_id"] != selection.resuming):
        return "run", f"--rerun {next(r for r in selection.rerun if stage_index(name) >= stage_index(r))}", ()
    if manifest is None:
        why = _reason(name, identity, store, key)
        # Downstream of a change, say which setting it was, not only which stage.
        if cause is not None and why.endswith(" changed") and cause[1] not in (FIRST, CONTINUES, why):
            why = f"{why} ({cause[1]})"
        return "run", why, ()
    if manifest.get("incomplete"):
        n = len(manifest.get("transient", []))
        return "run", f"incomplete: {n} transient failure{'s' if n != 1 else ''} to try again", ()
    if cause is not None and _depends(name, cause[0]):
        # The digest is there, so the upstream is only made again (it was incomplete or lost). If it comes out the
        # same, the runner reuses this output after all.
        return "run", f"{cause[0]} runs again", ()
    stale = _stale_upstream(manifest, identity, store)
    if stale:
        return "run", f"the output of {stale} was replaced since", ()
    return "cached", f"unchanged since run {manifest.get('run_id', '?')}", ()


def _depends(name: str, on: str) -> bool:
    stage = STAGES[stage_index(name)]
    return on in stage.upstream or any(_depends(up, on) for up in stage.upstream)


def _stale_upstream(manifest: dict[str, Any], identity: dict[str, Any], store: Store) -> str:
    used = manifest.get("upstream_outputs", {})
    for name, key in identity["upstream"].items():
        current = store.manifest(name, key)
        if current is not None and name in used and current["outputs_sha256"] != used[name]:
            return str(name)
    return ""


def _reason(name: str, identity: dict[str, Any], store: Store, key: str = "") -> str:
    """Why an output is not there: what differs from the newest one of this stage."""
    attempt = store.attempt(name, key) if key else None
    if attempt is not None and (attempt / "attempt.json").exists():
        return CONTINUES
    if key and store.attempt(name, f"damaged-{key}").exists():
        return "its output was damaged and set aside"
    known = [m for s, d, _ in store.outputs(name) if (m := store.manifest(s, d)) is not None]
    if not known:
        return FIRST
    newest = max(known, key=lambda m: m.get("finished", ""))
    return explain_difference(newest["identity"], identity) or "not in the store"


def explain_difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """``dataset.seed changed 1 -> 2``; ``1 document added``; ``pdf2txt changed``: at most four, then a count."""
    section = STAGES[stage_index(new["stage"])].section
    parts: list[str] = []
    before, after = dict(flatten(old["settings"])), dict(flatten(new["settings"]))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            parts.append(f"{section}.{key} changed {_short(before.get(key))} -> {_short(after.get(key))}")
    for kind in ("engines", "external"):
        parts += _explain_content(old.get(kind, {}), new.get(kind, {}))
    if old.get("version") != new.get("version"):
        parts.append(f"STAGE_VERSION changed {old.get('version')} -> {new.get('version')}")
    changed = [n for n, d in new["upstream"].items() if old["upstream"].get(n) != d]
    if changed and not parts:
        parts.append(f"{' and '.join(changed)} changed")
    return "; ".join(parts[:4]) + (f"; and {len(parts) - 4} more" if len(parts) > 4 else "")


def _explain_content(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    parts = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if key == "pdfs":
            added, removed = (
                len(set(after or []) - set(before or [])),
                len(set(before or []) - set(after or [])),
            )
            parts += [
                f"{n} document{'s' if n > 1 else ''} {what}"
                for n, what in ((added, "added"), (removed, "removed"))
                if n
            ]
        elif isinstance(before, str | int | float | None) and isinstance(after, str | int | float | None):
            parts.append(f"{key} changed {_short(before)} -> {_short(after)}")
        else:
            parts.append(f"{key} changed")
    return parts


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:18]}…{text[-18:]}"
