"""Alerts that the server raises by itself: runs whose process is gone, regressions, nights without evaluation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from prefect.automations import Automation
from prefect.blocks.core import Block
from prefect.client.schemas.objects import StateType
from prefect.events import emit_event
from prefect.events.actions import ChangeFlowRunState, DoNothing, SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.runtime import flow_run

from flows.errors import UsageError
from flows.figures import worse_than_base
from flows.orchestration.server import HEARTBEAT_SECONDS
from flows.orchestration.settle import REGRESSED_STATE
from flows.runs import RunRecord

REGRESSED = "longfolio.evaluation.regressed"

ZOMBIE = "Longfolio: a run without heartbeat is crashed"
REGRESSION = "Longfolio: an evaluation regressed"
STALE = "Longfolio: no nightly evaluation in 26 hours"


def automations(alert: Any, note: str = "") -> list[Automation]:
    """The three, with ``alert(subject, body)`` as the action of the ones that only tell, and a ``note`` about it."""
    return [
        Automation(
            name=ZOMBIE,
            description="Its process died together with its worker, so that nobody said so. Retry continues it.",
            trigger=EventTrigger(
                match={"prefect.resource.id": "prefect.flow-run.*"},
                after={"prefect.flow-run.heartbeat"},
                expect={"prefect.flow-run.*"},
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(seconds=3 * HEARTBEAT_SECONDS),
            ),
            actions=[
                ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message="no heartbeat: its process is gone")
            ],
        ),
        Automation(
            name=REGRESSION,
            description="The gate of a run failed: its model is worse than the champion." + note,
            trigger=EventTrigger(
                expect={REGRESSED}, posture=Posture.Reactive, threshold=1, within=timedelta(0),
            ),
            actions=[alert("Longfolio: an evaluation regressed", "See the artifact evaluation-gate of the run.")],
        ),
        Automation(
            name=STALE,
            description="The schedule is paused, no worker runs, or the evaluation fails." + note,
            trigger=EventTrigger(
                match_related={"prefect.resource.name": "nightly-evals", "prefect.resource.role": "flow"},
                # A night that found a regression did its work.
                expect={"prefect.flow-run.Completed", f"prefect.flow-run.{REGRESSED_STATE}"},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(hours=26),
            ),
            actions=[alert("Longfolio: no nightly evaluation in 26 hours", "Is a worker of work pool gpu running?")],
        ),
    ]  # fmt: skip


def announce(record: RunRecord) -> None:
    """The event of a failed gate, whatever started the run; once per run in the flow run that is current."""
    gate = record.data["gate"]
    metrics = record.data["stages"][-1]["metrics"]
    emit_event(
        REGRESSED,
        resource={"prefect.resource.id": f"longfolio.model.{gate['candidate']['model'][:12]}"},
        related=[{"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.role": "flow-run"}],
        payload={
            "run_id": record.run_id, "reason": gate["reason"], "champion": gate["champion"],
            "tasks": [t["task"] for t in gate["tasks"] if t["verdict"] == "fail"],
            "worse_than_base": worse_than_base(metrics),
        },
    )  # fmt: skip


def install(notify: str | None) -> None:
    """Create the automations, or bring them up to date; one that a person disabled stays disabled.

    Args:
        notify: notification block as TYPE/NAME (such as slack-webhook/team); without, an alert is an event
            in the UI's feed and no more.

    Raises:
        UsageError: there is no such block.
    """
    alert = _alert(notify)
    note = "" if notify else " Only an event in the feed; longfolio deploy --notify TYPE/NAME sends it."
    for wanted in automations(alert, note):
        try:
            known: Any = Automation.read(name=wanted.name)
        except ValueError:
            wanted.create()
            continue
        wanted.id, wanted.enabled = known.id, known.enabled
        if notify is None:  # what a person chose to be told by
            wanted.actions = known.actions
        wanted.update()


def _alert(notify: str | None) -> Any:
    if notify is None:
        return lambda subject, body: DoNothing()
    try:
        block: Any = Block.load(notify)
    except ValueError as error:
        raise UsageError(
            f"--notify {notify}: {error}", "make the block in the UI (Blocks), and name it TYPE/NAME"
        ) from None
    return lambda subject, body: SendNotification(
        block_document_id=block._block_document_id, subject=subject, body=body
    )
