"""A real model on this machine as the teacher. It is too small to be one: what it writes is rejected, not lost."""

from __future__ import annotations

from pathlib import Path

from handmade import paper

from datasets_build.teacher.calls import Call, Failure
from datasets_build.teacher.local import LocalModel
from datasets_build.teacher.responses import Responses
from datasets_build.teacher.settings import TeacherSettings


def test_a_local_model_answers_once(smollm2_dir: Path, tmp_path: Path) -> None:
    settings = TeacherSettings.model_validate({"local": "smollm2-135m-q4", "output_tokens": 16})
    call = Call("m", "What is the capital of France? Answer with its name.", '{"temperature": 0.0}')
    reply, reused = LocalModel(settings, tmp_path, smollm2_dir).send(call)  # type: ignore[misc]
    assert "Paris" in reply.text and not reused
    assert reply.usage.prompt_tokens > 10 and 0 < reply.usage.completion_tokens <= 16
    idle = LocalModel(settings, tmp_path, smollm2_dir)
    assert idle.send(call) == (reply, True) and idle.model is None
    assert Responses(tmp_path).ledger("m").spent == reply.usage
    refused = idle.send(Call("m", "word " * 9000, "{}"))
    assert isinstance(refused, Failure) and refused.reason == "prompt-too-long"


def test_a_build_with_a_local_model(build) -> None:
    teacher = {"local": "smollm2-135m-q4", "output_tokens": 24, "junk_retries": 0}
    settings = {"max_tokens": 512, "recipes": ["title", "paper-qa"], "per_document": 1, "teacher": teacher}
    documents = [paper("joinery"), paper("glazing")]
    built = build(documents, **settings)
    m = built.metrics
    assert m["tasks"]["title"] == 2 and m["teacher_model"].startswith("smollm2-135m-q4@")
    assert m["teacher_new_calls"] == m["teacher_calls"] >= 2
    made = [r for r in built.rows() if r["task"] == "paper-qa"]
    refused = [r for r in built.rejects() if r["task"] == "paper-qa"]
    assert len(made) + len(refused) == 2 and all(r["reason"] for r in refused)
    again = build(documents, work="b", **settings)
    assert all(again.reused()) and again.metrics["row_digest"] == m["row_digest"]
