"""Conversations as question and answer: ShareGPT's ``from``/``value`` and the ``role``/``content`` of chat messages."""

from __future__ import annotations

from typing import Any, Literal

Turns = Literal["first", "each"]
COLUMNS = ("conversations", "messages")
_ROLES = {
    "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "assistant": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
    "system": "system", "developer": "system",
}  # fmt: skip
_NAMES = {"user": "User", "assistant": "Assistant"}


def conversation_pairs(value: Any, turns: Turns) -> list[tuple[str, str]]:
    """(instruction, output) of a conversation's turns.

    What the system says stands before the first question, after a blank line. ``first`` takes the first question and
    its answer. ``each`` takes every question with its answer; before it stands what was said until then, each
    turn after the name of who speaks, for a later question seldom makes sense alone. Two questions in a row are
    one; a conversation is used up to the first turn that is no text (a call of a tool, an image).

    Raises:
        ValueError: it is no list of turns, and what it is.
    """
    if not isinstance(value, list):
        raise ValueError(f"a conversation is a {type(value).__name__}, not a list of turns")
    pairs: list[tuple[str, str]] = []
    said: list[tuple[str, str]] = []
    system = ""
    waiting: list[str] = []
    for turn in value:
        role, text = _turn(turn)
        if role not in ("system", "user", "assistant") or text is None:
            break
        if role == "system":
            system = "\n\n".join(filter(None, (system, text)))
        elif role == "user":
            waiting.append(text)
        elif waiting:
            question = "\n\n".join(waiting)
            history = "\n\n".join(f"{_NAMES[who]}: {what}" for who, what in said)
            asked = f"{history}\n\n{_NAMES['user']}: {question}" if history else question
            pairs.append(("\n\n".join(filter(None, (system, asked))), text))
            if turns == "first":
                break
            said += [("user", question), ("assistant", text)]
            waiting = []
    return pairs


def _turn(turn: Any) -> tuple[str, str | None]:
    """(role, text); the text is None where there is none."""
    if not isinstance(turn, dict):
        raise ValueError(f"a turn is a {type(turn).__name__}, not an object with role and content (or from and value)")
    who = turn.get("role", turn.get("from"))
    if not isinstance(who, str):
        raise ValueError(f"a turn has neither role nor from, only {sorted(turn)}")
    text = turn.get("content", turn.get("value"))
    if isinstance(text, list):  # parts, as of models that see images
        parts = [p.get("text") if isinstance(p, dict) and p.get("type") == "text" else None for p in text]
        text = "".join(p for p in parts if p) if parts and all(isinstance(p, str) for p in parts) else None
    return _ROLES.get(who.casefold(), who), text if isinstance(text, str) else None
