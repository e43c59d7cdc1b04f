"""The command ``longfolio merge``: an adapter and its base become an ordinary model, without a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_common import JsonOption, SetOption, explain, guarded, print_json


def merge(
    adapter: Annotated[
        Path,
        typer.Argument(
            help="Adapter folder: of a training, of PEFT, or as LongLoRA or LongQLoRA released it; or the output of "
            "full fine-tuning.",
            show_default=False,
        ),
    ],
    base: Annotated[
        str, typer.Option("--base", metavar="MODEL", help="Model directory, embedded name or hub id of the base.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Work folder; the model is in DIR/output/model.")],
    context_length: Annotated[
        int | None,
        typer.Option(
            "--context-length", metavar="N", min=1, help="Tokens; required for a released adapter, which does not say."
        ),
    ] = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Merge an adapter into its base model, and check the result."""
    with guarded(as_json):
        from flows.config import parse, with_overrides
        from flows.display import TerminalWatcher, err
        from flows.display import out as stdout
        from flows.errors import EXIT_FAILED, EXIT_INTERRUPTED
        from longlora.merge.alone import merge_alone
        from longlora.merge.verify import VerificationError

        keys = [key if key.startswith("merge.") else f"merge.{key}" for key in set_ or ()]
        settings = with_overrides(parse({"model": {"name": "smollm2-135m-q4"}}, "the defaults"), keys).merge
        again = _command(adapter, base, out, context_length, set_ or [])
        try:
            with TerminalWatcher() as watcher:
                metrics = merge_alone(settings, adapter, base, out, watcher.bar("merge"), context_length=context_length)
        except VerificationError as error:
            explain(error, where=f"merge in {out}", resume=again)
            raise typer.Exit(EXIT_FAILED) from None
        except KeyboardInterrupt:
            err.print(f"[yellow]interrupted[/]; what is finished stays. Continue with:  {again}", soft_wrap=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        model = out.absolute() / "output" / "model"
        if as_json:
            print_json({"model": str(model), "verification": str(model.with_name("verification.json")), **metrics})
            return
        stdout.print(f"context {metrics['context_length']:,}, largest logit difference "
                     f"{metrics['logits_max_difference']:.1e}")  # fmt: skip
        stdout.print(f"model    {model}", soft_wrap=True, markup=False)
        stdout.print(f"use it   longfolio chat {model}", soft_wrap=True, markup=False)


def _command(adapter: Path, base: str, out: Path, context_length: int | None, settings: list[str]) -> str:
    import shlex

    words = ["longfolio", "merge", str(adapter), "--base", base, "--out", str(out)]
    words += ["--context-length", str(context_length)] if context_length else []
    return shlex.join([*words, *(word for item in settings for word in ("--set", item))])


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="One step alone")(merge)
