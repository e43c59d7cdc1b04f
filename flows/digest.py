"""What identifies a stage's output (DESIGN: content, settings and versions; never paths, times or speed)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel


def digested(model: BaseModel) -> dict[str, Any]:
    """The settings that affect the output: no paths (their content counts), none marked ``digest: False``.

    A field that takes a path or something else counts where it holds the latter.
    """
    tree: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        extra = field.json_schema_extra
        marked = isinstance(extra, dict) and extra.get("digest") is False
        value = getattr(model, name)
        if not marked and not _only_paths(field.annotation) and not isinstance(value, Path):
            tree[name] = _plain(value)
    return tree


def _only_paths(annotation: Any) -> bool:
    """Whether a type is ``Path``, ``Path | None``, ``tuple[Path, ...]`` and so on, but not ``str | Path``."""
    parts = [part for part in get_args(annotation) if part not in (type(None), Ellipsis)]
    return annotation is Path or (bool(parts) and all(_only_paths(part) for part in parts))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return digested(value)
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 16 and 16.0 are one setting, whether it came from a default or from a file
    return value


def digest(tree: Any) -> str:
    """sha256 (64 hex digits) of a JSON tree, independent of the order of keys."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
