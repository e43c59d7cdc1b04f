"""Builds with a teacher that are killed: no prompt that was answered is sent again, and none is answered twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from handmade import paper, write_input
from teacher_server import KEY, TeacherServer

from datasets_build.settings import DatasetSettings
from datasets_build.stage import run
from datasets_build.teacher.responses import Responses

TOPICS = ("bookbinding", "joinery", "basketry", "glazing", "thatching", "gilding")


class Build:
    """``python -m datasets_build`` on six papers, in a process of its own."""

    def __init__(self, folder: Path, model: Path, url: str, **teacher: object) -> None:
        self.source = write_input(folder / "in", [paper(t) for t in TOPICS])
        self.settings = folder / "settings.yaml"
        settings = {
            "max_tokens": 1024, "min_validation_rows": 1, "recipes": ["title", "paper-qa"], "per_document": 4,
            "gates": {"levels": {"near-duplicates": "off"}},
            "teacher": {"base_url": url, "model": "scripted", "api_key_env": "TEACHER_TEST_KEY", "concurrency": 4,
                        "timeout_seconds": 20, **teacher},
        }  # fmt: skip
        self.settings.write_text(json.dumps(settings))
        self.command = [
            sys.executable, "-m", "datasets_build", "--documents", str(self.source), "--model", str(model),
            "--out", str(folder / "out"), "--settings", str(self.settings),
        ]  # fmt: skip
        self.units = folder / "out.work" / "units"
        self.out = folder / "out"

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(
            self.command,
            env={**os.environ, "TEACHER_TEST_KEY": KEY},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def finish(self) -> dict:
        process = self.start()
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err.decode()
        return json.loads(out)

    def killed_after(self, server: TeacherServer, calls: int, how: int, group: bool = False) -> int:
        """Start, and kill when ``calls`` more requests arrived; returns the exit code."""
        wanted = len(server.log) + calls
        process = self.start()
        deadline = time.monotonic() + 60
        while len(server.log) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert process.poll() is None, process.communicate()[1].decode()
        assert server.in_flight
        os.killpg(process.pid, how) if group else process.send_signal(how)
        return process.wait(30)


def in_this_process(build: Build, model: Path, work: Path) -> dict:
    """The same build, undisturbed, and quicker to start."""
    settings = DatasetSettings.model_validate(json.loads(build.settings.read_text()))
    work.mkdir()
    return run(settings, {"pdf2txt": build.source, "model": model}, work, lambda event, **fields: None)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEACHER_TEST_KEY", KEY)
    with TeacherServer(delay=0.3) as running:
        yield running


def test_killed_twice_no_prompt_is_sent_twice(server, smollm2_dir: Path, tmp_path: Path) -> None:
    build = Build(tmp_path, smollm2_dir, server.url)
    assert build.killed_after(server, 10, signal.SIGKILL) == -signal.SIGKILL
    assert build.killed_after(server, 14, signal.SIGKILL, group=True) == -signal.SIGKILL
    metrics = build.finish()
    assert metrics["tasks"]["paper-qa"] == len(set(server.sent())) / 3 == 24
    # Calls were in flight at both kills; their courier outlived the build and kept the replies.
    assert len(server.sent()) == len(set(server.sent()))
    assert metrics["teacher_calls"] == len(server.answered()) == 72
    assert 0 < metrics["teacher_new_calls"] < 72 - 20
    assert metrics["teacher_store_lost_calls"] == 0
    assert not list((build.units / "calls").iterdir())
    server.delay = 0.0
    undisturbed = in_this_process(build, smollm2_dir, tmp_path / "other")
    assert undisturbed["row_digest"] == metrics["row_digest"]


@pytest.mark.slow
def test_an_interrupted_build_waits_for_the_calls_in_flight(server, smollm2_dir: Path, tmp_path: Path) -> None:
    build = Build(tmp_path, smollm2_dir, server.url)
    build.killed_after(server, 9, signal.SIGINT)
    sent = len(server.log)
    assert server.in_flight == 0  # it ended after them
    assert len(list((build.units / "responses").iterdir())) == sent
    build.finish()
    assert len(server.sent()) == len(set(server.sent()))


@pytest.mark.slow
def test_where_the_courier_dies_too_only_calls_in_flight_are_sent_again(server, smollm2_dir, tmp_path: Path) -> None:
    """The whole machine went down, as far as a test can have it."""
    build = Build(tmp_path, smollm2_dir, server.url)
    psutil = pytest.importorskip("psutil")
    process = build.start()
    while len(server.log) < 10:
        time.sleep(0.005)
    for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        one.kill()
    process.wait(30)
    before = server.sent()
    kept = len(list((build.units / "responses").iterdir()))
    lost = Responses(build.units).ledger("scripted").lost.calls
    # A mark is written before its request leaves, so it may count one that never arrived.
    assert len(before) <= kept + lost and 1 <= lost <= 4
    metrics = build.finish()
    again = [p for p in set(before) if server.sent().count(p) > 1]
    assert len(again) <= lost == metrics["teacher_store_lost_calls"]
    assert metrics["teacher_calls"] == 72


@pytest.mark.slow
def test_two_builds_at_once_share_the_calls(server, smollm2_dir: Path, tmp_path: Path) -> None:
    """The same prompts from two processes: one sends, the other waits for the reply."""
    server.delay = 1.0  # so that the second build comes in the middle of the first
    build = Build(tmp_path, smollm2_dir, server.url)
    first = build.start()
    while not server.log:
        time.sleep(0.01)
    other = Build(tmp_path / "other", smollm2_dir, server.url)
    (tmp_path / "other" / "out.work").mkdir()
    build.units.mkdir(exist_ok=True)
    other.units.symlink_to(build.units)
    second = other.finish()
    out, err = first.communicate(timeout=60)
    assert first.returncode == 0, err.decode()
    assert len(server.sent()) == len(set(server.sent())) == 72
    assert json.loads(out)["row_digest"] == second["row_digest"]
