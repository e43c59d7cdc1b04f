"""Where a base model comes from: its name, its hub id, its licence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from longlora.models import EMBEDDED


def hub_id(base: Path) -> str | None:
    """``owner/name`` of a model in the hub's cache (``models--owner--name/snapshots/<commit>``), else None."""
    repository = base.parent.parent.name
    if base.parent.name != "snapshots" or not repository.startswith("models--"):
        return None
    return repository.removeprefix("models--").replace("--", "/", 1)


def base_name(base: Path, lineage: dict[str, Any]) -> str:
    """What to call the base: its hub id, the name it had in training, or its folder's."""
    named = lineage.get("base_model")
    trained_on = named.get("name") if isinstance(named, dict) else named
    return hub_id(base) or _embedded(base) or str(trained_on or base.name)


def base_license(base: Path) -> dict[str, str]:
    """The hub's keys ``license``, ``license_name``, ``license_link`` as the base's own card has them.

    Empty if nothing says: no card, or none of these keys.
    """
    import yaml

    if name := _embedded(base):
        return {"license": EMBEDDED[name].license}
    try:
        card = (base / "README.md").read_text(encoding="utf-8", errors="replace")
        found = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", card, re.DOTALL)
        head = yaml.safe_load(found[1]) if found else None
    except (OSError, yaml.YAMLError):
        head = None
    keys = ("license", "license_name", "license_link")
    return {key: head[key] for key in keys if isinstance(head.get(key), str)} if isinstance(head, dict) else {}


def _embedded(base: Path) -> str | None:
    """The name of an embedded model whose conversion ``base`` is (``<name>-<key>``)."""
    name, _, key = base.name.rpartition("-")
    return name if name in EMBEDDED and re.fullmatch(r"[0-9a-f]{12}", key) else None
