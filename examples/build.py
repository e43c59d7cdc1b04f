"""Typeset the example documents and write down what stands in them.

    python examples/build.py            # every PDF and its truth file
    python examples/build.py --check    # nothing is written; exit 1 where the committed files differ
    python examples/build.py --only scanned-memo --out /tmp/pdfs --truth /tmp/truth

Every document is one Markdown file in ``sources/``. The same parsed blocks become the typst source of the PDF
and the ground truth in ``truth/<stem>.json``, so the two cannot drift apart. Dates and seeds are fixed: the
same package versions give the same bytes. Needs the ``dev`` extra (typst, pypdf).

The Markdown subset: a YAML front matter; ``#`` headings; paragraphs; ``-`` and ``1.`` lists; ``[1] ...``
references; fenced code; ``$$ ... $$`` with typst math; ``::: figure`` and ``::: table`` blocks with a YAML
body, closed by ``:::``; inline ``*emphasis*``, ``**strong**``, code in back-quotes and ``^[footnotes]``.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2 as pdfium
import typst
import yaml
from PIL import Image, ImageDraw, ImageFilter
from pypdf import PdfWriter, Transformation
from pypdf.generic import ArrayObject, ByteStringObject, NameObject, RectangleObject

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "sources"
PASSWORD = "reading-order"  # of encrypted.pdf
SCAN_DPI = 165
SCAN_SKEW = (1.1, -0.9, 0.8)  # degrees, one a page
FRONT = ("affiliation", "chapter", "to", "printed_date")  # printed above the text, not part of it
TURNS = (90, 90, 270)  # rotated-notes: how page 1, 2, 3, ... is drawn (degrees anticlockwise), repeating


# ---------------------------------------------------------------- the source


@dataclass
class Block:
    """One block of a source. ``text`` is plain: what a perfect converter would give."""

    kind: str  # heading | text | list | reference | code | equation | figure | table
    text: str = ""
    raw: str = ""  # with inline markup
    level: int = 0
    number: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    notes: list[tuple[int, str]] = field(default_factory=list)  # footnotes: (offset in text, text)


@dataclass
class Source:
    stem: str
    meta: dict[str, Any]
    blocks: list[Block]


def educate(text: str) -> str:
    """Straight quotes to typographic ones."""
    text = re.sub(r'(^|[\s(\[–])"', r"\1“", text).replace('"', "”")
    return text.replace("'", "’")


INLINE = re.compile(r"(`[^`]+`|\*\*[^*]+\*\*|\*[^*]+\*|\^\[[^\]]+\])")


def spans(raw: str) -> list[tuple[str, str]]:
    """Inline markup as (kind, text): plain, code, strong, emph or note."""
    out = []
    for part in INLINE.split(raw):
        if not part:
            continue
        if part[0] == "`":
            out.append(("code", part[1:-1]))
        elif part.startswith("**"):
            out.append(("strong", educate(part[2:-2])))
        elif part[0] == "*" and len(part) > 1:
            out.append(("emph", educate(part[1:-1])))
        elif part.startswith("^["):
            out.append(("note", educate(part[2:-1])))
        else:
            out.append(("plain", educate(part)))
    return out


def plain(raw: str) -> tuple[str, list[tuple[int, str]]]:
    """The text without markup, and its footnotes with the offset of each mark."""
    text, notes = "", []
    for kind, part in spans(raw):
        if kind == "note":
            notes.append((len(text), part))
        else:
            text += part
    return text, notes


def parse(path: Path) -> Source:
    """Read one Markdown source; ValueError names the file and what is wrong."""
    head, body = path.read_text(encoding="utf-8").removeprefix("---\n").split("\n---\n", 1)
    meta = yaml.safe_load(head)
    blocks: list[Block] = []
    counts = {"figure": 0, "table": 0, "equation": 0}
    section = [0, 0]
    lines = body.split("\n")
    at = 0

    def take_until(closing: str) -> list[str]:
        nonlocal at
        end = lines.index(closing, at + 1)
        found, at = lines[at + 1 : end], end + 1
        return found

    while at < len(lines):
        line = lines[at]
        if not line.strip():
            at += 1
        elif line.startswith("```"):
            code = "\n".join(take_until("```"))
            blocks.append(Block("code", code, code))
        elif line.startswith(":::"):
            kind = line[3:].strip()
            data = yaml.safe_load("\n".join(take_until(":::")))
            data["caption"] = educate(data["caption"])
            if kind == "table":
                data["rows"] = [[educate(str(cell)) for cell in row] for row in data["rows"]]
            counts[kind] += 1
            label = f"{kind.capitalize()} {counts[kind]}"
            blocks.append(Block(kind, f"{label}: {data['caption']}", number=str(counts[kind]), data=data))
        elif line.startswith("$$"):
            counts["equation"] += 1
            blocks.append(Block("equation", line.strip("$ "), number=f"({counts['equation']})"))
            at += 1
        else:
            rows = [line]
            at += 1
            starts = r"(#+ |- |\d+\. |\[\d+\] )"
            own_line = line.startswith("#")
            while not own_line and at < len(lines) and lines[at].strip():
                if re.match(starts, lines[at]) and re.match(starts, line):
                    break
                rows.append(lines[at])
                at += 1
            raw = " ".join(row.strip() for row in rows)
            blocks.append(block_of(raw, section, bool(meta.get("numbered"))))
    source = Source(path.stem, meta, blocks)
    whole = " ".join(block.text for block in blocks) + educate(meta.get("abstract", ""))
    for short, long in meta.get("acronyms", {}).items():
        if f"{long} ({short})".lower() not in whole.lower():
            raise ValueError(f"{path}: the text never says '{long} ({short})'; correct its front matter")
    return source


def block_of(raw: str, section: list[int], numbered: bool) -> Block:
    """Heading, list item, reference or paragraph; ``section`` counts the headings."""
    if match := re.match(r"(#+) (.*)", raw):
        level, raw = len(match[1]), match[2]
        number = ""
        if numbered and raw != "References":
            section[level - 1] += 1
            section[level:] = [0] * (2 - level)
            number = ".".join(str(n) for n in section[:level])
        return Block("heading", plain(raw)[0], raw, level, number)
    if match := re.match(r"(-|\d+\.) (.*)", raw):
        text, notes = plain(match[2])
        return Block("list", text, match[2], number=match[1], notes=notes)
    if match := re.match(r"\[(\d+)\] (.*)", raw):
        return Block("reference", f"[{match[1]}] {plain(match[2])[0]}", match[2], number=match[1])
    text, notes = plain(raw)
    return Block("text", text, raw, notes=notes)


# ---------------------------------------------------------------- typst


def quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def inline(raw: str) -> str:
    """Inline markup as typst content. Text goes in as string literals: typst changes no character of it."""
    wrap = {"plain": "#{};", "code": "#raw({});", "strong": "#strong({});", "emph": "#emph({});"}
    wrap["note"] = "#footnote({});"
    return "".join(wrap[kind].format(quote(text)) for kind, text in spans(raw))


def tuple_of(values: list[Any]) -> str:
    """A YAML list as a typst array."""
    parts = [tuple_of(v) if isinstance(v, list) else quote(v) if isinstance(v, str) else repr(v) for v in values]
    return "(" + "".join(part + "," for part in parts) + ")"


def typeset(block: Block) -> str:
    match block.kind:
        case "heading":
            numbering = quote("1.1") if block.number else "none"
            return f"#heading(level: {block.level}, numbering: {numbering})[{inline(block.raw)}]"
        case "text":
            return inline(block.raw)
        case "reference":
            return f"#reference({quote('[' + block.number + ']')})[{inline(block.raw)}]"
        case "code":
            return f"#listing({quote(block.text)})"
        case "equation":
            return f"$ {block.text} $"
        case "list" if block.number == "-":
            return f"- {inline(block.raw)}"
        case "list":
            return f"{block.number} {inline(block.raw)}"
    data = block.data
    place = f"placement: {data.get('placement', 'none')}, scope: {quote(data.get('scope', 'column'))}"
    caption = f"caption: [#{quote(data['caption'])};]"
    if block.kind == "figure":
        given = ", ".join(f"{key}: {tuple_of(data[key])}" for key in ("labels", "values") if key in data)
        return f"#figure(fig-{data['name']}({given}), kind: image, {place}, {caption})"
    cells = tuple_of(data["rows"])
    columns = "(" + "".join(f"{c}," for c in data["columns"]) + ")"
    return f"#figure(data-table({columns}, {cells}), kind: table, {place}, {caption})"


def typst_of(source: Source) -> str:
    meta = {key: educate(value) if isinstance(value, str) else value for key, value in source.meta.items()}
    lines = ['#import "style.typ": *', f"#let meta = json(bytes({quote(json.dumps(meta, default=str))}))"]
    lines.append(f"#show: {meta['style']}.with(meta)")
    previous = ""
    for block in source.blocks:
        # Items of one list stay together; everything else is a paragraph of its own.
        lines.append("" if previous == block.kind == "list" else "\n")
        lines.append(typeset(block))
        previous = block.kind
    return "\n".join(lines) + "\n"


def compile_pdf(source: Source) -> bytes:
    files = {"main": typst_of(source).encode(), "style.typ": (SOURCES / "style.typ").read_bytes()}
    return typst.compile(files, ignore_system_fonts=True, timestamp=0)


# ---------------------------------------------------------------- special documents


def written(writer: PdfWriter, stem: str, password: str = "") -> bytes:
    """The writer's bytes with a file identifier (and so an encryption key) that depends on the name only."""
    name = ByteStringObject(stem.encode().ljust(16, b".")[:16])
    writer._ID = ArrayObject((name, name))
    writer.generate_file_identifiers = lambda: None  # pypdf would draw a random one
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def rotated(pdf: bytes, stem: str) -> bytes:
    """Landscape pages drawn sideways on portrait paper; the last has /Rotate and is shown upright."""
    writer = PdfWriter(clone_from=io.BytesIO(pdf))
    for i, page in enumerate(writer.pages):
        turn = TURNS[i % len(TURNS)]
        width, height = float(page.mediabox.width), float(page.mediabox.height)
        move = (height, 0) if turn == 90 else (0, width)
        page.add_transformation(Transformation().rotate(turn).translate(*move))
        for name in ("/MediaBox", "/CropBox", "/TrimBox", "/BleedBox", "/ArtBox"):
            if name in page:
                page[NameObject(name)] = RectangleObject((0, 0, height, width))
        page.compress_content_streams()
    writer.pages[-1].rotate(turn)
    return written(writer, stem)


def encrypted(pdf: bytes, stem: str) -> bytes:
    return written(PdfWriter(clone_from=io.BytesIO(pdf)), stem, PASSWORD)


def damaged(pdf: bytes) -> bytes:
    """A PDF header and the middle of a file: no object, cross-reference or trailer is left to be found."""
    middle = pdf[len(pdf) // 3 : len(pdf) // 3 + 12_000]
    for word in (b"obj", b"xref", b"trailer", b"stream", b"/Page", b"%%EOF"):
        middle = middle.replace(word, bytes(len(word)))
    return b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + middle


def scanned(pdf: bytes, seed: int = 7) -> bytes:
    """The pages as an office scanner would give them: skewed, uneven, noisy, JPEG, without a text layer."""
    noise, draw = np.random.default_rng(seed), random.Random(seed)
    images = []
    document = pdfium.PdfDocument(pdf)
    for i, page in enumerate(document):
        image = page.render(scale=SCAN_DPI / 72, grayscale=True).to_pil().convert("L")
        image = image.rotate(SCAN_SKEW[i % 3], Image.Resampling.BICUBIC, fillcolor=255)
        marks = ImageDraw.Draw(image)
        for _ in range(90):  # dust
            x, y, r = draw.uniform(0, image.width), draw.uniform(0, image.height), draw.uniform(0.4, 1.5)
            marks.ellipse((x - r, y - r, x + r, y + r), fill=draw.randint(60, 150))
        for y in (0.28, 0.72):  # punched holes
            x, y = 0.035 * image.width, y * image.height
            marks.ellipse((x - 18, y - 18, x + 18, y + 18), fill=70)
        pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7)), dtype=np.float32)
        pixels = 38 + pixels * (0.83 - 0.02 * i)  # faded ink on grey paper
        shade = np.linspace(0, 1, image.width, dtype=np.float32)[None, :]
        pixels -= 22 * shade**6 + 6 * np.linspace(0, 1, image.height, dtype=np.float32)[:, None]
        pixels += noise.normal(0, 7, pixels.shape).astype(np.float32)
        images.append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    document.close()
    out = io.BytesIO()
    fixed = time.gmtime(1_741_910_400)
    images[0].save(
        out, "PDF", resolution=SCAN_DPI, save_all=True, append_images=images[1:], quality=52,
        producer="Longfolio examples", creationDate=fixed, modDate=fixed,
    )  # fmt: skip
    return out.getvalue()


# ---------------------------------------------------------------- truth


def truth_of(source: Source, pdf: bytes) -> dict[str, Any]:
    """What a perfect conversion of the document contains; the format is described in README.md."""
    meta, blocks = source.meta, source.blocks
    with pdfium.PdfDocument(pdf) as document:
        rotations = [page.get_rotation() for page in document]
    pattern, first = meta.get("page_number", "{n}"), meta.get("first_page", 1)
    pages = [
        {
            "number": i + 1,
            "printed": pattern.format(n=i + first, total=len(rotations)),
            "drawn": TURNS[i % len(TURNS)] if source.stem == "rotated-notes" else 0,
            "rotate": rotation,
        }
        for i, rotation in enumerate(rotations)
    ]
    paragraphs = [b for b in blocks if b.kind == "text"]
    # Lists and paragraphs carry marks, counted through the document.
    marked = [(b, offset, text) for b in blocks for offset, text in b.notes]
    footnotes = [
        {
            "number": n,
            "text": text,
            "paragraph": paragraphs.index(b) if b.kind == "text" else None,
            "offset": offset,
        }
        for n, (b, offset, text) in enumerate(marked, 1)
    ]
    figures = [b for b in blocks if b.kind in ("figure", "table")]
    abstract = educate(meta.get("abstract", ""))
    texts = [
        abstract,
        *(b.text for b in blocks if b.kind not in ("equation",)),
        *(f["text"] for f in footnotes),
    ]
    return {
        "file": f"{source.stem}.pdf",
        "title": educate(meta["title"]),
        "authors": meta.get("authors", []),
        "date": str(meta["date"]),
        "abstract": abstract or None,
        "front_matter": [educate(str(meta[key])) for key in FRONT if key in meta],
        "text_layer": source.stem != "scanned-memo",
        "columns": 2 if meta["style"] == "article" else 1,
        "pages": pages,
        "running_heads": [educate(text) for text in meta.get("running_heads", [])],
        "headings": [
            {"level": b.level, "number": b.number, "text": b.text} for b in blocks if b.kind == "heading"
        ],
        "paragraphs": [b.text for b in paragraphs],
        "lists": [b.text for b in blocks if b.kind == "list"],
        "captions": [{"kind": b.kind, "number": int(b.number), "text": b.text} for b in figures],
        "tables": [b.data["rows"] for b in figures if b.kind == "table"],
        "figure_labels": [str(x) for b in figures for x in b.data.get("labels", [])],
        "equations": [{"number": b.number, "typst": b.text} for b in blocks if b.kind == "equation"],
        "code": [b.text for b in blocks if b.kind == "code"],
        "footnotes": footnotes,
        "references": [b.text for b in blocks if b.kind == "reference"],
        "acronyms": meta.get("acronyms", {}),
        "blocks": [
            {"kind": b.kind, "text": b.text, **({"number": b.number} if b.number else {})}
            for b in blocks
        ],
        "words": sum(len(text.split()) for text in texts),
    }  # fmt: skip


# ---------------------------------------------------------------- the command


def build(only: set[str] | None = None) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """PDF bytes by stem and truth JSON by stem; encrypted and damaged have no truth."""
    pdfs: dict[str, bytes] = {}
    truths: dict[str, bytes] = {}
    finish = {"scanned-memo": lambda p, _: scanned(p), "rotated-notes": rotated, "encrypted": encrypted}
    for path in sorted(SOURCES.glob("*.md")):
        stem = path.stem
        if only and stem not in only and not (stem == "two-column-article" and "damaged" in only):
            continue
        source = parse(path)
        pdf = compile_pdf(source)
        pdfs[stem] = finish.get(stem, lambda p, _: p)(pdf, stem)
        if stem != "encrypted":
            truths[stem] = (json.dumps(truth_of(source, pdfs[stem]), indent=1, ensure_ascii=False) + "\n").encode()
        if stem == "two-column-article":
            pdfs["damaged"] = damaged(pdf)
    return pdfs, truths


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "pdfs", help="folder for the PDFs")
    parser.add_argument("--truth", type=Path, default=HERE / "truth", help="folder for the truth files")
    parser.add_argument("--only", action="append", help="stem of a document to build; may be repeated")
    parser.add_argument("--check", action="store_true", help="compare with the files that are there; write nothing")
    args = parser.parse_args()
    pdfs, truths = build(set(args.only) if args.only else None)
    files = {args.out / f"{stem}.pdf": data for stem, data in pdfs.items()}
    files |= {args.truth / f"{stem}.json": data for stem, data in truths.items()}
    stale = [path for path, data in files.items() if not path.is_file() or path.read_bytes() != data]
    if args.check:
        print("\n".join(f"differs: {path}" for path in stale) or "all files are up to date")
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[path])
    for stem, data in truths.items():
        truth = json.loads(data)
        size = len(pdfs[stem]) / 1024
        print(f"{stem:22} {len(truth['pages']):3} pages {truth['words']:6} words {size:7.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
