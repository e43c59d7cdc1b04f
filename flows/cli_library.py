"""Commands that use one library directly: pdf2txt, export, dataset, chat."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli_common import (
    BudgetOption,
    ConfigArgument,
    JsonOption,
    PdfsOption,
    SetOption,
    StoreOption,
    guarded,
    print_json,
)
from pdf2txt.command import convert

PANEL = "One step alone"


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
    budget: BudgetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build the dataset of a run file: `run --until datasets_build`."""
    from flows.cli import run

    run(config, pdfs=pdfs, store=store, set_=set_, until="datasets_build", budget=budget, as_json=as_json)


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
    app.command("pdf2txt", rich_help_panel=PANEL)(convert)
    app.command(rich_help_panel=PANEL)(export)
    app.add_typer(dataset_app, name="dataset", rich_help_panel=PANEL)
    app.command(rich_help_panel=PANEL)(chat)
