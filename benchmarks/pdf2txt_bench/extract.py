"""One tool over many PDFs in one process, timed: ``python extract.py TOOL OUT_DIR PDF...``.

Runs by its path under any interpreter, as the peer has one of its own; imports nothing of the benchmark. Writes
``OUT_DIR/<stem>.txt``, pages apart by form feeds, and prints ``{"ready_seconds", "documents": [{"source", "pages",
"seconds", "cpu_seconds"}]}``. Ready means: interpreter started, libraries and models loaded, and the first document
converted once already, so that the seconds of the documents are those of the conversion alone, on all sides.
"""

import json
import sys
import time
from pathlib import Path

BEGAN = time.perf_counter()


def pdfium(path):
    import pypdfium2

    with pypdfium2.PdfDocument(path) as pdf:
        return [page.get_textpage().get_text_range() for page in pdf]


def pymupdf4llm(path):
    import pymupdf4llm as tool

    pages = tool.to_text(str(path), header=False, footer=False, use_ocr=False, page_chunks=True)
    return [page["text"] for page in pages]


def longfolio(path):
    from pdf2txt.convert import convert
    from pdf2txt.settings import Pdf2txtSettings

    document = convert(path, Pdf2txtSettings())
    return [document.text[page.start : page.end] for page in document.pages]


def main():
    name, out, *paths = sys.argv[1:]
    tool = {"pdfium": pdfium, "pymupdf4llm": pymupdf4llm, "longfolio": longfolio}[name]
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    # Whatever the library prints must not stand in the result.
    stdout, sys.stdout = sys.stdout, sys.stderr
    tool(Path(paths[0]))
    ready = time.perf_counter() - BEGAN
    documents = []
    for path in map(Path, paths):
        wall, cpu = time.perf_counter(), time.process_time()
        pages = tool(path)
        seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        documents.append({"source": path.name, "pages": len(pages), "seconds": seconds, "cpu_seconds": cpu_seconds})
        (folder / f"{path.stem}.txt").write_text("\f".join(pages), encoding="utf-8", errors="replace")
    print(json.dumps({"ready_seconds": ready, "documents": documents}), file=stdout)


if __name__ == "__main__":
    main()
