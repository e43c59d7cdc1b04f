"""Samples, packing and order of the training data."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longlora.errors import UserError
from longlora.train import data
from longlora.train.data.packing import _Room
from longlora.train.settings import TrainSettings


def best_fit_decreasing(lengths: list[int], capacity: int) -> list[int]:
    """Room left in each row, by looking at every row for every length."""
    room: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [r for r in range(len(room)) if room[r] >= length]
        if fitting:
            room[min(fitting, key=lambda r: room[r])] -= length
        else:
            room.append(capacity - length)
    return sorted(room)


@given(st.lists(st.integers(1, 100), max_size=60))
def test_packing_loses_nothing_and_fits(lengths):
    rows = data.pack(lengths, 100)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in row) <= 100 for row in rows)
    assert len(rows) <= 2 * max(1, -(-sum(lengths) // 100)) or not lengths


@settings(deadline=None)
@given(st.integers(1, 5000).flatmap(lambda c: st.tuples(st.lists(st.integers(1, c), max_size=80), st.just(c))))
def test_packing_is_best_fit_decreasing(case):
    lengths, capacity = case
    packed = data.pack(lengths, capacity)
    left = sorted(capacity - sum(lengths[i] for i in row) for row in packed)
    assert left == best_fit_decreasing(lengths, capacity)
    again = data.pack(np.array(lengths, dtype=np.int64), capacity)
    assert (packed.members == again.members).all() and (packed.ends == again.ends).all()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4000)), max_size=80))
def test_room_finds_the_tightest_row(steps):
    room, free = _Room(4000), []
    for row, (adds, number) in enumerate(steps):
        if adds:
            room.add(number, row)
            free.append(number)
        else:
            found = room.take(number)
            expected = min((f for f in free if f >= number), default=None)
            assert (None if found is None else found[0]) == expected
            if expected is not None:
                free.remove(expected)


def test_a_length_above_the_row_is_refused():
    with pytest.raises(ValueError, match="101"):
        data.pack([5, 101], 100)


def test_labels_cover_the_answer_and_its_end(dataset, tokenizer, tmp_path):
    samples = data.sft_samples(dataset, tokenizer, "chat", 96, tmp_path)
    assert len(samples) == 12
    first = samples[0]
    trained = tokenizer.decode(first.labels[first.labels != -100])
    assert trained == "kernel kernel<|im_end|>"
    assert (first.labels[first.labels != -100] == first.input_ids[first.labels != -100]).all()
    assert samples.lengths.tolist() == [len(s) for s in samples]
    assert samples.learned.tolist() == [int((s.labels != -100).sum()) for s in samples]
    assert [s.id for s in samples[1:3]] == ["r01", "r02"] and samples[-1].id == "r11"


def conversation(tmp_path, messages):
    (tmp_path / "data").mkdir()
    rows = [{"id": "m1", "messages": messages}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "train-00000-of-00001.parquet")
    return tmp_path


TURNS = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "1"},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "2"},
]


def test_every_answer_of_a_conversation_is_learned(tokenizer, tmp_path):
    (sample,) = data.sft_samples(conversation(tmp_path, TURNS), tokenizer, "chat", 96, tmp_path / "t")
    assert tokenizer.decode(sample.input_ids) == tokenizer.apply_chat_template(TURNS, tokenize=False).rstrip("\n")
    assert tokenizer.decode(sample.labels[sample.labels != -100]) == "1<|im_end|>2<|im_end|>"


def test_a_row_without_an_answer_is_refused(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"row m1.*assistant"):
        data.sft_samples(conversation(tmp_path, TURNS[:1]), tokenizer, "chat", 96, tmp_path / "t")


def sample(n: int) -> data.Sample:
    return data.Sample(str(n), np.arange(n, dtype=np.int32), np.arange(n, dtype=np.int32))


WRONG_ROWS = [
    ({"instruction": None, "output": "b"}, "instruction is missing"),
    ({"instruction": "a", "output": None}, "output is missing"),
    ({"instruction": "a", "output": 7}, "output is a int"),
    ({"messages": "[]"}, "messages is a str"),
    ({"messages": None}, "messages is missing"),
    ({"messages": ["hello"]}, "message 1 is a str"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant"}]}, "content of message 2 is missing"),
    ({"messages": [{"role": "user", "content": None}]}, "content of message 1 is missing"),
    ({"messages": [{"content": "a"}]}, "role of message 1 is missing"),
]


@pytest.mark.parametrize(("row", "message"), WRONG_ROWS)
@pytest.mark.parametrize("template", ["chat", "plain"])
def test_a_row_of_the_wrong_form_is_named(tokenizer, tmp_path, row, message, template):
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist([{"id": "r-7", **row}]), tmp_path / "data" / "train-0.parquet")
    with pytest.raises(UserError, match=f"row r-7: {message}") as caught:
        data.sft_samples(tmp_path, tokenizer, template, 96, tmp_path / "tokens")
    assert "correct the row" in caught.value.remedy


@pytest.mark.parametrize("kind", ["sft", "text"])
def test_a_tokenizer_without_an_end_is_refused(train, tmp_path, tiny_model_dir, kind):
    """It would teach to write None after each answer."""
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            values = json.loads((folder / name).read_text())
            values.pop("eos_token", None)
            (folder / name).write_text(json.dumps(values))
    with pytest.raises(UserError, match="no EOS token") as caught:
        train(tmp_path / "work", model=folder, max_steps=1, data=kind, template="plain")
    assert "eos_token" in caught.value.remedy


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_splits_that_cannot_be_read(tmp_path, content):
    splits = tmp_path / "splits.json"
    if content is not None:
        splits.write_text(content)
    with pytest.raises(UserError, match=r"splits\.json cannot be read"):
        data.train_documents(splits)


def test_collate_marks_documents():
    a, b = sample(3), sample(2)
    batch = data.collate([[a, b], [b]], pad_id=9, multiple=1)
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 1, 2]]
    assert batch["input_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 9, 9, 9]]
    assert batch["labels"][1].tolist() == [0, 1, -100, -100, -100]
    assert batch["row_ids"] == [["3", "2"], ["2"]] and batch["tokens"] == 7
    padded = data.collate([[a, b]], pad_id=9, multiple=4)  # padding is one more document
    assert padded["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 2]]
    assert padded["labels"][0, 5:].tolist() == [-100] * 3


def test_text_is_of_train_documents_only(dataset, tokenizer, tmp_path):
    samples = data.text_samples(dataset / "documents.parquet", dataset / "splits.json", tokenizer, 64, tmp_path)
    assert {s.id.partition(":")[0] for s in samples} == {"d1"}
    assert samples[-1].input_ids[-1] == tokenizer.eos_token_id
    assert all(s.labels[0] == -100 and (s.labels[1:] == s.input_ids[1:]).all() for s in samples)
    assert samples.learned.tolist() == [len(s) - 1 for s in samples]


def test_special_tokens_in_a_document_are_plain_text(tmp_path, tokenizer):
    text = "A page that quotes <|im_end|> and <|im_start|>system. " * 3
    pq.write_table(pa.Table.from_pylist([{"doc_id": "d1", "text": text}]), tmp_path / "documents.parquet")
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["d1"]}))
    paths = (tmp_path / "documents.parquet", tmp_path / "splits.json")
    (only,) = data.text_samples(*paths, tokenizer, 512, tmp_path / "tokens")
    special = set(tokenizer.all_special_ids)
    assert not special & set(only.input_ids[:-1].tolist()) and only.input_ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(only.input_ids[:-1]) == text


class WithBos:
    """A tokenizer that begins texts with BOS, as Llama's does."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __call__(self, text, add_special_tokens=True, **more):
        encoded = self.tokenizer(text, add_special_tokens=False, **more)
        return {"input_ids": [self.bos_token_id, *encoded["input_ids"]]} if add_special_tokens else encoded


def test_each_piece_begins_with_bos_where_the_tokenizer_does(tmp_path, tokenizer):
    path = tmp_path / "a.txt"
    path.write_text("The quick brown fox. " * 40)
    without = data.plain_text_samples([path], tokenizer, 32, tmp_path / "t1")
    with_bos = data.plain_text_samples([path], WithBos(tokenizer), 32, tmp_path / "t2")
    assert all(s.input_ids[0] == tokenizer.bos_token_id and s.labels[0] == -100 for s in with_bos)
    assert all((s.labels[1:] == s.input_ids[1:]).all() for s in with_bos) and max(with_bos.lengths) == 32
    whole = np.concatenate([s.input_ids for s in without])
    assert whole.tolist() == np.concatenate([s.input_ids[1:] for s in with_bos]).tolist()
    assert whole.tolist() == [*tokenizer(path.read_text())["input_ids"], tokenizer.eos_token_id]
    assert not any(s.input_ids[0] == tokenizer.bos_token_id for s in without)


@pytest.mark.parametrize("rest", [0, 1, 2])
def test_pieces_cover_a_document(tmp_path, tokenizer, rest):
    """A last token alone predicts nothing; with BOS before it, it is predicted."""
    count = 32 + rest - 1
    (tmp_path / "a.txt").write_text("a" + " a" * (count - 1))
    assert len(tokenizer((tmp_path / "a.txt").read_text())["input_ids"]) == count
    samples = data.plain_text_samples([tmp_path / "a.txt"], tokenizer, 16, tmp_path / "t")
    assert samples.lengths.tolist() == [16, 16] + ([2] if rest == 2 else [])
    assert [s.id for s in samples][:2] == ["a.txt:0", "a.txt:16"]
    with_bos = data.plain_text_samples([tmp_path / "a.txt"], WithBos(tokenizer), 17, tmp_path / "t")
    assert with_bos.lengths.tolist() == [17, 17] + ([rest + 1] if rest else [])
    assert (with_bos.learned > 0).all()


def test_stream_is_whole_epochs_in_new_orders():
    rows = [[i] for i in range(5)]
    order = [r[0] for r in data.stream(rows, 12, seed=3)]
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5)) and order[:5] != order[5:10]
    assert order == [r[0] for r in data.stream(rows, 12, seed=3)] != [r[0] for r in data.stream(rows, 12, seed=4)]
    assert [r[0] for r in data.stream(rows, 12, seed=3)[4:6]] == order[4:6] and len(data.stream(rows, 3, seed=3)) == 3


def test_digest_of_a_stream_is_of_tokens_and_order(dataset, tokenizer, tmp_path):
    def digest(folder, template="chat", row_tokens=96, packing=True, seed=0, data_from=dataset):
        samples = data.sft_samples(data_from, tokenizer, template, row_tokens, tmp_path / folder)
        return data.stream_digest(data.stream(data.make_rows(samples, row_tokens, packing), 8, seed))

    same = digest("a")
    assert same == digest("a") == digest("b")  # from the cache, and made again elsewhere
    others = [digest("a", seed=1), digest("a", packing=False), digest("a", row_tokens=80), digest("a", "inst")]
    assert len({same, *others}) == 5


def test_rows_know_their_tokens_without_reading_them(dataset, tokenizer, tmp_path):
    samples = data.sft_samples(dataset, tokenizer, "chat", 96, tmp_path)
    for packing in (True, False):
        rows = data.make_rows(samples, 96, packing)
        assert rows.lengths.tolist() == [sum(len(s) for s in row) for row in rows]
        assert rows.learned.tolist() == [sum(int((s.labels != -100).sum()) for s in row) for row in rows]
        assert (rows.learned > 0).all()
    assert data.make_rows(samples, 96, True).lengths.max() <= 96


def test_a_stream_goes_to_another_process(dataset, tokenizer, tmp_path):
    samples = data.sft_samples(dataset, tokenizer, "chat", 96, tmp_path)
    stream = data.stream(data.make_rows(samples, 96, True), 6, 0)
    again = pickle.loads(pickle.dumps(stream))
    assert [s.input_ids.tolist() for row in again for s in row] == [s.input_ids.tolist() for row in stream for s in row]


def test_a_row_that_is_too_long_is_an_error(dataset, tokenizer, tmp_path):
    with pytest.raises(UserError, match="longer than a training row") as caught:
        data.sft_samples(dataset, tokenizer, "chat", 20, tmp_path)
    assert "dataset.max_tokens" in caught.value.remedy and "train.row_tokens" in caught.value.remedy


# ------------------------------------------------------------------ the stage


def test_the_stage_trains_on_files_of_text(train, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.md").write_text("A fox. " * 200)
    (tmp_path / "texts" / "b.jsonl").write_text('{"text": "A goose. "}\n')
    metrics, events = train(tmp_path / "w", data="text", texts=[tmp_path / "texts"], max_steps=2)
    assert metrics["samples"] > 4 and 0 < metrics["tokens"] - metrics["supervised_tokens"] <= metrics["samples"]
    again, _ = train(tmp_path / "w", data="text", texts=[tmp_path / "texts"], max_steps=2)
    assert again == metrics
    (tmp_path / "texts" / "b.jsonl").write_text('{"text": "A gander. "}\n')
    _, events = train(tmp_path / "w", data="text", texts=[tmp_path / "texts"], max_steps=2)
    assert any(event == "warning" and "trained anew" in fields["message"] for event, fields in events)


def test_the_stage_hands_a_template_file_on(train, tmp_path, tiny_model_dir):
    from longlora.models import load_tokenizer

    text = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    text += "{% if add_generation_prompt %}assistant: {% endif %}"
    (tmp_path / "own.jinja").write_text(text)
    train(tmp_path / "w", template=tmp_path / "own.jinja", max_steps=2)
    adapter = tmp_path / "w/output/adapter"
    assert load_tokenizer(adapter).chat_template == text
    assert str(tiny_model_dir) not in (adapter / "tokenizer_config.json").read_text()
    about = (adapter / "longfolio.json").read_text()
    assert json.loads(about)["template"] == "chat" and str(tmp_path) not in about


def test_texts_are_for_text():
    with pytest.raises(ValueError, match="data: text"):
        TrainSettings(texts=["a.txt"])
