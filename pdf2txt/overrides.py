"""Settings from the command line: ``KEY=VALUE``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pdf2txt.errors import UserError
from pdf2txt.settings import Pdf2txtSettings

_PREFIX = "pdf2txt."  # how a run file calls them


def with_overrides(overrides: Iterable[str], **more: Any) -> Pdf2txtSettings:
    """The defaults with ``KEY=VALUE`` settings changed, values in YAML; relative paths from the current directory.

    Raises:
        UserError: not KEY=VALUE, an unknown key, or a bad value.
    """
    values = dict(map(_split, overrides)) | more
    try:
        settings = Pdf2txtSettings(**values)
    except ValidationError as error:
        wrong = "; ".join(map(_explained, error.errors()))
        raise UserError(f"--set: {wrong}", "`longfolio config schema` lists every key with its meaning") from None
    paths = {name: value for name, value in settings if isinstance(value, Path)}
    return settings.model_copy(update={name: _absolute(name, path) for name, path in paths.items()})


def _split(item: str) -> tuple[str, Any]:
    key, equals, value = item.partition("=")
    key = key.strip().removeprefix(_PREFIX)
    if not equals or not key:
        raise UserError(f"--set {item!r} is not KEY=VALUE", "for example --set layout=rapid")
    known = list(Pdf2txtSettings.model_fields)
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        raise UserError(
            f"--set: unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else ""),
            f"the keys are {', '.join(known)}",
        )
    try:
        return key, yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:  # PyYAML raises ValueError for impossible dates
        raise UserError(f"--set {item!r}: the value is not YAML", "quote the value") from error


def _absolute(key: str, path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:  # an unknown user after ~
        raise UserError(f"--set {key}={path}: {error}", "correct the path") from error


def _explained(item: Any) -> str:
    message = item["msg"].removeprefix("Value error, ")
    got = item["input"]
    shown = "" if isinstance(got, dict | list) else f" (got {got!r})"
    return f"{item['loc'][0]}: {message[:1].lower()}{message[1:]}{shown}"
