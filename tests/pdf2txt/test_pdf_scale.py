"""What keeps large and difficult files going: ranges of pages, restarts, passwords, budgets, parts read by OCR."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import pypdfium2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdf2txt import drawings, pool, schema, sidecar, stage, textlayer
from pdf2txt.assemble import paragraphs
from pdf2txt.blocks import RawBlock
from pdf2txt.cli import convert_folder
from pdf2txt.convert import Conversion, convert
from pdf2txt.errors import UserError
from pdf2txt.judge import Verdict, judge
from pdf2txt.reading import PageRead, Reader
from pdf2txt.schema import Document, as_table
from pdf2txt.settings import Pdf2txtSettings
from pdf2txt.spans import Line
from pdf2txt.spool import ranges

GEOMETRY = Pdf2txtSettings(layout="geometry", ocr="off")
# A header and a page number on 21 pages, and a paragraph that runs over every page's end.
BOOK = """#set page(width: 300pt, height: 200pt, margin: 40pt, header: [A History of Ports], numbering: "1")
#set text(11pt)
#for n in range(60) [Chapter #n tells of ships and of their cargo, which was counted on the quay. ]
#for n in range(300) [The clerk of harbour #n wrote the weight of every barrel in his ledger and signed it. ]
"""


@pytest.fixture
def book(typeset) -> Path:
    return typeset(BOOK, "book.pdf")


def test_a_divided_document_is_the_same_as_one_done_at_once(book: Path, tmp_path: Path):
    """Every step by a process of its own (here: an object that shares only the folder), ranges in any order."""
    whole = convert(book, GEOMETRY)
    assert whole.n_pages > 16 and "History" not in whole.text
    opened = Conversion(book, GEOMETRY, tmp_path / "doc")
    assert opened.whole(at_most=4) is None and opened.total == whole.n_pages
    pieces = list(ranges(opened.total))
    for first, last in reversed(pieces):
        Conversion(book, GEOMETRY, tmp_path / "doc").read(first, last)
    Conversion(book, GEOMETRY, tmp_path / "doc").decide()
    for first, last in reversed(pieces):
        Conversion(book, GEOMETRY, tmp_path / "doc").shape(first, last)
    divided = Document.from_table(Conversion(book, GEOMETRY, tmp_path / "doc").finish())
    assert divided == whole


def test_a_restart_reads_only_what_was_not_read(book: Path, tmp_path: Path, monkeypatch):
    real, seen = Reader.read, []

    def dies_at_ten(self: Reader, number: int) -> PageRead:
        seen.append(number)
        if len(seen) == 10:
            raise KeyboardInterrupt
        return real(self, number)

    monkeypatch.setattr(Reader, "read", dies_at_ten)
    with pytest.raises(KeyboardInterrupt):
        Conversion(book, GEOMETRY, tmp_path / "doc").whole()
    again = Conversion(book, GEOMETRY, tmp_path / "doc")
    document = Document.from_table(again.whole())
    assert seen == [*range(1, 11), *range(10, document.n_pages + 1)] and again.pages_reused == 9
    assert document == convert(book, GEOMETRY)


def test_a_page_left_out_once_is_there_the_next_time(book: Path, tmp_path: Path):
    first = Conversion(book, GEOMETRY, tmp_path / "doc", skip={5: "over its limit of 1 CPU seconds"})
    partial = Document.from_table(first.whole())
    assert partial.status == "partial" and partial.page_text(5) == "" and partial.page_text(6)
    second = Conversion(book, GEOMETRY, tmp_path / "doc")
    assert Document.from_table(second.whole()) == convert(book, GEOMETRY)
    assert second.pages_reused == partial.n_pages - 1


def test_a_page_may_be_left_out_after_it_was_read(book: Path, tmp_path: Path):
    """Its reading order took too long: rows of it were to be taken already."""
    conversion = Conversion(book, GEOMETRY, tmp_path / "doc")
    assert conversion.whole(at_most=1) is None
    for first, last in ranges(conversion.total):
        conversion.read(first, last)
    conversion.decide()
    conversion.skip = {5: "over its limit of 1 CPU seconds"}
    for first, last in ranges(conversion.total):
        conversion.shape(first, last)
    document = Document.from_table(conversion.finish())
    assert document.status == "partial" and not document.page_text(5) and document.page_text(6)


def test_the_error_budget_decides_what_is_partial(book: Path):
    skip = {1: "damaged", 2: "damaged"}
    assert convert(book, GEOMETRY, skip=skip).status == "partial"
    strict = convert(book, GEOMETRY.model_copy(update={"error_budget": 0.01}), skip=skip)
    assert strict.status == "corrupt" and "pdf2txt.error_budget" in strict.warnings[0]


def test_one_long_document_keeps_both_workers_busy_and_survives_a_kill(book: Path, tmp_path: Path):
    import json
    import os
    import signal

    import psutil

    folder = tmp_path / "in"
    folder.mkdir()
    book.rename(folder / "book.pdf")
    workers: set[int] = set()
    killed: list[int] = []

    def report(event: str, **fields: object) -> None:
        if event == "progress" and fields["done"] == 0:
            running = [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]
            workers.update(p.pid for p in running if "pdf2txt.worker" in p.cmdline())
            if not killed and int(str(fields["pages"])) > 6:
                killed.append(next(iter(workers)))
                os.kill(killed[0], signal.SIGKILL)

    sources = [{"path": str(folder / "book.pdf"), "sha256": Conversion(folder / "book.pdf", GEOMETRY, tmp_path).sha256}]
    work = tmp_path / "work"
    work.mkdir()
    (work / "sources.json").write_text(json.dumps(sources))
    two = GEOMETRY.model_copy(update={"workers": 2})
    metrics = stage.run(two, {"sources": work / "sources.json", "units": tmp_path / "units"}, work, report)
    assert len(workers) >= 2 and metrics["transient"] == []
    assert metrics["pages_read"] <= metrics["pages"] + 2  # at most what was in flight, twice
    assert not any((tmp_path / "units" / "reading").iterdir())


@pytest.mark.parametrize("big", [True, False])
def test_a_second_worker_is_started_ahead_for_a_big_file_only(book: Path, tmp_path: Path, monkeypatch, big: bool):
    happened: list[str] = []
    spawn, divide = pool._Pool._spawn, pool._Pool._divide
    monkeypatch.setattr(pool._Pool, "_spawn", lambda self: (happened.append("worker"), spawn(self))[1])
    monkeypatch.setattr(pool._Pool, "_divide", lambda *args: (happened.append("divided"), divide(*args))[1])
    monkeypatch.setattr(pool, "_BIG", book.stat().st_size + (not big))
    result = convert_folder([book], tmp_path / "out", settings=GEOMETRY, workers=2)
    assert result["documents"][0]["status"] == "ok"
    assert happened[: happened.index("divided")] == ["worker"] * (1 + big) and happened.count("worker") == 2


def test_a_document_is_converted_and_summed_up_without_pandas(book: Path, tmp_path: Path):
    """pyarrow would import it, which takes as long as ten pages."""
    pytest.importorskip("pandas")
    code = """if True:
        import sys
        from pathlib import Path
        from pdf2txt.convert import Conversion
        from pdf2txt.schema import facts, read_unit, write_unit
        from pdf2txt.settings import Pdf2txtSettings
        from pdf2txt.sidecar import write_json
        table = Conversion(Path(sys.argv[1]), Pdf2txtSettings(layout="geometry", ocr="off"), Path(sys.argv[2])).whole()
        table.validate(full=True)
        write_unit(Path(sys.argv[2]) / "unit", table, 1.0)
        table, _ = read_unit(Path(sys.argv[2]) / "unit")
        write_json(Path(sys.argv[2]) / "json", table)
        assert facts(table)["pages"] > 16 and "pandas" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code, str(book), str(tmp_path / "doc")], check=True)


def test_passwords_are_tried_in_turn(book: Path, tmp_path: Path):
    import pypdf

    writer = pypdf.PdfWriter(clone_from=book)
    writer.encrypt("sesame", algorithm="AES-256")
    locked = tmp_path / "locked.pdf"
    writer.write(locked)
    listed = tmp_path / "passwords.txt"
    listed.write_text("wrong\nsesame\n")
    none = convert(locked, GEOMETRY)
    assert none.status == "encrypted" and "pdf2txt.passwords" in none.warnings[0]
    settings_ = GEOMETRY.model_copy(update={"passwords": listed})
    assert convert(locked, settings_).text == convert(book, GEOMETRY).text
    key = stage.document_key("0", ".pdf", settings_, stage.identity(settings_))
    listed.write_text("wrong\n")
    assert "none of the 1" in convert(locked, settings_).warnings[0]
    assert stage.document_key("0", ".pdf", settings_, stage.identity(settings_)) != key
    assert "sesame" not in str(stage.identity(settings_))


def test_a_scan_pasted_into_a_page_is_read_and_a_photograph_is_not(typeset, tmp_path: Path):
    pytest.importorskip("rapidocr")
    from PIL import Image

    lines = "\n\n".join(f"Line {n} of the old ledger tells of barrels, ropes and sails." for n in "abcdefgh")
    scan = typeset(
        f"#set page(width: 360pt, height: 200pt, margin: 16pt)\n#set text(11pt)\n#set par(spacing: 8pt)\n{lines}"
    )
    pypdfium2.PdfDocument(scan)[0].render(scale=2.5).to_pil().convert("L").save(tmp_path / "scan.png")
    noise = Image.effect_noise((400, 300), 80)
    noise.save(tmp_path / "photo.png")
    prose = "The harbour master kept his accounts in a book that nobody was allowed to open. " * 6
    page = typeset(
        f'#set page(width: 480pt, height: 640pt)\n{prose}\n\n#image("scan.png", width: 100%)\n\n'
        f'{prose}\n\n#image("photo.png", width: 40%)'
    )
    document = convert(page, Pdf2txtSettings(layout="geometry"))
    assert document.pages[0].origin == "mixed" and 0.5 < document.pages[0].confidence <= 1
    at = [
        document.text.find(words)
        for words in (
            "harbour master",
            "Line a of the old ledger",
            "Line h of the old",
        )
    ]
    assert -1 < at[0] < at[1] < at[2] < document.text.rfind("harbour master")
    off = convert(page, GEOMETRY)
    assert off.pages[0].origin == "text-layer" and "OCR is off" in off.warnings[0]


@pytest.mark.parametrize("cut", [0, 60], ids=["all of the page", "a part of it"])
def test_of_a_scan_with_text_over_its_lower_half_the_upper_half_is_to_be_read(typeset, tmp_path: Path, cut: int):
    paper = "#set page(width: 480pt, height: 640pt, margin: 72pt, fill: {})\n#set text(11pt)\n"
    printed = "Barrels and ropes and sails were entered in the old ledger by the master of the harbour. " * 9
    lower = f"#place(top, dy: 250pt)[{'The undersigned declares that all of this is complete and true. ' * 20}]"

    def judged(scanned: str) -> Verdict:
        with pypdfium2.PdfDocument(typeset(paper.format("white") + scanned, "scan.pdf")) as pdf:
            scan = pdf[0].render(scale=2).to_pil().convert("L")
        scan.crop((2 * cut, 2 * cut, 960 - 2 * cut, 1280 - 2 * cut)).save(tmp_path / "scan.png")
        image = f'image("scan.png", width: {480 - 2 * cut}pt)'
        over = f"#set page(background: place(top + left, dx: {cut}pt, dy: {cut}pt, {image}))\n{lower}"
        with pypdfium2.PdfDocument(typeset(paper.format("none") + over, "over.pdf")) as pdf:
            layer = textlayer.read(pdf[0])
            return judge(pdf[0], layer, drawings.read(pdf[0], layer.frame))

    [(_, y0, _, y1)] = judged(printed).regions
    assert y0 < 72 and 220 < y1 < 330
    assert not judged(lower).why and not judged("").why


kinds = st.sampled_from(["text", "text", "list", "footnote", "table", "caption", "figure", "heading"])
texts = st.sampled_from(["The end.", "runs on", "lower case", "Upper", "broken-", "1. item"])
raw = st.lists(st.tuples(st.integers(0, 2), kinds, texts), max_size=40)


@given(raw)
@settings(max_examples=300, deadline=None)
def test_paragraphs_in_a_window_are_those_of_the_whole_document(steps):
    """A block joins a paragraph of its own page or the one before: what is further back is settled."""
    blocks, page = [], 1
    for n, (step, kind, text) in enumerate(steps):
        page += step
        blocks.append(RawBlock(page, [Line(text, 0, 20 * n, 100, 20 * n + 10, 10)] * 2, kind, n))
    streamed = list(paragraphs(iter(blocks)))
    assert sorted(id(b) for p in streamed for b in p) == sorted(map(id, blocks))
    pages = [b.page for p in streamed for b in p]
    assert pages == sorted(pages)


def test_memory_does_not_grow_with_the_pages(book: Path, tmp_path: Path):
    """Five times the pages: what Python holds at its peak grows by little more than the text takes."""
    import tracemalloc

    source = pypdfium2.PdfDocument(book)
    peaks = []
    for times in (1, 1, 5):  # the first loads what is loaded once
        target = pypdfium2.PdfDocument.new()
        for _ in range(times):
            target.import_pages(source, list(range(12)))
        buffer = io.BytesIO()
        target.save(buffer)
        (tmp_path / "big.pdf").write_bytes(buffer.getvalue())
        with tempfile.TemporaryDirectory() as folder:
            conversion = Conversion(tmp_path / "big.pdf", GEOMETRY.model_copy(update={"language": "en"}), Path(folder))
            tracemalloc.start()
            table = conversion.whole()
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            conversion.close()
    pages = table["n_pages"][0].as_py()
    assert (peaks[2] - peaks[1]) / (0.8 * pages) < 20_000  # bytes a page; as objects a page takes fifteen times that


def test_every_page_block_and_paragraph_has_a_line_of_its_own(book: Path, tmp_path: Path, monkeypatch):
    import json

    document = convert(book, GEOMETRY)
    monkeypatch.setattr(schema, "_SLICE", 7)  # a seam between slices is none between lines
    sidecar.write_json(tmp_path / "book.json", as_table(document))
    written = (tmp_path / "book.json").read_text()
    assert Document.from_dict(json.loads(written)) == document
    lines = [line.rstrip(",]") for line in written.splitlines() if line.startswith("{") and len(line) > 1]
    entries = [*document.pages, *document.blocks, *document.paragraphs]
    assert [json.loads(line) for line in lines] == json.loads(json.dumps([asdict(entry) for entry in entries]))


def test_an_interrupted_command_goes_on_where_it_was(book: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "in").mkdir()
    book.rename(tmp_path / "in" / "book.pdf")
    reused: list[bool] = []
    show = stage._Progress.show
    monkeypatch.setattr(stage._Progress, "show", lambda self, force=False: show(self, True))  # of every page

    def stops(event: str, **fields: object) -> None:
        if event == "progress" and int(str(fields["pages"])) == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_folder([tmp_path / "in"], tmp_path / "out", settings=GEOMETRY, workers=1, report=stops)
    real = stage.Converter._take
    monkeypatch.setattr(
        stage.Converter, "_take", lambda self, done: (reused.append(done.job.pages_reused > 10), real(self, done))
    )
    result = convert_folder([tmp_path / "in"], tmp_path / "out", settings=GEOMETRY, workers=1)
    assert reused == [True] and result["documents"][0]["status"] == "ok"
    assert not list((tmp_path / "out").glob(".pdf2txt-*"))


def test_no_input_is_overwritten_and_names_may_be_long(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("My own notes,   with odd spacing.")
    with pytest.raises(UserError, match="overwritten"):
        convert_folder([tmp_path / "notes.txt"], tmp_path, settings=GEOMETRY)
    assert (tmp_path / "notes.txt").read_text() == "My own notes,   with odd spacing."
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"{'x' * 251}.txt").write_text("A name so long that no suffix fits.")
    (tmp_path / "in" / "short.txt").write_text("Another.")
    result = convert_folder([tmp_path / "in"], tmp_path / "out", settings=GEOMETRY, workers=1)
    assert [d["status"] for d in result["documents"]] == ["ok", "failed"]
    assert "cannot be written" in result["documents"][1]["warnings"][0]
    with pytest.raises(UserError, match="where the output goes"):
        convert_folder([tmp_path / "out"], tmp_path / "out", settings=GEOMETRY)


def test_two_workers_that_fail_on_one_document_do_not_lose_the_others(book: Path, tmp_path: Path, monkeypatch):
    """The file goes while its pages are read by two workers, both of which say so at the same moment."""
    (tmp_path / "in").mkdir()
    book.rename(tmp_path / "in" / "book.pdf")
    (tmp_path / "in" / "other.txt").write_text("The other document.")

    def gone(event: str, **fields: object) -> None:
        if event == "progress" and int(str(fields["pages"])) >= 6:
            for left in (tmp_path / "out").glob(".pdf2txt-*/units/reading/*/*"):
                left.unlink(missing_ok=True)

    result = convert_folder([tmp_path / "in"], tmp_path / "out", settings=GEOMETRY, workers=2, report=gone)
    assert [d["status"] for d in result["documents"]] == ["failed", "ok"]
