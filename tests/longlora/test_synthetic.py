"""Generated tasks: what is asked for stands in the prompt, lengths are met, only who reads scores."""

from __future__ import annotations

import random
import re
import string
from collections import Counter

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from longlora.errors import UserError
from longlora.evaluation.data import Sources
from longlora.evaluation.settings import EvaluateSettings
from longlora.evaluation.tasks import TASKS, Context
from longlora.evaluation.tasks.haystack import FILLER
from longlora.evaluation.tasks.passkey import read_wording

RULER = ["multi_needle", "variable_tracking", "common_words", "frequent_words"]
PLANTED = ["passkey", "needle", *RULER]
LETTERS = ["".join(random.Random(i).choices(string.ascii_letters + string.digits, k=6)) for i in range(900)]
CORPUS = [
    *FILLER,
    *LETTERS,
    "Read the text: (a list)? 'So', it is - \"a\" !;",
    "One of the numbers of denfir is 1234567.",
    "VAR ABCDE = 54321",
    *map(str, range(0, 99999, 777)),
]
LENGTHS = [800, 1500, 4000]


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """Unigram pieces with a space mark and a BOS token, as Llama 2's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>"]
    tokenizer.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=900, special_tokens=special, unk_token="<unk>")
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def wordpiece() -> PreTrainedTokenizerFast:
    """Lower-case words and their pieces, as BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    alphabet = list("abcdefghijklmnopqrstuvwxyz0123456789.,:;=?!()'\"-")
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=1200, special_tokens=["[UNK]", "[SEP]"], initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="[SEP]")


@pytest.fixture(scope="module", params=["smollm2", "sentencepiece", "wordpiece"])
def some_tokenizer(request, tokenizer):
    return {"smollm2": lambda: tokenizer, "sentencepiece": sentencepiece_like, "wordpiece": wordpiece}[request.param]()


def settings(**more) -> EvaluateSettings:
    fields = {
        "template": "plain", "passkey": {"lengths": LENGTHS, "trials": 1},
        "needle": {"lengths": LENGTHS}, "synthetic": {"lengths": LENGTHS, "trials": 3},
    }  # fmt: skip
    return EvaluateSettings(**{**fields, **more})


def expected(sample) -> list[str]:
    return sample.expected if isinstance(sample.expected, list) else [sample.expected]


@pytest.mark.parametrize("name", PLANTED)
def test_lengths_are_met_and_answers_are_inside(some_tokenizer, name) -> None:
    samples = TASKS[name].samples(Context(settings(), Sources(), some_tokenizer))
    assert len({s.digest for s in samples}) == len(samples) >= 9
    for sample in samples:
        assert abs(len(sample.input_ids) - sample.about["length"]) <= sample.about["length"] / 100
        assert sample.about["tokens"] == len(sample.input_ids)
        text = some_tokenizer.decode(sample.input_ids).casefold()
        for word in expected(sample):
            assert word in sample.prompt
            assert word.casefold() in text.replace(" ", "")
    again = TASKS[name].samples(Context(settings(), Sources(), some_tokenizer))
    assert [s.digest for s in again] == [s.digest for s in samples]
    other = TASKS[name].samples(Context(settings(seed=1), Sources(), some_tokenizer))
    assert not {s.digest for s in other} & {s.digest for s in samples}


@pytest.mark.parametrize("name", PLANTED)
def test_an_oracle_scores_all_and_a_constant_nothing(tokenizer, name) -> None:
    task = TASKS[name]
    samples = task.samples(Context(settings(), Sources(), tokenizer))
    for form in ("{}", "The answer is {}.", "\n{}\n"):
        judged = [task.judge(s, form.format(", ".join(expected(s)))) for s in samples]
        assert all(j["score"] == 1 and j["verdict"] == "correct" for j in judged)
    for constant in ("", "I do not know.", "12345", "the text repeats some words often"):
        assert all(task.judge(s, constant)["score"] == 0 for s in samples)
    everything = [task.judge(s, s.prompt) for s in samples]  # who repeats the whole prompt is no concern of a needle's
    assert all(j["score"] in (0, 1) for j in everything)


def test_an_oracle_that_reads_the_text_alone(tokenizer) -> None:
    """The answers follow from the prompt: found without the expected ones."""
    context = Context(settings(), Sources(), tokenizer)
    for sample in TASKS["variable_tracking"].samples(context):
        value = re.search(r"have the value (\d+)", sample.prompt)[1]
        known: dict[str, str] = {}
        for name, given in re.findall(r"VAR ([A-Z]+) = (?:VAR )?(\w+)", sample.prompt):
            assert not given.isalpha() or given in known  # set before it is passed on
            known[name] = known.get(given, given)
        assert sorted(n for n, v in known.items() if v == value) == sorted(sample.expected)
    for name, most in (("common_words", 10), ("frequent_words", 3)):
        for sample in TASKS[name].samples(context):
            body = sample.prompt.split("\n\n")[1]
            counts = Counter(re.findall(r"[a-z]{4,}", body)).most_common()
            assert {w for w, _ in counts[:most]} == set(sample.expected)
            assert counts[most - 1][1] > counts[most][1]  # no tie
    for sample in TASKS["multi_needle"].samples(context):
        asked = re.search(r"in the text: (.*)\? Give", sample.prompt)[1].split(", ")
        pairs = re.findall(r"One of the numbers of (\w+) is (\d+)", sample.prompt)
        assert sorted(n for name, n in pairs if name in asked) == sorted(sample.expected)
    many = settings(synthetic={"lengths": [1500], "needles": 5, "values": 3, "queries": 4, "chains": 3, "hops": 6})
    context = Context(many, Sources(), tokenizer)
    assert {len(s.expected) for s in TASKS["multi_needle"].samples(context)} == {12}
    assert {len(s.expected) for s in TASKS["variable_tracking"].samples(context)} == {7}


def test_partial_answers_count_in_part() -> None:
    task = TASKS["multi_needle"]
    sample = type("S", (), {"expected": ["11", "22", "33", "44"]})
    assert task.judge(sample, "11 and 33, not 4 4")["score"] == 0.5
    assert task.judge(sample, "111 223 3344")["score"] == 0  # whole words only


def test_needles_stand_where_they_should_in_the_runs_own_texts(tokenizer, tmp_path) -> None:
    draw = random.Random(0)
    sentences = [f"Sentence {i} speaks of {' and '.join(draw.choices(FILLER, k=2)).lower()[:80]}." for i in range(900)]
    (tmp_path / "book.txt").write_text(" ".join(sentences))
    wanted = settings(texts=[tmp_path / "book.txt"], needle={"lengths": [2000], "depths": [0, 0.3, 0.7, 1]})
    samples = TASKS["needle"].samples(Context(wanted, Sources(texts=wanted.texts), tokenizer))
    for sample in samples:
        assert sample.prompt.count("Sentence ") > 50  # the book is the haystack
        body = sample.prompt.split("\n\n")[1]
        assert abs(body.index("The storage room") / len(body) - sample.about["depth"]) < 0.06


def test_passkey_as_longlora_makes_it(tokenizer) -> None:
    """Its lengths, seeds, keys and places, worked out by hand from the reference's rule."""
    wanted = settings(passkey={"method": "longlora", "trials": 3, "max_tokens": 4000})
    samples = TASKS["passkey"].samples(Context(wanted, Sources(), tokenizer))
    assert len(samples) == 4 * 3
    filler = " ".join(FILLER)
    for sample in samples:
        thousands, seed = re.fullmatch(r"(\d)000-seed(\d)", sample.id).groups()
        characters = int(3.75 * int(thousands) * 1000 // 1024 * 1024)
        np.random.seed(int(seed))
        before = np.random.randint(0, characters)
        key = str(np.random.randint(1, 50000))
        _opening, first, needle, second, ending = sample.prompt.split("\n")
        assert sample.expected == key and needle == f"The pass key is {key}. Keep it in mind. {key} is the pass key."
        assert len(first) == before and len(first) + len(second) == characters == sample.about["characters"]
        assert (filler + " ") * 99 == (first + ((filler + " ") * 99)[len(first) :]) and second.startswith(filler[:9])
        assert ending == "What is the pass key? The pass key is"
        assert sample.input_ids == tokenizer(sample.prompt)["input_ids"]  # raw text, no prompt format


def test_wording_from_a_file(tokenizer, tmp_path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text("opening: Lies.\nfiller: [Grass grows., It rains.]\nneedle: 'Code {key}.'\nquestion: Code?\n")
    wanted = settings(passkey={"lengths": [300], "wording": str(path)})
    sample = TASKS["passkey"].samples(Context(wanted, Sources(), tokenizer))[0]
    assert sample.prompt.startswith("Lies.\n") and f"Code {sample.expected}." in sample.prompt
    assert sample.prompt.endswith("\nCode?") and "It rains." in sample.prompt
    for text in ("needle: no place\n", "nedle: x\n", "[1]\n", ": :\n"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"evaluate\.passkey\.wording") as error:
            read_wording(path)
        assert "needle (with {key})" in error.value.remedy


@pytest.mark.parametrize("name", PLANTED)
def test_too_short_a_length_is_told(tokenizer, name) -> None:
    short = settings(passkey={"lengths": [20]}, needle={"lengths": [20]}, synthetic={"lengths": [20]})
    with pytest.raises(UserError, match="lengths: 20 is too short"):
        TASKS[name].samples(Context(short, Sources(), tokenizer))
