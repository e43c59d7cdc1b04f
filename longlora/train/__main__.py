"""Train without the pipeline: ``python -m longlora.train [--dataset DIR] --model DIR|NAME --out WORK``.

    --settings FILE   YAML of `TrainSettings`        --set key=value   one field (YAML value; repeatable)
    --pdf2txt DIR     folder with documents.parquet, for data: text

The adapter is in WORK/output/adapter. The same command again continues an interrupted run; SIGTERM (and the end of
a batch job, which sends it) writes a checkpoint first. With several GPUs, or train.devices, it starts torchrun;
started by torchrun, it is one of the processes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from longlora.errors import UserError
from longlora.models import EMBEDDED, ModelSettings, prepare
from longlora.overrides import read_settings
from longlora.train import distributed, launch
from longlora.train.settings import TrainSettings
from longlora.train.stopping import EXIT_STOPPED, STOP, Stopped, die_with_parent

SCHEMA = "docs/settings.md lists every key (below train) with its meaning"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 failed, 2 wrong usage, 143 stopped by SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m longlora.train", description="Train an adapter.")
    parser.add_argument("--dataset", type=Path, help="output of datasets_build; not for texts")
    parser.add_argument("--pdf2txt", type=Path, help="folder with documents.parquet (data: text)")
    parser.add_argument("--model", required=True, help="model directory, embedded name or hub id")
    parser.add_argument("--out", type=Path, required=True, help="work folder")
    parser.add_argument("--settings", type=Path, help="YAML file of train settings")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, e.g. max_steps=40"
    )
    options = parser.parse_args(arguments)
    try:
        settings = read_settings(TrainSettings, options.settings, options.set, "max_steps=40", SCHEMA)
        _make_folder(options.out)
        inputs = {"model": _model(options.model, options.out)} | _data(settings, options.dataset, options.pdf2txt)
        given = sys.argv[1:] if arguments is None else arguments
        torchrun = launch.command(settings, ["-P", "-m", "longlora.train", *given])
    except UserError as error:
        _say(error)
        return 2

    if torchrun:
        launch.become(torchrun, settings.threads)
    if launch.LAUNCHER in os.environ and distributed.launched():
        die_with_parent(int(os.environ[launch.LAUNCHER]))
    STOP.listen()

    from longlora.train.stage import run

    try:
        metrics = run(settings, inputs, options.out, _print_event)
    except distributed.FailedOnMain:
        return 1  # which says it
    except UserError as error:
        if distributed.first_to_say(str(error)):
            _say(error, f"rank {distributed.rank()}: " if distributed.world() > 1 else "")
        return 1
    except Stopped:
        if distributed.is_main():
            print("stopped after a checkpoint; the same command continues", file=sys.stderr)
        return EXIT_STOPPED
    if distributed.is_main():
        print(json.dumps(metrics, indent=2))
    return 0


def _say(error: UserError, who: str = "") -> None:
    print(f"{who}{error}\n{error.remedy}", file=sys.stderr, flush=True)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be made: {error.strerror}", "name a folder elsewhere") from error


def _model(name: str, out: Path) -> Path:
    path = Path(name)
    if name not in EMBEDDED and path.exists():
        return prepare(ModelSettings(path=path), out / "models")  # a look at its files
    return prepare(ModelSettings(name=name), out / "models")


def _data(settings: TrainSettings, dataset: Path | None, pdf2txt: Path | None) -> dict[str, Path]:
    """The inputs that ``settings.data`` asks for, by name.

    Raises:
        UserError: one is not given, or not there.
    """
    given = {"datasets_build": ("--dataset", dataset), "pdf2txt": ("--pdf2txt", pdf2txt)}
    needed = ["datasets_build"] if settings.data == "sft" else [] if settings.texts else ["pdf2txt", "datasets_build"]
    remedies = {
        "datasets_build": "give the output of datasets_build"
        + ("" if settings.data == "sft" else ": its splits.json says which documents are for training"),
        "pdf2txt": "give the folder that holds documents.parquet, or set texts",
    }
    for name in needed:
        if given[name][1] is None:
            raise UserError(f"data: {settings.data} needs {given[name][0]}", remedies[name])
    for name, (option, path) in given.items():
        if path is not None and not path.is_dir():
            raise UserError(f"{option} {path} is no folder", remedies[name])
    return {name: path for name, (_, path) in given.items() if path is not None}


def _print_event(event: str, **fields: Any) -> None:
    if event == "progress":
        numbers = "  ".join(f"{k} {v:.4g}" for k, v in fields.items() if isinstance(v, int | float) and k != "done")
        print(f"{fields['unit']} {fields['done']}  {numbers}", file=sys.stderr)
    else:
        print(*([] if event == "note" else [event]), *fields.values(), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
