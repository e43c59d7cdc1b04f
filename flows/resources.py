"""Recipes and example files, found by name in a checkout and in an installed wheel alike."""

from __future__ import annotations

from pathlib import Path

_PACKAGED = Path(__file__).parent / "resources"
# In a checkout the wheel's resource folders are the repository's own.
ROOT = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parent.parent


def packaged_configs() -> dict[str, Path]:
    """Name -> run file, alphabetically."""
    return {path.stem: path for path in sorted((ROOT / "configs").glob("*.yaml"))}


def packaged_config(name: str) -> Path | None:
    return packaged_configs().get(name.removesuffix(".yaml"))
