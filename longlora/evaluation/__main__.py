"""``python -m longlora.evaluation --model DIR [--against DIR]``: evaluate without a store or a run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from longlora.errors import UserError
from longlora.evaluation.data import Sources
from longlora.evaluation.engines import EndpointEngine, EndpointSettings
from longlora.evaluation.settings import EvaluateSettings
from longlora.evaluation.stage import evaluate


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for a mistake in what was given."""
    p = argparse.ArgumentParser(
        prog="python -m longlora.evaluation", description="Evaluate one model, or two on the same samples."
    )
    p.add_argument("--model", type=Path, required=True, help="model directory")
    p.add_argument("--against", type=Path, help="a second model directory: the baseline")
    p.add_argument("--dataset", type=Path, help="a datasets_build output: validation rows for `answers`")
    p.add_argument(
        "--documents", type=Path, help="documents.parquet, for `perplexity` on the dataset's validation split"
    )
    p.add_argument("--text", type=Path, action="append", default=[], help="text file or folder, for `text_perplexity`")
    p.add_argument("--endpoint", metavar="URL", help="ask this OpenAI-compatible endpoint; --model is its tokenizer's")
    p.add_argument("--endpoint-model", metavar="NAME", default="model", help="the model's name there")
    p.add_argument("--tasks", nargs="+", help="only these tasks")
    p.add_argument("--limit", type=int, help="at most so many samples per task and subset, drawn by seed")
    p.add_argument("--settings", type=Path, help="JSON file with the keys of `evaluate` in a run file")
    p.add_argument("--out", type=Path, default=Path("evaluation"), help="work and output directory")
    p.add_argument("--json", action="store_true", help="print the metrics as one JSON object")
    a = p.parse_args(arguments)
    try:
        fields: dict[str, Any] = json.loads(a.settings.read_text()) if a.settings else {}
        fields |= {"tasks": a.tasks} if a.tasks else {}
        fields |= {"limit": a.limit} if a.limit else {}
        settings = EvaluateSettings(**(fields | ({"texts": a.text} if a.text else {})))
        models = {"base": a.against, "merged": a.model} if a.against else {"model": a.model}
        sources = Sources.of(a.dataset, a.documents, settings.texts)
        at = EndpointSettings(base_url=a.endpoint, model=a.endpoint_model) if a.endpoint else None
        engine = (lambda folder, device: EndpointEngine(at)) if at else None
        metrics = evaluate(models, sources, settings, a.out, _show, a.out / "units", engine)
    except (UserError, ValidationError, OSError, ValueError) as error:
        print(f"{error}\n{getattr(error, 'remedy', '')}".rstrip(), file=sys.stderr)
        return 2
    print(json.dumps(metrics) if a.json else (a.out / "output" / "table.md").read_text())
    return 0


def _show(event: str, **fields: Any) -> None:
    if event == "warning":
        print(fields["message"], file=sys.stderr)
    elif event == "progress":
        end = "\n" if fields["done"] == fields["total"] else "\r"
        print(
            f"{fields['done']}/{fields['total']} samples  {fields['model']} {fields['task']:20}",
            end=end,
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(main())
