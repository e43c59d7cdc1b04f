"""PDFs to text files: what ``longfolio pdf2txt`` and ``python -m pdf2txt`` do."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pdf2txt.errors import DrawingTimeout, UserError
from pdf2txt.export import open_jsonl
from pdf2txt.schema import CONVERTED, Document, as_table, facts
from pdf2txt.settings import Pdf2txtSettings
from pdf2txt.sidecar import write_json, write_text
from pdf2txt.sources import find_sources
from pdf2txt.units import digest, write_atomic

if TYPE_CHECKING:
    import pyarrow as pa

_SCRATCH = ".pdf2txt-"
_SUFFIXES = (".txt", ".md", ".html", ".json")  # of what is written


def convert_folder(
    paths: Iterable[Path],
    out: Path,
    *,
    page_breaks: bool = False,
    workers: int = 0,
    settings: Pdf2txtSettings | None = None,
    report: Callable[..., None] = lambda event, **fields: None,
    units: Path | None = None,
    jsonl: Path | None = None,
    view: bool = False,
) -> dict[str, Any]:
    """Write ``<stem>.txt`` and ``<stem>.json`` into ``out`` for every document below ``paths``.

    The text file is ``<stem>.md`` where the settings ask for Markdown. The JSON file holds the whole
    ``Document``; a rejected file has only that. Where two files share a stem, both names carry the first
    8 hex digits of their sha256.

    Args:
        page_breaks: pages apart by a form feed in the ``.txt`` (a paragraph over a page's end is cut there).
        report: takes the stage contract's events.
        units: a store's units, to reuse what is converted; None: everything is converted.
        jsonl: a file that gets all documents as JSON lines (``export.py``).
        view: write ``<stem>.html`` as well (``view.py``).

    Returns:
        ``{"documents": [{"source", "sha256", "status", "pages", "pages_ocr", "seconds", "warnings",
        "text"}]}`` in the order of the paths; ``source`` and ``text`` (the ``.txt`` file, None for a
        rejected one) are absolute paths. ``status`` is "failed" where the system, not the file, was at fault
        (no permission, a full disk, a worker lost): ``warnings`` hold its error.

    Raises:
        UserError: a path does not exist, there is nothing to convert, or ``out`` cannot be written.
    """
    from pdf2txt.stage import Converter

    if workers < 0:
        raise UserError(f"{workers} workers cannot be", "give a number of processes, or 0 for one per core")
    settings = (settings or Pdf2txtSettings()).model_copy(update={"workers": workers})
    files = find_sources(paths, leave_out=out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / ".writable", b"")
        (out / ".writable").unlink()
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}", "choose another --out folder") from error
    hashes, unreadable = _hashes(files, report)
    names = _names({file: hashes.get(file) or digest(str(file.absolute())) for file in files})
    _spare(files, out, names)
    with _scratch(out) as work, open_jsonl(jsonl) if jsonl else contextlib.nullcontext() as add:
        by_hash: dict[str, Path] = {}
        same: dict[str, list[Path]] = {}
        for file, sha256 in hashes.items():
            by_hash.setdefault(sha256, file)
            same.setdefault(sha256, []).append(file)
        converter = Converter(settings, units or work / "units", work, report)
        converter.convert(by_hash)
        entries: dict[Path, dict[str, Any]] = {}
        problems = dict(unreadable)
        for table, seconds in converter.tables_and_seconds(by_hash):
            document = Document.from_table(table) if add or view else None
            if add and document:
                add(document)
            for file in same[table["sha256"][0].as_py()]:
                try:
                    entries[file] = _write(table, file, out, names[file], page_breaks, seconds, settings.format)
                    if view and document:
                        from pdf2txt.view import write_view  # loads what reads PDFs, which is the workers' work

                        write_view(document, file, out / f"{names[file]}.html", settings.passwords)
                except (OSError, MemoryError, DrawingTimeout) as error:  # of one document: the others are written
                    problems[file] = f"cannot be written: {error}"
                    report("transient", message=f"{file.name}: {problems[file]}")
        for file in files:
            if file not in entries or file in problems:
                why = problems.get(file) or converter.problems.get(hashes[file], "no result")
                status = "timeout" if why.endswith("CPU seconds") else "failed"
                document = Document(hashes.get(file, ""), file.name, status, warnings=(why,))
                with contextlib.suppress(OSError) if file in problems else contextlib.nullcontext():
                    _write(as_table(document), file, out, names[file], page_breaks, 0.0)
                entries[file] = _entry(facts(as_table(document)), file, None, 0.0)
        return {"documents": [entries[file] for file in files]}


def _spare(files: list[Path], out: Path, names: dict[Path, str]) -> None:
    """No output may take the place of an input.

    Raises:
        UserError: one would.
    """
    inputs = {file.resolve(): file for file in files}
    for name in names.values():
        for suffix in _SUFFIXES:
            if clash := inputs.get((out / f"{name}{suffix}").resolve()):
                raise UserError(f"{clash} would be overwritten by its own text", "choose another --out folder")


@contextlib.contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A folder in ``out`` for what is on its way; gone afterwards.

    It stays where the work is interrupted, and the next call goes on with it.

    A living process holds a lock on a file in its own.
    """
    mine: tuple[Path, IO[bytes]] | None = None
    for left in sorted(out.glob(f"{_SCRATCH}*")):
        if (lock := _locked(left)) is None:
            continue
        if mine is None:
            mine = left, lock
        else:
            shutil.rmtree(left, ignore_errors=True)
            lock.close()
    while mine is None:
        work = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=out))
        if (lock := _locked(work)) is not None:  # else another process took it for a leftover before
            mine = work, lock
    work, lock = mine
    with lock:
        try:
            yield work
        except UserError:
            shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)


def _locked(folder: Path) -> IO[bytes] | None:
    """The lock of a folder, taken; None where a living process has it, or the folder is gone."""
    try:
        lock = (folder / "lock").open("ab")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock.fileno()), (folder / "lock").stat()):
            return lock
        lock.close()
    except OSError:
        pass
    return None


def document_text(path: Path) -> str:
    """The text of one document, converted in this process.

    Raises:
        UserError: it does not exist, cannot be read, or cannot be converted.
    """
    from pdf2txt.convert import convert

    try:
        document = convert(path, Pdf2txtSettings())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", "name a readable PDF, .txt or .md file") from error
    if document.status not in CONVERTED:
        why = "; ".join(document.warnings[:2])
        raise UserError(f"{path} is {document.status}: {why}", "name another document")
    return document.text


def exit_code(result: dict[str, Any]) -> int:
    """0 if at least one document was converted, else 1."""
    return 0 if any(d["status"] in CONVERTED for d in result["documents"]) else 1


def _hashes(files: list[Path], report: Callable[..., None]) -> tuple[dict[Path, str], dict[Path, str]]:
    import hashlib

    hashes, unreadable = {}, {}
    for file in files:
        try:
            with file.open("rb") as stream:
                hashes[file] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            unreadable[file] = f"cannot be read: {error.strerror}"
            report("transient", message=f"{file.name}: {unreadable[file]}")
    return hashes, unreadable


def _names(hashes: dict[Path, str]) -> dict[Path, str]:
    """Output stem of each file. Names are compared without case: some file systems do."""
    same = Counter(stem for stem, _ in {(f.stem.casefold(), sha256) for f, sha256 in hashes.items()})
    return {f: f.stem if same[f.stem.casefold()] == 1 else f"{f.stem}-{sha256[:8]}" for f, sha256 in hashes.items()}


def _write(
    table: pa.Table, file: Path, out: Path, name: str, page_breaks: bool, seconds: float, form: str = "plain"
) -> dict[str, Any]:
    known = facts(table)
    if (out / f"{name}.json").exists():  # of an earlier conversion, whose other files may be of another form
        for suffix in _SUFFIXES:
            (out / f"{name}{suffix}").unlink(missing_ok=True)
    text_file: Path | None = None
    if known["status"] in CONVERTED:
        text_file = out / f"{name}{'.md' if form == 'markdown' else '.txt'}"
        write_text(text_file, table, page_breaks)
    write_json(out / f"{name}.json", table)
    return _entry(known, file, text_file, seconds)


def _entry(known: dict[str, Any], file: Path, text_file: Path | None, seconds: float) -> dict[str, Any]:
    return {
        "source": str(file.absolute()),
        "sha256": known["sha256"],
        "status": known["status"],
        "pages": known["pages"],
        "pages_ocr": known["pages_ocr"],
        "seconds": seconds,
        "warnings": known["warnings"],
        "text": str(text_file.absolute()) if text_file else None,
    }
