"""Commands about Prefect: up, down, deploy."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli_common import StoreOption, guarded, resolve_store

PANEL = "Prefect"

NightlyOption = Annotated[
    str | None, typer.Option("--nightly", metavar="CRON", help='When to evaluate by night, as a cron; "off" for never.')
]
TimezoneOption = Annotated[str | None, typer.Option("--timezone", help="Of --nightly, such as Europe/Berlin.")]
NotifyOption = Annotated[
    str | None, typer.Option("--notify", metavar="TYPE/NAME", help="Notification block that alerts are sent to.")
]


def up(
    store: StoreOption = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option("--port", help="Port of UI and API (default 4200 if free).")] = None,
    cpu_runs: Annotated[int, typer.Option("--cpu-runs", min=1, help="Runs at a time on the cpu pool.")] = 2,
    devices: Annotated[
        str | None, typer.Option("--devices", help="GPUs with a worker each, such as 0,1 (default: all there are).")
    ] = None,
    nightly: NightlyOption = None,
    timezone: TimezoneOption = None,
    notify: NotifyOption = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Go to the background when it is up.")] = False,
) -> None:
    """Keep a Prefect server, its UI, workers and deployments for a store."""
    with guarded():
        import sys

        from flows.display import err, out
        from flows.orchestration import up as module
        from flows.orchestration.device import visible_devices
        from flows.store import Store

        where = Store(resolve_store(None, store))
        if detach:
            arguments = [a for a in sys.argv[2:] if a not in ("--detach", "-d")]
            note = module.detach(arguments, where)
            out.print(f"up: {note['ui']}\nstop it with:  longfolio down --store {where.root}", soft_wrap=True)
            return
        chosen = [d for d in devices.split(",") if d] if devices is not None else visible_devices()
        settings = module.UpSettings(where, host, port, cpu_runs, tuple(chosen), nightly, timezone, notify)
        module.up(settings, lambda line: err.print(line, markup=False, soft_wrap=True))


def down(store: StoreOption = None) -> None:
    """Stop what `longfolio up` keeps; runs in progress are stopped, a training writes a checkpoint first."""
    with guarded():
        from flows.display import out
        from flows.orchestration import up as module
        from flows.store import Store

        where = Store(resolve_store(None, store))
        out.print("stopped" if module.down(where) else f"nothing is up for store {where.root}", soft_wrap=True)


def deploy(
    nightly: NightlyOption = None,
    timezone: TimezoneOption = None,
    notify: NotifyOption = None,
    store: StoreOption = None,
) -> None:
    """Make work pools, queues, deployments and automations on the server (PREFECT_API_URL, or the store's)."""
    with guarded():
        from flows.display import out
        from flows.orchestration.local import prefect_server
        from flows.store import Store

        with prefect_server(Store(resolve_store(None, store))) as url:
            from flows.orchestration.deployments import Choices, deploy

            for name in deploy(Choices(nightly, timezone, notify)):
                out.print(f"deployed {name}")
            out.print(f"on {url}", soft_wrap=True)


def register(app: typer.Typer) -> None:
    for command in (up, down, deploy):
        app.command(rich_help_panel=PANEL)(command)
