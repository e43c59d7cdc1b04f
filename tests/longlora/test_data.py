"""Samples, packing and order of the training data."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longlora.errors import UserError
from longlora.train import data


@given(st.lists(st.integers(1, 100), max_size=60))
def test_packing_loses_nothing_and_fits(lengths):
    rows = data.pack(lengths, 100)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 100 for row in rows)
    assert len(rows) <= 2 * max(1, -(-sum(lengths) // 100)) or not lengths


def test_labels_cover_the_answer_and_its_end(dataset, tokenizer):
    samples = data.sft_samples(dataset, tokenizer, "chat", 96)
    assert len(samples) == 12
    first = samples[0]
    trained = tokenizer.decode(first.labels[first.labels != -100])
    assert trained == "kernel kernel<|im_end|>"
    assert (first.labels[first.labels != -100] == first.input_ids[first.labels != -100]).all()


def test_collate_marks_documents():
    a, b = (data.Sample(str(n), np.arange(n, dtype=np.int32), np.arange(n, dtype=np.int32)) for n in (3, 2))
    batch = data.collate([[a, b], [b]], pad_id=9, multiple=1)
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 1, 2]]
    assert batch["input_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 9, 9, 9]]
    assert batch["labels"][1].tolist() == [0, 1, -100, -100, -100]
    assert batch["row_ids"] == [["3", "2"], ["2"]] and batch["tokens"] == 7
    padded = data.collate([[a, b]], pad_id=9, multiple=4)  # padding is one more document
    assert padded["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 2]]
    assert padded["labels"][0, 5:].tolist() == [-100] * 3


def test_text_is_of_train_documents_only(dataset, tokenizer):
    samples = data.text_samples(dataset / "documents.parquet", dataset / "splits.json", tokenizer, 64)
    assert {s.id.partition(":")[0] for s in samples} == {"d1"}
    assert samples[-1].input_ids[-1] == tokenizer.eos_token_id
    assert all(s.labels[0] == -100 and (s.labels[1:] == s.input_ids[1:]).all() for s in samples)


def test_special_tokens_in_a_document_are_plain_text(tmp_path, tokenizer):
    text = "A page that quotes <|im_end|> and <|im_start|>system. " * 3
    pq.write_table(pa.Table.from_pylist([{"doc_id": "d1", "text": text}]), tmp_path / "documents.parquet")
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["d1"]}))
    (sample,) = data.text_samples(tmp_path / "documents.parquet", tmp_path / "splits.json", tokenizer, 512)
    special = set(tokenizer.all_special_ids)
    assert not special & set(sample.input_ids[:-1].tolist()) and sample.input_ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(sample.input_ids[:-1]) == text


def test_stream_is_whole_epochs_in_new_orders():
    rows = [[i] for i in range(5)]
    order = [r[0] for r in data.stream(rows, 12, seed=3)]
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5)) and order[:5] != order[5:10]
    assert order == [r[0] for r in data.stream(rows, 12, seed=3)] != [r[0] for r in data.stream(rows, 12, seed=4)]


def test_a_row_that_is_too_long_is_an_error(dataset, tokenizer):
    with pytest.raises(UserError, match="longer than a training row") as caught:
        data.sft_samples(dataset, tokenizer, "chat", 20)
    assert "dataset.max_tokens" in caught.value.remedy and "train.row_tokens" in caught.value.remedy
