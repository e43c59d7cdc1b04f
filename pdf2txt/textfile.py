"""``.txt`` and ``.md`` files as documents without boxes: one page over the whole text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from pdf2txt.repair import repair
from pdf2txt.schema import Block, Document, Page, Paragraph

SUFFIXES = {".txt", ".md", ".markdown"}
_NOWHERE = (0.0, 0.0, 0.0, 0.0)


def convert_text(path: Path, data: bytes, sha256: str) -> Document:
    """Paragraphs are what stands between empty lines; Markdown is kept as it is written."""
    text = decode(data)
    if text is None:
        return Document(sha256, path.name, "corrupt", warnings=("not a text file: it holds binary data",))
    text = "\n".join(repair(line) for line in re.split(r"\r\n|\r|\n", text.replace("\f", "\n\n"))).strip("\n")
    if not text.strip():
        return Document(sha256, path.name, "empty", warnings=("the file holds no text",))
    markdown = path.suffix.lower() != ".txt"
    blocks, paragraphs = [], []
    for start, end in _pieces(text):
        kind = "heading" if markdown and text[start] == "#" else "text"
        blocks.append(Block(1, kind, _NOWHERE, start, end, 1.0))
        paragraphs.append(Paragraph(start, end, ()))
    page = Page(1, 0.0, 0.0, 0, "text-layer", 1.0, 0, len(text))
    return Document(
        sha256, path.name, "ok", text, pages=(page,), blocks=tuple(blocks), paragraphs=tuple(paragraphs)
    )  # fmt: skip


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """Where the paragraphs stand, without white space around them."""
    at = 0
    for gap in itertools.chain(re.finditer(r"\n[ \t]*\n\s*", text), [None]):
        piece = text[at : gap.start() if gap else len(text)]
        if bare := piece.strip():
            start = at + len(piece) - len(piece.lstrip())
            yield start, start + len(bare)
        if gap:
            at = gap.end()


def decode(data: bytes) -> str | None:
    """Text of a file in UTF-8, UTF-16 with a byte order mark, or Windows-1252; None for binary data."""
    for mark, codec in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(codec, "replace")
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")
