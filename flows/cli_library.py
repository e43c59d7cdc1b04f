"""Commands that use one library directly: pdf2txt, export, dataset, chat."""

from __future__ import annotations

import json
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
    resolve_store,
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
    n: Annotated[int, typer.Option("-n", min=1, help="How many rows.")] = 20,
    seed: Annotated[int, typer.Option(help="Which rows.")] = 0,
    task: Annotated[str | None, typer.Option(help="Only rows of this task.")] = None,
    out_: Annotated[Path, typer.Option("--out", metavar="FILE", help="The HTML page.")] = Path("dataset-view.html"),
    pdfs: Annotated[
        list[Path] | None, typer.Option("--pdfs", help="Where the documents are now, if not where they were.")
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="In the terminal, without page images.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Sampled rows beside the page with their evidence drawn on it, as one HTML file."""
    with guarded(as_json):
        from datasets_build.view import count, format_row, rows
        from flows.display import err, out

        sampled = rows(dataset, n, seed, task)
        if as_json:
            print_json({"rows": sampled})
            return
        if text:
            for row in sampled:
                out.rule(style="dim")
                out.print(format_row(row), markup=False, highlight=False)
            return
        from datasets_build.view_html import write_view
        from flows.takedown import document_files

        ids = {place["doc_id"] for row in sampled for place in row["evidence"] or []}
        documents = document_files(_store_of(dataset), dataset, ids, pdfs or ())
        title = f"{dataset.resolve().name[:12]}: sampled rows"
        write_view(out_, title, sampled, documents, count(dataset))
        for problem in sorted({d.problem for d in documents.values() if d.problem}):
            err.print(problem, markup=False, soft_wrap=True)
        out.print(f"{len(sampled)} rows: {out_}", markup=False, soft_wrap=True)


@dataset_app.command("diff")
def dataset_diff(
    first: Annotated[Path, typer.Argument(metavar="DIR")],
    second: Annotated[Path, typer.Argument(metavar="DIR")],
    as_json: JsonOption = False,
) -> None:
    """What differs between two datasets: rows by task, settings, documents."""
    with guarded(as_json):
        from datasets_build.view import diff
        from flows.display import new_table, out

        result = diff(first, second)
        if as_json:
            print_json(result)
            return
        table = new_table("rows")
        for column, justify in (("task", "left"), ("only in first", "right"), ("only in second", "right"),
                                ("in both", "right")):  # fmt: skip
            table.add_column(column, justify=justify)  # type: ignore[arg-type]
        for name, counts in result["tasks"].items():
            table.add_row(name, *(str(counts[key]) for key in ("only_a", "only_b", "common")))
        table.add_section()
        table.add_row("all", str(len(result["only_a"])), str(len(result["only_b"])), str(result["common"]))
        out.print(table)
        if result["settings"]:
            table = new_table("settings")
            for column in ("", "first", "second"):
                table.add_column(column, overflow="fold")
            for item in result["settings"]:
                table.add_row(item["key"], json.dumps(item["a"]), json.dumps(item["b"]))
            out.print(table)
        documents = result["documents"]
        for key, what in (("only_a", "only in the first"), ("only_b", "only in the second")):
            if documents[key]:
                out.print(f"documents {what}: {_brief(documents[key])}", markup=False)
        if documents["moved"]:
            out.print(f"documents in another split: {_brief([d['doc_id'] for d in documents['moved']])}", markup=False)
        if not (result["only_a"] or result["only_b"]):
            changed = ", ".join(f"{name} of {n}" for name, n in result["changed"].items())
            out.print(f"the same questions and answers, but not the {changed}" if changed else "the rows are the same")


@dataset_app.command("drop")
def dataset_drop(
    doc: Annotated[
        list[str] | None,
        typer.Option("--doc", metavar="ID", help="doc_id, sha256 or file name of a document; repeatable."),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take the document in again.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it only show.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a document down: leave it out of every later run, and say which datasets and models have seen it.

    Without --doc: list what was taken down.
    """
    with guarded(as_json):
        from flows.display import out
        from flows.errors import UsageError
        from flows.store import Store
        from flows.takedown import excluded, find, rebuild_commands, traces, write_excluded

        where = Store(resolve_store(None, store))
        if not where.root.exists():
            raise UsageError(f"store {where.root} does not exist", "use --store with the directory of the runs' store")
        if undo and not doc:
            raise UsageError(
                "--undo needs --doc", "name the document; `longfolio dataset drop` lists what was taken down"
            )
        if not doc:
            listed = excluded(where.root)
            if as_json:
                print_json({"excluded": [{"sha256": sha, **entry} for sha, entry in sorted(listed.items())]})
                return
            for sha, entry in sorted(listed.items()):
                out.print(
                    f"{sha[:16]}  since {entry.get('since', '?')}  {', '.join(entry.get('names', []))}", markup=False
                )
            if not listed:
                out.print("no document was taken down")
            return
        documents = find(where, doc)
        listed = excluded(where.root)
        found = traces(where, documents)
        commands = rebuild_commands(where, found)
        if yes:
            write_excluded(where, documents, undo=undo)
        if as_json:
            print_json(
                {
                    "documents": [
                        {
                            "doc_id": d.doc_id,
                            "sha256": d.sha256,
                            "names": list(d.names),
                            "was_excluded": d.sha256 in listed,
                        }
                        for d in documents
                    ],
                    "undo": undo,
                    "applied": yes,
                    **found,
                    "rebuild": commands,
                }
            )
            return
        for d in documents:
            state = " (was taken down already)" if d.sha256 in listed and not undo else ""
            state = " (was not taken down)" if d.sha256 not in listed and undo else state
            out.print(f"document {d.doc_id}  {', '.join(d.names)}{state}", markup=False, soft_wrap=True)
        _print_traces(found)
        done, command = ("taken in again" if undo else "taken down"), " --undo" if undo else ""
        names = " ".join(f"--doc {d.doc_id}" for d in documents)
        if yes:
            later = "uses it" if undo else "leaves it out"
            listing = f"{where.root}/excluded.json"
            out.print(f"\n{done}: every later run {later} (list: {listing})", markup=False, soft_wrap=True)
        else:
            again = f"longfolio dataset drop {names}{command} --yes --store {where.root}"
            out.print(f"\nNothing was changed. To do it:\n  {again}", markup=False, soft_wrap=True)
        if commands:
            lines = "\n".join(f"  {c}" for c in commands)
            out.print(f"{'Then' if not yes else 'Now'} make what is above anew:\n{lines}", markup=False, soft_wrap=True)
        if yes and not undo:
            out.print(
                "What stands above stays in the store until `longfolio gc --keep N --delete`; copies elsewhere are not "
                f"known here. To undo:\n  longfolio dataset drop {names} --undo --yes --store {where.root}",
                markup=False, soft_wrap=True,
            )  # fmt: skip


def _print_traces(found: dict[str, list[dict[str, Any]]]) -> None:
    from flows.display import out

    def line(item: dict[str, Any], what: str) -> None:
        out.print(
            f"  {item['stage']} {item['digest'][:12]}  run {item['run_id']}  {what}", markup=False, soft_wrap=True
        )

    out.print("datasets that contain it:" if found["datasets"] else "no dataset of the store contains it")
    for item in found["datasets"]:
        line(item, ", ".join(f"{n} rows in {split}" for split, n in item["rows"].items()) or "its text, no rows")
    out.print("models that saw it:" if found["models"] else "no model of the store saw it in training")
    for item in found["models"]:
        n = item["rows_trained"]
        line(item, "trained on its text" if n is None else f"trained on {n} rows of it")
    if found["evaluations"]:
        out.print("evaluations that used it, or such a model:")
        for item in found["evaluations"]:
            line(item, f"{item['rows']} rows held out" if item["rows"] else "of such a model")


def _store_of(dataset: Path) -> Any:
    """The store that a dataset directory lies in, or None."""
    from flows.store import Store, read_manifest

    folder = dataset.resolve()
    return Store(folder.parents[2]) if read_manifest(folder) is not None and len(folder.parents) > 2 else None


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
