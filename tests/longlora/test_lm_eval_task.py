"""Standard tasks through lm-evaluation-harness, where that is installed, on questions of our own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from longlora.errors import UserError
from longlora.evaluation.data import Sources
from longlora.evaluation.engines import TransformersEngine
from longlora.evaluation.settings import EvaluateSettings
from longlora.evaluation.stage import run
from longlora.evaluation.tasks.base import Context, Sample, Skipped
from longlora.evaluation.tasks.lm_eval import LmEval

CHOICES = [
    ("What do boats float on?", ["water", "sand", "a fire"], 0),
    ("What is the colour of grass?", ["blue", "green", "red"], 1),
    ("How many legs has a dog?", ["two", "seven", "four"], 2),
    ("What is ice?", ["hot", "cold", "loud"], 1),
]
LOCAL = {
    "dataset_path": "json",
    "test_split": "test",
    "doc_to_text": "{{question}}\nAnswer:",
    "metadata": {"version": 1},
}


def mean(measure: str) -> dict[str, Any]:
    return {"metric": measure, "aggregation": "mean", "higher_is_better": True}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two task files with their data: choices after one example, and written answers."""
    rows = [{"question": q, "choices": c, "right": r, "answer": c[r]} for q, c, r in CHOICES]
    for name in ("boats", "words"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    boats = {
        **LOCAL, "task": "boats", "output_type": "multiple_choice", "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{right}}", "dataset_kwargs": {"data_files": {"test": "boats.jsonl", "train": "words.jsonl"}},
        "num_fewshot": 1, "fewshot_split": "train", "metric_list": [mean("acc"), mean("acc_norm")],
    }  # fmt: skip
    words = {
        **LOCAL, "task": "words", "output_type": "generate_until", "doc_to_target": "{{answer}}",
        "dataset_kwargs": {"data_files": {"test": "words.jsonl"}},
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4}, "metric_list": [mean("exact_match")],
    }  # fmt: skip
    for task in (boats, words):
        (tmp_path / f"{task['task']}.yaml").write_text(yaml.safe_dump(task))
    return tmp_path


def chosen(folder: Path | None, *tasks: str, **settings: Any) -> EvaluateSettings:
    return EvaluateSettings.model_validate({
        "lm_eval": {"tasks": tasks, "include_path": folder}, "dtype": "float32", "device": "cpu", **settings,
    })  # fmt: skip


def samples(task: LmEval, settings: EvaluateSettings, tokenizer) -> list[Sample]:
    return task.samples(Context(settings, Sources(), tokenizer))


def test_without_the_package_the_user_is_told(monkeypatch, tokenizer) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(UserError, match="not installed") as error:
        samples(LmEval(), chosen(None, "arc_easy"), tokenizer)
    assert "pip install" in error.value.remedy


def test_it_is_asked_for_by_its_tasks() -> None:
    with pytest.raises(Skipped, match=r"evaluate\.lm_eval\.tasks"):
        LmEval().samples(Context(EvaluateSettings(), Sources(), None))


def test_scores_are_the_harness_own(folder, tiny_model_dir, tokenizer) -> None:
    """Each subset's mean is what ``simple_evaluate`` of the same model directory says."""
    harness = pytest.importorskip("lm_eval")
    task, settings = LmEval(), chosen(folder, "boats", "words")
    made = samples(task, settings, tokenizer)
    assert [s.id for s in made] == [f"{name}/{i}" for name in ("boats", "words") for i in range(4)]
    assert [s.digest for s in samples(task, settings, tokenizer)] == [s.digest for s in made]
    assert {s.about["measure"] for s in made[:4]} == {"acc_norm"} and made[4].about["measure"] == "exact_match"
    assert made[0].prompt.count("Answer:") == 2 and made[4].prompt.count("Answer:") == 1  # one example, and none
    engine = TransformersEngine(tiny_model_dir, dtype="float32")
    results = task.measure(engine, made[:4], settings)
    assert [r["expected"] for r in results] == ["0", "1", "2", "1"]
    for row, (_, choices, right) in zip(results, CHOICES, strict=True):
        assert (row["verdict"] == "correct") == (row["score"] == 1) == (row["output"] == choices[right])
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        model = {"pretrained": str(tiny_model_dir), "dtype": "float32"}
        manager = harness.tasks.TaskManager(include_path=str(folder))
        own = harness.simple_evaluate(
            "hf", model, ["boats", "words"], device="cpu", task_manager=manager, bootstrap_iters=0
        )["results"]
    assert sum(r["score"] for r in results) / 4 == pytest.approx(own["boats"]["acc_norm,none"])
    written = task.measure(engine, made[4:], settings)
    assert sum(r["score"] for r in written) / 4 == pytest.approx(own["words"]["exact_match,none"])
    assert written[0]["expected"] == "water" and task.settings(settings)["lm_eval"]
    part = task.measure(engine, [made[2]], settings)
    assert part[0]["expected"] == "2"


def test_a_limit_draws_questions(folder, tokenizer) -> None:
    pytest.importorskip("lm_eval")
    drawn = [
        [s.id for s in samples(LmEval(), chosen(folder, "boats", limit=2, seed=seed), tokenizer)] for seed in (0, 0)
    ]
    assert drawn[0] == drawn[1] and len(drawn[0]) == 2


def test_unknown_tasks_and_data_that_are_not_at_hand(folder, tokenizer, tmp_path) -> None:
    pytest.importorskip("lm_eval")
    with pytest.raises(UserError, match="nosuch is no task"):
        samples(LmEval(), chosen(folder, "nosuch"), tokenizer)
    with pytest.raises(UserError, match="is no folder"):
        samples(LmEval(), chosen(tmp_path / "none", "boats"), tokenizer)
    (folder / "boats.jsonl").unlink()
    with pytest.raises(Skipped, match="data of boats are not at hand"):
        samples(LmEval(), chosen(folder, "boats"), tokenizer)
    text = (folder / "words.yaml").read_text().replace("higher_is_better: true", "higher_is_better: false")
    (folder / "words.yaml").write_text(text)
    with pytest.raises(UserError, match="words has no measure"):
        samples(LmEval(), chosen(folder, "words"), tokenizer)


def test_the_stage_measures_it_and_a_changed_task_file_is_other_data(folder, tiny_model_dir, tmp_path) -> None:
    pytest.importorskip("lm_eval")
    settings = chosen(folder, "boats", "words", tasks=["lm_eval"])

    def go(name: str) -> dict[str, Any]:
        inputs = {"model": tiny_model_dir, "lm_eval": folder, "units": tmp_path / "units"}
        found = run(settings, inputs, tmp_path / name, lambda *_, **__: None)
        assert found["lm_eval"]["n"] == 8
        (item,) = json.loads((tmp_path / name / "output/metrics.json").read_text())
        assert [row["subset"] for row in item["by"]["subset"]] == ["boats", "words"] and item["settings"]["lm_eval"]
        return item

    first = go("a")
    assert first["subsets"][0]["measure"] == "acc_norm"
    task = yaml.safe_load((folder / "boats.yaml").read_text())
    (folder / "boats.yaml").write_text(yaml.safe_dump({**task, "metric_list": [mean("acc")]}))  # the same prompts
    other = go("b")
    assert other["data_digest"] != first["data_digest"] and other["subsets"][0]["measure"] == "acc"
