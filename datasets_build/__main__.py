"""``python -m datasets_build``: the library alone, without store and flows."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from datasets_build.settings import DatasetSettings
from longlora.overrides import read_settings
from pdf2txt.errors import UserError

SCHEMA = "docs/settings.md lists every key (below dataset) with its meaning"
EXIT_FAILED, EXIT_USAGE = 1, 2  # as longfolio's: 2 is told before anything is built


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
    out = args.out.resolve()  # "." has no name
    code = EXIT_USAGE
    try:
        settings = read_settings(DatasetSettings, args.settings, args.set, "seed=5", SCHEMA)
        work = _check_out(out)
        inputs = {"pdf2txt": _documents(args.documents), "model": args.model, "units": work / "units"}
        _check_inputs(settings, inputs)
        try:
            work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out: {work} cannot be made ({error.strerror})", "name a folder elsewhere") from error
        if settings.teacher is not None and settings.teacher.local is not None:
            from longlora.models import prepare

            inputs["teacher"] = prepare(settings.teacher.local, work / "models")
        code = EXIT_FAILED
        from datasets_build.stage import run

        metrics = run(settings, inputs, work, _report)
    except Exception as error:
        if not hasattr(error, "remedy"):
            raise
        print(f"error: {error}\n  what to do: {error.remedy}", file=sys.stderr)
        return code
    shutil.rmtree(out, ignore_errors=True)
    (work / "output").rename(out)
    print(json.dumps(metrics, indent=2))
    return 0


def _documents(path: Path) -> Path:
    """The folder of ``--documents``.

    Raises:
        UserError: there is no ``documents.parquet``.
    """
    file = path / "documents.parquet" if path.is_dir() else path
    if file.name != "documents.parquet" or not file.is_file():
        raise UserError(
            f"--documents {path} " + ("has no documents.parquet" if path.exists() else "does not exist"),
            "name the output of a pdf2txt stage (`longfolio run CONFIG --until pdf2txt` makes one)",
        )
    return file.parent


def _check_inputs(settings: DatasetSettings, inputs: dict[str, Path]) -> None:
    """Look at everything that is read, before anything is built.

    Raises:
        UserError, longlora.errors.UserError: one is missing or cannot be read.
    """
    from datasets_build.corpus import Corpus
    from datasets_build.gates.decontaminate import evaluation_files, texts
    from datasets_build.imports import pairs, source
    from datasets_build.measure import Measure
    from longlora.templates import choose_template

    len(Corpus(inputs["pdf2txt"] / "documents.parquet"))
    for i, one in enumerate(settings.imports):
        next(pairs(source(one), one, str(i)))
    for _, file in evaluation_files(settings.decontaminate):
        next(texts(file), None)
    Measure(inputs["model"], choose_template(settings.template))


def _check_out(out: Path) -> Path:
    """The folder for finished pieces; refuses to replace anything but an earlier dataset or an empty folder.

    Raises:
        UserError: ``out`` holds something else.
    """
    free = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if not free and not ((out / "stats.json").is_file() and (out / "data").is_dir()):
        raise UserError(
            f"--out {out} exists and is no dataset: building would delete it",
            "name a new folder, an empty one, or an earlier dataset, which is replaced",
        )
    return out.with_name(out.name + ".work")


def _report(event: str, **fields: Any) -> None:
    if event == "progress" and sys.stderr.isatty():
        print(f"\r{fields['done']}/{fields['total']} {fields['unit']}", end="", file=sys.stderr, flush=True)
    elif event in ("warning", "transient"):
        print(f"{event}: {fields['message']}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
