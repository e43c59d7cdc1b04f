"""A PDF whose end is missing, put together again from the objects that are there.

pdfium finds the objects of a file whose cross-reference table is damaged by itself, but not which of them is the
root, and not those inside object streams. So both are added at the end, in the plain form that every reader knows
(ISO 32000-1, 7.5.5 and 7.5.7). Where the page tree itself is lost, its pages are listed in the order of the file.
"""

from __future__ import annotations

import re
import zlib

_OBJECT = re.compile(rb"(?<!\d)(\d{1,9})\s+\d{1,5}\s+obj\b")
_CATALOG = re.compile(rb"/Type\s*/Catalog\b")
_PAGE = re.compile(rb"/Type\s*/Page\b")
_PAGES = re.compile(rb"/Pages\s+(\d+)\s+\d+\s+R")
_OBJECT_STREAM = re.compile(rb"/Type\s*/ObjStm\b")
_HEAD = 20_000  # bytes of an object's dictionary that are looked at
MOST = 256 << 20  # bytes of a file that may be mended, which takes twice that in memory


def salvaged(data: bytes) -> bytes | None:
    """``data`` with all that a reader needs to find its pages; None where none are left, or they are encrypted."""
    if b"/Encrypt" in data:
        return None
    data = data[: data.rfind(b"endobj") + len(b"endobj")]
    heads: dict[int, bytes] = {}
    loose: dict[int, bytes] = {}
    for match in _OBJECT.finditer(data):
        head = data[match.end() : match.end() + _HEAD]
        head = head[: min((n for n in (head.find(b"stream"), head.find(b"endobj")) if n >= 0), default=_HEAD)]
        heads[int(match.group(1))] = head
        if _OBJECT_STREAM.search(head):
            loose.update(_unpacked(data, match.end(), head))
    heads |= loose
    pages = [number for number, head in heads.items() if _PAGE.search(head)]
    if not pages:
        return None
    added = [b"%d 0 obj\n%s\nendobj\n" % item for item in loose.items()]
    root = next((n for n, head in heads.items() if _CATALOG.search(head) and _points_to(head, heads)), None)
    size = max(heads) + 1
    if root is None:
        kids = b" ".join(b"%d 0 R" % number for number in pages)
        added.append(b"%d 0 obj\n<< /Type /Pages /Count %d /Kids [%s] >>\nendobj\n" % (size, len(pages), kids))
        added.append(b"%d 0 obj\n<< /Type /Catalog /Pages %d 0 R >>\nendobj\n" % (size + 1, size))
        root, size = size + 1, size + 2
    trailer = b"trailer\n<< /Root %d 0 R /Size %d >>\nstartxref\n0\n%%%%EOF\n" % (root, size)
    return b"\n".join([data, *added, trailer])


def _points_to(catalog: bytes, heads: dict[int, bytes]) -> bool:
    """Whether a catalog's page tree is there."""
    match = _PAGES.search(catalog)
    return match is not None and int(match.group(1)) in heads


def _unpacked(data: bytes, at: int, head: bytes) -> dict[int, bytes]:
    """The objects of an object stream, as far as they can be read."""
    first, begin = re.search(rb"/First\s+(\d+)", head), data.find(b"stream", at)
    if first is None or begin < 0 or b"/FlateDecode" not in head:
        return {}
    begin += len(b"stream")
    begin += 2 if data[begin : begin + 2] == b"\r\n" else 1
    try:
        text = zlib.decompressobj().decompress(data[begin:])
    except zlib.error:
        return {}
    offset = int(first.group(1))
    numbers = [int(n) for n in re.findall(rb"\d+", text[:offset])]
    starts = [offset + n for n in numbers[1::2]]
    ends = [*starts[1:], len(text)]
    return {number: text[a:b] for number, a, b in zip(numbers[::2], starts, ends, strict=False)}
