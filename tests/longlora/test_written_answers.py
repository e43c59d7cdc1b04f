"""Written answers: F1 by hand, and a model's own text measured against the truth."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longlora.evaluation import EvaluateSettings
from longlora.evaluation.scoring.words import f1, words
from longlora.evaluation.stage import run
from longlora.inference import generate
from longlora.models import load_model, load_tokenizer
from longlora.prompts import encode_prompt

text = st.text(alphabet="ab c.é漢か", max_size=20)


@pytest.mark.parametrize(
    ("output", "expected", "value"),
    [
        ("The Eiffel Tower.", "eiffel tower", 1.0),
        ("tower", "eiffel tower", 2 / 3),  # precision 1, recall 1/2
        ("tower tower", "eiffel tower", 0.5),  # the second one counts for nothing
        ("in 1889", "1887", 0.0),
        ("", "eiffel", 0.0),
        ("", "...", 1.0),
        ("漢字", "漢", 2 / 3),
    ],
)
def test_f1(output: str, expected: str, value: float) -> None:
    assert f1(output, expected) == pytest.approx(value)


@given(text, text)
def test_f1_is_symmetric_and_whole_only_for_the_same_words(a: str, b: str) -> None:
    assert f1(a, b) == f1(b, a)
    assert (f1(a, b) == 1) == (sorted(words(a)) == sorted(words(b)))


def test_what_the_model_writes_is_compared(tiny_model_dir, tmp_path) -> None:
    (tmp_path / "data").mkdir()
    outputs = ["noon", "rain", "harbour " * 9]
    rows = [{"id": f"r{i}", "task": "t", "instruction": f"{'boat ' * i}?", "output": o} for i, o in enumerate(outputs)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data/validation-00000-of-00001.parquet")
    settings = EvaluateSettings.model_validate({
        "tasks": ["written_answers"], "written_answers": {"max_answer_tokens": 5}, "dtype": "float32", "device": "cpu",
    })  # fmt: skip
    inputs = {"model": tiny_model_dir, "datasets_build": tmp_path}
    metrics = run(settings, inputs, tmp_path / "work", lambda *_, **__: None)["written_answers"]
    lines = (tmp_path / "work/output/samples.jsonl").read_text().splitlines()
    samples = {sample["id"]: sample for sample in map(json.loads, lines)}
    assert sorted(samples) == ["r0", "r1"] and metrics["n"] == 2  # the long answer is left out
    model, tokenizer = load_model(tiny_model_dir, dtype="float32"), load_tokenizer(tiny_model_dir)
    for i, sample in enumerate(samples.values()):
        prompt = encode_prompt(tokenizer, "chat", rows[i]["instruction"])
        assert sample["output"] == generate(model, tokenizer, prompt, max_new_tokens=5)
        assert sample["expected"] == outputs[i] and sample["score"] == f1(sample["output"], outputs[i])
    assert metrics["base"] == pytest.approx(sum(s["score"] for s in samples.values()) / 2)
    assert metrics["metric"] == "f1" and metrics["better"] == "higher"
