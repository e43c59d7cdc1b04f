"""Perplexity: three definitions, each equal to a plain computation of it; the formats that text comes in."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from longlora.errors import UserError
from longlora.evaluation.data import Sources, text_files, token_file
from longlora.evaluation.settings import EvaluateSettings
from longlora.evaluation.stage import evaluate
from longlora.evaluation.tasks import TASKS, Context
from longlora.evaluation.tasks.perplexity import windows

TEXT = "the boat left at noon and the old harbour was quiet again while rain fell on the far hills"
WORDS = TEXT.split()


def silent(event: str, **fields: object) -> None:
    pass


def words(n: int, shift: int = 0) -> str:
    return " ".join(WORDS[(i * i + i // 7 + shift) % len(WORDS)] for i in range(n))


@pytest.fixture(scope="module")
def plain(tiny_model_dir):
    """-log p of every token after the first, from full logits in float64."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float64).eval()

    def losses(ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0]
        return -torch.log_softmax(logits, -1)[range(len(ids) - 1), ids[1:]]

    return losses


def measure(model, files, tmp_path, **perplexity):
    settings = EvaluateSettings(
        tasks=["text_perplexity"], texts=files, perplexity=perplexity, dtype="float32", device="cpu", resamples=100
    )
    evaluate({"model": model}, Sources(texts=settings.texts), settings, tmp_path / "w", silent, tmp_path / "units")
    (item,) = json.loads((tmp_path / "w/output/metrics.json").read_text())
    return item


def test_disjoint(tiny_model_dir, plain, tokenizer, tmp_path) -> None:
    texts = [words(130), words(75, 3)]
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.txt").write_text(text)
    item = measure(tiny_model_dir, [tmp_path / "0.txt", tmp_path / "1.txt"], tmp_path, window=32, shorter=[8, 16])
    expected = {}
    for length in (8, 16, 32):
        found = []
        for text in texts:
            ids = tokenizer(text)["input_ids"]
            used = len(ids) // 32 * 32
            found += [plain(ids[i : i + length]) for i in range(0, used, length)]
        expected[length] = math.exp(torch.cat(found).mean())
    assert item["base"]["value"] == pytest.approx(expected[32], rel=1e-6)
    assert {row["length"]: row["base"]["value"] for row in item["by"]["length"]} == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("length", "stride"), [(32, 8), (33, 10), (40, 37)])
def test_strided(tiny_model_dir, plain, tokenizer, tmp_path, length, stride) -> None:
    """Scored as the sliding-window recipe says: windows that end every stride, all but the new tokens masked."""
    (tmp_path / "a.txt").write_text(words(150))
    item = measure(
        tiny_model_dir, [tmp_path / "a.txt"], tmp_path,
        method="strided", window=length, stride=stride, max_windows=None, shorter=[length - 1],
    )  # fmt: skip
    ids = tokenizer(words(150))["input_ids"]
    ids = ids[: length + (len(ids) - length) // stride * stride]  # what fills no stride is left out
    expected = {}
    for context in (length - 1, length):
        total, count, previous = 0.0, 0, 0
        for begin in range(0, len(ids), stride):
            end = min(begin + context, len(ids))
            new = end - previous
            losses = plain(ids[begin:end])[-new:]
            total, count, previous = total + float(losses.sum()), count + len(losses), end
            if end == len(ids):
                break
        expected[context] = math.exp(total / count)
    assert item["base"]["value"] == pytest.approx(expected[length], rel=1e-6)
    assert {row["length"]: row["base"]["value"] for row in item["by"]["length"]} == pytest.approx(expected, rel=1e-6)
    assert item["tokens"] == len(ids) - 1


def test_as_longlora_does(tiny_model_dir, plain, tokenizer, tmp_path) -> None:
    """Its eval.py: starts every 256 tokens over all documents in a row, the last one dropped, whole windows scored."""
    ids = tokenizer(words(700))["input_ids"] + tokenizer(words(350, 5))["input_ids"]
    np.array(ids, dtype=np.uint16).tofile(tmp_path / "test.bin")
    item = measure(
        tiny_model_dir, [tmp_path / "test.bin"], tmp_path, method="longlora", window=128, max_windows=None
    )  # fmt: skip
    starts = list(range(0, len(ids) - 128, 256))
    starts.pop()
    means = [float(plain(ids[at : at + 128]).mean()) for at in starts]
    assert item["n"] == len(starts) > 2
    assert item["base"]["value"] == pytest.approx(math.exp(sum(means) / len(means)), rel=1e-6)
    # the same windows side by side are another number: its quirks are here only
    other = measure(tiny_model_dir, [tmp_path / "test.bin"], tmp_path, window=128)
    assert other["base"]["value"] != pytest.approx(item["base"]["value"], rel=1e-4)


def test_by_position(tiny_model_dir, plain, tokenizer, tmp_path) -> None:
    (tmp_path / "a.txt").write_text(words(150))
    item = measure(tiny_model_dir, [tmp_path / "a.txt"], tmp_path, window=64)
    ids = tokenizer(words(150))["input_ids"]
    losses = torch.stack([plain(ids[i : i + 64]) for i in range(0, len(ids) - 63, 64)])
    assert [(row["from"], row["to"]) for row in item["by_position"]] == [(i, i + 8) for i in range(0, 64, 8)]
    for row in item["by_position"]:
        part = losses[:, max(row["from"] - 1, 0) : row["to"] - 1]  # the loss of token t stands at t - 1
        assert row["tokens"] == part.numel()
        assert row["base"] == pytest.approx(float(part.mean().exp()), rel=1e-6)


@given(st.integers(1, 60), st.integers(2, 30), st.integers(1, 30), st.booleans())
def test_windows_score_every_token_once(n, length, stride, bos) -> None:
    begin = [99] if bos else []
    body = length - len(begin)
    stride = min(stride, body)
    seen, places = [], []
    for place, ids, start in windows(list(range(n)), begin, length, stride):
        assert start > 0 and len(ids) <= length and ids[: len(begin)] == begin
        own = ids[len(begin) :]
        assert own == list(range(own[0], own[-1] + 1))  # a piece of the text, no hole
        if ids[start:] and own[-1] < n - 1:
            assert len(own) == body  # as much context as there can be
        seen += ids[start:]
        places.append(place)
    assert len(seen) == len(set(seen))
    # Without a token before it the text's first cannot be scored, nor the first of a window that has only new ones.
    alone = set() if bos else {0} if stride < body else set(places)
    assert set(range(n)) - set(seen) == alone


def test_few_windows_come_from_every_document(tokenizer, tmp_path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text(words(400, i))
    settings = EvaluateSettings(perplexity={"window": 64, "max_windows": 4})
    samples = TASKS["text_perplexity"].samples(Context(settings, Sources(texts=(tmp_path,)), tokenizer))
    assert [s.about["document"] for s in samples] == ["0/0.txt", "0/0.txt", "0/1.txt", "0/2.txt"]
    short = EvaluateSettings(perplexity={"window": 64, "max_document_tokens": 130, "max_windows": None})
    samples = TASKS["text_perplexity"].samples(Context(short, Sources(texts=(tmp_path,)), tokenizer))
    assert len(samples) == 6


def test_every_format_gives_the_same_windows(tokenizer, tmp_path) -> None:
    texts = [words(200), words(300, 2)]
    (tmp_path / "txt").mkdir()
    for i, text in enumerate(texts):
        (tmp_path / f"txt/{i}.txt").write_text(text)
    lines = "".join(json.dumps({"text": t, "more": 1}) + "\n" for t in texts)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.table({"text": texts}), tmp_path / "c.parquet")
    np.array(tokenizer(texts[0])["input_ids"], dtype=np.uint16).tofile(tmp_path / "d.bin")

    def found(path):
        context = Context(EvaluateSettings(perplexity={"window": 64}), Sources(texts=(path,)), tokenizer)
        return [s.input_ids for s in TASKS["text_perplexity"].samples(context)]

    first = found(tmp_path / "txt")
    assert len(first) > 6
    for name in ("a.jsonl", "b.jsonl.gz", "c.parquet"):
        assert found(tmp_path / name) == first
    alone = found(tmp_path / "d.bin")
    assert alone == first[: len(alone)] and alone


def test_token_files(tmp_path) -> None:
    """Two bytes, or four where the vocabulary is larger; a file of another model is told."""
    path = tmp_path / "a.bin"
    np.array([5, 60_000, 7], dtype="<u2").tofile(path)
    assert token_file(path, 65_536) == [5, 60_000, 7] and token_file(path, 65_536, 2) == [5, 60_000]
    with pytest.raises(UserError, match="60000"):
        token_file(path, 32_000)
    with pytest.raises(UserError, match="4-byte"):
        token_file(path, 128_000)
    np.array([5, 127_999], dtype="<u4").tofile(path)
    assert token_file(path, 128_000) == [5, 127_999]


def test_bad_texts_and_settings(tmp_path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"txt": 1}\n')
    with pytest.raises(UserError, match="line 2 has no key text"):
        [list(t.parts) for t in text_files([tmp_path / "a.jsonl"])]
    with pytest.raises(UserError, match="does not exist"):
        list(text_files([tmp_path / "none.txt"]))
    for wrong, said in (
        ({"shorter": [300]}, "must divide"),
        ({"shorter": [2048]}, "below window"),
        ({"method": "longlora", "shorter": [512]}, "one length"),
        ({"method": "strided", "stride": 1024}, "below window"),
    ):
        with pytest.raises(ValueError, match=said):
            EvaluateSettings(perplexity=wrong)
