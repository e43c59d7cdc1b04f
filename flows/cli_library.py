"""Commands that use one library directly: pdf2txt, export, dataset, chat."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.cli_common import (
    ConfigArgument,
    JsonOption,
    PdfsOption,
    SetOption,
    StoreOption,
    guarded,
    print_json,
)

PANEL = "One step alone"


def pdf2txt(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="PDF, .txt and .md files, or folders searched recursively.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where <stem>.txt and <stem>.json go.")],
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
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes; 0 is one per core.")] = 0,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of pdf2txt, e.g. layout=rapid; repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert PDFs to text files, without a store."""
    with guarded(as_json):
        from rich.markup import escape

        from flows.config import parse, with_overrides
        from flows.display import ACTION_STYLE, TerminalWatcher
        from flows.display import out as stdout
        from pdf2txt.cli import convert_folder

        keys = [key if key.startswith("pdf2txt.") else f"pdf2txt.{key}" for key in overrides or ()]
        nothing = parse({"model": {"name": "smollm2-135m-q4"}}, "the defaults")  # a run has a model; this has none
        chosen = with_overrides(nothing, [*keys, *([f"pdf2txt.format={form}"] if form else [])]).pdf2txt
        with TerminalWatcher() as watcher:
            result = convert_folder(
                paths, out, page_breaks=page_breaks, workers=workers or chosen.workers, report=watcher.bar("pdf2txt"),
                settings=chosen, jsonl=jsonl, view=view,
            )  # fmt: skip
        if as_json:
            print_json(result)
        else:
            for d in result["documents"]:
                style = "green" if d["status"] == "ok" else ACTION_STYLE["run"]
                counts = f"{d['pages']:>5} pages, {d['pages_ocr']} OCR"
                note = f"  {d['warnings'][0]}" if d["warnings"] else ""
                line = escape(f"{counts}  {d['source']}{note}")
                stdout.print(f"[{style}]{d['status']:<12}[/] {line}", soft_wrap=True)
        if not any(d["status"] in ("ok", "partial") for d in result["documents"]):
            raise typer.Exit(1)


def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="A finished pdf2txt stage, its documents.parquet, or a pdf2txt --out folder."
        ),
    ],
    jsonl: Annotated[
        Path, typer.Option("--jsonl", metavar="FILE", help="Where the lines go: .jsonl, .jsonl.gz, .jsonl.zst.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Write converted documents as Dolma-style JSON lines."""
    with guarded(as_json):
        from flows.display import out as stdout
        from pdf2txt.export import export as write

        result = write(source, jsonl)
        if as_json:
            print_json({**result, "jsonl": str(jsonl.absolute())})
        else:
            left = f" ({result['left_out']} without text left out)" if result["left_out"] else ""
            stdout.print(f"{result['documents']} documents{left}: {jsonl}", markup=False, soft_wrap=True)


dataset_app = typer.Typer(help="Build, look at and compare datasets.", no_args_is_help=True)


@dataset_app.command("build")
def dataset_build(
    config: ConfigArgument,
    pdfs: PdfsOption = None,
    store: StoreOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build the dataset of a run file: `run --until datasets_build`."""
    from flows.cli import run

    run(config, pdfs=pdfs, store=store, set_=set_, until="datasets_build", as_json=as_json)


@dataset_app.command("view")
def dataset_view(
    dataset: Annotated[Path, typer.Argument(help="Directory of a built dataset.")],
    n: Annotated[int, typer.Option("-n", help="How many rows.")] = 5,
    seed: Annotated[int, typer.Option(help="Which rows.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Show sampled rows with their evidence."""
    with guarded(as_json):
        from datasets_build.view import rows
        from flows.display import out

        sampled = rows(dataset, n, seed)
        if as_json:
            print_json({"rows": sampled})
            return
        for row in sampled:
            out.rule(f"{row['task']}  {row['id']}  {row['n_tokens']} tokens")
            text = row["instruction"]
            out.print(text if len(text) < 1200 else f"{text[:500]}\n[…]\n{text[-600:]}", markup=False)
            out.print("→ " + row["output"], style="bold", markup=False)
            for place in row["evidence"] or []:
                out.print(f"  document {place['doc_id']}, page {place['page']}", style="dim")


@dataset_app.command("diff")
def dataset_diff(
    first: Annotated[Path, typer.Argument(metavar="DIR")],
    second: Annotated[Path, typer.Argument(metavar="DIR")],
    as_json: JsonOption = False,
) -> None:
    """Rows that only one of two datasets has, by task."""
    with guarded(as_json):
        from datasets_build.view import diff
        from flows.display import out

        result = diff(first, second)
        if as_json:
            print_json(result)
        else:
            for key, value in result.items():
                out.print(f"{key}: {_brief(value)}")


def chat(
    model: Annotated[Path, typer.Argument(help="Directory of a merged model.")],
    document: Annotated[Path | None, typer.Option("--document", help="A text file or PDF to ask about.")] = None,
    question: Annotated[str | None, typer.Option("--question", help="Ask this one question and end.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 256,
) -> None:
    """Ask a model questions, about a document if you give one; the answer streams."""
    with guarded():
        from flows.errors import UsageError
        from longlora.inference import answer
        from pdf2txt.cli import document_text

        if not (model / "config.json").is_file():
            raise UsageError(f"{model} is no model directory", "name the model directory that a run printed at its end")
        context = document_text(document) + "\n\n" if document is not None else ""
        while True:
            asked = question or typer.prompt("you", prompt_suffix=" > ")
            answer(
                model,
                context + asked,
                max_new_tokens=max_new_tokens,
                stream=lambda text: typer.echo(text, nl=False),
            )
            typer.echo()
            if question:
                return


def _brief(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)}" + (
            f" ({', '.join(map(str, value[:5]))}{', …' if len(value) > 5 else ''})" if value else ""
        )
    if isinstance(value, dict):
        return ", ".join(f"{k} {_brief(v)}" for k, v in value.items()) or "none"
    return str(value)


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL)(pdf2txt)
    app.command(rich_help_panel=PANEL)(export)
    app.add_typer(dataset_app, name="dataset", rich_help_panel=PANEL)
    app.command(rich_help_panel=PANEL)(chat)
