"""``longfolio pdf2txt`` with settings that its command line has no option for: ``SETTINGS_JSON OUT PATH...``."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(settings: str, out: str, *paths: str) -> None:
    from pdf2txt.cli import convert_folder
    from pdf2txt.settings import Pdf2txtSettings

    chosen = Pdf2txtSettings(**json.loads(settings))

    def report(event: str, **fields: object) -> None:
        if event in ("warning", "transient"):
            print(fields["message"], file=sys.stderr, flush=True)

    result = convert_folder(
        [Path(p) for p in paths], Path(out), workers=chosen.workers, settings=chosen, report=report
    )  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
