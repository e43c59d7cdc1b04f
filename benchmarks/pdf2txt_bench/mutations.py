"""Damaged files made from sound ones, always the same for a seed.

Each mutation takes the bytes of a PDF and returns damaged ones, or None where it has nothing to take hold of. Objects
are found by their text (``7 0 obj ... endobj``), page contents through pypdf, which reads the sound file.
"""

from __future__ import annotations

import io
import logging
import random
import re
from collections.abc import Callable
from pathlib import Path

Mutation = Callable[[bytes, random.Random], bytes | None]
_OBJECT = re.compile(rb"(?<!\d)\d+ \d+ obj\b.*?\bendobj", re.DOTALL)


def make_mutants(sources: list[Path], folder: Path, count: int, seed: int) -> dict[str, tuple[Path, str]]:
    """Write ``count`` damaged files into ``folder``: name -> (source, mutation), the mutations by turns."""
    chance = random.Random(f"mutants {seed}")
    names = list(MUTATIONS)
    made: dict[str, tuple[Path, str]] = {}
    while len(made) < count:
        kind = names[len(made) % len(names)]
        source = chance.choice(sources)
        data = MUTATIONS[kind](source.read_bytes(), chance)
        if data is None:
            continue
        name = f"{len(made):03}-{kind}-{source.stem[:30]}.pdf"
        (folder / name).write_bytes(data)
        made[name] = (source, kind)
    return made


def flip_bytes(data: bytes, chance: random.Random) -> bytes:
    """1 to 64 bytes, anywhere, become others."""
    out = bytearray(data)
    for _ in range(int(2 ** chance.uniform(0, 6))):
        out[chance.randrange(len(out))] = chance.randrange(256)
    return bytes(out)


def cut_end(data: bytes, chance: random.Random) -> bytes:
    """The file ends too early, as after a broken download."""
    return data[: int(len(data) * chance.uniform(0.01, 0.999))]


def cut_middle(data: bytes, chance: random.Random) -> bytes:
    """Up to a twentieth of the file is missing; what follows has moved."""
    length = int(len(data) * chance.uniform(0.001, 0.05)) + 1
    at = chance.randrange(len(data) - length)
    return data[:at] + data[at + length :]


def zeros(data: bytes, chance: random.Random) -> bytes:
    """A lost piece of a disk or a sparse download: zeros instead of bytes."""
    length = min(len(data) // 2, chance.choice((512, 4096, 16384)))
    at = chance.randrange(len(data) - length)
    return data[:at] + bytes(length) + data[at + length :]


def insert(data: bytes, chance: random.Random) -> bytes:
    """Foreign bytes in the middle; what follows has moved."""
    at = chance.randrange(len(data))
    return data[:at] + chance.randbytes(chance.randint(1, 4096)) + data[at:]


def junk_around(data: bytes, chance: random.Random) -> bytes:
    """Bytes of a mail or a web server before the header and after the end: every page is sound."""
    return b"\r\n".join([b"HTTP/1.1 200 OK"] * chance.randint(1, 20)) + b"\r\n" + data + chance.randbytes(500)


def drop_object(data: bytes, chance: random.Random) -> bytes | None:
    """One object (a font, a page, an image, a page's contents) is blanked; nothing moves."""
    found = list(_OBJECT.finditer(data))
    return _blank(data, *chance.choice(found).span()) if found else None


def drop_objects(data: bytes, chance: random.Random) -> bytes | None:
    """A quarter of all objects are blanked."""
    found = list(_OBJECT.finditer(data))
    for match in chance.sample(found, len(found) // 4):
        data = _blank(data, *match.span())
    return data if found else None


def wrong_reference(data: bytes, chance: random.Random) -> bytes | None:
    """One to five references lead to another object than meant: loops in the page tree, a font that is a page."""
    found = list(re.finditer(rb"(?<!\d)(\d+)(?= 0 R\b)", data))
    numbers = [m.group(1) for m in found]
    out = bytearray(data)
    for match in chance.sample(found, min(len(found), chance.randint(1, 5))):
        alike = [n for n in numbers if len(n) == len(match.group(1))]
        out[match.start(1) : match.end(1)] = chance.choice(alike)
    return bytes(out) if found else None


def wrong_number(data: bytes, chance: random.Random) -> bytes | None:
    """The value of a key is another number, some far too big: lengths, sizes, counts, widths."""
    found = list(re.finditer(rb"/(?:Length|Count|Size|First|N|W|Width|Height|Columns|Predictor|Rotate) (\d+)", data))
    if not found:
        return None
    match = chance.choice(found)
    number = chance.choice((b"0", b"-1", b"1", b"2147483647", b"99999999999", str(chance.randrange(10000)).encode()))
    return data[: match.start(1)] + number + data[match.end(1) :]


def broken_xref(data: bytes, chance: random.Random) -> bytes:
    """The table that says where objects stand cannot be used: its address is wrong, or its first bytes are."""
    at = data.rfind(b"startxref")
    if at < 0:
        return cut_end(data, chance)
    number = re.compile(rb"\d+").search(data, at)
    if number is None:
        return cut_end(data, chance)
    if chance.random() < 0.5:
        return data[: number.start()] + str(chance.randrange(len(data))).encode() + data[number.end() :]
    target = int(number.group())
    return data[:target] + chance.randbytes(min(200, len(data) - target)) + data[target + 200 :]


def cut_contents(data: bytes, chance: random.Random) -> bytes | None:
    """The later half of one page's contents is zeros: the other pages are sound."""
    span = _page_contents(data, chance)
    if span is None:
        return None
    middle = (span[0] + span[1]) // 2
    return data[:middle] + bytes(span[1] - middle) + data[span[1] :]


def flip_contents(data: bytes, chance: random.Random) -> bytes | None:
    """Twenty bytes of one page's contents become others: the other pages are sound."""
    span = _page_contents(data, chance)
    if span is None:
        return None
    out = bytearray(data)
    for _ in range(20):
        out[chance.randrange(*span)] = chance.randrange(256)
    return bytes(out)


def drop_pages(data: bytes, chance: random.Random) -> bytes | None:
    """Some pages are taken out properly, and the file is written anew: the pages left are sound."""
    import pypdfium2

    with pypdfium2.PdfDocument(data) as pdf:
        total = len(pdf)
        if total < 2:
            return None
        for number in sorted(chance.sample(range(total), chance.randint(1, total - 1)), reverse=True):
            del pdf[number]
        out = io.BytesIO()
        pdf.save(out)
        return out.getvalue()


def drop_page_object(data: bytes, chance: random.Random) -> bytes | None:
    """A page's object is blanked where it stands by itself: the other pages are sound."""
    found = [m for m in _OBJECT.finditer(data) if re.search(rb"/Type\s*/Page\b", m.group())]
    return _blank(data, *chance.choice(found).span()) if len(found) > 1 else None


MUTATIONS: dict[str, Mutation] = {
    "flip-bytes": flip_bytes, "cut-end": cut_end, "cut-middle": cut_middle, "zeros": zeros, "insert": insert,
    "junk-around": junk_around, "drop-object": drop_object, "drop-objects": drop_objects,
    "wrong-reference": wrong_reference, "wrong-number": wrong_number, "broken-xref": broken_xref,
    "cut-contents": cut_contents, "flip-contents": flip_contents, "drop-pages": drop_pages,
    "drop-page-object": drop_page_object,
}  # fmt: skip


def _blank(data: bytes, start: int, end: int) -> bytes:
    return data[:start] + b" " * (end - start) + data[end:]


def _page_contents(data: bytes, chance: random.Random) -> tuple[int, int] | None:
    """Where the stream of one page's contents stands, None where it cannot be told."""
    import pypdf
    from pypdf.generic import ArrayObject, IndirectObject

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what it warns of is the sources' business
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        page = reader.pages[chance.randrange(len(reader.pages))]
        contents = page.raw_get("/Contents")
        if isinstance(contents, IndirectObject) and isinstance(contents.get_object(), ArrayObject):
            contents = contents.get_object()
        if isinstance(contents, ArrayObject):
            contents = contents[0]
        place = reader.xref[contents.generation][contents.idnum]
    except Exception:  # whatever pypdf does not understand
        return None
    match = re.compile(rb"stream\r?\n(.*?)\r?\nendstream", re.DOTALL).search(data, place)
    return match.span(1) if match and match.end(1) - match.start(1) > 40 else None
