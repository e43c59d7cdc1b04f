"""What `longfolio run` shares with the flow that carries its run in the same process.

A flow run's parameters are shown in the UI and kept by the server, so they hold names only; the terminal's
progress bars and the errors themselves take this way.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field

from flows.orchestration.request import Job
from flows.runner import Watcher
from flows.runs import RunRecord


@dataclass
class Session:
    job: Job
    watcher: Watcher = field(default_factory=Watcher)
    record: RunRecord | None = None  # set when the run has ended well
    error: BaseException | None = None  # what ended it otherwise


SESSION: ContextVar[Session | None] = ContextVar("longfolio_session", default=None)
