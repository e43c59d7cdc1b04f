"""A worker process: converts the documents it is told to, one after the other.

Spoken over two pipes, one JSON object a line. In: ``{"settings", "units", "page_key", "threads"}`` once,
then jobs ``{"path", "sha256", "result", "skip"}``. Out: ``{"event": "page", ...}`` before each page's
work (page 0: all pages at once), ``{"event": "unit", ...}`` when a page unit is made or reused, then one of
``done``, ``transient``, ``page-lost`` (transient, but without the page in flight it may go on). The result
is a file, written whole or not at all. A process of its own (no fork, no shared memory): a page that crashes
or hangs takes nothing with it, and a killed parent takes its workers along.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import signal
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pdf2txt.errors import DrawingTimeout
from pdf2txt.ocr import OcrPage
from pdf2txt.spans import Line
from pdf2txt.units import Units, digest, write_atomic

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, however it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)


def pack(document: dict[str, Any]) -> bytes:
    """Compressed JSON."""
    return zlib.compress(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(), 6)


def unpack(data: bytes) -> dict[str, Any]:
    return json.loads(zlib.decompress(data))


class PageStore:
    """Pages of one document read by OCR, as units of kind ``page``; ``on_unit(key, reused)`` hears of each."""

    def __init__(self, root: Path, page_key: str, sha256: str, on_unit: Callable[[str, bool], None]) -> None:
        self.units = Units(root, "page")
        self.page_key, self.sha256, self.on_unit = page_key, sha256, on_unit

    def _key(self, page: int) -> str:
        return digest("page", self.sha256, page, self.page_key)

    def get(self, page: int) -> OcrPage | None:
        key = self._key(page)
        data = self.units.get(key)
        if data is None:
            return None
        known = unpack(data)
        self.on_unit(key, True)
        return OcrPage(**{**known, "lines": [Line(**line) for line in known["lines"]]})

    def put(self, page: int, read: OcrPage) -> None:
        key = self._key(page)
        self.units.put(key, pack(asdict(read)))
        self.on_unit(key, False)


def main(argv: list[str]) -> None:
    read_fd, write_fd, parent = map(int, argv)
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    faulthandler.enable()
    commands = os.fdopen(read_fd, "r", encoding="utf-8")
    replies = os.fdopen(write_fd, "w", encoding="utf-8", buffering=1)

    def say(**message: Any) -> None:
        replies.write(json.dumps(message) + "\n")

    from pdf2txt.convert import convert
    from pdf2txt.settings import Pdf2txtSettings

    start = json.loads(commands.readline())
    settings = Pdf2txtSettings(**start["settings"])
    for line in commands:
        job = json.loads(line)
        began = time.monotonic()
        try:
            document = convert(
                Path(job["path"]),
                settings,
                on_page=lambda number, total, step: say(event="page", page=number, pages=total, step=step),
                store=PageStore(
                    Path(start["units"]),
                    start["page_key"],
                    job["sha256"],
                    lambda key, reused: say(event="unit", key=key, reused=reused),
                ),
                skip={int(page): why for page, why in job["skip"].items()},
                threads=start["threads"],
            )
            if document.sha256 != job["sha256"]:
                say(event="transient", message="the file changed since it was listed")
                continue
            seconds = round(time.monotonic() - began, 3)
            write_atomic(Path(job["result"]), pack({**document.to_dict(), "seconds": seconds}))
            say(event="done")
        except (DrawingTimeout, MemoryError) as error:
            say(event="page-lost", message=str(error) or "not enough memory")
        except Exception as error:  # a full disk, or a bug of ours on this one file: the others go on
            say(event="transient", message=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
