"""The converter's command, defined once: ``longfolio pdf2txt`` and ``python -m pdf2txt``.

Imports nothing heavy: ``--help`` of either shall answer at once.
"""

from __future__ import annotations

import errno
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pdf2txt.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

_AGAIN = "; the same command goes on where it was"
_MACHINE = {  # what keeps a conversion from writing, and what to do
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "the quota is used up, free some space",
    errno.EROFS: "this file system is read-only, use another --out folder",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
}
_LINE_SECONDS = 10.0  # between lines of progress where there is no terminal
_STYLES = {"ok": "green", "partial": "yellow"}  # all others are red


def convert(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="PDF, .txt and .md files, or folders searched recursively.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Where <stem>.txt and <stem>.json go, when all inputs are converted."
        ),
    ],
    page_breaks: Annotated[bool, typer.Option("--page-breaks", help="Separate pages by a form feed.")] = False,
    form: Annotated[
        Literal["plain", "markdown"] | None,
        typer.Option("--format", help="Form of the text (default: plain); markdown writes <stem>.md."),
    ] = None,
    jsonl: Annotated[
        Path | None,
        typer.Option("--jsonl", metavar="FILE", help="All documents as JSON lines too: .jsonl, .jsonl.gz, .jsonl.zst."),
    ] = None,
    view: Annotated[
        bool, typer.Option("--view", help="Write <stem>.html too: each page's image with its blocks, and their text.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=0, help="Processes; 0 (the default) is one per core.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of pdf2txt, e.g. layout=rapid; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout; all else on stderr.")] = False,
) -> None:
    """Convert PDFs to text files, without a store.

    The files appear in --out when all inputs are converted; an interrupted call, given again, goes on where it was.

    Exits with 0 if at least one document was converted, else with 1.
    """
    from rich.console import Console

    err = Console(stderr=True, highlight=False)
    try:
        from pdf2txt.cli import convert_folder, exit_code
        from pdf2txt.overrides import with_overrides

        chosen = with_overrides(overrides or (), **({"format": form} if form else {}))
        with _progress(err) as report:
            result = convert_folder(
                paths, out, page_breaks=page_breaks, workers=workers, report=report,
                settings=chosen, jsonl=jsonl, view=view,
            )  # fmt: skip
    except UserError as error:
        _explain(err, error)
        raise typer.Exit(2) from None
    except OSError as error:
        if error.errno not in _MACHINE:
            raise  # a defect of ours, with its traceback
        _explain(err, UserError(f"{error.strerror}: {error.filename or out}", _MACHINE[error.errno] + _AGAIN))
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        err.print(f"interrupted{_AGAIN}", markup=False)
        raise typer.Exit(130) from None
    if as_json:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
    else:
        _summary(result)
    raise typer.Exit(exit_code(result))


@contextmanager
def _progress(err: Console) -> Iterator[Callable[..., None]]:
    """A ``report`` callable: a bar on a terminal, on a pipe a line now and then."""
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    bar = Progress(
        SpinnerColumn(), BarColumn(bar_width=20), TextColumn("{task.fields[count]}"), TimeElapsedColumn(),
        console=err, transient=True, disable=not err.is_terminal,
    )  # fmt: skip
    task = bar.add_task("", total=None, count="reading the files")
    last_line = time.monotonic()

    def report(event: str, **fields: Any) -> None:
        nonlocal last_line
        if event == "progress":
            count = f"{fields['done']:,}/{fields['total']:,} documents, pages: {fields['pages']:,}"
            bar.update(task, completed=fields["done"], total=fields["total"], count=count)
            if bar.disable and time.monotonic() - last_line > _LINE_SECONDS:
                last_line = time.monotonic()
                err.print(f"  {count}")
        elif event in ("warning", "transient"):
            err.print(f"[yellow]![/] {escape(str(fields['message']))}", soft_wrap=True)

    with bar:
        yield report


def _summary(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape

    stdout = Console(highlight=False)
    for d in result["documents"]:
        style = _STYLES.get(d["status"], "red")
        counts = f"{d['pages']:>5} page{'s' if d['pages'] != 1 else ' '}  {d['pages_ocr']:>4} by OCR"
        note = f"\n{'':<12}{d['warnings'][0]}" if d["warnings"] else ""
        line = escape(f"{counts}  {d['source']}{note}")
        stdout.print(f"[{style}]{d['status']:<12}[/]{line}", soft_wrap=True)


def _explain(err: Console, error: UserError) -> None:
    """What happened and what to do, in the form that every command of longfolio has."""
    from rich.markup import escape

    err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
    err.print(f"[bold]do:[/]    {escape(error.remedy)}", soft_wrap=True)
