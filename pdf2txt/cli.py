"""Files to text files without a store: what stands behind ``longfolio pdf2txt`` and ``python -m pdf2txt``."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdf2txt.errors import DrawingTimeout, UserError
from pdf2txt.export import open_jsonl
from pdf2txt.schema import CONVERTED, Document, as_table, facts
from pdf2txt.scratch import scratch
from pdf2txt.settings import Pdf2txtSettings
from pdf2txt.sidecar import write_json, write_text
from pdf2txt.sources import find_sources
from pdf2txt.units import digest, write_atomic

if TYPE_CHECKING:
    import pyarrow as pa

_SUFFIXES = (".txt", ".md", ".html", ".json")  # of what is written

Report = Callable[..., None]


def convert_folder(
    paths: Iterable[Path],
    out: Path,
    *,
    page_breaks: bool = False,
    workers: int | None = None,
    settings: Pdf2txtSettings | None = None,
    report: Report = lambda event, **fields: None,
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
        workers: processes, 0 for one per core; None: as the settings say.
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

    settings = settings or Pdf2txtSettings()
    if workers is not None:
        if workers < 0:
            raise UserError(f"{workers} workers cannot be", "give a number of processes, or 0 for one per core")
        settings = settings.model_copy(update={"workers": workers})
    inputs = _inputs(paths, out, report)
    with scratch(out) as work, open_jsonl(jsonl) if jsonl else contextlib.nullcontext() as add:
        converter = Converter(settings, units or work / "units", work, report)
        first = {sha256: files[0] for sha256, files in inputs.same.items()}
        converter.convert(first)
        writer = _Writer(out, inputs, settings, page_breaks, view, report)
        for table, seconds in converter.tables_and_seconds(first):
            if add:
                add(Document.from_table(table, places=False))
            writer.write(table, seconds)
        return {"documents": [writer.entry(file, converter.problems) for file in inputs.files]}


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


@dataclass
class _Inputs:
    """The files to convert, and what is known of them before."""

    files: list[Path]
    hashes: dict[Path, str]  # of those that can be read
    unreadable: dict[Path, str]  # why the others cannot
    names: dict[Path, str]  # stems of what is written

    @property
    def same(self) -> dict[str, list[Path]]:
        """Files by what they hold: each content is converted once."""
        same: dict[str, list[Path]] = {}
        for file, sha256 in self.hashes.items():
            same.setdefault(sha256, []).append(file)
        return same


def _inputs(paths: Iterable[Path], out: Path, report: Report) -> _Inputs:
    """Find the files, and make sure of a place to write that takes none of theirs.

    Raises:
        UserError: what `convert_folder` raises.
    """
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
    return _Inputs(files, hashes, unreadable, names)


def _hashes(files: list[Path], report: Report) -> tuple[dict[Path, str], dict[Path, str]]:
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


class _Writer:
    """Writes the files of each document, and keeps what the result says of it."""

    def __init__(
        self, out: Path, inputs: _Inputs, settings: Pdf2txtSettings, page_breaks: bool, view: bool, report: Report
    ) -> None:
        self.out, self.inputs, self.settings, self.report = out, inputs, settings, report
        self.page_breaks, self.view = page_breaks, view
        self.same = inputs.same
        self.entries: dict[Path, dict[str, Any]] = {}
        self.problems = dict(inputs.unreadable)  # of the files whose document is not written

    def write(self, table: pa.Table, seconds: float) -> None:
        """The files of a document, for every input that holds it."""
        for file in self.same[table["sha256"][0].as_py()]:
            try:
                self.entries[file] = self._write(table, file, seconds)
                if self.view:
                    from pdf2txt.view import write_view  # loads what reads PDFs, which is the workers' work

                    write_view(table, file, self._path(file, ".html"), self.settings.passwords)
            except (OSError, MemoryError, DrawingTimeout) as error:  # of one document: the others are written
                self.problems[file] = f"cannot be written: {error}"
                self.report("transient", message=f"{file.name}: {self.problems[file]}")

    def entry(self, file: Path, problems: dict[str, str]) -> dict[str, Any]:
        """What the result says of ``file``, which gets its JSON file here if it has no document.

        Args:
            problems: sha256 -> why its conversion had no result.
        """
        if file in self.entries and file not in self.problems:
            return self.entries[file]
        why = self.problems.get(file) or problems.get(self.inputs.hashes[file], "no result")
        status = "timeout" if why.startswith("over its limit") else "failed"
        document = Document(self.inputs.hashes.get(file, ""), file.name, status, warnings=(why,))
        # What could not be written before may fail again; anything else that keeps it from disk is an error.
        with contextlib.suppress(OSError) if file in self.problems else contextlib.nullcontext():
            self._write(as_table(document), file, 0.0)
        return _entry(facts(as_table(document)), file, None, 0.0)

    def _path(self, file: Path, suffix: str) -> Path:
        return self.out / f"{self.inputs.names[file]}{suffix}"

    def _write(self, table: pa.Table, file: Path, seconds: float) -> dict[str, Any]:
        known = facts(table)
        if self._path(file, ".json").exists():  # of an earlier conversion, whose other files may be of another form
            for suffix in _SUFFIXES:
                self._path(file, suffix).unlink(missing_ok=True)
            shutil.rmtree(self._path(file, "_view"), ignore_errors=True)  # images of its HTML page
        text_file: Path | None = None
        if known["status"] in CONVERTED:
            text_file = self._path(file, ".md" if self.settings.format == "markdown" else ".txt")
            write_text(text_file, table, self.page_breaks)
        write_json(self._path(file, ".json"), table)
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
