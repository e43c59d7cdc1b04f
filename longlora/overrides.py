"""Settings as a user gives them: a YAML file, and single ``KEY=VALUE`` on top."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from longlora.errors import UserError
from longlora.explain import explain

M = TypeVar("M", bound=BaseModel)


def read_settings(kind: type[M], file: Path | None, pairs: Sequence[str], example: str, schema: str) -> M:
    """Settings of a file, with ``--set`` on top.

    Args:
        kind: what they are checked against.
        file: of ``--settings``.
        pairs: of ``--set``.
        example: a valid pair.
        schema: where all keys are listed, as a sentence for the remedy.

    Raises:
        UserError: no such file, not YAML, an unknown key (with the nearest valid one), or a bad value.
    """
    tree: Any = {}
    if file is not None:
        try:
            tree = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise UserError(f"--settings {file}: {error.strerror}", "name a YAML file") from error
        except (yaml.YAMLError, ValueError) as error:
            raise UserError(f"--settings {file} is not YAML: {error}", "correct the file") from error
        if not isinstance(tree, dict):
            raise UserError(f"--settings {file} holds no settings but a {type(tree).__name__}", f"lines of {example!r}")
    for pair in pairs:
        assign(tree, *split(pair, example), schema)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise UserError("settings: " + "; ".join(explain(item, kind) for item in error.errors()), schema) from None


def split(item: str, example: str) -> tuple[str, Any]:
    """Key and value of ``KEY=VALUE``, the value read as YAML.

    Raises:
        UserError: it is not of that form.
    """
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise UserError(f"--set {item!r} is not KEY=VALUE", f"for example --set {example}")
    try:
        return key.strip(), yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:  # PyYAML raises ValueError for impossible dates
        raise UserError(f"--set {item!r}: the value is not YAML", "quote the value") from error


def assign(tree: dict[str, Any], key: str, value: Any, schema: str) -> None:
    """Set ``a.b.0.c`` in a tree of settings; sections that are missing or null are made.

    Raises:
        UserError: the key leads through something that has no keys, or no such item.
    """
    *parents, last = key.split(".")
    node: Any = tree
    for depth, part in enumerate(parents):
        if isinstance(node, list):
            try:
                node = node[int(part)]
            except (ValueError, IndexError):
                raise UserError(
                    f"--set {key}: {'.'.join(parents[:depth])} has no item {part!r}", "use its position, from 0"
                ) from None
        else:
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        if not isinstance(node, dict | list):
            raise UserError(f"--set {key}: {'.'.join(parents[: depth + 1])} has no keys below it", schema)
    if isinstance(node, list):
        if not last.isdigit() or int(last) >= len(node):
            raise UserError(f"--set {key}: no item {last!r}", "use its position, from 0")
        node[int(last)] = value
    else:
        node[last] = value
