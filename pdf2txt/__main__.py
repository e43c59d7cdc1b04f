"""``python -m pdf2txt PATH... --out DIR``: the library alone, without the store."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pdf2txt.cli import convert_folder, exit_code
from pdf2txt.errors import UserError
from pdf2txt.settings import Pdf2txtSettings


def _show(event: str, **fields: Any) -> None:
    if event == "progress" and sys.stderr.isatty():
        line = f"\r{fields['done']}/{fields['total']} documents, {fields['pages']} pages"
        print(line, end="", file=sys.stderr)
    elif event in ("warning", "transient"):
        print(fields["message"], file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pdf2txt", description="PDF to clean text.")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="PDF, .txt or .md files, or folders")
    parser.add_argument("--out", type=Path, required=True, help="folder for <stem>.txt and <stem>.json")
    parser.add_argument("--page-breaks", action="store_true", help="pages apart by a form feed")
    parser.add_argument("--format", choices=("plain", "markdown"), default="plain", help="form of the text")
    parser.add_argument("--jsonl", type=Path, metavar="FILE", help="all documents as Dolma-style JSON lines as well")
    parser.add_argument("--view", action="store_true", help="<stem>.html as well: pages with their blocks and text")
    parser.add_argument("--workers", type=int, default=0, help="worker processes (0: one per core)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    args = parser.parse_args(argv)
    try:
        result = convert_folder(
            args.paths, args.out, page_breaks=args.page_breaks, workers=args.workers, report=_show,
            settings=Pdf2txtSettings(format=args.format), jsonl=args.jsonl, view=args.view,
        )  # fmt: skip
    except UserError as error:
        print(f"{error}\n{error.remedy}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if args.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        for d in result["documents"]:
            pages = f"{d['pages']} pages, {d['pages_ocr']} by OCR"
            note = f"  ({'; '.join(d['warnings'][:2])})" if d["warnings"] else ""
            print(f"{d['status']:12}{Path(d['source']).name}: {pages}, {d['seconds']:.1f} s{note}")
    return exit_code(result)


if __name__ == "__main__":
    sys.exit(main())
