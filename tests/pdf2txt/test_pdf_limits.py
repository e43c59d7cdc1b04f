"""Pages that take too much: their worker, or their poppler, is ended, and nothing else is lost with it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from pdf2txt import limited, pool, render
from pdf2txt.cli import convert_folder
from pdf2txt.errors import DrawingTimeout
from pdf2txt.render import page_image
from pdf2txt.settings import Pdf2txtSettings

GEOMETRY = Pdf2txtSettings(layout="geometry", ocr="off", language="en")
ROOT = Path(__file__).parents[2]
needs_poppler = pytest.mark.skipif(shutil.which("pdftoppm") is None, reason="poppler-utils is not installed")


@dataclass
class Misdeed:
    code: str  # what a worker does when it meets a page that says so
    limits: dict[str, float]  # that it breaks
    told: str
    status: str  # of a document that has no other page
    stuck: int = pool._STUCK


MISDEEDS = {
    "memory": Misdeed(
        "hoard = bytearray(b'x') * 600_000_000; time.sleep(120)", {"worker_memory": 0.5},
        "over its limit of 0.5 GB of memory", "timeout",
    ),
    "silence": Misdeed(
        "time.sleep(120)", {"page_seconds": 2.0}, "over its limit of 8 seconds, most of them asleep", "timeout", 4
    ),
    "busy": Misdeed("while True: pass", {"page_seconds": 2.0}, "over its limit of 2 CPU seconds", "timeout"),
    "crash": Misdeed("os._exit(9)", {}, "its worker process died twice", "corrupt"),
}  # fmt: skip


@pytest.fixture
def misbehaving(tmp_path: Path, monkeypatch) -> Any:
    """``misbehaving(code)``: workers started from now on run that on every page that holds the word "trap"."""

    def make(code: str) -> None:
        site = tmp_path / "site"
        site.mkdir()
        patch = """
            import os, sys, time
            if "pdf2txt.worker" in " ".join(sys.orig_argv):
                from pdf2txt import textlayer
                real = textlayer.read
                def read(page):
                    layer = real(page)
                    if layer is not None and any("trap" in line.text for line in layer.lines):
                        MISDEED
                    return layer
                textlayer.read = read
            """
        (site / "sitecustomize.py").write_text(textwrap.dedent(patch).replace("MISDEED", code))
        monkeypatch.setenv("PYTHONPATH", str(site))

    return make


@pytest.mark.parametrize("name", MISDEEDS)
def test_a_page_over_a_limit_is_left_out_and_all_else_goes_on(typeset, tmp_path: Path, monkeypatch, misbehaving, name):
    misdeed, folder = MISDEEDS[name], tmp_path / "in"
    folder.mkdir()
    for stem, pages in (("book", ("First.", "A trap.", "Third.")), ("single", ("Only a trap.",)), ("good", ("Good.",))):
        typeset("#pagebreak()".join(pages), f"{stem}.pdf").rename(folder / f"{stem}.pdf")
    misbehaving(misdeed.code)
    monkeypatch.setattr(pool, "_STUCK", misdeed.stuck)
    settings = GEOMETRY.model_copy(update=misdeed.limits)
    told: list[str] = []

    def report(event: str, **fields: Any) -> None:
        if event == "transient":
            told.append(fields["message"])

    before = set(psutil.Process().children())  # of other tests: the one that tracks shared memory stays to the end
    result = convert_folder([folder], tmp_path / "out", settings=settings, workers=2, report=report)
    book, good, single = result["documents"]
    assert (book["status"], good["status"]) == ("partial", "ok")
    assert Path(book["text"]).read_text() == "First.\n\nThird.\n" and Path(good["text"]).read_text() == "Good.\n"
    assert any("page 2" in w and misdeed.told in w for w in book["warnings"]), book["warnings"]
    assert single["status"] == misdeed.status and single["text"] is None
    assert sorted(told) == [f"book.pdf: page 2: {misdeed.told}", f"single.pdf: page 1: {misdeed.told}"]
    left = set(psutil.Process().children()) - before
    assert not [p for p in left if p.status() != psutil.STATUS_ZOMBIE]
    assert not list((tmp_path / "out").glob(".pdf2txt-*"))
    # It is the machine's fault, perhaps: another try reads it.
    monkeypatch.delenv("PYTHONPATH")
    again = convert_folder([folder], tmp_path / "out", settings=settings, workers=2)
    assert [d["status"] for d in again["documents"]] == ["ok", "ok", "ok"]


def test_what_a_document_lies_idle_before_it_is_tried_alone_is_not_its_time(tmp_path: Path, monkeypatch):
    sent: list[dict[str, Any]] = []
    worker = object.__new__(pool._Worker)
    monkeypatch.setattr(worker, "send", sent.append, raising=False)
    monkeypatch.setattr(worker, "cpu_seconds", lambda: 0.0, raising=False)
    job = pool.Job(tmp_path / "a.pdf", "0" * 64, tmp_path / "r", tmp_path / "attempts" / "a", tmp_path / "f")
    task = pool.Task(job)
    now = iter([100.0, 500.0])
    monkeypatch.setattr(pool.time, "monotonic", lambda: next(now))
    worker.start(task, 4)
    task.put_off = 103.0  # its worker died after three seconds
    worker.start(task, 4)
    assert [message["began"] for message in sent] == [100.0, 497.0]


@needs_poppler
def test_poppler_may_take_what_memory_is_left(typeset, monkeypatch):
    path = typeset("#set page(width: 400pt, height: 400pt)\nWords.")
    assert page_image(path, None, 1, 5.0, "pdfium").shape == (2000, 2000, 3)
    assert page_image(path, None, 1, 5.0, "pdfium", memory=0.01).shape == (2000, 2000, 3)  # the least it always gets
    monkeypatch.setattr(render, "_LEAST", 0.03)
    with pytest.raises(MemoryError, match="in poppler"):
        page_image(path, None, 1, 8.0, "pdfium", memory=0.01)


@pytest.fixture
def stuck_poppler(tmp_path: Path, monkeypatch) -> Path:
    """A pdftoppm that does nothing for a minute; the file gets its process id."""
    pid, real = tmp_path / "pid", shutil.which("pdftoppm")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "pdftoppm"
    script = ("#!/bin/sh", f'[ "$1" = -v ] && exec {real} -v', f"echo $$ > {pid}.part", f"mv {pid}.part {pid}")
    program.write_text("\n".join((*script, "exec sleep 60\n")))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return pid


@needs_poppler
def test_a_slow_poppler_is_ended(typeset, stuck_poppler: Path, monkeypatch):
    path = typeset("Words.")
    monkeypatch.setattr(render, "_DRAW_SECONDS", 2)
    with pytest.raises(DrawingTimeout, match="2 seconds in poppler"):
        page_image(path, None, 1, 1.0, "pdfium")
    assert not psutil.pid_exists(int(stuck_poppler.read_text()))


@needs_poppler
@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_poppler_ends_with_a_killed_parent(typeset, stuck_poppler: Path):
    path = typeset("Words.")
    code = "import sys, pathlib, pdf2txt.render as r; r.page_image(pathlib.Path(sys.argv[1]), None, 1, 1, '')"
    parent = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT)
    deadline = time.monotonic() + 30
    while not stuck_poppler.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    program = psutil.Process(int(stuck_poppler.read_text()))
    assert program.is_running()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs([program], timeout=5)
    assert not alive


def test_limits_of_a_program():
    def run(seconds: int, parent: int, *command: str) -> int:
        launcher = [sys.executable, "-I", "-S", limited.__file__, str(10**9), str(seconds), str(parent)]
        return subprocess.run([*launcher, *command]).returncode

    assert run(5, os.getpid(), "true") == 0
    assert run(1, os.getpid(), "sh", "-c", "while :; do :; done") == -signal.SIGXCPU
    if sys.platform == "linux":
        assert run(5, 1, "true") == 1  # begun by a process that is gone
