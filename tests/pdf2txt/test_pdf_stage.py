"""The stage over a folder: rows, units, reuse, and what happens when workers or the run itself are killed."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from pdf2txt import cli, engines, stage
from pdf2txt.cli import convert_folder, document_text, exit_code
from pdf2txt.errors import UserError
from pdf2txt.pool import Job, Outcome, Task, allowance, leave_out
from pdf2txt.schema import read_documents
from pdf2txt.scratch import scratch
from pdf2txt.settings import Pdf2txtSettings
from pdf2txt.sources import list_sources

GEOMETRY = Pdf2txtSettings(layout="geometry", ocr="off", workers=2)


class Events(list):
    def __call__(self, event: str, **fields: Any) -> None:
        self.append((event, fields))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [f for e, f in self if e == event]


def run(
    folder: Path,
    work: Path,
    settings: Pdf2txtSettings = GEOMETRY,
    report: Any = None,
    units: Path | None = None,
):
    work.mkdir(exist_ok=True)
    (work / "sources.json").write_text(json.dumps(list_sources([folder])))
    inputs = {"sources": work / "sources.json", "units": units or folder.parent / "units"}
    metrics = stage.run(settings, inputs, work, Events() if report is None else report)
    return metrics, list(read_documents(work / "output" / "documents.parquet"))


@pytest.fixture
def folder(tmp_path: Path, typeset) -> Path:
    out = tmp_path / "pdfs"
    out.mkdir()
    for n in range(3):
        typeset(f"Document number {n} speaks of ships.#pagebreak()And of cargo.").rename(out / f"d{n}.pdf")
    (out / "broken.pdf").write_bytes(b"%PDF-1.4 and no more")
    (out / "empty.pdf").write_bytes(b"")
    (out / "notes.txt").write_text("Plain notes.\n\nTwo paragraphs.")
    return out


@pytest.fixture
def scan(tmp_path: Path, typeset) -> Path:
    """A folder with one image-only PDF of three pages."""
    pytest.importorskip("rapidocr")
    import pypdfium2

    pages = "#pagebreak()".join(f"The {w} page of the scanned ledger." for w in ("first", "second", "third"))
    path = typeset(f"#set page(width: 300pt, height: 100pt, margin: 20pt)\n#set text(12pt)\n{pages}")
    images = [page.render(scale=3).to_pil().convert("L") for page in pypdfium2.PdfDocument(path)]
    buffer = io.BytesIO()
    images[0].save(buffer, "PDF", resolution=216, save_all=True, append_images=images[1:])
    out = tmp_path / "scans"
    out.mkdir()
    (out / "scan.pdf").write_bytes(buffer.getvalue())
    return out


def test_rows_are_ordered_and_rejected_files_have_a_status(folder: Path, tmp_path: Path):
    (folder / "copy-of-d0.pdf").write_bytes((folder / "d0.pdf").read_bytes())
    metrics, rows = run(folder, tmp_path / "work")
    assert [r.doc_id for r in rows] == sorted(r.doc_id for r in rows) and len(rows) == 6
    assert {r.source: r.status for r in rows if r.status != "ok"} == {
        "broken.pdf": "corrupt",
        "empty.pdf": "empty",
    }
    assert (metrics["documents"], metrics["converted"], metrics["pages"]) == (6, 4, 7)
    assert metrics["rejected"] == {"corrupt": 1, "empty": 1}
    assert {f["source"] for f in metrics["rejected_files"]} == {"broken.pdf", "empty.pdf"}


def test_second_run_reuses_units_and_one_new_file_is_converted(folder: Path, tmp_path: Path, typeset):
    _, first = run(folder, tmp_path / "a")
    typeset("A document that came later.").rename(folder / "later.pdf")
    events = Events()
    metrics, second = run(folder, tmp_path / "b", report=events)
    assert (metrics["units_reused"], metrics["units_converted"]) == (6, 1)
    assert [u["reused"] for u in events.of("unit")].count(False) == 1
    assert [d for d in second if d.source != "later.pdf"] == first


def test_workers_do_not_change_the_result(folder: Path, tmp_path: Path):
    one, two = (
        run(folder, tmp_path / f"w{n}", GEOMETRY.model_copy(update={"workers": n}), units=tmp_path / f"u{n}")[1]
        for n in (1, 2)
    )
    assert one == two
    assert stage.digested(GEOMETRY) == stage.digested(GEOMETRY.model_copy(update={"workers": 9, "page_seconds": 5}))


def test_a_killed_worker_costs_its_document_a_retry_and_finished_pages_are_kept(scan: Path, tmp_path: Path):
    kept: dict[Path, int] = {}

    def kill_on_second_page(event: str, **fields: Any) -> None:
        if event == "progress" and fields["pages"] >= 2 and not kept:
            kept.update({f: f.stat().st_mtime_ns for f in (tmp_path / "units" / "page").iterdir()})
            children = [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]
            (worker,) = [p for p in children if "pdf2txt.worker" in p.cmdline()]
            worker.kill()

    events = Events()

    def report(event: str, **fields: Any) -> None:
        events(event, **fields)
        kill_on_second_page(event, **fields)

    settings = Pdf2txtSettings(layout="geometry", workers=1)
    metrics, (row,) = run(scan, tmp_path / "work", settings, report)
    pages = [u for u in events.of("unit") if u["kind"] == "page"]
    assert {u["key"] for u in pages} == {f.name for f in (tmp_path / "units" / "page").iterdir()}
    assert [u["reused"] for u in pages] == [False] * 3  # what had been read of the document was not read again
    assert metrics["pages_reused"] >= len(kept) and not any((tmp_path / "units" / "reading").iterdir())
    assert row.status == "ok" and metrics["transient"] == [] and metrics["pages_ocr"] == 3
    assert [row.page_text(n) for n in (1, 2, 3)] == [
        f"The {w} page of the scanned ledger." for w in ("first", "second", "third")
    ]  # fmt: skip
    assert kept and all(f.stat().st_mtime_ns == t for f, t in kept.items())


def test_a_page_over_its_limit_is_left_out_and_tried_again_next_time(scan: Path, tmp_path: Path):
    events = Events()
    slow = Pdf2txtSettings(layout="geometry", workers=1, page_seconds=0.2)
    metrics, (row,) = run(scan, tmp_path / "a", slow, events)
    assert row.status in ("timeout", "partial") and "over its limit" in row.warnings[0]
    assert events.of("transient") and metrics["units_converted"] == 0
    assert not any((tmp_path / "units" / "document").glob("[0-9a-f]*"))
    metrics, (row,) = run(scan, tmp_path / "b", slow.model_copy(update={"page_seconds": 60.0}))
    assert row.status == "ok" and row.n_pages == 3


def test_no_worker_outlives_a_killed_run(scan: Path, tmp_path: Path):
    command = [sys.executable, "-m", "pdf2txt", str(scan), "--out", str(tmp_path / "out")]
    parent = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    workers: list[psutil.Process] = []
    deadline = time.monotonic() + 20
    while not workers and time.monotonic() < deadline:
        workers = [p for p in psutil.Process(parent.pid).children() if "pdf2txt.worker" in p.cmdline()]
        time.sleep(0.02)
    assert workers
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive
    # What it left behind lies beside its output: the next one goes on with it, and leaves that of a live one alone.
    (left,) = (tmp_path / "out").glob(".pdf2txt-*")
    with scratch(tmp_path / "out") as mine, scratch(tmp_path / "out") as other:
        assert mine == left and other.exists() and other != mine
    assert not list((tmp_path / "out").glob(".pdf2txt-*"))


def test_files_are_written_with_page_breaks(folder: Path, tmp_path: Path):
    (folder / "sub").mkdir()
    (folder / "sub" / "d1.pdf").write_bytes((folder / "d2.pdf").read_bytes())
    result = convert_folder([folder], tmp_path / "out", page_breaks=True, workers=1, settings=GEOMETRY)
    assert exit_code(result) == 0
    by_source = {Path(d["source"]).relative_to(folder).as_posix(): d for d in result["documents"]}
    assert by_source["broken.pdf"]["status"] == "corrupt" and by_source["broken.pdf"]["text"] is None
    d1, other = by_source["d1.pdf"], by_source["sub/d1.pdf"]
    assert Path(d1["text"]).name == f"d1-{d1['sha256'][:8]}.txt" and d1["text"] != other["text"]
    assert Path(by_source["d0.pdf"]["text"]).read_text() == "Document number 0 speaks of ships.\fAnd of cargo.\n"
    whole = json.loads((tmp_path / "out" / "d0.json").read_text())
    assert whole["status"] == "ok" and len(whole["pages"]) == 2


def test_nothing_converted_is_a_failure(folder: Path, tmp_path: Path):
    result = convert_folder([folder / "broken.pdf"], tmp_path / "out", settings=GEOMETRY)
    assert exit_code(result) == 1
    assert document_text(folder / "d0.pdf").startswith("Document number 0")
    with pytest.raises(UserError, match="corrupt"):
        document_text(folder / "broken.pdf")


@pytest.mark.parametrize("path", ["missing", "nothing-inside"])
def test_missing_and_empty_folders_are_the_users_to_mend(tmp_path: Path, path: str):
    (tmp_path / "nothing-inside").mkdir()
    with pytest.raises(UserError) as caught:
        convert_folder([tmp_path / path], tmp_path / "out")
    assert path in str(caught.value) and caught.value.remedy


def test_identity_is_quick_and_imports_nothing_heavy():
    code = (
        "import time, sys; t = time.perf_counter(); import pdf2txt, pdf2txt.stage as s; "
        "from pdf2txt.settings import Pdf2txtSettings as P; assert s.identity(P())['versions']['pypdfium2']; "
        "heavy = {'torch', 'onnxruntime', 'openvino', 'cv2', 'numpy', 'pyarrow'} & set(sys.modules); "
        "assert not heavy, heavy; assert time.perf_counter() - t < 3"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_document_has_its_own_allowance_and_slow_pages_are_left_out():
    job = Job(Path("a.pdf"), "", Path("result"), Path("attempt"), Path("folder"), pages=1000)
    assert allowance(Task(job, page=3), 60) == 60
    assert allowance(Task(job, page=0), 60) == 660
    leave_out(job, 3, "slow")
    assert job.skip == {3: "slow"} and not job.rest and job.outcome_path == job.attempt
    for page in range(10, 20):
        leave_out(job, page, "slow")
    assert job.rest


def test_a_page_short_of_memory_is_left_out_for_this_run_only(tmp_path: Path, typeset, monkeypatch):
    """The worker is a process of its own: it finds its MemoryError on its path."""
    (tmp_path / "pdfs").mkdir()
    typeset("First.#pagebreak()Second.").rename(tmp_path / "pdfs" / "d.pdf")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'pdf2txt.worker' in ' '.join(sys.orig_argv):\n"
        "    from pdf2txt import textlayer\n"
        "    real, seen = textlayer.read, []\n"
        "    def read(page):\n"
        "        seen.append(page)\n"
        "        if len(seen) == 2:\n"
        "            raise MemoryError\n"
        "        return real(page)\n"
        "    textlayer.read = read\n"
    )
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path / "site"))
        metrics, (row,) = run(tmp_path / "pdfs", tmp_path / "a", GEOMETRY)
    assert (row.status, row.text) == ("partial", "First.")
    assert metrics["transient"] == ["d.pdf: page 2: not enough memory"] and metrics["units_converted"] == 0
    assert run(tmp_path / "pdfs", tmp_path / "b", GEOMETRY)[1][0].text == "First.\n\nSecond."


def test_pages_read_by_ocr_depend_on_what_reads_them(monkeypatch):
    pytest.importorskip("rapidocr")
    pytest.importorskip("rapid_layout")
    base = Pdf2txtSettings()

    def key(settings: Pdf2txtSettings = base, **versions: str) -> str:
        with monkeypatch.context() as patch:
            real = engines.version
            patch.setattr(engines, "version", lambda name: versions.get(name, real(name)))
            patch.setattr(engines, "poppler_version", lambda: versions.get("poppler", "1"))
            return stage.page_key(settings, stage.identity(settings))

    def having(**fields: Any) -> Pdf2txtSettings:
        return base.model_copy(update=fields)

    for same in (having(layout="geometry"), having(layout="rapid"), having(language="de"), having(keep_headers=True)):
        assert key(same) == key()
    assert key(**{"rapid-layout": "0", "ftfy": "0", "py3langid": "0", "poppler": "2"}) == key()
    assert key(having(dpi=300)) != key()
    assert key(rapidocr="0") != key() and key(pypdfium2="0") != key()
    poppler = having(render="poppler")
    if engines.poppler_version():
        assert key(poppler) != key(poppler, poppler="2")


def test_poppler_and_the_layout_models_runtime_are_part_of_the_identity(monkeypatch):
    settings = Pdf2txtSettings(layout="geometry", ocr="off")
    monkeypatch.setattr("shutil.which", lambda name: None)
    engines.poppler_version.cache_clear()
    assert stage.identity(settings)["versions"]["poppler"] == ""
    monkeypatch.undo()
    engines.poppler_version.cache_clear()
    versions = stage.identity(settings)["versions"]
    assert (versions["poppler"] != "") == (shutil.which("pdftoppm") is not None) and "onnxruntime" not in versions
    if engines.installed("rapid_layout"):
        assert stage.identity(settings.model_copy(update={"layout": "auto"}))["versions"]["onnxruntime"]


def test_failed_files_of_one_name_have_their_own_reasons(tmp_path: Path, monkeypatch):
    folder = tmp_path / "in"
    for name in ("a", "b", "c"):
        (folder / name).mkdir(parents=True)
        (folder / name / "same.txt").write_text(f"Text {name}.")

    def lost(jobs: list[Job], settings: Pdf2txtSettings, **options: Any):
        yield from (Outcome(job, f"lost in {job.path.parent.name}") for job in jobs)

    real = cli._hashes

    def one_unreadable(files: list[Path], report: Any) -> tuple[dict[Path, str], dict[Path, str]]:
        hashes, unreadable = real(files, report)
        del hashes[folder / "c" / "same.txt"]
        return hashes, {**unreadable, folder / "c" / "same.txt": "cannot be read: Permission denied"}

    monkeypatch.setattr(stage, "convert_all", lost)
    monkeypatch.setattr(cli, "_hashes", one_unreadable)
    result = convert_folder([folder], tmp_path / "out", settings=GEOMETRY)
    assert [(d["status"], d["warnings"]) for d in result["documents"]] == [
        ("failed", ["lost in a"]),
        ("failed", ["lost in b"]),
        ("failed", ["cannot be read: Permission denied"]),
    ]
    assert len(list((tmp_path / "out").glob("*.json"))) == 3
