"""Long PDFs with a text layer, from two producers, kept in the cache: memory and scale are measured on them."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.pdf2txt_bench.common import Bench, Skip, content_key

# A book page: justified, hyphenated, with a running head and a page number.
_MARKUP = """
#set page(width: 148mm, height: 210mm, margin: 18mm, numbering: "1", header: align(center)[_A reader_])
#set text(size: 10pt, hyphenate: true)
#set par(justify: true, first-line-indent: 1em)
#for part in read("text").split("\\n\\n") { par(part) }
"""
_WORDS_A_PAGE = 424  # about, of that page


def repeated(bench: Bench, pages: int) -> Path:
    """The papers' pages again and again, as pdfium writes them."""
    import pypdfium2

    sources = bench.pdfs("jose")
    path = _place(bench, f"papers-{pages}", *sources)
    if not path.exists():
        with pypdfium2.PdfDocument.new() as whole:
            opened = [pypdfium2.PdfDocument(s) for s in sources]
            for pdf in itertools.cycle(opened):
                if len(whole) == pages:
                    break
                whole.import_pages(pdf, list(range(min(len(pdf), pages - len(whole)))))
            _write(path, lambda aside: whole.save(aside))
    return path


def typeset(bench: Bench, pages: int) -> Path:
    """About so many pages of novels, typeset by Typst.

    Raises:
        Skip: no novels, or no Typst.
    """
    if importlib.util.find_spec("typst") is None:
        raise Skip("the package typst is not installed (extra dev)")
    books = sorted((bench.pdfbench.parent / "books" / "train").glob("*.txt"))
    if not books:
        raise Skip("no books/train beside pdfbench/ to typeset")
    path = _place(bench, f"books-{pages}", _MARKUP, *books)
    if not path.exists():
        parts = [part for book in books for part in book.read_text(encoding="utf-8").split("\n\n") if part.strip()]
        wanted, text = pages * _WORDS_A_PAGE, list[str]()
        while wanted > 0:
            for part in parts:
                text.append(" ".join(part.split()))
                wanted -= part.count(" ")
                if wanted <= 0:
                    break
        folder = bench.folder("typst")
        (folder / "text").write_text("\n\n".join(text), encoding="utf-8")
        (folder / "main.typ").write_text(_MARKUP, encoding="utf-8")
        # In a process of its own: it takes a gigabyte, which this one would keep.
        code = "import sys, typst; typst.compile(sys.argv[1], output=sys.argv[2], format='pdf')"
        command = [sys.executable, "-c", code, str(folder / "main.typ")]
        _write(path, lambda aside: subprocess.run([*command, str(aside)], check=True))
    return path


def copies(bench: Bench, pages: int) -> list[Path]:
    """The papers again and again as files, about ``pages`` pages; each has bytes of its own, as equal files are
    converted once.
    """
    sources, out = bench.pdfs("jose"), list[Path]()
    folder, total = bench.folder("copies"), 0
    while total < pages:
        for source in sources:
            path = folder / f"{len(out):04}-{source.name}"
            path.write_bytes(source.read_bytes() + b"\n%% copy %d\n" % len(out))
            out.append(path)
            total += page_count(source)
    return out


def page_count(path: Path) -> int:
    import pypdfium2

    with pypdfium2.PdfDocument(path) as pdf:
        return len(pdf)


def _place(bench: Bench, name: str, *key: object) -> Path:
    folder = bench.cache / "big"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}-{content_key(*key, Path(__file__))}.pdf"


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    aside = path.with_suffix(".part")
    write(aside)
    aside.replace(path)
