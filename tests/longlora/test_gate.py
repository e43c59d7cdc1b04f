"""The gate: regressions that were planted are caught, noise is not, and what cannot be compared is not judged."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longlora.evaluation.gate import GateSettings, Verdict, compare
from longlora.evaluation.paired import detectable, holm, sign_flip

LOWER = {"perplexity": "perplexity", "answers": "nll_per_token"}
SCALE = {"perplexity": "perplexity", "passkey": "proportion"}
Scores = Mapping[str, Sequence[float]]


def write(folder: Path, scores: Scores, *, rows: Sequence[dict[str, Any]] = (), **changes: dict[str, Any]) -> Path:
    """An evaluation with these scores; ``changes``: of a task's item in metrics.json."""
    folder.mkdir(parents=True, exist_ok=True)
    items, lines = [], list(rows)
    for task, values in scores.items():
        mean = math.fsum(values) / len(values)
        value = {"value": math.exp(mean) if task == "perplexity" else mean, "low": None, "high": None, "n": len(values)}
        item = {
            "task": task, "metric": LOWER.get(task, "accuracy"), "better": "lower" if task in LOWER else "higher",
            "version": 1, "scale": SCALE.get(task, "mean"), "data_digest": "d" * 64, "n": len(values), "base": value,
            "merged": value,
        }  # fmt: skip
        items.append(item | changes.get(task, {}))
        for model, (i, score) in itertools.product(("base", "merged"), enumerate(values)):
            shown = score if model == "merged" else 0.123
            lines.append({"task": task, "model": model, "id": f"s{i}", "prompt_digest": f"p{i}", "counts": True,
                          "score": shown, "output": f"{model} wrote {shown}"})  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(items))
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., Verdict]:
    def of(candidate: Scores, champion: Scores, **settings: Any) -> Verdict:
        a, b = write(tmp_path / "candidate", candidate), write(tmp_path / "champion", champion)
        return compare(a, b, GateSettings(**settings))

    return of


def words(verdict: Verdict) -> dict[str, str]:
    return {t.task: t.verdict for t in verdict.tasks}


def losses(n: int, seed: int) -> np.ndarray:
    """Mean losses of windows: they differ far more between texts than between two models on one."""
    return np.random.default_rng(seed).normal(3.0, 0.5, n)


# ------------------------------------------------------------------- the test itself


@pytest.mark.parametrize(
    ("worse", "better", "p"),
    [(5, 0, 1 / 32), (6, 0, 1 / 64), (1, 0, 1 / 2), (0, 0, 1.0), (0, 3, 1.0), (3, 1, 5 / 16), (8, 2, 56 / 1024)],
)
def test_right_and_wrong_answers_give_the_exact_mcnemar_test(worse: int, better: int, p: float) -> None:
    """P(X >= worse) of a binomial of the pairs that disagree, by hand; pairs that agree do not count."""
    assert sign_flip([1.0] * worse + [-1.0] * better + [0.0] * 30, 1000, 0) == pytest.approx(p, abs=1e-15)


def test_a_few_differences_are_counted_out() -> None:
    differences = [0.3, -0.1, 0.7, 0.2]
    sums = [sum(s * abs(d) for s, d in zip(signs, differences, strict=True))
            for signs in itertools.product((1, -1), repeat=4)]  # fmt: skip
    expected = sum(s >= sum(differences) - 1e-12 for s in sums) / 16
    assert sign_flip(differences, 1000, 0) == pytest.approx(expected, abs=1e-15)
    assert sign_flip([0.1 + 0.2, -0.3], 1000, 0) == 0.75  # the same sum but for rounding counts as reached


def test_many_differences_are_drawn_near_the_exact_value_and_never_0() -> None:
    differences = list(np.random.default_rng(3).normal(0.1, 0.3, 16))
    exact = sign_flip(differences, 1000, 0)
    drawn = sign_flip([*differences, 1e-12], 20_000, 0)  # one more, of no weight, is one too many to count out
    assert drawn == pytest.approx(exact, abs=0.012)
    assert drawn == sign_flip([*differences, 1e-12], 20_000, 0) != sign_flip([*differences, 1e-12], 20_000, 1)
    assert sign_flip([1.0 + i / 1000 for i in range(40)], 1000, 0) == 1 / 1001


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12))
def test_both_sides_together_cover_everything(differences: list[float]) -> None:
    up, down = sign_flip(differences, 1000, 0), sign_flip([-d for d in differences], 1000, 0)
    assert 0 < up <= 1 and up + down >= 1 - 1e-9


def test_under_chance_p_is_small_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    small = sum(sign_flip(list(random.normal(0, 1, 12)), 1000, 0) <= 0.05 for _ in range(600))
    assert 0.03 < small / 600 < 0.07


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0} and holm({}) == {}


def test_detectable_effect_by_hand() -> None:
    assert detectable([1.0, -1.0] * 50, 0.05) == pytest.approx((1.959964 + 0.841621) * 1.0050378 / 10, rel=1e-5)
    assert detectable([0.5], 0.05) is None and detectable([0.0] * 9, 0.05) is None


# ------------------------------------------------------------------- planted regressions, and none


@pytest.mark.parametrize("seed", range(20))
def test_perplexity_3_percent_worse_is_caught(judge: Callable[..., Verdict], seed: int) -> None:
    champion = losses(40, seed)
    worse = champion + np.log(1.03) + np.random.default_rng(seed + 100).normal(0, 0.02, 40)
    verdict = judge({"perplexity": worse.tolist()}, {"perplexity": champion.tolist()}, seed=seed)
    assert verdict.verdict == "fail" and "perplexity: worse by" in verdict.reason
    [task] = verdict.tasks
    assert task.headline and task.worse_by == pytest.approx(0.03, abs=0.015)
    assert task.low is not None and task.high is not None and task.difference is not None
    assert 0 < task.low < task.difference < task.high
    assert task.detectable is not None and 0.005 < task.detectable < 0.015


def test_equal_models_fail_at_most_once_in_20(judge: Callable[..., Verdict]) -> None:
    """Four tasks each time: the chance of all of them together is what the settings say."""
    failed = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        right = random.random(60) < 0.5
        flipped = np.where(random.random(60) < 0.1, ~right, right)  # as likely either way
        champion = {"perplexity": losses(40, seed), "answers": losses(60, seed + 50), "f1": random.random(60)}
        other = {
            "perplexity": champion["perplexity"] + random.normal(0, 0.02, 40),
            "answers": champion["answers"] + random.normal(0, 0.05, 60),
            "f1": champion["f1"] + random.normal(0, 0.1, 60),
        }
        verdict = judge(
            {**{k: v.tolist() for k, v in other.items()}, "passkey": flipped.astype(float).tolist()},
            {**{k: v.tolist() for k, v in champion.items()}, "passkey": right.astype(float).tolist()},
        )  # fmt: skip
        failed += verdict.verdict == "fail"
    assert failed <= 1


def test_the_same_model_passes_and_says_so(judge: Callable[..., Verdict]) -> None:
    scores = {"perplexity": losses(20, 0).tolist(), "passkey": [1.0, 0.0] * 6}
    verdict = judge(scores, scores)
    assert verdict.verdict == "pass" and "no difference to be seen" in verdict.reason
    assert [t.detectable for t in verdict.tasks] == [None, None] and verdict.worst == []


def test_worse_but_too_little_to_matter_is_a_warning(judge: Callable[..., Verdict]) -> None:
    champion = losses(40, 0)
    worse = {"perplexity": (champion + 0.002).tolist()}
    verdict = judge(worse, {"perplexity": champion.tolist()})
    assert verdict.verdict == "warn" and "too little to matter" in verdict.reason
    assert judge(worse, {"perplexity": champion.tolist()}, min_effect={"relative": 0.001}).verdict == "fail"


def test_too_good_is_a_warning_and_better_a_pass(judge: Callable[..., Verdict]) -> None:
    champion = losses(40, 0)
    better, leap = ({"perplexity": (champion - d).tolist()} for d in (0.1, 0.9))
    assert judge(better, {"perplexity": champion.tolist()}).verdict == "pass"
    verdict = judge(leap, {"perplexity": champion.tolist()})
    assert verdict.verdict == "warn" and "leak" in verdict.reason
    assert judge(leap, {"perplexity": champion.tolist()}, suspicious={"relative": 0.8}).verdict == "pass"


def test_a_task_that_is_not_the_headline_is_corrected_for_the_others(judge: Callable[..., Verdict]) -> None:
    """Six answers of 20 lost and none won: p is 1/64. Alone beside the headline that fails, among four not."""
    same = [1.0] * 20
    lost = [0.0] * 6 + [1.0] * 14
    loss = {"perplexity": losses(20, 0).tolist()}
    alone = judge({**loss, "passkey": lost}, {**loss, "passkey": same})
    assert alone.verdict == "fail" and words(alone) == {"perplexity": "pass", "passkey": "fail"}
    assert alone.tasks[1].p == alone.tasks[1].p_holm == 1 / 64
    others = {f"other{i}": same for i in range(3)}
    among = judge({**loss, "passkey": lost, **others}, {**loss, "passkey": same, **others})
    assert among.verdict == "pass" and among.tasks[1].p_holm == 4 / 64
    headline = judge({**loss, "passkey": lost, **others}, {**loss, "passkey": same, **others}, headline="passkey")
    assert headline.verdict == "fail" and headline.tasks[1].p_holm is None


def test_worst_samples_have_both_scores_and_outputs(judge: Callable[..., Verdict]) -> None:
    lost = [0.0] * 6 + [1.0] * 14
    verdict = judge({"passkey": lost}, {"passkey": [1.0] * 20})
    assert [s["id"] for s in verdict.worst] == ["s0", "s1", "s2", "s3", "s4"]
    assert verdict.worst[0] == {"task": "passkey", "id": "s0", "candidate": 0.0, "champion": 1.0,
                                "output": "merged wrote 0.0", "champion_output": "merged wrote 1.0"}  # fmt: skip


# ------------------------------------------------------------------- floors


def test_floors_hold_whatever_the_champion_does(judge: Callable[..., Verdict], tmp_path: Path) -> None:
    scores = {"perplexity": [3.0] * 8, "passkey": [1.0, 0.0] * 4}
    for floors, word in (({"perplexity": 21.0, "passkey": 0.5}, "pass"), ({"perplexity": 20.0}, "fail"),
                         ({"passkey": 0.6}, "fail"), ({"needle": 0.1}, "fail")):  # fmt: skip
        assert judge(scores, scores, floors=floors).verdict == word
        alone = compare(tmp_path / "candidate", None, GateSettings(floors=floors))
        assert alone.verdict == ("fail" if word == "fail" else "no champion")
    assert "above the ceiling 20" in judge(scores, scores, floors={"perplexity": 20.0}).reason


# ------------------------------------------------------------------- what cannot be compared, what is missing


def test_a_metric_that_is_gone_is_a_regression(judge: Callable[..., Verdict], tmp_path: Path) -> None:
    both = {"perplexity": losses(20, 0).tolist(), "passkey": [1.0] * 8}
    only = {"perplexity": both["perplexity"]}
    gone = judge(only, both)
    assert gone.verdict == "fail" and words(gone) == {"perplexity": "pass", "passkey": "fail"}
    assert "not measured" in gone.reason
    assert compare(tmp_path / "candidate", tmp_path / "champion", GateSettings(), ["perplexity"]).verdict == "pass"
    skipped = write(tmp_path / "skipped", only)
    items = json.loads((skipped / "metrics.json").read_text())
    items.append({"task": "passkey", "metric": "accuracy", "better": "higher", "version": 1, "skipped": "no room"})
    (skipped / "metrics.json").write_text(json.dumps(items))
    verdict = compare(skipped, tmp_path / "champion", GateSettings())
    assert verdict.verdict == "fail" and "no room" in verdict.reason
    assert compare(tmp_path / "champion", skipped, GateSettings()).verdict == "pass"  # new, no verdict on it
    assert words(compare(tmp_path / "champion", skipped, GateSettings()))["passkey"] == "new"


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"engine": "vllm bfloat16"}, {"data_digest": "e" * 64}, {"n": 19}, {"metric": "other"}],
    ids=lambda c: next(iter(c)),
)
def test_results_of_something_else_are_not_compared(tmp_path: Path, change: dict[str, Any]) -> None:
    """Though every score is worse."""
    good, bad = ({"perplexity": [x] * 20, "passkey": [1.0] * 20} for x in (3.0, 3.5))
    champion = write(tmp_path / "champion", good)
    verdict = compare(write(tmp_path / "a", bad, perplexity=change), champion, GateSettings())
    assert verdict.verdict == "incomparable" and words(verdict) == {"perplexity": "incomparable", "passkey": "pass"}
    other = compare(tmp_path / "a", champion, GateSettings(headline="passkey"))
    assert other.verdict == "pass" and words(other)["perplexity"] == "incomparable"


def test_other_samples_under_the_same_digest_are_not_compared(tmp_path: Path) -> None:
    champion, candidate = (write(tmp_path / name, {"passkey": [1.0] * 9}) for name in "ab")
    lines = (candidate / "samples.jsonl").read_text()
    (candidate / "samples.jsonl").write_text(lines.replace('"p3"', '"p99"'))
    assert compare(candidate, champion, GateSettings()).verdict == "incomparable"
    (candidate / "samples.jsonl").write_text(lines.replace('"s3"', '"s99"'))
    assert compare(candidate, champion, GateSettings()).verdict == "incomparable"


def test_headline_that_nobody_measured(judge: Callable[..., Verdict]) -> None:
    scores = {"passkey": [1.0] * 8}
    assert judge(scores, scores, headline="perplexity").verdict == "incomplete"
    assert judge({**scores, "f1": [0.5] * 8}, scores, headline="f1").verdict == "incomparable"


@pytest.mark.parametrize("damage", ["no metrics", "no samples", "half a line", "fewer samples", "no scores", "no list"])
@pytest.mark.parametrize("whose", ["candidate", "champion"])
def test_an_output_that_is_not_whole_is_no_regression(tmp_path: Path, damage: str, whose: str) -> None:
    folders = {name: write(tmp_path / name, {"passkey": [1.0] * 8}) for name in ("candidate", "champion")}
    metrics, samples = (folders[whose] / name for name in ("metrics.json", "samples.jsonl"))
    lines = samples.read_text().splitlines(keepends=True)
    if damage == "no metrics":
        metrics.unlink()
    elif damage == "no list":
        metrics.write_text('{"task": 3}')
    elif damage == "no samples":
        samples.unlink()
    elif damage == "half a line":
        samples.write_text("".join(lines)[:-20])
    elif damage == "fewer samples":
        samples.write_text("".join(lines[:-1]))
    else:
        samples.write_text("".join(lines).replace('"score"', '"points"'))
    verdict = compare(folders["candidate"], folders["champion"], GateSettings())
    assert verdict.verdict == "incomplete" and str(folders[whose]) in verdict.reason


def test_scores_that_are_no_numbers(tmp_path: Path) -> None:
    champion, candidate = (write(tmp_path / name, {"perplexity": [3.0] * 9}) for name in "ab")
    lines = (candidate / "samples.jsonl").read_text()
    (candidate / "samples.jsonl").write_text(lines.replace('"score": 3.0', '"score": NaN', 1))
    assert compare(candidate, champion, GateSettings()).verdict == "fail"
    assert compare(champion, candidate, GateSettings()).verdict == "incomparable"


def test_only_the_merged_models_rows_that_count_take_part(tmp_path: Path) -> None:
    extra = [{"task": "passkey", "model": "merged", "id": f"x{i}", "prompt_digest": "p", "counts": False, "score": 0.0}
             for i in range(9)]  # fmt: skip
    champion = write(tmp_path / "a", {"passkey": [1.0] * 9})
    candidate = write(tmp_path / "b", {"passkey": [1.0] * 9}, rows=extra)
    [task] = compare(candidate, champion, GateSettings()).tasks
    assert task.verdict == "pass" and task.n == 9 and task.difference == 0


# ------------------------------------------------------------------- what is shown


def test_verdict_is_plain_json_a_table_and_a_few_lines(judge: Callable[..., Verdict]) -> None:
    verdict = judge({"perplexity": [3.1 + i / 99 for i in range(9)]}, {"perplexity": [3 + i / 100 for i in range(9)]})
    plain = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert plain["verdict"] == "fail" and plain["headline"] == "perplexity" and plain["tasks"][0]["n"] == 9
    assert len(plain["worst"]) == 5
    head, _, row = verdict.markdown().splitlines()
    assert row.startswith("| perplexity (headline) | perplexity ↓ |") and row.count("|") == head.count("|")
    assert verdict.text().splitlines()[0].startswith("gate: fail: perplexity: worse by")


def test_a_text_with_a_line_separator_in_it_is_one_sample(tmp_path: Path) -> None:
    """JSON allows U+2028 in a text, and PDFs have it; it ends no line of samples.jsonl."""
    for name in ("champion", "candidate"):
        write(tmp_path / name, {"passkey": [1.0] * 8})
        path = tmp_path / name / "samples.jsonl"
        rows = [{**json.loads(line), "output": "a\u2028b\u0085c"} for line in path.read_text().split("\n") if line]
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert compare(tmp_path / "candidate", tmp_path / "champion", GateSettings()).verdict == "pass"


def test_windows_count_by_their_tokens(tmp_path: Path) -> None:
    """The difference that is shown is that of the metric, though the first window has four times the tokens."""
    tokens = [1024, *[256] * 19]
    rows = {"champion": [3.0] * 20, "candidate": [3.02, *[2.996] * 19]}
    for name, scores in rows.items():
        folder = write(tmp_path / name, {"perplexity": scores})
        lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
        text = "".join(json.dumps({**line, "tokens": n}) + "\n" for line, n in zip(lines, tokens * 2, strict=True))
        (folder / "samples.jsonl").write_text(text)
        items = json.loads((folder / "metrics.json").read_text())
        mean = sum(s * n for s, n in zip(scores, tokens, strict=True)) / sum(tokens)
        items[0] |= {"scale": "perplexity"}
        items[0][next(k for k in ("merged", "base") if k in items[0])]["value"] = math.exp(mean)
        (folder / "metrics.json").write_text(json.dumps(items))
    (task,) = compare(tmp_path / "candidate", tmp_path / "champion", GateSettings()).tasks
    assert task.difference == pytest.approx(task.candidate - task.champion) and task.difference > 0


def test_only_the_tasks_that_were_asked_for(tmp_path: Path) -> None:
    settings = GateSettings(headline="perplexity", floors={"perplexity": 20.0})
    found = write(tmp_path / "a", {"passkey": [1.0] * 8})
    assert compare(found, None, settings, ["passkey"]).verdict == "no champion"
    assert compare(found, None, settings).verdict == "fail"
    champion = write(tmp_path / "b", {"perplexity": [3.0] * 8, "passkey": [1.0] * 8})
    assert compare(found, champion, settings, ["passkey"]).verdict == "pass"


def test_too_few_samples_to_fail_promise_no_effect(tmp_path: Path) -> None:
    pairs = [3.0, 3.1, 3.2, 3.3, 3.4]
    write(tmp_path / "b", {"perplexity": pairs})
    write(tmp_path / "a", {"perplexity": [p + 0.1 * i for i, p in enumerate(pairs)]})
    (task,) = compare(tmp_path / "a", tmp_path / "b", GateSettings()).tasks
    assert task.verdict == "pass" and task.detectable is None
