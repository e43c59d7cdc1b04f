"""What is wrong with settings, in words a user knows."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel


def explain(item: Any, root: type[BaseModel]) -> str:
    """One of the ``errors()`` of a ``ValidationError`` of ``root``: the key, what is wrong, the nearest valid key."""
    loc = [part for part in item["loc"] if isinstance(part, str | int)]
    where = ".".join(map(str, loc))
    if item["type"] == "extra_forbidden":
        valid = _keys_at(root, loc[:-1])
        near = difflib.get_close_matches(str(loc[-1]), valid, n=1, cutoff=0.5)
        parent = ".".join(map(str, loc[:-1]))
        best = ".".join(filter(None, (parent, near[0]))) if near else None
        return f"unknown key {where!r}" + (f", did you mean {best!r}?" if best else f" (valid: {', '.join(valid)})")
    if item["type"] == "missing":
        return f"missing key {where!r}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "model_type":
        message = "input should be a section with keys of its own"
    got = item["input"]
    shown = "" if isinstance(got, dict | list) else f" (got {got!r})"
    return f"{where}: {message[:1].lower()}{message[1:]}{shown}" if where else message


def _keys_at(root: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """The valid keys of the settings model at ``loc``."""
    model: Any = root
    for part in loc:
        if isinstance(part, int) or not hasattr(model, "model_fields"):
            continue
        field = model.model_fields.get(part)
        model = next(iter(_models_in(field.annotation)), None) if field else None
    return list(model.model_fields) if hasattr(model, "model_fields") else []


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
