"""The committed example documents are what their sources give and hold the text of the truth files."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pypdfium2 as pdfium
import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
PDFS = EXAMPLES / "pdfs"
READABLE = {
    "two-column-article": 6,
    "hyphenated-chapter": 13,
    "report-with-tables": 6,
    "scanned-memo": 2,
    "rotated-notes": 6,
    "pipeline-handbook": 10,
}
UPRIGHT = sorted(set(READABLE) - {"scanned-memo", "rotated-notes"})


def truth_of(stem: str) -> dict[str, Any]:
    return json.loads((EXAMPLES / "truth" / f"{stem}.json").read_text(encoding="utf-8"))


def pages_of(source: Path | bytes) -> list[str]:
    with pdfium.PdfDocument(source) as document:
        return [page.get_textpage().get_text_range() for page in document]


def fold(text: str) -> str:
    """Without white space and hyphens, also those that pdfium reports at a line end."""
    return re.sub(r"[\s\-\u00ad\u2010\u0002\ufffe]", "", text)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    pytest.importorskip("typst", reason="needs the dev extra")
    pytest.importorskip("pypdf", reason="needs the dev extra")
    spec = importlib.util.spec_from_file_location("examples_build", EXAMPLES / "build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rebuilt(script: ModuleType) -> tuple[dict[str, bytes], dict[str, bytes]]:
    return script.build()


def test_the_sources_give_the_committed_files(rebuilt: tuple[dict[str, bytes], dict[str, bytes]]) -> None:
    """Text and truth must agree under any version of typst; the bytes need not."""
    pdfs, truths = rebuilt
    assert set(pdfs) == {path.stem for path in PDFS.glob("*.pdf")}
    assert set(truths) == {path.stem for path in (EXAMPLES / "truth").glob("*.json")} == set(READABLE)
    for stem, data in truths.items():
        assert json.loads(data) == truth_of(stem), f"{stem}: run examples/build.py"
        assert pages_of(pdfs[stem]) == pages_of(PDFS / f"{stem}.pdf"), f"{stem}: run examples/build.py"


def test_building_twice_gives_the_same_bytes(
    script: ModuleType, rebuilt: tuple[dict[str, bytes], dict[str, bytes]]
) -> None:
    assert script.build()[0] == rebuilt[0]


@pytest.mark.parametrize(("stem", "pages"), READABLE.items())
def test_page_counts_and_rotation(stem: str, pages: int) -> None:
    truth = truth_of(stem)
    with pdfium.PdfDocument(PDFS / f"{stem}.pdf") as document:
        assert len(document) == pages == len(truth["pages"])
        assert [page.get_rotation() for page in document] == [page["rotate"] for page in truth["pages"]]


@pytest.mark.parametrize("stem", UPRIGHT)
def test_every_text_of_the_truth_stands_in_the_pdf(stem: str) -> None:
    truth = truth_of(stem)
    found = fold("".join(body_of(stem, truth)))
    paragraphs = with_marks(truth)
    for text in [*paragraphs, *truth["lists"], *truth["references"], *[h["text"] for h in truth["headings"]]]:
        assert fold(text) in found or in_two_parts(fold(text), found), text
    for text in [*[c["text"] for c in truth["captions"]], *[f["text"] for f in truth["footnotes"]]]:
        assert fold(text) in found, text
    for cell in [cell for table in truth["tables"] for row in table for cell in row]:
        assert fold(cell) in found, cell
    assert fold(truth["title"]) in fold(pages_of(PDFS / f"{stem}.pdf")[0])
    assert fold(truth["abstract"] or "") in found


def body_of(stem: str, truth: dict[str, Any]) -> list[str]:
    """Page texts without heads, feet and page numbers; each of them must be there to be removed."""
    bodies = []
    heads = [re.escape(head) for head in truth["running_heads"]]
    for text, page in zip(pages_of(PDFS / f"{stem}.pdf"), truth["pages"], strict=True):
        lines = text.split("\r\n")
        furniture = re.compile("|".join([*heads, re.escape(page["printed"])]))
        assert page["printed"] in " ".join(lines[:2] + lines[-2:]), (stem, page)
        bodies.append("\n".join(line for line in lines if furniture.sub("", line).strip()))
    return bodies


def with_marks(truth: dict[str, Any]) -> list[str]:
    """The paragraphs with the footnote marks that the page shows."""
    texts = list(truth["paragraphs"])
    for note in reversed(truth["footnotes"]):
        if note["paragraph"] is not None:
            text, at = texts[note["paragraph"]], note["offset"]
            texts[note["paragraph"]] = text[:at] + str(note["number"]) + text[at:]
    return texts


def in_two_parts(text: str, found: str) -> bool:
    """Whether a paragraph is there but interrupted by a footnote, a figure or a column's end."""
    for cut in range(len(text) - 1, 0, -1):
        if text[:cut] in found:
            start = found.index(text[:cut]) + cut
            return text[cut:] in found[start : start + 3000]
    return False


def test_sideways_pages_hold_every_word() -> None:
    """pdfium gives the lines of a turned page in another order, so words are counted here."""
    truth = truth_of("rotated-notes")
    words = Counter(re.findall(r"\w+", " ".join(truth["paragraphs"] + truth["lists"])))
    found = Counter(re.findall(r"\w+", " ".join(pages_of(PDFS / "rotated-notes.pdf")).replace("\ufffe", "")))
    assert sum((words - found).values()) <= 0.01 * sum(words.values()), words - found
    assert {page["drawn"] for page in truth["pages"]} == {90, 270}


def test_the_scan_has_no_text_layer() -> None:
    assert not truth_of("scanned-memo")["text_layer"]
    assert "".join(pages_of(PDFS / "scanned-memo.pdf")).strip() == ""


def test_encrypted_needs_its_password(script: ModuleType) -> None:
    with pytest.raises(pdfium.PdfiumError, match="password"):
        pdfium.PdfDocument(PDFS / "encrypted.pdf")
    with pdfium.PdfDocument(PDFS / "encrypted.pdf", password=script.PASSWORD) as document:
        assert "This page exists to be locked." in document[0].get_textpage().get_text_range()


def test_damaged_opens_nowhere() -> None:
    pypdf = pytest.importorskip("pypdf")
    assert (PDFS / "damaged.pdf").read_bytes().startswith(b"%PDF-")
    with pytest.raises(pdfium.PdfiumError):
        pdfium.PdfDocument(PDFS / "damaged.pdf")
    with pytest.raises(pypdf.errors.PyPdfError):
        len(pypdf.PdfReader(PDFS / "damaged.pdf").pages)


def test_enough_text_in_little_space() -> None:
    words = {stem: truth_of(stem)["words"] for stem in READABLE}
    assert sum(words.values()) >= 14_000
    assert min(count for stem, count in words.items() if stem != "scanned-memo") >= 1_200
    assert words["scanned-memo"] >= 700
    assert sum(READABLE.values()) >= 26
    assert sum(path.stat().st_size for path in PDFS.iterdir()) < 3_000_000


def test_questions_are_well_formed() -> None:
    lines = (EXAMPLES / "qa.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) >= 60
    assert all(set(row) == {"instruction", "output"} for row in rows)
    assert all(len(row["instruction"]) > 10 and len(row["output"]) > 10 for row in rows)
    assert len({row["instruction"] for row in rows}) == len(rows)


@pytest.mark.parametrize("stem", READABLE)
def test_acronyms_are_introduced(stem: str) -> None:
    truth = truth_of(stem)
    text = " ".join([truth["abstract"] or "", *truth["paragraphs"], *truth["lists"]]).lower()
    for short, long in truth["acronyms"].items():
        assert f"{long} ({short})".lower() in text
