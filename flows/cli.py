"""The command ``longfolio``. Thin: read options, call the library, print. Heavy imports wait inside."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows import cli_eval, cli_library, cli_merge, cli_prefect, cli_store, cli_train
from flows.cli_common import (
    BudgetOption,
    ConfigArgument,
    FromOption,
    JsonOption,
    NoPrefectOption,
    PdfsOption,
    RerunOption,
    SetOption,
    StoreOption,
    UntilOption,
    guarded,
    print_json,
    resolve_store,
)  # fmt: skip

if TYPE_CHECKING:
    from flows.orchestration.request import Job

app = typer.Typer(
    name="longfolio",
    help="From a folder of PDFs to an evaluated long-context model, one restartable pipeline.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.command(rich_help_panel="The chain")
def run(
    config: ConfigArgument,
    pdfs: PdfsOption = None,
    store: StoreOption = None,
    set_: SetOption = None,
    from_: FromOption = None,
    until: UntilOption = None,
    rerun: RerunOption = None,
    budget: BudgetOption = None,
    no_prefect: NoPrefectOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run the chain; stages whose inputs and settings did not change are reused."""
    with guarded(as_json):
        from flows.config import load
        from flows.orchestration.request import Job
        from flows.plan import Selection
        from flows.store import Store

        overrides = [*(set_ or ()), *([f"dataset.teacher.budget={budget}"] if budget else [])]
        settings = load(config, overrides=overrides, pdfs=pdfs or (), store=store)
        selection = Selection(from_, until, tuple(rerun or ()))
        job = Job(settings, Store(resolve_store(settings)), selection, config, overrides=tuple(overrides))
        carry_out(job, not no_prefect, as_json)


@app.command(rich_help_panel="The chain")
def plan(
    config: ConfigArgument,
    pdfs: PdfsOption = None,
    store: StoreOption = None,
    set_: SetOption = None,
    from_: FromOption = None,
    until: UntilOption = None,
    rerun: RerunOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what would run, and why; run nothing."""
    with guarded(as_json):
        from flows.config import load
        from flows.display import err, out, plan_table
        from flows.plan import Selection, make_plan
        from flows.store import Store

        settings = load(config, overrides=set_ or (), pdfs=pdfs or (), store=store)
        result = make_plan(settings, Store(resolve_store(settings)), Selection(from_, until, tuple(rerun or ())))
        if as_json:
            print_json(result.to_json())
            return
        out.print(plan_table(result))
        for stage in result.stages:
            for warning in stage.warnings:
                err.print(f"[yellow]![/] {warning}")


@app.command(rich_help_panel="The chain")
def resume(
    run: Annotated[str, typer.Argument(help="Run id, its beginning, latest or previous.")] = "latest",
    store: StoreOption = None,
    no_prefect: NoPrefectOption = False,
    as_json: JsonOption = False,
) -> None:
    """Continue a run that was interrupted, killed or failed, with the settings it had."""
    with guarded(as_json):
        from flows.display import err
        from flows.orchestration.request import continuing
        from flows.store import Store

        job = continuing(Store(resolve_store(None, store)), run)
        record = job.record
        assert record is not None
        record.check_free()
        if record.status == "done":
            err.print(f"run {record.run_id} is done; checking its stages")
        carry_out(job, not no_prefect, as_json)


def carry_out(job: Job, prefect: bool, as_json: bool) -> None:
    """Run, show, and end with the exit code of DESIGN section 5."""
    from flows.display import TerminalWatcher, print_gate, print_run
    from flows.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_REGRESSED
    from flows.gate import failed
    from flows.report import write_report
    from flows.runner import RunInterrupted, StageFailed, public_result, run

    failure: StageFailed | None = None
    code = 0
    try:
        with TerminalWatcher() as watcher:
            if prefect:
                from flows.orchestration.local import run_as_flow

                record = run_as_flow(job, watcher)
            else:
                record = run(job.config, job.store, job.selection, watcher, resume=job.record, name=job.name)
                with suppress(OSError):  # the run is done, whatever becomes of its report
                    write_report(record, job.store)
    except StageFailed as error:
        failure, code, record = error, EXIT_FAILED, error.record
    except RunInterrupted as interruption:
        code, record = EXIT_INTERRUPTED, interruption.record
    data, store = record.data, job.store
    if as_json:
        print_json(public_result(record))
    else:
        print_run(data["stages"])
        print_gate(data)
    again = f"longfolio resume {data['run_id']}" + (
        "" if store.root == Path("store").resolve() else f" --store {store.root}"
    )
    if failure is not None:
        from flows.cli_common import explain

        explain(failure.cause, where=f"stage {failure.stage}, run {data['run_id']}", resume=again)
    elif code == EXIT_INTERRUPTED:
        from flows.display import err

        err.print(f"[yellow]interrupted[/]; what is finished stays. Continue with:  {again}")
    elif not as_json:
        _say_goodbye(data, record.path.with_suffix("") / "report.html")
    if not code and failed(data):
        code = EXIT_REGRESSED
    if code:
        raise typer.Exit(code)


def _say_goodbye(data: dict[str, Any], report: Path) -> None:
    from flows.display import out

    rows = {row["stage"]: row for row in data["stages"]}
    out.print(f"run [bold]{data['run_id']}[/] is {data['status']}")
    if rows["merge"]["action"] in ("ran", "cached"):
        model = Path(rows["merge"]["path"]) / "model"
        out.print(f"model    {model}", soft_wrap=True)
        out.print(f"use it   longfolio chat {model}", soft_wrap=True)
        out.print(f"report   {report}", soft_wrap=True)
    elif rows["datasets_build"]["action"] in ("ran", "cached"):
        out.print(f"look     longfolio dataset view {rows['datasets_build']['path']}", soft_wrap=True)
    if data["selection"]["until"] and sys.argv[1:2] != ["resume"]:
        out.print(f"go on    {_going_on()}", soft_wrap=True, markup=False)


def _going_on() -> str:
    """The command of this process without ``--until`` and ``--rerun``: how to go on where it stopped."""
    import shlex

    words = sys.argv[1:]
    if words[:2] == ["dataset", "build"]:
        words = ["run", *words[2:]]
    elif words[:1] == ["train"]:
        words = ["run", *words[1:]]
    for option in ("--until", "--rerun"):
        while option in words:
            at = words.index(option)
            words = words[:at] + words[at + 2 :]
        words = [w for w in words if not w.startswith(f"{option}=")]
    return shlex.join(["longfolio", *words])


cli_store.register(app)
cli_library.register(app)
cli_train.register(app)
cli_merge.register(app)
cli_eval.register(app)
cli_prefect.register(app)


def main() -> None:
    """Entry point of the console script."""
    import io
    import signal

    from flows.environment import quiet

    quiet()
    # File names need not be UTF-8; printing one must not end a run.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    # SIGTERM ends a run the same orderly way as Ctrl-C.
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        app()
    except KeyboardInterrupt:
        print("interrupted before the first stage", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `longfolio ... | head`
        sys.stderr.close()
        sys.exit(141)


if __name__ == "__main__":
    main()
