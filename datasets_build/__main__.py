"""``python -m datasets_build``: the library alone, without store and flows."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from datasets_build.settings import DatasetSettings
from pdf2txt.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Build a dataset directory; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m datasets_build", description="Documents to instruction rows.")
    parser.add_argument("--documents", type=Path, required=True, help="documents.parquet, or the folder with it")
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face directory (for its tokenizer)")
    parser.add_argument("--out", type=Path, required=True, help="the dataset; finished pieces stay in OUT.work")
    parser.add_argument("--settings", type=Path, help="YAML file with the keys of the run file's dataset section")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, e.g. max_tokens=4096"
    )
    args = parser.parse_args(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        settings = _settings(args.settings, args.set)
    except (ValidationError, ValueError, OSError) as error:
        print(f"error: settings: {error}", file=sys.stderr)
        return 2
    folder = args.documents if args.documents.is_dir() else args.documents.parent
    if not (folder / "documents.parquet").is_file():
        print(f"error: {folder} has no documents.parquet; make one with python -m pdf2txt", file=sys.stderr)
        return 2

    from datasets_build.stage import run
    from longlora.models import prepare

    out = args.out.resolve()  # "." has no name
    try:
        _check_out(out)
        work = out.with_name(out.name + ".work")
        work.mkdir(parents=True, exist_ok=True)
        inputs = {"pdf2txt": folder, "model": args.model, "units": work / "units"}
        if settings.teacher is not None and settings.teacher.local is not None:
            inputs["teacher"] = prepare(settings.teacher.local, work / "models")
        metrics = run(settings, inputs, work, _report)
    except Exception as error:
        if not hasattr(error, "remedy"):
            raise
        print(f"error: {error}\n  what to do: {error.remedy}", file=sys.stderr)
        return 1
    shutil.rmtree(out, ignore_errors=True)
    (work / "output").rename(out)
    print(json.dumps(metrics, indent=2))
    return 0


def _check_out(out: Path) -> None:
    """Refuse to replace anything but an earlier dataset or an empty folder.

    Raises:
        UserError: ``out`` holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not ((out / "stats.json").is_file() and (out / "data").is_dir()):
        raise UserError(
            f"--out {out} exists and is no dataset: building would delete it",
            "name a new folder, an empty one, or an earlier dataset, which is replaced",
        )


def _settings(file: Path | None, pairs: list[str]) -> DatasetSettings:
    import yaml

    values: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8")) or {} if file else {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise ValueError(f"--set {pair}: write KEY=VALUE")
        *parents, name = key.split(".")
        at = values
        for parent in parents:
            at = at.setdefault(parent, {})
        at[name] = yaml.safe_load(value)
    return DatasetSettings.model_validate(values)


def _report(event: str, **fields: Any) -> None:
    if event == "progress" and sys.stderr.isatty():
        print(f"\r{fields['done']}/{fields['total']} {fields['unit']}", end="", file=sys.stderr, flush=True)
    elif event in ("warning", "transient"):
        print(f"{event}: {fields['message']}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
