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

import yaml
from pydantic import ValidationError

from longlora.errors import UserError
from longlora.models import EMBEDDED, ModelSettings, prepare
from longlora.train import distributed, launch
from longlora.train.settings import TrainSettings
from longlora.train.stopping import EXIT_STOPPED, STOP, Stopped, die_with_parent


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
        settings = TrainSettings(**_tree(options.settings, options.set))
        inputs = {"model": _model(options.model, options.out)}
        if options.dataset:
            inputs["datasets_build"] = options.dataset
        elif settings.data == "sft":
            raise UserError("data: sft needs --dataset", "give the output of datasets_build")
        if options.pdf2txt:
            inputs["pdf2txt"] = options.pdf2txt
        elif settings.data == "text" and not settings.texts:
            raise UserError("data: text needs texts or --pdf2txt", "give the folder that holds documents.parquet")
        given = sys.argv[1:] if arguments is None else arguments
        torchrun = launch.command(settings, ["-P", "-m", "longlora.train", *given])
    except (UserError, ValidationError) as error:
        print(f"{error}\n{getattr(error, 'remedy', '')}".strip(), file=sys.stderr)
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
        if distributed.is_main():
            print(f"{error}\n{error.remedy}", file=sys.stderr)
        return 1
    except Stopped:
        if distributed.is_main():
            print("stopped after a checkpoint; the same command continues", file=sys.stderr)
        return EXIT_STOPPED
    if distributed.is_main():
        print(json.dumps(metrics, indent=2))
    return 0


def _tree(file: Path | None, pairs: list[str]) -> dict[str, Any]:
    tree: dict[str, Any] = (yaml.safe_load(file.read_text()) or {}) if file else {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair}: not KEY=VALUE", "for example --set max_steps=40")
        *parents, leaf = key.split(".")
        at = tree
        for parent in parents:
            at = at.setdefault(parent, {})
        at[leaf] = yaml.safe_load(value)
    return tree


def _model(name: str, out: Path) -> Path:
    path = Path(name)
    if name not in EMBEDDED and path.is_dir():
        return path
    return prepare(ModelSettings.model_validate(name), out / "models")


def _print_event(event: str, **fields: Any) -> None:
    if event == "progress":
        numbers = "  ".join(f"{k} {v:.4g}" for k, v in fields.items() if isinstance(v, int | float) and k != "done")
        print(f"{fields['unit']} {fields['done']}  {numbers}", file=sys.stderr)
    else:
        print(event, *fields.values(), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
