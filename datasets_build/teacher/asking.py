"""One prompt, one reply: from the store where it is there, else from the model, within budget and rate limit."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, Protocol

from datasets_build.teacher.calls import Call, Failure, Reply, Usage
from datasets_build.teacher.limits import Purse, Rate, Stopped
from datasets_build.teacher.responses import Responses
from datasets_build.teacher.settings import TeacherSettings
from pdf2txt.errors import UserError

LONGEST_BACKOFF = 60.0  # seconds
LONGEST_PAUSE = 600.0  # seconds of Retry-After that are honoured; an endpoint that wants more is given up
GIVE_UP_AFTER = 5  # calls in a row that failed with all their retries: the endpoint is down, not unlucky


class Unanswered(Exception):
    """A call got no reply. ``passing``: it may get one in a later build."""

    def __init__(self, reason: str, message: str, passing: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.passing = passing


class Client(Protocol):
    """Who sends calls: `endpoint.Endpoint` or `local.LocalModel`."""

    def send(self, call: Call) -> tuple[Reply, bool] | Failure: ...

    def close(self) -> None: ...


class Asking:
    """Asks one model, from several threads, and keeps the books."""

    def __init__(
        self, settings: TeacherSettings, model: str, units: Path, client: Client, begun: Callable[[str], None]
    ) -> None:
        """``model``: its name in the store. ``begun`` is told the key of each call before it is sent."""
        self.settings, self.model = settings, model
        self.client, self.begun = client, begun
        self.responses = Responses(units)
        self.purse = Purse(settings, self.responses.ledger(model).spent)
        self.rate = Rate(settings)
        self.new = Usage()  # answered in this build
        self.troubles: Counter[str] = Counter()  # failed attempts, by reason
        self.stop = threading.Event()  # no further call: an error ends the build
        self.stopped: Stopped | None = None  # no further call, but the build goes on with what it has
        self.fatal: UserError | None = None
        self.given_up = 0  # calls in a row
        self.lock = threading.Lock()

    def ask(self, call: Call) -> Reply:
        """The reply to a call. Each call is answered once; a later build finds the reply in the store.

        Raises:
            Unanswered: refused, or failed with all its retries.
            Stopped: the budget is used up, or the endpoint is down.
            UserError: wrong key or unknown model: no call will be answered.
        """
        reply = self.responses.get(call.key)
        if reply is not None:
            return reply
        attempt = 0
        while not isinstance(result := self._send(call), Reply):
            self._judge(result)
            if attempt == self.settings.retries:
                self._give_up(result)
            self._back_off(attempt, result)
            attempt += 1
        return result

    @property
    def answered(self) -> bool:
        """Whether the model answered anything in this build."""
        return self.new.calls > 0

    def _send(self, call: Call) -> Reply | Failure:
        most = Usage(1, call.prompt_bound, self.settings.output_tokens)
        self._check()
        try:
            self.purse.reserve(most)
        except Stopped as stopped:
            self.stopped = self.stopped or stopped
            raise
        real = Usage()
        try:
            entry = self.rate.wait(most.tokens, self.stop)
            self._check()
            self.begun(call.key)
            result = self.client.send(call)
            if isinstance(result, Failure):
                real = most if result.trouble == "unknown" else Usage()
                entry[0] = real.tokens
                return result
            reply, reused = result
            real = Usage() if reused else reply.usage
            entry[0] = reply.usage.tokens
            with self.lock:
                self.new += real
                self.given_up = 0
            return reply
        finally:
            self.purse.settle(most, real)

    def _check(self) -> None:
        if self.fatal is not None:
            raise self.fatal
        if self.stopped is not None:
            raise self.stopped
        if self.stop.is_set():
            raise Stopped("interrupted", "the build ends")

    def _judge(self, failure: Failure) -> None:
        """Whether to try again; raises where not."""
        with self.lock:
            self.troubles[failure.reason] += 1
            all_refused = not self.answered and self.troubles[failure.reason] >= GIVE_UP_AFTER
        if failure.trouble == "refused" and not all_refused:
            raise Unanswered(failure.reason, failure.message, False)
        if failure.trouble == "refused":
            self.fatal = UserError(
                f"the teacher {self.settings.name} refused the first {GIVE_UP_AFTER} calls: {failure.message}",
                "look at dataset.teacher.limit_parameter, temperature, reply_format, extra and output_tokens, and "
                "whether dataset.max_tokens fits into the teacher's context",
            )
            raise self.fatal
        if failure.trouble == "fatal":
            self.fatal = UserError(
                f"the teacher {self.settings.name} at {self.settings.base_url} refuses every call: {failure.message}",
                f"set the key in the environment variable {self.settings.api_key_env} (dataset.teacher.api_key_env), "
                "and look at dataset.teacher.model and base_url",
            )
            raise self.fatal
        if failure.trouble == "exhausted" or (failure.retry_after or 0) > LONGEST_PAUSE:
            self.stopped = Stopped(failure.reason, failure.message)
            raise self.stopped

    def _give_up(self, failure: Failure) -> NoReturn:
        with self.lock:
            self.given_up += 1
            if self.given_up >= GIVE_UP_AFTER:
                message = f"{self.given_up} calls in a row failed with all retries, the last: {failure.message}"
                self.stopped = self.stopped or Stopped("endpoint-down", message)
        raise Unanswered(failure.reason, f"{failure.message} (sent {self.settings.retries + 1} times)", True)

    def _back_off(self, attempt: int, failure: Failure) -> None:
        if failure.retry_after is not None:
            self.rate.pause(failure.retry_after)  # for all: they would be told the same
            return
        delay = min(LONGEST_BACKOFF, self.settings.backoff_seconds * 2**attempt)
        self.stop.wait(delay * random.uniform(0.8, 1.2))  # apart from the others
