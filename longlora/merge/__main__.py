"""Merge without the pipeline: ``python -m longlora.merge ADAPTER --base MODEL --out WORK``.

    --context-length N   of an adapter as LongLoRA or LongQLoRA released it (its files do not say)
    --set key=value      one field of `MergeSettings` (YAML value; repeatable)

The model is in WORK/output/model. The same command again goes on where an earlier one was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from longlora.errors import UserError
from longlora.merge.settings import MergeSettings


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 the merged model is not base + adapter, 2 wrong usage or input."""
    parser = argparse.ArgumentParser(prog="python -m longlora.merge", description="Merge an adapter into its base.")
    parser.add_argument(
        "adapter",
        type=Path,
        help="adapter folder: ours, PEFT's, or LongLoRA's released layout; or what full fine-tuning left",
    )
    parser.add_argument("--base", required=True, help="model directory, embedded name or hub id")
    parser.add_argument("--out", type=Path, required=True, help="work folder")
    parser.add_argument("--context-length", type=int, help="tokens; required for released layouts")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, e.g. dtype=float32"
    )
    options = parser.parse_args(arguments)

    from longlora.merge.alone import merge_alone
    from longlora.merge.verify import VerificationError

    try:
        settings = MergeSettings(**_fields(options.set))
        metrics = merge_alone(
            settings, options.adapter, options.base, options.out, _print_event, context_length=options.context_length
        )
    except (UserError, VerificationError, ValidationError) as error:
        print(f"{error}\n{getattr(error, 'remedy', '')}".strip(), file=sys.stderr)
        return 1 if isinstance(error, VerificationError) else 2
    print(json.dumps({"model": str(options.out.absolute() / "output" / "model"), **metrics}, indent=2))
    return 0


def _fields(pairs: list[str]) -> dict[str, Any]:
    fields = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair}: not KEY=VALUE", "for example --set dtype=float32")
        fields[key] = yaml.safe_load(value)
    return fields


def _print_event(event: str, **fields: Any) -> None:
    if event == "warning":
        print(fields["message"], file=sys.stderr)
    elif event == "progress":
        end = "\n" if fields["done"] == fields["total"] else "\r"
        print(f"{fields['done']}/{fields['total']} {fields['unit']}", end=end, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
