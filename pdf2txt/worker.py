"""A worker process: converts the documents it is told to, one after the other.

Spoken over two pipes, one JSON object a line. In: ``{"settings", "units", "page_key", "threads"}`` once,
then tasks ``{"path", "sha256", "result", "unit", "folder", "skip", "rest", "step", "first", "last", "at_most",
"began"}``. Out:
``{"event": "page", ...}`` before each page's work (page 0: all pages at once), ``{"event": "unit", ...}`` when a
page unit is made or reused, then one of ``done``, ``long`` (more pages than ``at_most``: to be divided),
``transient``, ``page-lost`` (transient, but without the page in flight it may go on). The result is a Parquet
file, written whole or not at all. A process of its own (no fork, no shared memory): a page that crashes or hangs
takes nothing with it, and a killed parent takes its workers along.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import shutil
import signal
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pdf2txt.errors import DrawingTimeout, UserError
from pdf2txt.ocr import OcrPage
from pdf2txt.schema import write_unit
from pdf2txt.spans import Line
from pdf2txt.units import Units, digest

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, however it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)


def pack(value: dict[str, Any]) -> bytes:
    """Compressed JSON."""
    return zlib.compress(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(), 6)


def unpack(data: bytes) -> dict[str, Any]:
    return json.loads(zlib.decompress(data))


class PageStore:
    """What OCR read of one document, as units of kind ``page``; ``on_unit(key, reused)`` hears of each."""

    def __init__(self, root: Path, page_key: str, sha256: str, on_unit: Callable[[str, bool], None]) -> None:
        self.units = Units(root, "page")
        self.page_key, self.sha256, self.on_unit = page_key, sha256, on_unit

    def _key(self, page: int, region: int) -> str:
        return digest("page", self.sha256, page, *([region] if region else []), self.page_key)

    def get(self, page: int, region: int = 0) -> OcrPage | None:
        key = self._key(page, region)
        data = self.units.get(key)
        if data is None:
            return None
        try:
            known = unpack(data)
            read = OcrPage(**{**known, "lines": [Line(**line) for line in known["lines"]]})
        except (zlib.error, ValueError, TypeError, KeyError):  # damaged on the disk: read again
            return None
        self.on_unit(key, True)
        return read

    def put(self, page: int, read: OcrPage, region: int = 0) -> None:
        key = self._key(page, region)
        self.units.put(key, pack(asdict(read)))
        self.on_unit(key, False)


class _Desk:
    """The document at hand: kept from one task to the next, so that its file is opened and hashed once."""

    def __init__(self, start: dict[str, Any], say: Callable[..., None]) -> None:
        import pdf2txt.convert  # noqa: F401  before the first task comes: this worker may have been started ahead
        from pdf2txt.settings import Pdf2txtSettings

        self.start, self.say = start, say
        self.settings = Pdf2txtSettings(**start["settings"])
        self.conversion: Any = None

    def do(self, task: dict[str, Any]) -> None:
        conversion = self._conversion(task)
        if conversion.sha256 != task["sha256"]:
            self.say(event="transient", message="the file changed since it was listed")
            return
        before = conversion.pages_reused
        table = None
        if task["step"] == "whole":
            table = conversion.whole(at_most=task["at_most"])
            if table is None:
                self.say(event="long", pages=conversion.total)
                return
        elif task["step"] in ("read", "shape"):
            getattr(conversion, task["step"])(task["first"], task["last"])
        elif task["step"] == "decide":
            conversion.decide()
        else:
            table = conversion.finish()
        if table is not None:
            self._publish(conversion, table, task)
        self.say(event="done", reused=conversion.pages_reused - before)

    def _conversion(self, task: dict[str, Any]) -> Any:
        from pdf2txt.convert import Conversion

        folder = Path(task["folder"])
        if self.conversion is None or self.conversion.spool.folder != folder or task["step"] == "whole":
            if self.conversion is not None:
                self.conversion.close()
            store = PageStore(
                Path(self.start["units"]), self.start["page_key"], task["sha256"],
                lambda key, reused: self.say(event="unit", key=key, reused=reused),
            )  # fmt: skip
            self.conversion = Conversion(
                Path(task["path"]), self.settings, folder, store=store, threads=self.start["threads"],
                on_page=self._began,
            )  # fmt: skip
        self.conversion.skip = {int(page): why for page, why in task["skip"].items()}
        self.conversion.rest = task["rest"]
        return self.conversion

    def _began(self, number: int, total: int, step: str) -> None:
        self.say(event="page", page=number, pages=total, step=step, cpu=time.process_time())

    def _publish(self, conversion: Any, table: Any, task: dict[str, Any]) -> None:
        conversion.close()
        self.conversion = None
        seconds = round(time.monotonic() - task["began"], 3)
        write_unit(Path(task["result"]), table, seconds)
        if not task["skip"] and not task["rest"]:
            shutil.rmtree(task["folder"], ignore_errors=True)


def main(argv: list[str]) -> None:
    read_fd, write_fd, parent = map(int, argv)
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    faulthandler.enable()
    commands = os.fdopen(read_fd, "r", encoding="utf-8")
    replies = os.fdopen(write_fd, "w", encoding="utf-8", buffering=1)

    def say(**message: Any) -> None:
        replies.write(json.dumps(message) + "\n")

    desk = _Desk(json.loads(commands.readline()), say)
    for line in commands:
        task = json.loads(line)
        try:
            desk.do(task)
        except (DrawingTimeout, MemoryError) as error:
            say(event="page-lost", message=str(error) or "not enough memory")
        except Exception as error:  # a full disk, or a bug of ours on this one file: the others go on
            if Path(task["unit"]).exists():  # another run was quicker, and took what was on its way
                say(event="done")
            else:
                say(event="transient", message=_explained(error, Path(task["path"])))


def _explained(error: Exception, path: Path) -> str:
    if isinstance(error, FileNotFoundError) and not path.exists():
        return "the file is gone: it was moved or deleted after it was listed"
    return f"{error}; {error.remedy}" if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main(sys.argv[1:])
