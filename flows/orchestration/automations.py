"""Alerts that the server raises by itself: runs whose process is gone, regressions, nights without evaluation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from prefect.automations import Automation
from prefect.blocks.core import Block
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, DoNothing, SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture

from flows.errors import UsageError
from flows.orchestration.server import HEARTBEAT_SECONDS

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
            description="A nightly evaluation found a model worse than what it is compared with." + note,
            trigger=EventTrigger(
                expect={REGRESSED, "prefect.flow-run.Regressed"}, posture=Posture.Reactive, threshold=1,
                within=timedelta(0),
            ),
            actions=[alert("Longfolio: an evaluation regressed", "See the evaluation artifact of the nightly run.")],
        ),
        Automation(
            name=STALE,
            description="The schedule is paused, no worker runs, or the evaluation fails." + note,
            trigger=EventTrigger(
                match_related={"prefect.resource.name": "nightly-evals", "prefect.resource.role": "flow"},
                expect={"prefect.flow-run.Completed"},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(hours=26),
            ),
            actions=[alert("Longfolio: no nightly evaluation in 26 hours", "Is a worker of work pool gpu running?")],
        ),
    ]  # fmt: skip


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
