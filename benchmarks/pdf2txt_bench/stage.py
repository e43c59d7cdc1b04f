"""The stage by itself, in a store below a folder: ``SETTINGS_JSON SOURCES FOLDER``; its metrics go to stdout.

``FOLDER/events.jsonl`` gets every event as it happens, so that a killed run shows how far it had come.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(settings: str, sources: str, folder: str) -> None:
    from pdf2txt.settings import Pdf2txtSettings
    from pdf2txt.stage import run

    root = Path(folder)
    work = root / "work"
    work.mkdir(parents=True, exist_ok=True)
    with (root / "events.jsonl").open("a", buffering=1) as events:

        def report(event: str, **fields: object) -> None:
            events.write(json.dumps({"event": event, **fields}) + "\n")

        inputs = {"sources": Path(sources), "units": root / "units"}
        print(json.dumps(run(Pdf2txtSettings(**json.loads(settings)), inputs, work, report)))


if __name__ == "__main__":
    main(*sys.argv[1:])
