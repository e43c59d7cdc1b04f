"""How fast and how much may be sent: the endpoint's rate limits, and the budget."""

from __future__ import annotations

import threading
import time
from collections import deque

from datasets_build.teacher.calls import Usage
from datasets_build.teacher.settings import TeacherSettings

MINUTE = 60.0


class Stopped(Exception):
    """No further call is sent in this build; ``reason`` is a short slug. What was answered is kept."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Rate:
    """Calls and tokens within any minute. Tokens count by the most a call can have, until it is answered."""

    def __init__(self, settings: TeacherSettings) -> None:
        self.requests = settings.requests_per_minute
        self.tokens = settings.tokens_per_minute
        self.sent: deque[tuple[float, list[float]]] = deque()  # when, and [tokens]
        self.pause_until = 0.0
        self.lock = threading.Condition()

    def wait(self, tokens: float, stop: threading.Event) -> list[float]:
        """Wait for the call's turn; returns its entry, whose one number is to be set to the tokens it took.

        A call of more tokens than a minute has goes alone.
        """
        while not stop.is_set():
            with self.lock:
                delay = self._delay(tokens)
                if delay <= 0:
                    entry = [tokens]
                    if self.requests or self.tokens:
                        self.sent.append((time.monotonic(), entry))
                    return entry
            stop.wait(min(delay, 1.0))  # an answered call may free room earlier
        return [0.0]

    def pause(self, seconds: float) -> None:
        """No call before that: the endpoint said so to one of them."""
        with self.lock:
            self.pause_until = max(self.pause_until, time.monotonic() + seconds)

    def _delay(self, tokens: float) -> float:
        now = time.monotonic()
        while self.sent and self.sent[0][0] <= now - MINUTE:
            self.sent.popleft()
        delay = self.pause_until - now
        oldest = self.sent[0][0] + MINUTE - now if self.sent else 0.0
        if self.requests and len(self.sent) >= max(1.0, self.requests):
            delay = max(delay, oldest)
        if self.tokens and self.sent and sum(e[0] for _, e in self.sent) + tokens > self.tokens:
            delay = max(delay, oldest)
        return delay


class Purse:
    """The budget: a call is let through only if it cannot exceed it, whatever the calls in flight cost."""

    def __init__(self, settings: TeacherSettings, spent: Usage) -> None:
        """``spent``: by earlier builds."""
        self.settings = settings
        self.spent = spent
        self.reserved: list[Usage] = []
        self.lock = threading.Condition()

    def reserve(self, most: Usage) -> None:
        """Set aside what a call can cost; waits for calls in flight where they decide whether it fits.

        Raises:
            Stopped: it does not fit.
        """
        with self.lock:
            while not self._fits(most):
                if not self.reserved:
                    raise Stopped("budget", self._message(most))
                self.lock.wait()
            self.reserved.append(most)

    def settle(self, most: Usage, real: Usage) -> None:
        """A call that was reserved for ended, and took ``real``."""
        with self.lock:
            self.reserved.remove(most)
            self.spent += real
            self.lock.notify_all()

    def _fits(self, most: Usage) -> bool:
        total = sum(self.reserved, self.spent) + most
        tokens, amount = self.settings.budget_tokens, self.settings.budget_amount
        if tokens is not None and total.tokens > tokens:
            return False
        return amount is None or (total.cost(self.settings) or 0.0) <= amount

    def _message(self, most: Usage) -> str:
        if self.settings.budget_tokens is not None:
            spent, budget, call = (
                f"{self.spent.tokens:,}",
                f"{self.settings.budget_tokens:,} tokens",
                f"{most.tokens:,}",
            )
        else:
            spent, call = (f"{usage.cost(self.settings):.4f}" for usage in (self.spent, most))
            budget = f"{self.settings.budget_amount:g}"
        return (
            f"the budget for {self.settings.name} is used up: {spent} of {budget} spent on this store, and the next "
            f"call may take {call}"
        )
