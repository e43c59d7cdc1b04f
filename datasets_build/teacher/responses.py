"""Replies in the store, and which calls are under way: no prompt that was answered is ever sent again.

``units/responses/<key>`` is a reply, written whole before anybody sees it. ``units/calls/<key>`` marks a call
that was sent and has no reply; whoever sends it holds a lock on the mark, so that another process that wants
the same reply waits for it instead of paying for it too. A mark without a lock belongs to a call that timed out
or whose sender was killed: nobody knows whether it was served, so it counts as spent, and it is sent again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets_build.teacher.calls import Call, Reply, Usage
from pdf2txt.units import Units

KIND = "responses"
CALLS = "calls"


@dataclass(frozen=True)
class Ledger:
    """What one model has been asked: answered calls, and lost ones at the most they can have cost."""

    answered: Usage
    lost: Usage

    @property
    def spent(self) -> Usage:
        return self.answered + self.lost


class Responses:
    """The replies below one folder of units."""

    def __init__(self, root: Path) -> None:
        self.units = Units(root, KIND)
        self.calls = root / CALLS

    def get(self, key: str) -> Reply | None:
        """The reply to a call, if it came."""
        data = self.units.get(key)
        return None if data is None else Reply.from_json(json.loads(data))

    @contextmanager
    def sending(self, call: Call, output_tokens: int) -> Iterator[Mark]:
        """The mark of a call, locked. Waits while another process sends the same one."""
        self.calls.mkdir(parents=True, exist_ok=True)
        path = self.calls / call.key
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(file, fcntl.LOCK_EX)
            # Meanwhile the other process may have taken its mark away, and a third put a new one there.
            if path.exists() and path.stat().st_ino == os.fstat(file).st_ino:
                break
            os.close(file)
        mark = Mark(self, call, path, file, output_tokens)
        try:
            yield mark
        finally:
            if not mark.lost:
                path.unlink(missing_ok=True)
            os.close(file)

    def ledger(self, model: str) -> Ledger:
        """Everything asked of ``model`` by any build on this store."""
        answered = lost = Usage()
        for data in _read(self.units.folder):
            if data["model"] == model:
                answered += Usage(**data["usage"])
                lost += _worst(data["bound"], data["lost"])
        for data in _read(self.calls):
            if data["model"] == model:
                lost += _worst(data["bound"], data["lost"])
        return Ledger(answered, lost)


class Mark:
    """That a call is under way. ``lost``: how often it was sent without anybody knowing what came of it."""

    def __init__(self, responses: Responses, call: Call, path: Path, file: int, output_tokens: int) -> None:
        self.responses, self.call, self.path, self.file = responses, call, path, file
        self.bound = [call.prompt_bound, output_tokens]
        self.lost = _lost(file)

    def sent(self) -> None:
        """To be called before the request leaves: a kill from here on leaves a lost call behind."""
        self._write(self.lost + 1)

    def failed(self) -> None:
        """The endpoint refused to serve the call that was ``sent``."""
        self._write(self.lost - 1)

    def answered(self, reply: Reply) -> None:
        """Keep the reply; from now on the call is never sent again."""
        data = {
            "model": self.call.model, "parameters": json.loads(self.call.parameters), "attempt": self.call.attempt,
            "bound": self.bound, "lost": max(0, self.lost - 1), **reply.to_json(),
        }  # fmt: skip
        self.responses.units.put(self.call.key, json.dumps(data, ensure_ascii=False).encode())
        self.lost = 0

    def _write(self, lost: int) -> None:
        self.lost = lost
        data = json.dumps({"model": self.call.model, "bound": self.bound, "lost": lost}).encode()
        os.pwrite(self.file, data.ljust(512), 0)  # of one length, so that no rest of an older mark stays
        os.fsync(self.file)


def _lost(file: int) -> int:
    try:
        return int(json.loads(os.pread(file, 4096, 0))["lost"])
    except (ValueError, KeyError, TypeError):
        return 0  # a new mark, or one whose sender was killed before it wrote


def _read(folder: Path) -> Iterator[dict[str, Any]]:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        try:
            data = json.loads(path.read_bytes())
        except (OSError, ValueError):  # on its way in or out
            continue
        yield data


def _worst(bound: list[int], times: int) -> Usage:
    return Usage(times, bound[0] * times, bound[1] * times, times)
