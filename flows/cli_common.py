"""Options that several commands share, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flows.config import RunConfig

ConfigArgument = Annotated[str, typer.Argument(metavar="CONFIG", help="A run file, or the name of a packaged recipe.")]
PdfsOption = Annotated[
    list[Path] | None, typer.Option("--pdfs", help="Folder or file instead of the run file's; repeatable.")
]
StoreOption = Annotated[Path | None, typer.Option("--store", help="Directory of the store (default ./store).")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, e.g. train.max_steps=40; repeatable."),
]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="AMOUNT",
        help="What the teacher may cost: an amount in the currency of its prices, or tokens (`500k tokens`).",
    ),
]
FromOption = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Reuse everything before STAGE.")]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Stop after STAGE.")]
RerunOption = Annotated[
    list[str] | None,
    typer.Option("--rerun", metavar="STAGE", help="Run STAGE and what follows again, whatever the store has."),
]
NoPrefectOption = Annotated[
    bool, typer.Option("--no-prefect", help="Run in this process alone, without a Prefect server.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; all else on stderr.")]


def resolve_store(config: RunConfig | None, option: Path | None = None) -> Path:
    """Where the store is: ``--store``, else ``flows.store``, else ./store. Absolute."""
    from flows.config import absolute
    from flows.errors import UsageError

    chosen = option or (config.flows.store if config is not None else None) or Path("store")
    path = absolute(chosen, Path.cwd())
    if path.exists() and not path.is_dir():
        raise UsageError(f"store {path} is a file", "use --store with a directory")
    return path


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


@contextmanager
def guarded(as_json: bool = False) -> Iterator[None]:
    """Errors that a user can mend become one message and exit code 2; a defect of ours keeps its traceback."""
    from flows.errors import EXIT_USAGE, remedy_of

    try:
        yield
    except (typer.Exit, KeyboardInterrupt):
        raise
    except Exception as error:
        if remedy_of(error) is None:
            raise
        explain(error)
        raise typer.Exit(EXIT_USAGE) from None


def explain(error: BaseException, *, where: str = "", resume: str = "") -> None:
    """Print what happened, where, what to do, and the command that resumes, on stderr."""
    import traceback

    from rich.markup import escape

    from flows.display import err
    from flows.errors import remedy_of

    remedy = remedy_of(error)
    if remedy is None:
        err.print(escape("".join(traceback.format_exception(error)).rstrip()), soft_wrap=True)
    message = str(error) if getattr(error, "remedy", None) or not str(error) else f"{type(error).__name__}: {error}"
    err.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    if where:
        err.print(f"[bold]where:[/] {escape(where)}", soft_wrap=True)
    if remedy:
        err.print(f"[bold]do:[/]    {escape(remedy)}", soft_wrap=True)
    if resume:
        err.print(f"[bold]then:[/]  {escape(resume)}", soft_wrap=True)
