"""Commands about evaluation: eval measures a model again, promote makes one the champion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_common import (
    JsonOption,
    NoPrefectOption,
    SetOption,
    StoreOption,
    explain,
    guarded,
    print_json,
    resolve_store,
)

if TYPE_CHECKING:
    from flows.champion import Champion
    from flows.runs import RunRecord
    from flows.store import Store


def evaluate(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="Run id, its beginning, latest, or a model directory.")
    ] = "latest",
    tasks: Annotated[
        str | None, typer.Option("--tasks", metavar="A,B", help="Only these tasks; the gate looks at these alone.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="At most N samples per task, drawn by seed.")
    ] = None,
    set_: SetOption = None,
    store: StoreOption = None,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="DIR", help="Of a model directory: a second one, the baseline.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option("--dataset", metavar="DIR", help="Of a model directory: a built dataset.")
    ] = None,
    documents: Annotated[
        Path | None, typer.Option("--documents", metavar="FILE", help="Of a model directory: documents.parquet.")
    ] = None,
    text: Annotated[
        list[Path] | None, typer.Option("--text", help="Of a model directory: text file or folder; repeatable.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Of a model directory: where the results go.")
    ] = Path("evaluation"),
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            metavar="URL",
            help="Ask this OpenAI-compatible endpoint; the directory's tokenizer counts the lengths.",
        ),
    ] = None,
    endpoint_model: Annotated[
        str, typer.Option("--endpoint-model", metavar="NAME", help="The model's name there.")
    ] = "model",
    no_prefect: NoPrefectOption = False,
    as_json: JsonOption = False,
) -> None:
    """Evaluate the model of a run again, the champion alike, and compare them; or a model directory by itself."""
    with guarded(as_json):
        from flows.errors import UsageError

        overrides = [item if item.startswith("evaluate.") else f"evaluate.{item}" for item in set_ or ()]
        chosen = tuple(filter(None, (name.strip() for name in (tasks or "").split(","))))
        overrides += [f"evaluate.tasks=[{','.join(chosen)}]"] if chosen else []
        overrides += [f"evaluate.limit={limit}"] if limit else []
        alone = {"--against": against, "--dataset": dataset, "--documents": documents, "--text": text,
                 "--endpoint": endpoint}  # fmt: skip
        if Path(target).is_dir():
            served = (endpoint, endpoint_model) if endpoint else None
            _directory(Path(target), overrides, against, dataset, documents, text or [], out, served, as_json)
            return
        given = [name for name, value in alone.items() if value]
        if given:
            raise UsageError(
                f"{given[0]} goes with a model directory, and {target!r} is none", "name a directory, or leave it out"
            )
        _run(target, overrides, chosen, store, not no_prefect, as_json)


def _run(
    target: str, overrides: list[str], tasks: tuple[str, ...], store: Path | None, prefect: bool, as_json: bool
) -> None:
    from flows.cli import carry_out
    from flows.orchestration.request import evaluation_of
    from flows.store import Store

    where = Store(resolve_store(None, store))
    carry_out(evaluation_of(where, _find(where, target), overrides, tasks), prefect, as_json)


def _find(store: Store, name: str) -> RunRecord:
    """`find_run`, but ``latest`` is the latest run that has a model: one that stopped earlier is not meant."""
    from flows.runs import find_run, list_runs

    if name == "latest":
        for record in reversed(list_runs(store)):
            row = next(row for row in record.data["stages"] if row["stage"] == "merge")
            if row["action"] in ("ran", "cached") and store.manifest("merge", row["digest"]):
                return record
    return find_run(store, name)


def _directory(
    model: Path, overrides: list[str], against: Path | None, dataset: Path | None, documents: Path | None,
    text: list[Path], out: Path, served: tuple[str, str] | None, as_json: bool,
) -> None:  # fmt: skip
    """One model directory, or two on the same samples: without a store, a run or a gate."""
    from flows.config import parse, with_overrides
    from flows.display import TerminalWatcher, err, evaluation_table
    from flows.display import out as stdout
    from flows.errors import EXIT_INTERRUPTED, UsageError
    from flows.evaluation_plots import plots_of, save
    from longlora.evaluation.data import Sources
    from longlora.evaluation.engines import EndpointEngine, EndpointSettings
    from longlora.evaluation.stage import evaluate as library

    if served and against:
        raise UsageError("--endpoint and --against exclude each other", "evaluate them in two runs")
    for folder in () if served else filter(None, (model, against)):
        if not (folder / "config.json").is_file():
            raise UsageError(
                f"{folder} is no model directory", "name the model directory that a run printed at its end"
            )
    settings = with_overrides(parse({"model": {"name": "smollm2-135m-q4"}}, "the defaults"), overrides).evaluate
    texts = (*settings.texts, *(path.absolute() for path in text))
    settings = settings.model_copy(update={"texts": texts})
    models = {"base": against, "merged": model} if against else {"base": model}
    sources = Sources.of(dataset, documents, texts)
    try:
        with TerminalWatcher() as watcher:
            at = EndpointSettings(base_url=served[0], model=served[1]) if served else None
            engine = (lambda folder, device: EndpointEngine(at)) if at else None
            metrics = library(models, sources, settings, out, watcher.bar("evaluate"), out / "units", engine)
    except KeyboardInterrupt:
        err.print("[yellow]interrupted[/]; the same command goes on where it was")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    output = out.absolute() / "output"
    save(plots_of(json.loads((output / "metrics.json").read_text())), output / "plots")
    if as_json:
        print_json({"model": str(model.absolute()), "output": str(output), "metrics": metrics})
        return
    stdout.print(evaluation_table(metrics))
    stdout.print(f"details  {output}", soft_wrap=True, markup=False)


def promote(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Run id, its beginning, latest or previous.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Show the champion; change nothing.")] = False,
    clear: Annotated[bool, typer.Option("--clear", help="Have no champion.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the model of a run the champion: the one that every later evaluation is compared with."""
    with guarded(as_json):
        from flows.champion import of_run, path_of, read_champion, write_champion
        from flows.display import out
        from flows.errors import UsageError
        from flows.runs import find_run
        from flows.store import Store

        if sum((run is not None, show, clear)) != 1:
            raise UsageError("say what to do", "`longfolio promote RUN`, or --show, or --clear")
        where = Store(resolve_store(None, store))
        if clear:
            path_of(where).unlink(missing_ok=True)
            print_json({"champion": None}) if as_json else out.print("there is no champion now")
            return
        if show:
            now = read_champion(where)
            if as_json:
                print_json({"champion": now and now.to_json()})
            elif now is None:
                out.print("no champion yet; `longfolio promote RUN` makes one")
            else:
                _print_change(None, now)
            return
        assert run is not None
        after = of_run(where, find_run(where, run))
        before = _known(where)
        after = _successor(after, before)
        write_champion(where, after)
        if as_json:
            print_json({"before": before and before.to_json(), "champion": after.to_json()})
            return
        _print_change(before, after)


def _known(store: Store) -> Champion | None:
    """A damaged file does not keep anybody from promoting anew."""
    from flows.champion import read_champion
    from flows.errors import UsageError

    try:
        return read_champion(store)
    except UsageError as error:
        explain(error)
        return None


def _successor(after: Champion, before: Champion | None) -> Champion:
    from dataclasses import replace

    return replace(after, before=before.run_id) if before is not None else after


def _print_change(before: Champion | None, after: Champion) -> None:
    from flows.display import err, new_table, out

    table = new_table()
    for column in ("", "before", "now") if before else ("", "champion"):
        table.add_column(column, overflow="fold")
    for name, value in _facts(after).items():
        table.add_row(name, *([_facts(before).get(name, "")] if before else []), value)
    out.print(table)
    if after.gate == "fail":
        err.print("[yellow]![/] the gate of this run had failed")


def _facts(champion: Champion) -> dict[str, str]:
    facts = {"run": champion.run_id, "model": champion.merge[:12], "evaluation": champion.evaluate[:12],
             "promoted": champion.date}  # fmt: skip
    for task, item in champion.metrics.items():
        value: Any = item.get("merged", item.get("base")) if isinstance(item, dict) else None
        if value is not None:
            facts[f"{task} {item['metric']}"] = f"{value:.4g} (n {item['n']:,})"
    return facts


def register(app: typer.Typer) -> None:
    app.command("eval", rich_help_panel="One step alone")(evaluate)
    app.command(rich_help_panel="The store")(promote)
