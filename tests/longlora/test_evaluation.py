"""Evaluation: numbers equal plain computations, kills cost little, mistakes are told."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from longlora.errors import UserError
from longlora.evaluation import EvaluateSettings
from longlora.evaluation.__main__ import main
from longlora.evaluation.data import Sources, validation_ids
from longlora.evaluation.engines import Batch, TransformersEngine, batches
from longlora.evaluation.model import content_digest, context_length
from longlora.evaluation.stage import identity, run
from longlora.evaluation.tasks import TASKS, Context, Sample
from longlora.evaluation.units import Units
from longlora.prompts import end_of_answer, render

TEXT = "the boat left at noon and the old harbour was quiet again while rain fell on the far hills"
WORDS = TEXT.split()
SMALL = {
    "dtype": "float32",
    "device": "cpu",
    "resamples": 500,
    "answers": {"max_rows": 6},
    "perplexity": {"window": 64, "max_windows": 5, "max_document_tokens": 192},
    "passkey": {"lengths": [160], "depths": [0.2, 0.8], "trials": 1, "max_new_tokens": 3},
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tiny models are faster on one thread, the more so beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def silent(event: str, **fields: object) -> None:
    pass


def words(n: int, shift: int = 0) -> str:
    return " ".join(WORDS[(i * i + shift) % len(WORDS)] for i in range(n))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    """Outputs of the first two stages: 8 validation rows; validation documents of 300, 100 and 10 words."""
    dataset, pdf2txt = tmp_path_factory.mktemp("dataset"), tmp_path_factory.mktemp("pdf2txt")
    (dataset / "data").mkdir()
    rows = [
        {
            "id": f"r{i}",
            "task": "quote",
            "instruction": words(20 + 5 * i, i) + "\nWhat?",
            "output": words(5 + i, 2 * i),
        }
        for i in range(8)
    ]
    pq.write_table(pa.Table.from_pylist(rows), dataset / "data/validation-00000-of-00001.parquet")
    (dataset / "splits.json").write_text(json.dumps({"train": ["d9"], "validation": ["d0", "d1", "d2"]}))
    documents = [{"doc_id": d, "text": words(n, n)} for d, n in (("d0", 300), ("d1", 100), ("d2", 10), ("d9", 400))]
    pq.write_table(pa.Table.from_pylist(documents), pdf2txt / "documents.parquet")
    return {"datasets_build": dataset, "pdf2txt": pdf2txt}


@pytest.fixture(scope="module")
def changed(tiny_model_dir, tmp_path_factory) -> Path:
    """A merge output: the tiny model, slightly perturbed."""
    folder = tmp_path_factory.mktemp("merge") / "model"
    shutil.copytree(tiny_model_dir, folder)
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    model.save_pretrained(folder)
    return folder.parent


@pytest.fixture
def inputs(tiny_model_dir, changed, data, tmp_path) -> dict[str, Path]:
    return {"model": tiny_model_dir, "merge": changed, "units": tmp_path / "units", **data}


@pytest.fixture(scope="module")
def plain(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32).eval()


def plain_losses(model, ids: list[int]) -> torch.Tensor:
    """-log p of every token after the first, from full logits in float64."""
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0].double()
    return -torch.log_softmax(logits, -1)[range(len(ids) - 1), ids[1:]]


def test_loss_equals_plain_computation_in_any_chunk(tiny_model_dir, plain) -> None:
    ids = list(range(100, 400))
    losses = plain_losses(plain, ids)
    for start, chunk in ((1, 1024), (1, 7), (250, 1024), (299, 1)):
        model = TransformersEngine(tiny_model_dir, dtype="float32", chunk=chunk)
        assert model.losses(ids, start) == pytest.approx(losses[start - 1 :].numpy(), rel=1e-5)
        assert model._head_is_plain
    model._head_is_plain = False
    assert model.losses(ids, 250) == pytest.approx(losses[249:].numpy(), rel=1e-5)
    with pytest.raises(ValueError):
        model.losses(ids, 0)


def test_numbers_equal_plain_computation(inputs, tokenizer, plain, tmp_path) -> None:
    metrics = run(EvaluateSettings(**SMALL), inputs, tmp_path / "work", silent)

    text = words(300, 300), words(100, 100)
    windows = []
    for document in text:
        ids = tokenizer(document)["input_ids"]
        windows += [ids[i : i + 64] for i in range(0, len(ids) - 63, 64)][:3]
    assert metrics["perplexity"]["n"] == len(windows) == 4  # 3 of d0, 1 of d1, none of d2
    losses = torch.stack([plain_losses(plain, w).sum() for w in windows])
    assert metrics["perplexity"]["base"] == pytest.approx(math.exp(losses.sum() / (63 * 4)), rel=1e-6)

    samples = [json.loads(line) for line in (tmp_path / "work/output/samples.jsonl").read_text().splitlines()]
    answers = [s for s in samples if s["task"] == "answers" and s["model"] == "base"]
    assert len(answers) == 6 == metrics["answers"]["n"]
    for sample in answers:
        i = int(sample["id"][1:])
        r = render(tokenizer, "chat", words(20 + 5 * i, i) + "\nWhat?", words(5 + i, 2 * i))
        expected = plain_losses(plain, r.input_ids)[r.answer_start - 1 :].mean()
        assert sample["score"] == pytest.approx(float(expected), rel=1e-6)
    mean = sum(s["score"] for s in answers) / 6
    assert metrics["answers"]["base"] == pytest.approx(mean)
    merged = [s["score"] for s in samples if s["task"] == "answers" and s["model"] == "merged"]
    assert metrics["answers"]["difference"] == pytest.approx(sum(merged) / 6 - mean)
    assert metrics["answers"]["low"] <= metrics["answers"]["difference"] <= metrics["answers"]["high"]
    assert metrics["passkey"]["n"] == 2 and "text_perplexity" not in metrics


def test_output_files(inputs, tmp_path) -> None:
    metrics = run(EvaluateSettings(**SMALL), inputs, tmp_path / "work", silent)
    output = tmp_path / "work/output"
    items = json.loads((output / "metrics.json").read_text())
    assert [i["task"] for i in items] == ["answers", "perplexity", "passkey"] == list(metrics)
    for item in items:
        assert set(item["base"]) == set(item["merged"]) == {"value", "low", "high", "n"}
        assert item["difference"]["paired"] is True and len(item["data_digest"]) == 64 and item["version"] >= 1
    assert items[1]["ratio"]["value"] == pytest.approx(items[1]["merged"]["value"] / items[1]["base"]["value"])
    lines = [json.loads(x) for x in (output / "samples.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * (6 + 4 + 2)
    assert all({"task", "model", "id", "prompt_digest", "verdict"} <= set(x) for x in lines)
    assert "| answers | nll_per_token ↓ | 6 |" in (output / "table.md").read_text()


def test_units_are_reused_and_base_is_not_loaded_again(inputs, tmp_path, monkeypatch) -> None:
    settings = EvaluateSettings(**SMALL)
    first = run(settings, inputs, tmp_path / "a", silent)
    events: list[dict] = []
    loads: list[Path] = []
    original = TransformersEngine.losses
    monkeypatch.setattr(TransformersEngine, "losses", lambda s, *a: loads.append(s.folder) or original(s, *a))

    def report(event: str, **fields: object) -> None:
        events.append({"event": event, **fields})

    assert run(settings, inputs, tmp_path / "b", report) == first
    units = [e for e in events if e["event"] == "unit"]
    assert not loads and len(units) == 6 and all(u["reused"] and u["kind"] == "evaluation" for u in units)
    assert events[-1]["event"] == "progress" and events[-1]["done"] == events[-1]["total"] == 24
    # another merged model: only it is measured
    other = tmp_path / "other/model"
    shutil.copytree(inputs["merge"] / "model", other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-4}))
    run(settings, {**inputs, "merge": other.parent}, tmp_path / "c", silent)
    assert set(loads) == {other}
    # other settings of one task leave the others' units
    loads.clear()
    run(
        EvaluateSettings(**{**SMALL, "perplexity": {"window": 32, "max_windows": 2}}),
        inputs,
        tmp_path / "d",
        silent,
    )
    assert len(loads) == 4


@pytest.mark.parametrize("after", [1, 8, 13, 20])
def test_resumes_after_a_kill_with_the_same_result(inputs, tmp_path, monkeypatch, after) -> None:
    settings = EvaluateSettings(**SMALL, batch_size=1)
    expected = run(settings, {**inputs, "units": tmp_path / "u0"}, tmp_path / "whole", silent)
    measured: list[str] = []
    for method in ("losses", "answers"):
        original = getattr(TransformersEngine, method)

        def counted(self, *arguments, original=original):
            if len(measured) == after and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                raise KeyboardInterrupt
            measured.append("x")
            return original(self, *arguments)

        monkeypatch.setattr(TransformersEngine, method, counted)
    with pytest.raises(KeyboardInterrupt):
        run(settings, inputs, tmp_path / "work", silent)
    for path in (tmp_path / "work/partial").glob("*.jsonl"):
        path.write_bytes(path.read_bytes() + b'{"id": "r3", "dig')  # half a line, as kill -9 may leave it
    assert run(settings, inputs, tmp_path / "work", silent) == expected
    assert len(measured) == 24  # nothing measured twice
    for name in ("metrics.json", "samples.jsonl", "table.md"):
        assert (tmp_path / "work/output" / name).read_bytes() == (tmp_path / "whole/output" / name).read_bytes()


def test_equal_samples_do_not_cost_twice_after_a_kill(tmp_path) -> None:
    samples = [Sample(f"s{i}", [1, 2, token], 1) for i, token in enumerate((5, 5, 6, 7, 6, 8))]
    measured: list[int] = []

    def measure(batch: Batch) -> list[dict[str, int]]:
        (sample,) = batch.samples
        if len(measured) == 3:
            measured.append(0)
            raise KeyboardInterrupt
        measured.append(sample.input_ids[2])
        return [{"value": sample.input_ids[2]}]

    units = Units(tmp_path / "units", tmp_path / "work")
    groups = batches(list({s.digest: s for s in samples}.values()), 8, 100, answers=False)
    with pytest.raises(KeyboardInterrupt):
        units.make("key", samples, groups, [measure], lambda n: None)
    results = units.make("key", samples, groups, [measure], lambda n: None)
    assert measured == [5, 6, 7, 0, 8]  # each distinct sample once
    assert [r["value"] for r in results] == [5, 5, 6, 7, 6, 8]
    assert units.finished("key", samples) == results


@pytest.mark.parametrize("template", ["chat", "inst", "plain"])
def test_passkey_lengths_and_answer_inside(tokenizer, template) -> None:
    settings = EvaluateSettings(
        template=template, passkey={"lengths": [150, 512, 1000, 4096], "depths": [0, 0.37, 1], "trials": 2}
    )
    samples = TASKS["passkey"].samples(Context(settings, Sources(), tokenizer))
    assert len(samples) == 24 and len({s.digest for s in samples}) == 24
    for sample in samples:
        assert abs(len(sample.input_ids) - sample.about["length"]) <= sample.about["length"] / 100
        text = tokenizer.decode(sample.input_ids)
        assert text.count(sample.expected) == 2
        body = text[text.index("asked.") : text.index("What is the pass key?")]
        where = body.index(sample.expected) / len(body)
        assert abs(where - sample.about["depth"]) < (0.1 if sample.about["length"] > 500 else 0.5)
    again = TASKS["passkey"].samples(Context(settings, Sources(), tokenizer))
    assert [s.digest for s in again] == [s.digest for s in samples]
    with pytest.raises(UserError, match="too short"):
        TASKS["passkey"].samples(Context(EvaluateSettings(passkey={"lengths": [30]}), Sources(), tokenizer))


def test_passkey_oracle_and_constant(inputs, tokenizer, tmp_path, monkeypatch) -> None:
    """A model that reads the key scores 1, one that says a constant scores 0."""

    def oracle(self: TransformersEngine, batch: Batch) -> list[str]:
        found = []
        for sample in batch.samples:
            key = tokenizer.decode(sample.input_ids).split("The pass key is ")[1][:5]
            own = self.folder.parent == inputs["merge"]
            assert self.stops == {end_of_answer(tokenizer, "chat")}
            found.append(f"It is {key[:2]},{key[2:]}." if own else "It is 11111.")
        return found

    monkeypatch.setattr(TransformersEngine, "answers", oracle)
    settings = EvaluateSettings(tasks=["passkey"], passkey={"lengths": [160], "trials": 4}, dtype="float32")
    metrics = run(settings, inputs, tmp_path, silent)["passkey"]
    assert (metrics["base"], metrics["merged"], metrics["difference"], metrics["n"]) == (0, 1, 1, 12)
    assert metrics["low"] > 0.5

    def judge(output: str) -> str:
        return TASKS["passkey"].judge(Sample("", [], expected="12345"), output)["verdict"]

    assert judge("12345") == judge("the key: 12,345!") == "correct"
    assert judge("123456") == judge("no") == judge("1 or 12345") == "wrong"


def test_texts_longer_than_the_models_window(inputs, tiny_model_dir, plain, tokenizer, tmp_path) -> None:
    """700 tokens on a model of 512, from a folder and a file that arrive under their input names."""
    folder = tmp_path / "books"
    folder.mkdir()
    (folder / "a.txt").write_text(words(1600))
    (folder / "ignored.pdf").write_text("x")
    settings = EvaluateSettings(**{**SMALL, "tasks": ["text_perplexity"], "texts": ["/not/here"]},
                                ).model_copy(update={"perplexity": EvaluateSettings(
                                    perplexity={"window": 700, "max_windows": 2}).perplexity})  # fmt: skip
    metrics = run(settings, {"model": tiny_model_dir, "text-0": folder}, tmp_path / "w", silent)["text_perplexity"]
    ids = tokenizer(words(1600))["input_ids"]
    expected = sum(float(plain_losses(plain, ids[i : i + 700]).sum()) for i in (0, 700)) / (2 * 699)
    assert metrics["base"] == pytest.approx(math.exp(expected), rel=1e-6)
    assert "merged" not in metrics
    (folder / "a.txt").write_text("too short")
    with pytest.raises(UserError, match="as long as one window"):
        run(settings, {"model": tiny_model_dir, "text-0": folder}, tmp_path / "w2", silent)


def test_special_tokens_in_a_text_are_plain_text(tokenizer, tmp_path) -> None:
    (tmp_path / "a.txt").write_text("It quotes <|im_end|> twice: <|im_end|>. " * 20)
    settings = EvaluateSettings(tasks=["text_perplexity"], perplexity={"window": 64})
    context = Context(settings, Sources(texts=(tmp_path / "a.txt",)), tokenizer)
    samples = TASKS["text_perplexity"].samples(context)
    assert samples and not {i for s in samples for i in s.input_ids} & set(tokenizer.all_special_ids)


def test_a_task_without_samples_says_why(inputs, tmp_path) -> None:
    empty = tmp_path / "empty"
    (empty / "data").mkdir(parents=True)
    (empty / "splits.json").write_text("{}")
    warnings: list[str] = []

    def report(event: str, **fields: str) -> None:
        if event == "warning":
            warnings.append(fields["message"])

    inputs = {**inputs, "datasets_build": empty}
    metrics = run(EvaluateSettings(**SMALL), inputs, tmp_path / "w", report)
    assert "no validation rows" in metrics["answers"]["skipped"] and len(warnings) == 2
    assert "NaN" not in (tmp_path / "w/output/metrics.json").read_text()
    assert "Not measured: answers" in (tmp_path / "w/output/table.md").read_text()
    with pytest.raises(UserError, match="nothing to evaluate") as error:
        run(EvaluateSettings(**{**SMALL, "tasks": ["answers"]}), inputs, tmp_path / "w2", silent)
    assert error.value.remedy


def test_broken_models(inputs, tiny_model_dir, tmp_path) -> None:
    settings = EvaluateSettings(**{**SMALL, "tasks": ["answers"]})
    broken = tmp_path / "broken/model"
    shutil.copytree(tiny_model_dir, broken)
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[:-1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        run(settings, {**inputs, "merge": broken.parent}, tmp_path / "w1", silent)
    (broken / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="tokenizer"):
        run(settings, {**inputs, "merge": broken.parent}, tmp_path / "w2", silent)
    shutil.rmtree(broken)
    shutil.copytree(tiny_model_dir, broken)
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    model.model.norm.weight.data[3] = float("nan")
    model.save_pretrained(broken)
    with pytest.raises(UserError, match="loss is nan"):
        run(settings, {**inputs, "merge": broken.parent}, tmp_path / "w3", silent)


def test_content_digest(tiny_model_dir, changed, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model_dir, copy)
    (copy / "README.md").write_text("a card")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "transformers_version": "9"}))
    assert content_digest(copy) == content_digest(tiny_model_dir) != content_digest(changed / "model")
    (copy / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 9}))
    assert content_digest(copy) != content_digest(tiny_model_dir)


def test_splits_forms(tmp_path) -> None:
    for i, value in enumerate(
        ({"validation": ["a"]}, {"a": "validation", "b": "train"}, {"documents": {"a": "validation"}})
    ):
        (tmp_path / f"{i}.json").write_text(json.dumps(value))
        assert validation_ids(tmp_path / f"{i}.json") == {"a"}


def test_identity_names_precision_and_versions() -> None:
    found = identity(EvaluateSettings())
    assert found["dtype"] in ("bfloat16", "float32") and found["tasks"]["passkey"] == [TASKS["passkey"].version, {}]


def test_command_line(tiny_model_dir, changed, data, tmp_path, capsys) -> None:
    (tmp_path / "s.json").write_text(json.dumps(SMALL))
    given = [
        "--model",
        str(changed / "model"),
        "--against",
        str(tiny_model_dir),
        "--settings",
        str(tmp_path / "s.json"),
    ]
    given += [
        "--dataset",
        str(data["datasets_build"]),
        "--tasks",
        "answers",
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    assert main(given) == 0
    assert json.loads(capsys.readouterr().out)["answers"]["n"] == 6
    assert main(["--model", str(tmp_path / "none"), "--tasks", "passkey", "--out", str(tmp_path / "o2")]) == 2
    assert "tokenizer" in capsys.readouterr().err


def test_template_is_the_datasets_unless_set(data, tokenizer, tmp_path) -> None:
    copy = tmp_path / "dataset"
    shutil.copytree(data["datasets_build"], copy)
    for stats, setting, expected in (
        ({}, None, "chat"),
        ({"template": "inst"}, None, "inst"),
        ({"template": "inst"}, "plain", "plain"),
    ):
        (copy / "stats.json").write_text(json.dumps(stats))
        context = Context(EvaluateSettings(template=setting), Sources(dataset=copy), tokenizer)
        assert context.template == expected
        sample = TASKS["answers"].samples(context)[0]
        assert ("[INST]" in tokenizer.decode(sample.input_ids)) == (expected == "inst")


def test_limit_draws_the_same_few_for_every_model(inputs, tmp_path) -> None:
    limited = EvaluateSettings(**SMALL, limit=2)
    metrics = run(limited, inputs, tmp_path / "w", silent)
    assert {task: item["n"] for task, item in metrics.items()} == {"answers": 2, "perplexity": 2, "passkey": 2}
    lines = [json.loads(x) for x in (tmp_path / "w/output/samples.jsonl").read_text().splitlines()]
    by_model = {m: [(x["task"], x["id"]) for x in lines if x["model"] == m] for m in ("base", "merged")}
    assert by_model["base"] == by_model["merged"] and len(by_model["base"]) == 6
    other = run(EvaluateSettings(**SMALL, limit=2, seed=1), inputs, tmp_path / "x", silent)
    assert other["answers"]["base"] != metrics["answers"]["base"]
    curve = {**SMALL["perplexity"], "shorter": [16, 32]}
    run(EvaluateSettings(**{**SMALL, "perplexity": curve}, limit=1), inputs, tmp_path / "y", silent)
    item = json.loads((tmp_path / "y/output/metrics.json").read_text())[1]
    assert item["n"] == 1 and {row["length"]: row["n"] for row in item["by"]["length"]} == {16: 4, 32: 2, 64: 1}


def test_files_of_a_suite_arrive_under_its_input_name(inputs, tmp_path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    record = {"input": words(900), "instructions": ["What left?"], "outputs": ["the boat"], "evaluation": "f1"}
    (folder / "mine.jsonl").write_text(json.dumps({"source": "x", **record}) + "\n")
    settings = EvaluateSettings(**{**SMALL, "tasks": ["leval"], "leval": {"path": "/not/here", "max_new_tokens": 3}})
    metrics = run(settings, {**inputs, "leval": folder}, tmp_path / "w", silent)
    assert metrics["leval"]["n"] == 1 and metrics["leval"]["metric"] == "score"
    (item,) = json.loads((tmp_path / "w/output/metrics.json").read_text())
    assert item["truncated"] == 1 and item["tokens_cut_mean"] > 300  # the tiny model reads 512 tokens
    assert "the document's middle is left out" in (tmp_path / "w/output/table.md").read_text()
    first = item["data_digest"]
    (folder / "mine.jsonl").write_text(json.dumps({"source": "x", **record, "outputs": ["the boats"]}) + "\n")
    run(settings, {**inputs, "leval": folder}, tmp_path / "w2", silent)
    assert json.loads((tmp_path / "w2/output/metrics.json").read_text())[0]["data_digest"] != first


def test_context_length_counts_the_stretching(tiny_model_dir, tmp_path) -> None:
    """Half of the published configurations keep the original length and a factor."""
    fields = json.loads((tiny_model_dir / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert context_length(tmp_path) == 512
    scaled = {**fields, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}
    (tmp_path / "config.json").write_text(json.dumps(scaled))
    assert context_length(tmp_path) == 2048
    assert context_length(tmp_path / "none") is None


def test_an_answer_ends_where_the_prompt_format_ends_it(tiny_model_dir, tokenizer) -> None:
    """Though the model's own configuration names another token, as bases do that were fine-tuned to chat."""
    end = end_of_answer(tokenizer, "chat")
    assert tokenizer.decode([end]) == "<|im_end|>"
    engine = TransformersEngine(tiny_model_dir, dtype="float32")
    prompt = Batch((Sample("a", [5, 6, 7, end], max_new_tokens=5),))
    (written,) = engine.answers(prompt)
    assert written
    engine.stops = frozenset(tokenizer(written[: len(written) // 5])["input_ids"])  # it says one word all the time
    assert engine.answers(prompt) == [""]


def test_settings_that_name_nothing_are_refused() -> None:
    for wrong, said in (
        ({"gate": {"headline": "perplexty"}}, "did you mean 'perplexity'"),
        ({"gate": {"floors": {"passkye": 0.9}}}, "did you mean 'passkey'"),
        ({"device": "gpu"}, "none of auto, cpu, cuda"),
        ({"device": "cuda:0,cuda:x"}, "'cuda:x'"),
    ):
        with pytest.raises(ValueError, match=said):
            EvaluateSettings(**wrong)


def test_equal_ids_are_refused(inputs, tmp_path) -> None:
    settings = EvaluateSettings(**{**SMALL, "tasks": ["passkey"], "passkey": {"lengths": [160, 160]}})
    with pytest.raises(UserError, match=r"two samples are called 160-0\.1-0"):
        run(settings, inputs, tmp_path, silent)


def test_paths_that_are_not_there(tmp_path) -> None:
    with pytest.raises(UserError, match="no built dataset"):
        Sources.of(tmp_path, None, ())
    with pytest.raises(UserError, match="does not exist"):
        Sources.of(None, tmp_path / "documents.parquet", ())
