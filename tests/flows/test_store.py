"""The store's promise: whatever instant a process dies at, an output is whole or not there."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.digest import digest
from flows.errors import UsageError
from flows.housekeeping import verify_output
from flows.store import OUTPUT, Store
from pdf2txt.units import Units

KEY = "a" * 64


def make(store: Store, content: str = "x", key: str = KEY) -> Path:
    output = store.attempt("merge", key) / OUTPUT
    (output / "sub").mkdir(parents=True)
    (output / "sub" / "file.txt").write_text(content)
    store.finish("merge", key, {"run_id": "r", "finished": "t", "incomplete": False, "metrics": {}})
    return store.finished("merge", key)


def test_finished_output_has_a_manifest_of_its_files(tmp_path: Path) -> None:
    path = make(Store(tmp_path))
    manifest = json.loads((path / "manifest.json").read_text())
    assert [(f["path"], f["bytes"]) for f in manifest["outputs"]] == [("sub/file.txt", 1)]
    assert not Store(tmp_path).attempt("merge", KEY).exists()


def test_finish_replaces_an_older_output(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make(store, "old")
    path = make(store, "new")
    assert (path / "sub" / "file.txt").read_text() == "new"
    assert not verify_output("merge", KEY, path).problems


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("moment", [0, 1, 2, 3])
def test_kill_inside_finish_leaves_a_whole_output_or_none(tmp_path: Path, moment: int, older: bool) -> None:
    """A child process that ends itself with SIGKILL before the n-th rename inside ``finish``, or before clearing up."""
    if older:
        make(Store(tmp_path), "content")
    script = f"""
import os, signal, pathlib
from flows import store as module
from flows.store import Store, OUTPUT
store = Store(pathlib.Path({str(tmp_path)!r}))
output = store.attempt("merge", {KEY!r}) / OUTPUT
output.mkdir(parents=True)
(output / "file.txt").write_text("content")
calls, rename = [], pathlib.Path.replace
def counted(self, target):
    if len(calls) == {moment}:
        os.kill(os.getpid(), signal.SIGKILL)
    calls.append(target)
    return rename(self, target)
pathlib.Path.replace = counted
module.remove = lambda path: os.kill(os.getpid(), signal.SIGKILL)
store.finish("merge", {KEY!r}, {{"run_id": "r", "finished": "t", "incomplete": False, "metrics": {{}}}})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert done.returncode == -9, done.stderr
    store = Store(tmp_path)
    path = store.finished("merge", KEY)
    if path.exists():
        assert not verify_output("merge", KEY, path).problems
    if not (path / "file.txt").exists():  # the new output is not published, so it is still in the attempt
        assert (store.attempt("merge", KEY) / OUTPUT / "file.txt").read_text() == "content"


def test_verify_names_what_was_changed_added_and_lost(tmp_path: Path) -> None:
    path = make(Store(tmp_path))
    (path / "sub" / "file.txt").write_text("y")
    (path / "new.txt").write_text("")
    assert sorted(verify_output("merge", KEY, path).problems) == [
        "new.txt was added",
        "sub/file.txt was changed: 1 -> 1 bytes, other sha256",
    ]
    (path / "sub" / "file.txt").unlink()
    assert "sub/file.txt is missing" in verify_output("merge", KEY, path).problems


def test_lock_makes_the_second_wait(tmp_path: Path) -> None:
    store, order = Store(tmp_path), []
    waited = threading.Event()

    def second() -> None:
        with Store(tmp_path).lock("merge", KEY, on_wait=waited.set):
            order.append("second")

    with store.lock("merge", KEY):
        assert Store(tmp_path).locked("merge", KEY)
        thread = threading.Thread(target=second)
        thread.start()
        assert waited.wait(5)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    assert not store.locked("merge", KEY)


def test_lock_goes_with_a_killed_process(tmp_path: Path) -> None:
    script = (
        "import pathlib, time; from flows.store import Store\n"
        f"with Store(pathlib.Path({str(tmp_path)!r})).lock('merge', {KEY!r}):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    assert Store(tmp_path).locked("merge", KEY)
    process.kill()
    process.wait()
    started = time.monotonic()
    with Store(tmp_path).lock("merge", KEY):
        assert time.monotonic() - started < 5


def test_store_that_cannot_be_written_says_so() -> None:
    with pytest.raises(UsageError, match="cannot be written") as caught:
        Store(Path("/proc/no-such-store")).prepare()
    assert "--store" in caught.value.remedy


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=6), JSON, max_size=6))
def test_digest_ignores_key_order_and_sees_every_change(tree: dict) -> None:
    assert digest(dict(reversed(tree.items()))) == digest(tree)
    assert digest({**tree, "one more key": 1}) != digest(tree)


@given(st.dictionaries(st.from_regex(r"[0-9a-f]{8}", fullmatch=True), st.binary(max_size=50), max_size=8))
def test_units_return_what_was_put(tmp_path_factory: pytest.TempPathFactory, content: dict[str, bytes]) -> None:
    units = Units(tmp_path_factory.mktemp("units"), "document")
    for key, data in content.items():
        assert units.get(key) is None
        units.put(key, data)
    assert {key: units.get(key) for key in content} == content
    leftovers = list(units.folder.glob(".*")) if units.folder.exists() else []
    assert not leftovers
