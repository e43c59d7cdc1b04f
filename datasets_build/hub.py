"""Datasets as `datasets.load_dataset` opens them: a hub id, or a folder laid out like one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdf2txt.errors import UserError

if TYPE_CHECKING:
    from datasets_build.settings import ImportSettings


def hub_folder(name: str, revision: str | None) -> Path:
    """The hub's copy of a dataset, in its cache; fetched where it is not there.

    Raises:
        UserError: it is not to be had, offline for instance.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision))
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"import hub: {name!r} is not to be had: {first}",
            "correct the id, connect to the hub (and log in, where the dataset is gated), or download it elsewhere "
            "and name its folder as path",
        ) from error


def folder_rows(folder: Path, settings: ImportSettings) -> Iterator[dict[str, Any]]:
    """The rows of one split, a few in memory at a time.

    Raises:
        UserError: the folder is no dataset, or has no such subset or split.
    """
    import datasets

    try:
        rows = datasets.load_dataset(str(folder), settings.subset, split=settings.split, streaming=True)
        yield from rows
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"import {folder}, split {settings.split!r}: {first}",
            "set split (and subset) of the import to one that the dataset has, or name a file in the folder",
        ) from error


def card_license(folder: Path) -> str:
    """What the dataset card in a folder gives as licence, "" if nothing."""
    from huggingface_hub import metadata_load

    card = folder / "README.md"
    try:
        found = (metadata_load(card) or {}).get("license") if card.is_file() else None
    except (ValueError, OSError):  # not YAML, or not text
        return ""
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found or "")
