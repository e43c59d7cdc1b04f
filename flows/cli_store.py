"""Commands about the store and this machine: status, diff, trace, verify, gc, doctor, config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli_common import (
    ConfigArgument,
    JsonOption,
    PdfsOption,
    SetOption,
    StoreOption,
    guarded,
    print_json,
    resolve_store,
)

PANEL = "The store"


def status(
    store: StoreOption = None,
    n: Annotated[int, typer.Option("-n", min=1, help="How many runs to show.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Show the newest runs, what each did, and attempts that can be resumed."""
    with guarded(as_json):
        from rich.text import Text

        from flows.champion import read_champion
        from flows.display import VERDICT_STYLE, err, new_table, out
        from flows.runs import list_runs
        from flows.store import Store

        where = Store(resolve_store(None, store))
        records = list_runs(where)[-n:]
        champion = read_champion(where)
        if as_json:
            runs = [{**r.data, "status": r.status} for r in records]
            print_json({"store": str(where.root), "runs": runs, "champion": champion and champion.to_json()})
            return
        if not records:
            out.print(f"store {where.root} has no runs; start one with `longfolio run demo`")
            return
        table = new_table()
        for column in ("run", "status", "recipe", "gate"):
            table.add_column(column, no_wrap=True)
        table.add_column("stages", overflow="fold", ratio=1)
        for record in records:
            did = Text(", ").join(_did(row) for row in record.data["stages"])
            verdict = (record.data.get("gate") or {}).get("verdict", "")
            gate = Text(verdict, style=VERDICT_STYLE.get(verdict, ""))
            table.add_row(record.run_id, record.status, Path(record.data.get("config_name", "")).stem, gate, did)
        out.print(table)
        if champion is not None:
            out.print(f"champion: model {champion.merge[:12]} of run {champion.run_id}, since {champion.date[:10]}")
        for stage, digest, path in where.attempts():
            if (path / "attempt.json").exists() and not where.locked(stage, digest):
                err.print(f"unfinished attempt that the same settings continue: {stage} {digest[:12]}")
        last = records[-1]
        if last.status in ("killed", "interrupted", "failed"):
            err.print(f"the latest run was {last.status}; continue with:  longfolio resume {last.run_id}")


def _did(row: dict[str, Any]) -> Any:
    """``train ran 96 s``, coloured by what was done."""
    from rich.text import Text

    from flows.display import ACTION_STYLE

    seconds = f" {row['seconds']:.0f} s" if row["action"] == "ran" else ""
    return Text(f"{row['stage']} {row['action']}{seconds}", style=ACTION_STYLE.get(row["action"], ""))


def diff(
    first: Annotated[
        str, typer.Argument(metavar="RUN", help="Run id, its beginning, latest or previous.")
    ] = "previous",
    second: Annotated[str, typer.Argument(metavar="RUN")] = "latest",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two runs: settings, documents, stages, metrics."""
    with guarded(as_json):
        from flows.compare import compare_runs
        from flows.display import new_table, out
        from flows.runs import find_run
        from flows.store import Store

        where = Store(resolve_store(None, store))
        result = compare_runs(find_run(where, first), find_run(where, second))
        if as_json:
            print_json(result)
            return
        for part in ("settings", "documents", "stages", "metrics"):
            if not result[part]:
                continue
            table = new_table(part)
            for column in ("", result["first"], result["second"]):
                table.add_column(column, overflow="fold")
            for item in result[part]:
                table.add_row(item["key"], _text(item["first"]), _text(item["second"]))
            out.print(table)
        if not any(result[part] for part in ("settings", "documents", "stages", "metrics")):
            out.print(f"{result['first']} and {result['second']} are alike")


def trace(
    target: Annotated[
        str,
        typer.Argument(help="A model or other path in the store, a run, a digest, or a dataset row's id."),
    ] = "latest",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which documents, pages and settings stand behind a model or a dataset row."""
    with guarded(as_json):
        from flows.display import new_table, out
        from flows.store import Store
        from flows.trace import trace as find

        result = find(Store(resolve_store(None, store)), target)
        if as_json:
            print_json(result)
            return
        for stage in result["chain"]:
            made = f"version {stage['version']}, run {stage['run_id']}, {stage['finished']}"
            out.print(f"[bold]{stage['stage']}[/] {stage['digest'][:12]}  {made}")
            for name, engine in stage["engines"].items():
                out.print(f"  {name}: {_text(engine)}", style="dim")
        if result["row"]:
            row = result["row"]
            out.print(f"\n[bold]row {row['id']}[/]  task {row['task']}, split {row['split']}, {row['n_tokens']} tokens")
            for place in row["evidence"] or []:
                out.print(f"  evidence: document {place['doc_id']}, page {place['page']}, box {_text(place['box'])}")
            out.print(f"  answer: {row['output'][:300]}", markup=False)
        table = new_table("documents")
        for column in ("doc_id", "name", "status", "pages", "split", "rows"):
            table.add_column(column, overflow="fold")
        for d in result["documents"]:
            table.add_row(
                d["doc_id"],
                ", ".join(d["names"]) or d["source"],
                d["status"],
                str(d["n_pages"]),
                d["split"],
                str(d["rows"]),
            )
        out.print(table)


def verify(
    store: StoreOption = None,
    repair: Annotated[
        bool, typer.Option(help="Set damaged outputs aside, so that the next run makes them anew.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Hash every finished output again and compare with its manifest; exit code 1 if one differs."""
    with guarded(as_json):
        from rich.progress import track

        from flows.display import err, out
        from flows.housekeeping import set_aside, verify_output
        from flows.store import Store

        where = Store(resolve_store(None, store))
        outputs = list(where.outputs())
        verdicts = [verify_output(*item) for item in track(outputs, "hashing", console=err, transient=True)]
        bad = [v for v in verdicts if v.problems]
        if as_json:
            print_json(
                {
                    "outputs": [
                        {"stage": v.stage, "digest": v.digest, "path": str(v.path), "problems": v.problems}
                        for v in verdicts
                    ]
                }
            )
        for v in bad:
            err.print(f"[red]✗[/] {v.stage} {v.digest[:12]}: {'; '.join(v.problems)}", soft_wrap=True)
            if repair:
                err.print(f"  set aside at {set_aside(where, v)}", soft_wrap=True)
        if not as_json:
            size = sum(v.bytes for v in verdicts) / 1e6
            out.print(f"{len(verdicts) - len(bad)} of {len(verdicts)} outputs are whole ({size:,.0f} MB)")
        if bad:
            if not repair:
                err.print("do: `longfolio verify --repair` sets them aside; the next run makes them anew")
            raise typer.Exit(1)


def gc(
    store: StoreOption = None,
    keep: Annotated[int, typer.Option(min=0, help="How many of the newest runs to keep.")] = 5,
    delete: Annotated[bool, typer.Option("--delete", help="Delete; without it only show.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show, then with --delete remove, what no kept run uses."""
    with guarded(as_json):
        from flows.display import err, out
        from flows.housekeeping import find_garbage
        from flows.store import Store

        garbage = find_garbage(Store(resolve_store(None, store)), keep)
        if delete:
            garbage.delete()
        if as_json:
            print_json(
                {
                    "kept_runs": garbage.kept_runs,
                    "deleted": delete,
                    "bytes": garbage.bytes,
                    "paths": [{"kind": k, "path": str(p), "bytes": b} for k, p, b in garbage.paths],
                }
            )
            return
        if garbage.busy:
            err.print("a run is in progress: units are left alone")
        units = [item for item in garbage.paths if item[0] == "unit"]
        for kind, path, size in garbage.paths:
            if kind != "unit":
                out.print(f"{kind:<8} {size / 1e6:>9,.1f} MB  {path}", soft_wrap=True)
        if units:
            out.print(f"units    {sum(s for _, _, s in units) / 1e6:>9,.1f} MB  {len(units)} pieces")
        verb = "deleted" if delete else "can be deleted (longfolio gc --delete)" if garbage.paths else "to delete"
        out.print(f"{garbage.bytes / 1e6:,.1f} MB {verb}; kept runs: {', '.join(garbage.kept_runs) or 'none'}")


def doctor(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """What is installed, which engines and accelerators can be used, and what to install for more."""
    with guarded(as_json):
        from dataclasses import asdict

        from rich.markup import escape
        from rich.text import Text

        from flows.display import new_table, out
        from flows.doctor import OK, WARN, examine

        checks = examine(resolve_store(None, store))
        if as_json:
            print_json({"checks": [asdict(c) for c in checks]})
        else:
            table = new_table()
            for column in ("", "what", "state", "detail", "for more"):
                table.add_column(column, overflow="fold")
            style = {OK: "green", WARN: "bold red"}
            for c in checks:
                state = Text(c.state, style=style.get(c.state, "yellow"))
                table.add_row(c.area, c.name, state, escape(c.detail), escape(c.remedy))
            out.print(table)
        if any(c.state == WARN for c in checks):
            raise typer.Exit(1)


config_app = typer.Typer(help="Run files: show, schema, list.", no_args_is_help=True)


@config_app.command("show")
def config_show(
    config: ConfigArgument, set_: SetOption = None, pdfs: PdfsOption = None, as_json: JsonOption = False
) -> None:
    """Print a run file with every default filled in."""
    with guarded(as_json):
        import yaml

        from flows.config import load

        tree = load(config, overrides=set_ or (), pdfs=pdfs or ()).model_dump(mode="json")
        if as_json:
            print_json(tree)
        else:
            typer.echo(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), nl=False)


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of a run file: every key, its meaning and trade-off."""
    from flows.config import RunConfig

    print_json(RunConfig.model_json_schema())


@config_app.command("list")
def config_list(as_json: JsonOption = False) -> None:
    """List the packaged recipes."""
    from flows.display import out
    from flows.resources import packaged_configs

    recipes = {name: path.read_text().splitlines()[0].lstrip("# ") for name, path in packaged_configs().items()}
    if as_json:
        print_json(recipes)
        return
    for name, about in recipes.items():
        out.print(f"[bold]{name:<22}[/] {about}", soft_wrap=True)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.5g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    return "" if value is None else str(value)


def register(app: typer.Typer) -> None:
    for command in (status, diff, trace, verify, gc):
        app.command(rich_help_panel=PANEL)(command)
    app.command(rich_help_panel="This machine")(doctor)
    app.add_typer(config_app, name="config", rich_help_panel="The chain")
