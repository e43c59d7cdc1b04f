"""An OpenAI-compatible endpoint, reached through a courier."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from datasets_build.teacher.calls import Call, Failure, Reply
from datasets_build.teacher.settings import TeacherSettings
from pdf2txt.errors import UserError

GRACE_SECONDS = 20.0  # that an interrupted build waits for the calls in flight; Prefect kills after 30


class Endpoint:
    """Sends calls from any thread; several at once."""

    def __init__(self, settings: TeacherSettings, units: Path) -> None:
        """Start the courier.

        Raises:
            UserError: the package openai is not installed.
        """
        if find_spec("openai") is None:
            raise UserError(
                "dataset.teacher.base_url needs the package openai, which is not installed",
                "pip install 'longfolio[teacher]'",
            )
        assert settings.base_url is not None
        self.settings = settings
        self.waiting: dict[int, Future[dict[str, Any]]] = {}
        self.lock = threading.Lock()
        self.number = 0
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "datasets_build.teacher.courier", str(units.resolve()), settings.base_url,
                settings.api_key_env, str(settings.concurrency),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # what kills the build's process group, or Ctrl-C, spares the calls in flight
        )  # fmt: skip
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, call: Call) -> tuple[Reply, bool] | Failure:
        """The reply to a call, and whether another process had it; sent once, whatever comes of it."""
        future: Future[dict[str, Any]] = Future()
        with self.lock:
            self.number += 1
            number = self.number
            self.waiting[number] = future
            line = {
                "id": number, "call": asdict(call), "output_tokens": self.settings.output_tokens,
                "timeout": self.settings.timeout_seconds,
            }  # fmt: skip
            try:
                assert self.process.stdin is not None
                self.process.stdin.write(json.dumps(line).encode() + b"\n")
                self.process.stdin.flush()
            except (BrokenPipeError, ValueError):
                self._lose()
        try:
            # The client's timeout is for each piece of a reply; one that trickles in for ever is caught here.
            outcome = future.result(2 * self.settings.timeout_seconds + 10)
        except TimeoutError:
            return Failure("unknown", "timeout", f"no reply within {2 * self.settings.timeout_seconds + 10:g} s")
        if "failure" in outcome:
            return Failure(**outcome["failure"])
        return Reply.from_json(outcome["reply"]), outcome["reused"]

    def close(self) -> None:
        """No more calls; wait for those in flight, not for ever. The courier ends by itself."""
        with self.lock, contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_SECONDS)
        with self.lock:
            self._lose()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            outcome = json.loads(line)
            with self.lock:
                future = self.waiting.pop(outcome.pop("id"), None)
            if future is not None:
                future.set_result(outcome)
        with self.lock:
            self._lose()

    def _lose(self) -> None:
        """The courier is gone: nobody will answer what is waited for."""
        lost = {"failure": {"trouble": "passing", "reason": "no-connection", "message": "the courier process ended"}}
        while self.waiting:
            _, future = self.waiting.popitem()
            future.set_result(lost)
