"""Engines: batches, shared prefills, devices and endpoints change how answers are made, not what they are."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from longlora.errors import UserError
from longlora.evaluation.__main__ import main
from longlora.evaluation.data import Sources
from longlora.evaluation.engines import Batch, EndpointEngine, EndpointSettings, TransformersEngine, VllmEngine, batches
from longlora.evaluation.engines import transformers as module
from longlora.evaluation.settings import EvaluateSettings
from longlora.evaluation.stage import evaluate
from longlora.evaluation.tasks import Sample
from longlora.inference import generate
from longlora.models import load_model, load_tokenizer
from longlora.prompts import encode_prompt

DOCUMENT = "the boat left at noon and the old harbour was quiet again while rain fell on the far hills. " * 9
QUESTIONS = (
    "Who left?",
    "When did the boat leave, and what was quiet after that?",
    "Where?",
    "What fell on the hills?",
)


def silent(event: str, **fields: object) -> None:
    pass


@pytest.fixture(scope="module")
def engine(tiny_model_dir, tmp_path_factory) -> TransformersEngine:
    """A random model whose next word depends on all that it has read: large weights, a head of its own."""
    torch.manual_seed(3)
    config = AutoConfig.from_pretrained(tiny_model_dir)
    config.tie_word_embeddings, config.initializer_range = False, 0.3
    folder = tmp_path_factory.mktemp("varied")
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    load_tokenizer(tiny_model_dir).save_pretrained(folder)
    return TransformersEngine(folder, dtype="float32")


def questions(tokenizer, document: str, name: str = "d", most: int = 12) -> list[Sample]:
    return [
        Sample(f"{name}{i}", encode_prompt(tokenizer, "chat", document + q), document=name, max_new_tokens=most)
        for i, q in enumerate(QUESTIONS)
    ]


def one_by_one(engine: TransformersEngine, samples: list[Sample]) -> list[str]:
    return [generate(engine.network, engine.tokenizer, s.input_ids, max_new_tokens=s.max_new_tokens) for s in samples]


def test_a_batch_after_a_shared_prefill_answers_as_one_by_one(engine, tokenizer, monkeypatch) -> None:
    monkeypatch.setattr(module, "PREFILL", 50)  # in pieces
    first, second = questions(tokenizer, DOCUMENT), questions(tokenizer, DOCUMENT[20:], "e")
    found = batches([*first, *second], 3, 10_000, answers=True)
    assert [len(b.samples) for b in found] == [3, 1, 3, 1]
    shared = {b.samples[0].document: b.prefix for b in found}
    assert all(150 < n < min(len(s.input_ids) for s in first) for n in shared.values())
    answers = [a for batch in found for a in engine.answers(batch)]
    assert answers == one_by_one(engine, [*first, *second])
    assert len(set(answers)) > 3


def test_the_document_is_read_once(engine, tokenizer, monkeypatch) -> None:
    samples = questions(tokenizer, DOCUMENT, most=1)
    read: list[int] = []
    network = engine.network.base_model
    original = type(network).forward

    def counted(self, *args, **kwargs):
        read.append(kwargs["input_ids"].numel())
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(network), "forward", counted)
    engine._prefix = ([], None)
    for batch in batches(samples, 2, 10_000, answers=True):
        engine.answers(batch)
    length = min(len(s.input_ids) for s in samples)
    assert length < sum(read) < 1.5 * length  # four questions, one document


def test_prompts_without_a_document_are_padded_and_answered_alike(engine, tokenizer) -> None:
    texts = [DOCUMENT[: 100 + 9 * i] for i in range(7)] + ["short"]
    samples = [Sample(t, encode_prompt(tokenizer, "chat", t), max_new_tokens=9) for t in texts]
    found = batches(samples, 4, 10_000, answers=True)
    assert max(len(b.samples) for b in found) > 1 and found[-1].samples[0].id == "short"
    answers = {s.id: a for b in found for s, a in zip(b.samples, engine.answers(b), strict=True)}
    assert [answers[t] for t in texts] == one_by_one(engine, samples)


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 40)), max_size=30), st.integers(1, 5), st.integers(1, 90)
)
def test_batches_hold_every_sample_once_within_their_limits(given, size, tokens) -> None:
    samples = [Sample(f"{i}", list(range(n)), document=d.replace("z", "")) for i, (d, n) in enumerate(given)]
    found = batches(samples, size, tokens, answers=True)
    assert sorted(s.id for b in found for s in b.samples) == sorted(s.id for s in samples)
    for b in found:
        longest = max(len(s.input_ids) for s in b.samples)
        assert len(b.samples) <= size and (len(b.samples) == 1 or longest * len(b.samples) <= tokens)
        assert len({s.document for s in b.samples}) == 1
        assert all(s.input_ids[: b.prefix] == b.samples[0].input_ids[: b.prefix] for s in b.samples)
        assert all(b.prefix < len(s.input_ids) for s in b.samples)


def test_several_devices_give_the_same_numbers(tiny_model_dir, tmp_path) -> None:
    settings = EvaluateSettings(
        tasks=["text_perplexity", "passkey"], dtype="float32", texts=[tmp_path / "a.txt"], batch_size=1,
        perplexity={"window": 32}, passkey={"lengths": [160], "trials": 3, "max_new_tokens": 2},
    )  # fmt: skip
    (tmp_path / "a.txt").write_text(DOCUMENT * 9)
    sources = Sources(texts=settings.texts)
    found = []
    for device in ("cpu", "cpu,cpu"):
        work = tmp_path / device
        own = settings.model_copy(update={"device": device})
        evaluate({"model": tiny_model_dir}, sources, own, work, silent, work / "units")
        found.append((work / "output/samples.jsonl").read_text())
    assert found[0] == found[1] and len(found[0].splitlines()) > 20


def test_four_bits_and_vllm_say_what_they_need(tiny_model_dir, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="vllm") as error:
        VllmEngine(tiny_model_dir, dtype="float32").answers(Batch((Sample("a", [1], max_new_tokens=1),)))
    assert "pip install vllm" in error.value.remedy
    plain, four = (TransformersEngine(tiny_model_dir, dtype="float32", four_bit=f).identity() for f in (False, True))
    assert plain != four


class FakeVllm:
    """What the engine uses of vLLM (its documentation, 0.11): a model that answers with what it was asked."""

    made: ClassVar[list[dict]] = []

    class SamplingParams:
        def __init__(self, **given) -> None:
            self.given = given

    class LLM:
        def __init__(self, **given) -> None:
            if given["max_model_len"] and given["max_model_len"] > 100:
                raise ValueError("max_model_len (101) is greater than the derived max_model_len (100)")
            FakeVllm.made.append(given)

        def generate(self, prompts, params, use_tqdm):
            found = []
            for prompt in prompts:
                ids = prompt["prompt_token_ids"]
                logprobs = [None, *({t: SimpleNamespace(logprob=-0.5 * t)} for t in ids[1:])]
                text = f"{ids} {sorted(params.given.items())}"
                found.append(SimpleNamespace(prompt_logprobs=logprobs, outputs=[SimpleNamespace(text=text)]))
            return found


def test_vllm_is_asked_for_the_same(tiny_model_dir, monkeypatch) -> None:
    """Against a stand-in: which prompts, stop tokens and lengths it is given, and where losses are read."""
    monkeypatch.setitem(sys.modules, "vllm", FakeVllm)
    engine = VllmEngine(tiny_model_dir, dtype="bfloat16")
    engine.stops, engine.longest = frozenset((9, 2)), 60
    (said,) = engine.answers(Batch((Sample("a", [4, 5], max_new_tokens=7),)))
    assert said == "[4, 5] [('max_tokens', 7), ('stop_token_ids', [2, 9]), ('temperature', 0)]"
    assert list(engine.losses([1, 2, 3, 4], 2)) == [1.5, 2.0]
    assert FakeVllm.made[-1]["max_model_len"] == 61 and FakeVllm.made[-1]["model"] == str(tiny_model_dir)
    engine.close()
    engine.longest = 100
    with pytest.raises(UserError, match="derived max_model_len") as error:
        engine.losses([1, 2], 1)
    assert "lower the lengths" in error.value.remedy


# ---------------------------------------------------------------------------------------- endpoint


class Server:
    """A real endpoint with the real tiny model; ``status`` other than 200 refuses."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.status, self.fail_after = 200, 10**9
        model, tokenizer = load_model(folder, dtype="float32"), load_tokenizer(folder)
        outer = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                (message,) = body["messages"]
                with lock:
                    failing = len(outer.asked) >= outer.fail_after
                    if not failing:
                        outer.asked.append(message["content"])
                        ids = encode_prompt(tokenizer, "chat", message["content"])
                        text = generate(model, tokenizer, ids, max_new_tokens=body["max_tokens"])
                if failing:
                    self.send_response(outer.status)
                    self.end_headers()
                    return
                choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
                data = json.dumps({"id": "x", "object": "chat.completion", "created": 0, "model": body["model"],
                                   "choices": [choice]}).encode()  # fmt: skip
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@pytest.fixture
def server(tiny_model_dir):
    server = Server(tiny_model_dir)
    yield server
    server.http.shutdown()


SMALL = {"passkey": {"lengths": [160], "trials": 2, "max_new_tokens": 4}, "dtype": "float32", "batch_size": 2}


def test_an_endpoint_is_evaluated_as_the_model_behind_it(server, tiny_model_dir, tmp_path, capsys) -> None:
    (tmp_path / "s.json").write_text(json.dumps(SMALL))
    common = ["--tasks", "passkey", "--settings", str(tmp_path / "s.json"), "--model", str(tiny_model_dir)]
    served = [*common, "--endpoint", server.url, "--endpoint-model", "tiny"]
    assert main([*served, "--out", str(tmp_path / "served")]) == 0
    assert main([*common, "--out", str(tmp_path / "own")]) == 0
    own, other = ((tmp_path / name / "output/samples.jsonl").read_text() for name in ("own", "served"))
    kinds = {json.loads((tmp_path / n / "output/metrics.json").read_text())[0]["engine"] for n in ("own", "served")}
    assert kinds == {"transformers float32", "endpoint"}
    assert own == other and len(server.asked) == 6
    text = tmp_path / "a.txt"
    text.write_text(DOCUMENT)
    assert main([*served, "--tasks", "text_perplexity", "--text", str(text), "--out", str(tmp_path / "p")]) == 2
    assert "an endpoint does not tell" in capsys.readouterr().err


def test_an_endpoint_that_fails_costs_no_answer_twice(server, tiny_model_dir, tmp_path) -> None:
    settings = EvaluateSettings(tasks=["passkey"], **SMALL)
    at = EndpointSettings(base_url=server.url, model="tiny", retries=0)
    server.fail_after, server.status = 4, 500

    def go():
        return evaluate(
            {"model": tiny_model_dir}, Sources(), settings, tmp_path / "w", silent, tmp_path / "u",
            engine=lambda folder, device: EndpointEngine(at),
        )  # fmt: skip

    with pytest.raises(UserError, match="did not answer sample") as error:
        go()
    assert "finished batches are kept" in error.value.remedy
    server.fail_after = 10**9
    assert go()["passkey"]["n"] == 6
    assert len(server.asked) == len(set(server.asked)) == 6
