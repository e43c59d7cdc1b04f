"""The cache of tokens: made once, whole or not there, and the same after any interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from longlora.train import data
from longlora.train.data import cache as module
from longlora.train.data.cache import token_cache
from longlora.train.data.tokens import Piece

ROOT = Path(__file__).parents[2]


def quiet(event, **fields):
    pass


def entries(count: int, seed: int = 0) -> list[tuple[str, np.ndarray]]:
    """Entries of 0 to 40 tokens, some without loss."""
    draw = np.random.default_rng(seed)
    return [
        (f"ä{i}", draw.integers(-1000, 1000, size=draw.integers(0, 40)).astype(np.int32)) for i in range(count)
    ]  # fmt: skip


def pieces_of(made, stop_after=None, asked=None):
    """As a source gives them: every entry in two pieces; stops like a kill after some."""

    def pieces(done):
        if asked is not None:
            asked.append(done)
        for n, (name, tokens) in enumerate(made[done:]):
            if stop_after is not None and n >= stop_after:
                raise KeyboardInterrupt
            half = len(tokens) // 2
            yield Piece(name, tokens[:half], False)
            yield Piece(name, tokens[half:], True)

    return pieces


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.*")) if p.is_file()}


def test_reads_what_was_written(tmp_path):
    made = entries(50)
    cache = token_cache(tmp_path, "key", pieces_of(made), quiet)
    kept = [(name, tokens) for name, tokens in made if len(tokens)]
    assert len(cache) == len(kept)
    for i, (name, tokens) in enumerate(kept):
        assert cache.name(i) == name and cache.tokens(i, 0, len(tokens)).tolist() == tokens.tolist()
        assert cache.tokens(i, len(tokens) // 2, len(tokens)).tolist() == tokens[len(tokens) // 2 :].tolist()
    assert np.diff(cache.learned, prepend=0).tolist() == [int((t >= 0).sum()) for _, t in kept]


def test_made_once_per_key(tmp_path):
    asked: list[int] = []
    for key in ("a", "a", "b", "b"):
        token_cache(tmp_path, key, pieces_of(entries(5), asked=asked), quiet)
    assert asked == [0, 0] and len([p for p in tmp_path.iterdir() if p.is_dir()]) == 1
    damaged = next(tmp_path.glob("*/tokens.bin"))
    damaged.write_bytes(damaged.read_bytes()[:-4])
    again = token_cache(tmp_path, "b", pieces_of(entries(5), asked=asked), quiet)
    assert asked == [0, 0, 0] and len(again) == len([t for _, t in entries(5) if len(t)])


def test_digest_is_of_content(tmp_path):
    digests = {token_cache(tmp_path / str(i), i, pieces_of(entries(9, i % 2)), quiet).digest for i in range(4)}
    assert len(digests) == 2


@pytest.mark.parametrize("commit", [16, 200])
def test_interrupted_anywhere_ends_in_the_same_bytes(tmp_path, monkeypatch, commit):
    monkeypatch.setattr(module, "COMMIT", commit)
    made = entries(60)
    straight = token_cache(tmp_path / "straight", "key", pieces_of(made), quiet)
    asked: list[int] = []
    for stop in (0, 1, 7, 20, 13):
        with pytest.raises(KeyboardInterrupt):
            token_cache(tmp_path / "b", "key", pieces_of(made, stop, asked), quiet)
    resumed = token_cache(tmp_path / "b", "key", pieces_of(made, asked=asked), quiet)
    assert asked == sorted(asked) and asked[-1] > 20  # what was committed is not made again
    assert resumed.digest == straight.digest and files(tmp_path / "b") == files(tmp_path / "straight")


def test_nothing_is_a_cache_too(tmp_path):
    assert len(token_cache(tmp_path, "key", pieces_of([]), quiet)) == 0


def test_progress_is_reported_when_it_takes_long(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.0)
    events = []
    token_cache(tmp_path, "key", pieces_of(entries(3)), lambda event, **fields: events.append((event, fields)))
    done = [fields["done"] for event, fields in events if event == "progress" and fields["unit"] == "tokens"]
    assert done == sorted(done) and done[-1] > 0


SCRIPT = """
import sys, time
from pathlib import Path
from longlora.models import load_tokenizer
from longlora.train import data
from longlora.train.data import cache
cache.COMMIT = 20_000
slow = cache._Writer._commit
def commit(self, content):
    slow(self, content)
    time.sleep(0.2)
cache._Writer._commit = commit
data.plain_text_samples([Path(sys.argv[2])], load_tokenizer(Path(sys.argv[1])), 64, Path(sys.argv[3]))
"""


@pytest.mark.slow
def test_killed_process_ends_in_the_same_cache(tmp_path, smollm2_dir, tokenizer, monkeypatch):
    monkeypatch.setattr(module, "COMMIT", 20_000)
    lines = (f"Line {i} of the text, number {i * 7919 % 104729}." for i in range(6_000))
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "{line * 4}"}}\n' for line in lines))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(smollm2_dir), str(tmp_path / "a.jsonl"), str(tmp_path / "killed")],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("*.part/commit.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list((tmp_path / "killed").glob("*/cache.json"))
    resumed = data.plain_text_samples([tmp_path / "a.jsonl"], tokenizer, 64, tmp_path / "killed")
    straight = data.plain_text_samples([tmp_path / "a.jsonl"], tokenizer, 64, tmp_path / "straight")
    assert resumed.cache.digest == straight.cache.digest and len(resumed) >= 6_000
    name = resumed.cache.folder.name
    assert files(tmp_path / "killed" / name) == files(tmp_path / "straight" / name)


def test_an_unchanged_source_is_not_read_again(tmp_path, tokenizer, monkeypatch):
    from longlora.train.data import load

    path = tmp_path / "a.txt"
    path.write_text("Some words to learn.")
    first = data.plain_text_samples([path], tokenizer, 64, tmp_path / "t")
    monkeypatch.setattr(load, "file_sha256", lambda path: pytest.fail("hashed again"))
    assert data.plain_text_samples([path], tokenizer, 32, tmp_path / "t").cache.digest == first.cache.digest
    monkeypatch.undo()
    path.write_text("Other words to learn.")
    assert data.plain_text_samples([path], tokenizer, 64, tmp_path / "t").cache.digest != first.cache.digest


@pytest.mark.slow
def test_memory_does_not_grow_with_the_text(tmp_path, smollm2_dir):
    """Ten times the text, tokenized, packed and streamed, in the same memory."""
    grown = {}
    for tokens in (2_000_000, 20_000_000):
        folder = tmp_path / str(tokens)
        (folder / "texts").mkdir(parents=True)
        for step, size in (("generate", tokens), ("tokenize", 8192), ("stream", 8192)):
            command = [sys.executable, "benchmarks/train_data.py", "--step", step, "--model", str(smollm2_dir)]
            command += ["--keep", str(folder), "--row-tokens", str(size)]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True, text=True)
            if step != "generate":
                result = json.loads(done.stdout.splitlines()[-1])
                assert result["tokens"] > 0.8 * tokens and result["filled"] > 0.95
                grown[step, tokens] = result["memory_peak"] - result["memory_before"]
    for step in ("tokenize", "stream"):
        assert grown[step, 20_000_000] < grown[step, 2_000_000] + 40e6  # 4 bytes a token would be 72 MB more
    assert max(grown.values()) < 300e6
