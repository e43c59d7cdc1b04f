"""The gate of a run: its evaluation against the champion's, as long as both are of the same thing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from flows.champion import Champion, read_champion
from flows.config import RunConfig
from flows.digest import digest
from flows.errors import UsageError
from flows.plan import Plan, PlannedStage
from flows.runs import RunRecord
from flows.store import Store
from longlora.evaluation.gate import TaskVerdict, Verdict, compare
from pdf2txt.units import write_atomic


def failed(data: dict[str, Any]) -> bool:
    """Whether a run's record says that its model is worse than the champion."""
    return bool((data.get("gate") or {}).get("verdict") == "fail")


def alike(plan: Plan, config: RunConfig, store: Store, champion: Champion) -> tuple[Plan, RunConfig]:
    """The plan and settings with which the champion is evaluated as the plan's own model is: same settings, same data.

    Raises:
        UsageError: the store does not have the champion's model any more.
    """
    merge = store.manifest("merge", champion.merge)
    if merge is None:
        raise UsageError(
            f"the store has no model {champion.merge[:12]} of champion {champion.run_id} any more",
            "promote another run (`longfolio status` lists them)",
        )
    mine = _stage(plan, "evaluate")
    identity = {**mine.identity, "upstream": {**mine.identity["upstream"], "merge": champion.merge}}
    base = config.model_validate({**config.model_dump(mode="json"), "model": champion.model or config.model}).model
    if base != config.model:  # another base: what it was when the champion was evaluated
        known = store.manifest("evaluate", champion.evaluate) or {"identity": {"external": {}}}
        content = known["identity"]["external"].get("model", {})
        identity["external"] = {**identity["external"], "model": content}
    key = digest(identity)
    manifest = store.manifest("evaluate", key)
    why = f"champion {champion.run_id}, evaluated alike"
    there = manifest is not None and not manifest.get("incomplete")
    stages = {
        "merge": PlannedStage("merge", "cached", why, champion.merge, merge["identity"],
                              store.finished("merge", champion.merge), merge["finished"]),
        "evaluate": PlannedStage("evaluate", "cached" if there else "run", why, key, identity,
                                 store.finished("evaluate", key), manifest["finished"] if manifest else ""),
    }  # fmt: skip
    swapped = tuple(stages.get(stage.name, stage) for stage in plan.stages)
    return replace(plan, stages=swapped), config.model_copy(update={"model": base})


def judge(plan: Plan, config: RunConfig, store: Store, record: RunRecord) -> dict[str, Any]:
    """The verdict on a run whose evaluation is finished; also in ``runs/<run id>/gate.json``.

    The champion's evaluation of the same settings and data counts, if the store has one, else that with which it was
    promoted. JSON as of `longlora.evaluation.gate.Verdict.to_dict`, with the digests of both and the settings.
    """
    mine, settings = _stage(plan, "evaluate"), config.evaluate.gate
    champion: Champion | None = None
    theirs = ""
    try:
        champion = read_champion(store)
        if champion is not None:
            other = _stage(alike(plan, config, store, champion)[0], "evaluate")
            theirs = other.digest if other.action == "cached" else champion.evaluate
        verdict = compare(mine.path, store.finished("evaluate", theirs) if theirs else None, settings,
                          plan.selection.tasks)  # fmt: skip
    except UsageError as error:
        verdict = Verdict("incomplete", f"{error}; {error.remedy}", settings.headline or "", [])
    model = mine.identity["upstream"]["merge"]
    result = {
        **_said(verdict, record.run_id, champion, model, theirs, plan.selection.champion).to_dict(),
        "candidate": {"run_id": record.run_id, "model": model, "evaluation": mine.digest},
        "champion": champion and {"run_id": champion.run_id, "model": champion.merge, "evaluation": theirs},
        "settings": settings.model_dump(mode="json"),
    }
    path = record.path.with_suffix("") / "gate.json"
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, (json.dumps(result, indent=1) + "\n").encode())
    return result


def task_verdicts(gate: dict[str, Any]) -> list[TaskVerdict]:
    """The tasks of a recorded verdict."""
    known = TaskVerdict.__dataclass_fields__
    return [TaskVerdict(**{key: value for key, value in t.items() if key in known}) for t in gate.get("tasks", [])]


def _said(verdict: Verdict, run_id: str, champion: Champion | None, model: str, theirs: str, measured: bool) -> Verdict:
    """With what to do about it."""
    if verdict.verdict == "no champion":
        return replace(verdict, reason=f"`longfolio promote {run_id}` makes this model the champion")
    if verdict.verdict == "pass" and champion is not None and champion.merge == model:
        return replace(verdict, reason="this model is the champion")
    not_of_use = verdict.verdict == "incomparable" or (theirs and theirs in verdict.reason)
    if not_of_use and not measured:
        hint = f"`longfolio eval {run_id}` evaluates the champion on the same data"
        return replace(verdict, reason=f"{verdict.reason}; {hint}")
    return verdict


def _stage(plan: Plan, name: str) -> PlannedStage:
    return next(stage for stage in plan.stages if stage.name == name)
