"""The gate: is a candidate's evaluation worse than the champion's? From two outputs of the stage, sample by sample.

One metric is declared beforehand, the headline: it is tested at half of ``alpha``, and all others together, by Holm's
method, at the other half. So the chance that a model that is no worse fails is at most ``alpha`` in all. What is
significant fails only if it is large enough to matter, and the verdict says which change it could have seen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from longlora.evaluation.paired import detectable, holm, sign_flip

WORST = 5  # samples shown
# Two results are of the same thing if these are the same in both.
ALIKE = {
    "metric": "metric", "better": "direction", "version": "version of the task", "settings": "settings of the task",
    "engine": "way of computing", "n": "number of samples", "data_digest": "data",
}  # fmt: skip
CONFIDENCE = 0.95  # of intervals
CLIP = 500  # characters kept of what a model wrote
Word = Literal["pass", "warn", "fail", "incomparable", "incomplete", "new", "no champion"]


_RELATIVE = "Where lower is better (perplexity, loss): 0.005 is half a percent."
_ABSOLUTE = "Where higher is better (scores from 0 to 1): 0.01 is one point in 100."


class MinEffect(BaseModel):
    """The smallest change that matters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    relative: float = Field(default=0.005, ge=0, description=_RELATIVE)
    absolute: float = Field(default=0.01, ge=0, description=_ABSOLUTE)


class Suspicious(BaseModel):
    """A change for the better that is too good to be believed unseen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    relative: float = Field(default=0.3, ge=0, description=_RELATIVE)
    absolute: float = Field(default=0.3, ge=0, description=_ABSOLUTE)


class GateSettings(BaseModel):
    """When an evaluation counts as a regression against the champion. Computed in every run, never cached."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    headline: str | None = Field(
        default=None, description="The one task that decides; null: the first of tasks that was measured."
    )
    alpha: float = Field(
        default=0.05, gt=0, lt=1,
        description="Chance that a model that is no worse fails: half for the headline, half for all others together.",
    )  # fmt: skip
    min_effect: MinEffect = Field(
        default_factory=MinEffect,
        description="The smallest change that matters; what is worse beyond doubt by less is a warning.",
    )
    suspicious: Suspicious = Field(
        default_factory=Suspicious,
        description="A change for the better, beyond doubt and larger than this, is a warning: it may be a leak.",
    )
    floors: dict[str, float] = Field(
        default={},
        description="TASK: VALUE that the model must reach, whatever the champion does; a ceiling where lower is "
        "better.",
    )
    resamples: int = Field(
        default=10_000, ge=1000, description="Random signs per test, and resamples per interval; p is at least 1 in it."
    )
    seed: int = Field(default=0, ge=0, description="Of both.")


@dataclass(frozen=True)
class TaskVerdict:
    """One task. ``candidate``, ``champion``, ``difference`` and its interval are in the task's own metric.

    ``worse_by`` (negative: better), ``detectable``: relative or absolute, as ``unit`` says. ``p``: one-sided, of no
    worse model giving this; ``p_holm``: corrected, of a task that is not the headline; ``p_better``: the other side.
    """

    task: str
    verdict: Word
    reason: str
    metric: str = ""
    better: str = ""
    headline: bool = False
    unit: str = ""
    candidate: float | None = None
    champion: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    worse_by: float | None = None
    p: float | None = None
    p_holm: float | None = None
    p_better: float | None = None
    n: int = 0
    detectable: float | None = None
    worst: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """In all. ``worst``: the samples that lost most, of the tasks that are worse; scores of both, and their outputs."""

    verdict: Word
    reason: str
    headline: str
    tasks: list[TaskVerdict]

    @property
    def worst(self) -> list[dict[str, Any]]:
        order = sorted((t for t in self.tasks if t.worst), key=lambda t: (t.verdict != "fail", not t.headline))
        return [{"task": t.task, **sample} for t in order for sample in t.worst][:WORST]

    def to_dict(self) -> dict[str, Any]:
        """JSON: ``{verdict, reason, headline, tasks: [...], worst: [...]}``."""
        tasks = [{k: v for k, v in asdict(t).items() if k != "worst"} for t in self.tasks]
        return {
            "verdict": self.verdict, "reason": self.reason, "headline": self.headline, "tasks": tasks,
            "worst": self.worst,
        }  # fmt: skip

    def text(self) -> str:
        """One line for the terminal, and one for each task that did not pass."""
        lines = [f"gate: {self.verdict}: {self.reason}"]
        lines += [f"  {t.task}: {t.verdict}: {t.reason}" for t in self.tasks if t.verdict not in ("pass", "new")]
        return "\n".join(lines)

    def markdown(self) -> str:
        """The tasks as a table."""
        head = ("task", "metric", "now", "champion", "difference", "95 % interval", "n", "p worse", "verdict", "why")
        rows = [head, ("---",) * len(head), *(tuple(map(_cell, cells(t))) for t in self.tasks)]
        return "\n".join(f"| {' | '.join(line)} |" for line in rows) + "\n"


def cells(t: TaskVerdict) -> tuple[str, ...]:
    """The cells of a task, as every table shows them."""
    arrow = {"lower": " ↓", "higher": " ↑"}.get(t.better, "")
    interval = "" if t.low is None or t.high is None else f"[{t.low:+.3g}, {t.high:+.3g}]"
    p = t.p if t.p_holm is None else t.p_holm
    return (
        f"{t.task} (headline)" if t.headline else t.task, f"{t.metric}{arrow}", _number(t.candidate),
        _number(t.champion), "" if t.difference is None else f"{t.difference:+.3g}", interval,
        f"{t.n:,}" if t.n else "", "" if p is None else f"{p:.2g}", t.verdict, t.reason,
    )  # fmt: skip


def compare(
    candidate: Path, champion: Path | None, settings: GateSettings, only: Collection[str] = ()
) -> Verdict:  # fmt: skip
    """Judge the output of one evaluation against that of another.

    Args:
        candidate, champion: folders with ``metrics.json`` and ``samples.jsonl``; without a champion only the floors
            are looked at.
        only: the tasks that were asked for this time; the champion's others are no loss then.

    Returns:
        ``incomplete`` where an output is not whole; it never raises for what a folder holds.
    """
    try:
        new = Output.read(candidate)
        old = Output.read(champion) if champion is not None else None
    except Unreadable as error:
        return Verdict("incomplete", str(error), settings.headline or "", [])
    if old is None:
        return _alone(new, settings, only)
    names = [name for name in dict.fromkeys([*new.items, *old.items]) if not only or name in only]
    measured = [name for name in names if name in new.measured] or [name for name in names if name in old.measured]
    declared = settings.headline if not only or settings.headline in only else None
    headline = declared or (measured[0] if measured else "")
    found = [_task(name, new, old, settings, name == headline) for name in names
             if name in new.measured or name in old.measured]  # fmt: skip
    known = {t.task for t in found}
    lost = [t for t in _without_number(new, settings) if t.task not in known and (not only or t.task in only)]
    return _in_all([*_judge(found, settings), *lost], headline)


# ------------------------------------------------------------------------------------------- reading


class Unreadable(Exception):
    """An output is missing, damaged or not whole."""


@dataclass(frozen=True)
class Output:
    """One evaluation of one model: its items, and the rows that count by task and id."""

    model: str
    items: dict[str, dict[str, Any]]
    rows: dict[str, dict[str, dict[str, Any]]]

    @property
    def measured(self) -> dict[str, dict[str, Any]]:
        return {name: item for name, item in self.items.items() if "skipped" not in item}

    def value(self, task: str) -> float:
        item = self.items[task]
        return float(item[self.model if self.model in item else "base"]["value"])

    @classmethod
    def read(cls, folder: Path) -> Output:
        """Of the merged model, or of the only one.

        Raises:
            Unreadable: and what is wrong with which file.
        """
        try:
            items = {str(item["task"]): item for item in json.loads((folder / "metrics.json").read_text())}
            # Not splitlines: a text may hold U+2028.
            rows = (folder / "samples.jsonl").read_text(encoding="utf-8").split("\n")
            lines = [json.loads(line) for line in rows if line]
            models = {line["model"] for line in lines}
            model = "merged" if "merged" in models else min(models, default="base")
            output = cls(model, items, {name: {} for name in items})
            for line in lines:
                if line["model"] == model and line.get("counts", True):
                    if "score" not in line:
                        raise Unreadable(f"{folder} has no scores: an earlier version made it")
                    float(line["score"])
                    output.rows[line["task"]][str(line["id"])] = line
            for name, item in output.measured.items():
                output.value(name)
                have, n = len(output.rows[name]), int(item[model if model in item else "base"]["n"])
                if have != n:
                    raise Unreadable(f"{folder} has {have} of {n} samples of {name}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unreadable(f"{folder} is not a whole evaluation ({type(error).__name__}: {error})") from error
        return output


# ------------------------------------------------------------------------------------------- judging


def _alone(new: Output, settings: GateSettings, only: Collection[str]) -> Verdict:
    """Without a champion: the floors."""
    tasks = []
    for name, item in new.measured.items():
        t = TaskVerdict(name, "new", "no champion", item["metric"], item["better"], candidate=new.value(name),
                        n=len(new.rows[name]))  # fmt: skip
        tasks.append(_floored(t, settings))
    tasks += [t for t in _without_number(new, settings) if not only or t.task in only]
    failed = [t for t in tasks if t.verdict == "fail"]
    reason = "; ".join(f"{t.task}: {t.reason}" for t in failed) or "there is nothing to compare with yet"
    return Verdict("fail" if failed else "no champion", reason, settings.headline or "", tasks)


def _without_number(new: Output, settings: GateSettings) -> list[TaskVerdict]:
    reason = "it has a floor and was not measured"
    return [TaskVerdict(name, "fail", reason) for name in settings.floors if name not in new.measured]


def _task(name: str, new: Output, old: Output, settings: GateSettings, headline: bool) -> TaskVerdict:
    """What can be said of one task by itself: p values are corrected, and judged, with all of them at hand."""
    item = new.measured.get(name) or old.measured[name]
    found = TaskVerdict(name, "pass", "", item["metric"], item["better"], headline)
    if name not in new.measured:
        why = new.items.get(name, {}).get("skipped", "it was not measured")
        return replace(found, verdict="fail", reason=f"the champion has it, this model not: {why}",
                       champion=old.value(name))  # fmt: skip
    found = replace(found, candidate=new.value(name), n=len(new.rows[name]))
    if name not in old.measured:
        return replace(found, verdict="new", reason="the champion has no such number")
    found = replace(found, champion=old.value(name))
    different = _different(new.items[name], old.items[name], new.rows[name], old.rows[name])
    if different:
        return replace(found, verdict="incomparable", reason=different)
    mine, theirs = new.rows[name], old.rows[name]
    # A perplexity's windows count by their tokens, which may differ (strided: a document's first one has more).
    mean = math.fsum(float(row.get("tokens", 1)) for row in mine.values()) / max(len(mine), 1)
    by = new.items[name].get("scale") == "perplexity"
    weights = [float(row.get("tokens", 1)) / mean if by else 1.0 for row in mine.values()]
    pairs = [
        (w * float(mine[key]["score"]), w * float(theirs[key]["score"])) for w, key in zip(weights, mine, strict=True)
    ]
    broken = [sum(not math.isfinite(pair[i]) for pair in pairs) for i in (0, 1)]
    if broken[1]:
        return replace(found, verdict="incomparable", reason=f"{broken[1]} scores of the champion are not finite")
    if broken[0]:
        return replace(found, verdict="fail", reason=f"{broken[0]} of {len(pairs)} scores are not finite")
    return _measured(found, pairs, new, old, settings)


def _different(
    new: dict[str, Any], old: dict[str, Any], rows: dict[str, Any], others: dict[str, Any]
) -> str:  # fmt: skip
    """Why two results of a task are not of the same thing, or nothing."""
    for key, what in ALIKE.items():
        if new.get(key) != old.get(key):
            values = "" if key == "data_digest" else f" ({old.get(key)}, now {new.get(key)})"
            return f"other {what}{values}"
    if rows.keys() != others.keys():
        return "other samples"
    if any(rows[key].get("prompt_digest") != others[key].get("prompt_digest") for key in rows):
        return "other prompts"
    return ""


def _measured(
    found: TaskVerdict, pairs: list[tuple[float, float]], new: Output, old: Output, settings: GateSettings
) -> TaskVerdict:  # fmt: skip
    from longlora.evaluation.statistics import Bootstrap

    sign = 1 if found.better == "lower" else -1
    worse = [sign * (a - b) for a, b in pairs]
    mean = math.fsum(worse) / len(worse)
    champion = math.fsum(b for _, b in pairs) / len(pairs)
    perplexity = new.items[found.task].get("scale", found.metric) == "perplexity"

    def own(shift: float) -> float:
        """A mean difference of scores as one of the metric."""
        assert found.champion is not None
        return found.champion * math.expm1(shift) if perplexity else shift

    def size(shift: float) -> float:
        """The same as a relative or absolute change."""
        if perplexity:
            return math.expm1(shift)
        return shift / abs(champion) if found.better == "lower" and champion else shift

    # The signs of differences stay: exp and the division are monotonous.
    interval = Bootstrap(settings.resamples, CONFIDENCE, settings.seed).mean([sign * w for w in worse])
    # Of fewer samples not even a loss on each one is significant.
    seen = detectable(worse, settings.alpha) if 2.0 ** -len(worse) <= settings.alpha / 2 else None
    return replace(
        found, unit="relative" if found.better == "lower" else "absolute", difference=own(sign * mean) + 0.0,
        low=None if interval.low is None else own(interval.low),
        high=None if interval.high is None else own(interval.high),
        worse_by=size(mean), detectable=None if seen is None else size(seen),
        p=sign_flip(worse, settings.resamples, settings.seed), worst=_worst(found.task, worse, new, old),
        p_better=sign_flip([-w for w in worse], settings.resamples, settings.seed),
    )  # fmt: skip


def _judge(tasks: list[TaskVerdict], settings: GateSettings) -> list[TaskVerdict]:
    level = settings.alpha / 2
    corrected = holm({t.task: t.p for t in tasks if t.p is not None and not t.headline})
    judged = []
    for t in tasks:
        if t.p is not None:
            t = _one(replace(t, p_holm=corrected.get(t.task)), level, settings)
        judged.append(_floored(t, settings))
    return judged


def _one(t: TaskVerdict, level: float, settings: GateSettings) -> TaskVerdict:
    p, p_better = t.p if t.p_holm is None else t.p_holm, t.p_better
    assert t.worse_by is not None and p is not None and p_better is not None
    least, leap = (getattr(change, t.unit) for change in (settings.min_effect, settings.suspicious))
    size = f"{'worse' if t.worse_by > 0 else 'better'} by {_size(t.worse_by, t.unit)}"
    seen = "" if t.detectable is None else f"; {_size(t.detectable, t.unit)} would be seen"
    if p <= level:
        why = f"{size} (p {p:.2g}{seen})"
        if t.worse_by > least:
            return replace(t, verdict="fail", reason=why)
        return replace(t, verdict="warn", reason=f"{why}, too little to matter")
    if p_better <= level:
        why = f"{size} (p {p_better:.2g}{seen})"
        if -t.worse_by > leap:
            return replace(t, verdict="warn", reason=f"{why}: too good? look for a leak")
        return replace(t, reason=why)
    return replace(t, reason=f"no difference beyond chance{seen}" if seen else "no difference to be seen")


def _size(change: float, unit: str) -> str:
    return f"{abs(change) * 100:.3g} %" if unit == "relative" else f"{abs(change):.3f}"


def _floored(t: TaskVerdict, settings: GateSettings) -> TaskVerdict:
    floor = settings.floors.get(t.task)
    if floor is None or t.candidate is None or t.verdict == "fail":
        return t
    if t.better == "lower" and t.candidate > floor:
        return replace(t, verdict="fail", reason=f"{t.candidate:.4g} is above the ceiling {floor:g}")
    if t.better == "higher" and t.candidate < floor:
        return replace(t, verdict="fail", reason=f"{t.candidate:.4g} is below the floor {floor:g}")
    return t


def _in_all(tasks: list[TaskVerdict], headline: str) -> Verdict:
    """A regression that was seen counts, whatever else could not be compared."""
    main = next((t for t in tasks if t.task == headline), None)
    failed = [t for t in tasks if t.verdict == "fail"]
    warned = [t for t in tasks if t.verdict == "warn"]
    if failed:
        return Verdict("fail", "; ".join(f"{t.task}: {t.reason}" for t in failed), headline, tasks)
    if main is None:
        why = f"the headline {headline} was not measured" if headline else "nothing was measured"
        return Verdict("incomplete", why, headline, tasks)
    if main.verdict in ("incomparable", "new"):
        return Verdict("incomparable", f"the headline {headline}: {main.reason}", headline, tasks)
    not_alike = ", ".join(t.task for t in tasks if t.verdict == "incomparable")
    more = f"; not comparable: {not_alike}" if not_alike else ""
    if warned:
        return Verdict("warn", "; ".join(f"{t.task}: {t.reason}" for t in warned) + more, headline, tasks)
    return Verdict("pass", f"the headline {headline}: {main.reason}{more}", headline, tasks)


def _worst(task: str, worse: list[float], new: Output, old: Output) -> list[dict[str, Any]]:
    """The samples that lost most, with what both models made of them."""
    ranked = sorted(zip(worse, new.rows[task].values(), strict=True), key=lambda pair: -pair[0])
    return [_sample(row, old.rows[task][str(row["id"])]) for lost, row in ranked[:WORST] if lost > 0]


def _sample(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": str(new["id"]), "candidate": new["score"], "champion": old["score"]}
    texts = (("expected", new.get("expected")), ("output", new.get("output")), ("champion_output", old.get("output")))
    for key, text in texts:
        if text is not None:
            shown[key] = text[:CLIP] if isinstance(text, str) else text
    return shown


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
