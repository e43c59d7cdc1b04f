"""Which files are converted: the PDFs, texts and Markdown files below the paths a user names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pdf2txt.errors import UserError
from pdf2txt.textfile import SUFFIXES

CONVERTIBLE = {".pdf", *SUFFIXES}


def find_sources(paths: Iterable[Path], leave_out: Path | None = None) -> list[Path]:
    """Files to convert, sorted: named files whatever they are, and the convertible ones below named folders.

    Args:
        leave_out: a folder whose files are never taken (the output folder, where it lies below an input).

    Raises:
        UserError: a path does not exist, or there is nothing to convert.
    """
    paths = list(paths)
    found: set[Path] = set()
    for path in paths:
        if path.is_file():
            found.add(path)
        elif path.is_dir():
            found.update(f for f in path.rglob("*") if _wanted(f, path) and not _inside(f, leave_out))
        else:
            raise UserError(f"no such file or folder: {path}", "name a PDF file or a folder that holds PDF files")
    if not found:
        named = ", ".join(map(str, paths)) or "nothing"
        if leave_out is not None and any(_inside(path, leave_out) for path in paths):
            raise UserError(f"{named} is inside {leave_out}, where the output goes", "choose another --out folder")
        raise UserError(
            f"no document to convert in {named}", "put PDF, .txt or .md files there, or name another folder"
        )
    return sorted(found)


def list_sources(paths: Iterable[Path]) -> list[dict[str, str]]:
    """``[{"sha256", "path"}]`` of ``find_sources``, absolute paths: the stage's input ``sources``."""
    out = []
    for path in find_sources(paths):
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        out.append({"sha256": sha256, "path": str(path.absolute())})
    return out


def _wanted(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return not hidden and file.suffix.lower() in CONVERTIBLE and file.is_file()


def _inside(file: Path, folder: Path | None) -> bool:
    return folder is not None and file.resolve().is_relative_to(folder.resolve())
