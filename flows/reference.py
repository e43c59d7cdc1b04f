"""The settings reference: every key of a run file as a Markdown table, from the settings models themselves.

``python -m flows.reference > docs/settings.md`` (``make docs``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from flows.config import RunConfig

INTRODUCTION = """# Settings

Every key of a run file, with its default. Keys marked ° change speed or memory only: they are recorded, but changing
them reruns nothing. This page is made by `make docs`; `longfolio config schema` prints the same as JSON Schema.
"""


def render() -> str:
    """The whole page."""
    lines = [INTRODUCTION]
    for name, field in RunConfig.model_fields.items():
        lines += [f"\n## {name}\n", f"{field.description}\n"]
        lines += ["| key | default | meaning |", "|---|---|---|"]
        lines += [f"| `{key}`{mark} | {default} | {meaning} |" for key, default, meaning, mark in _rows(name, field)]
    return "\n".join(lines) + "\n"


def _rows(key: str, field: Any) -> Iterator[tuple[str, str, str, str]]:
    model = next(_models(field.annotation), None)
    if model is None:
        mark = (
            "°" if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("digest") is False else ""
        )
        yield key, _default(field), _cell(field.description or ""), mark
        return
    repeated = _is_list(field.annotation)
    if repeated:
        yield key, _default(field), _cell(field.description or ""), ""
    for name, inner in model.model_fields.items():
        yield from _rows(f"{key}{'.<n>' if repeated else ''}.{name}", inner)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _is_list(annotation: Any) -> bool:
    parts = (annotation, *get_args(annotation))
    return any(getattr(part, "__origin__", None) in (tuple, list) for part in parts)


def _default(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "" if field.default_factory else "required"
    value = field.default
    if value is None:
        return "null"
    return f"`{list(value) if isinstance(value, tuple) else value}`" if value != "" else '`""`'


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(render(), end="")
