"""An HTML page that shows what became of a document: page images with the blocks found on them, beside their text.

The page needs nothing from elsewhere. Images of short documents are part of the file; those of long ones lie beside
it and are loaded when they come into view.
"""

from __future__ import annotations

import base64
import html
import io
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pdf2txt.errors import may_pass
from pdf2txt.reading import REOPEN, open_pdf
from pdf2txt.render import page_image
from pdf2txt.schema import Block, Document, Page, entries

if TYPE_CHECKING:
    import pyarrow as pa

DPI = 90
_LONGEST = 1600  # pixels of an image's longer side
_QUALITY = 72  # of JPEG
_INSIDE = 24  # pages at most whose images are part of the HTML file: about 3 MB
_REMOVED = ("header", "footer", "page-number", "line-number")

# Hue, degrees, by kind; those that often stand side by side are far apart.
_HUES = {
    "title": 330, "heading": 10, "text": 215, "list": 185, "table": 140, "figure": 275, "caption": 300,
    "equation": 45, "footnote": 95, "reference": 245, "header": 0, "footer": 0, "page-number": 0,
    "margin": 60, "line-number": 0,
}  # fmt: skip


def write_view(table: pa.Table, file: Path, target: Path, passwords: Path | None = None) -> Path:
    """Write ``target`` (``<stem>.html``), and ``<stem>_view/`` beside it where the document is long.

    Args:
        table: the document's row; its blocks become objects page by page.
        file: the PDF or text file that it was made from; its pages are drawn anew.
        passwords: the file of passwords to try (setting ``pdf2txt.passwords``).

    Raises:
        OSError: the place cannot be written.
    """
    document = Document.from_table(table, places=False)
    folder = target.with_name(f"{target.stem}_view")
    apart = len(document.pages) > _INSIDE
    shutil.rmtree(folder, ignore_errors=True)
    if apart:
        folder.mkdir(parents=True)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with aside.open("wb") as out:
            for piece in _html(document, table, PageImages(file, folder if apart else None, passwords)):
                out.write(piece.encode("utf-8", "replace"))
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def _html(document: Document, table: pa.Table, images: PageImages) -> Iterator[str]:
    kinds = Counter(block["kind"] for block in entries(table, "blocks"))
    legend = "".join(
        f'<button type="button" class="key k-{kind}{" gone" if kind in _REMOVED else ""}" data-kind="{kind}" '
        f'aria-pressed="true"><i></i>{kind} <small>{kinds[kind]}</small></button>'
        for kind in _HUES
        if kinds[kind]
    )
    origins = Counter(p.origin for p in document.pages)
    facts = [
        _counted(document.n_pages, "page"),
        *(f"{n} {origin}" for origin, n in sorted(origins.items()) if len(origins) > 1 or origin != "text-layer"),
        f"{len(document.text):,} characters",
        document.language,
    ]
    jump = ""
    if document.n_pages > 1:
        jump = f'<label>Page <input id="go" type="number" min="1" max="{document.n_pages}" value="1"></label>'
    name = html.escape(document.source)
    yield (
        f'<!doctype html>\n<html lang="{html.escape(document.language or "en")}"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{STYLE}{_colours()}</style></head>\n<body>\n<header>"
        f'<h1>{name} <span class="status s-{html.escape(document.status)}">{html.escape(document.status)}</span></h1>'
        f"<p>{html.escape(' · '.join(f for f in facts if f))}</p>{jump}"
        f'<nav aria-label="Kinds of blocks">{legend}</nav></header>\n<main>\n'
    )
    if document.warnings:
        items = "".join(f"<li>{html.escape(w)}</li>" for w in document.warnings)
        count = _counted(len(document.warnings), "warning")
        yield f'<aside class="warnings"><h2>{count}</h2><ul>{items}</ul></aside>\n'
    if not document.pages:
        yield '<p class="empty">The document has no pages to show.</p>\n'
    begins = {p["start"] for p in entries(table, "paragraphs")}
    with closing(images):
        for page, blocks in _by_page(document, table):
            yield _page(document, page, blocks, begins, images)
    yield f"</main>\n<script>{_SCRIPT}</script>\n</body></html>\n"


def _by_page(document: Document, table: pa.Table) -> Iterator[tuple[Page, list[Block]]]:
    """Each page with its blocks, both of which are in order."""
    rest = (Block(**{**block, "box": tuple(block["box"])}) for block in entries(table, "blocks"))
    ahead = next(rest, None)
    for page in document.pages:
        blocks = []
        while ahead is not None and ahead.page <= page.number:
            blocks.append(ahead)
            ahead = next(rest, None)
        yield page, blocks


def _page(document: Document, page: Page, blocks: list[Block], begins: set[int], images: PageImages) -> str:
    drawn = page.width > 0 and page.height > 0
    source = images.source(page) if drawn else ""
    # What was left out has no place in the text: it stands where it stands on the page, above or below.
    foot = [b for b in blocks if b.start == b.end and b.box[1] > page.height / 2]
    blocks = [b for b in blocks if b not in foot] + foot
    boxes, texts, order = [], [], 0
    for n, block in enumerate(blocks):
        key, removed = f"{page.number}-{n}", block.start == block.end
        order += not removed
        number = "" if removed else str(order)
        kind = html.escape(block.kind)
        sure = "" if block.confidence >= 0.995 else f" {100 * block.confidence:.0f} %"
        look = f"k-{kind}{' gone' if removed else ''}"
        if drawn:
            x0, y0, x1, y1 = block.box
            place = (
                f"left:{_share(x0, page.width)};top:{_share(y0, page.height)};"
                f"width:{_share(x1 - x0, page.width)};height:{_share(y1 - y0, page.height)}"
            )
            boxes.append(
                f'<a class="box {look}" href="#t{key}" data-b="{key}" style="{place}" '
                f'title="{f"{number}: " if number else "left out: "}{kind}{sure}"><b>{number}</b></a>'
            )
        text = html.escape(document.text[block.start : block.end])
        goes_on = '<span class="on-from" title="goes on from above">↳</span> ' if block.start not in begins else ""
        body = "<em>left out of the text</em>" if removed else f"<pre>{goes_on}{text}</pre>"
        label = f"<span>{f'{number} ' if number else ''}{kind}{sure}</span>"
        texts.append(f'<div class="piece {look}" id="t{key}" data-b="{key}">{label}{body}</div>')
    if not blocks and page.end > page.start:
        texts.append(f'<div class="piece k-text"><pre>{html.escape(document.text[page.start : page.end])}</pre></div>')
    if not texts:
        texts.append('<p class="empty">No text on this page.</p>')
    facts = [page.origin, f"confidence {100 * page.confidence:.0f} %"]
    if drawn:
        facts.append(f"{page.width:.0f} × {page.height:.0f} pt")
    if page.rotation:
        facts.append(f"turned by {page.rotation}°")
    figure = ""
    if drawn:
        image = (
            f'<img src="{html.escape(source)}" alt="page {page.number}" loading="lazy" decoding="async">'
            if source
            else '<p class="empty">This page cannot be drawn.</p>'
        )
        figure = f'<figure style="aspect-ratio:{page.width:.2f}/{page.height:.2f}">{image}{"".join(boxes)}</figure>'
    return (
        f'<section id="p{page.number}" class="{"" if drawn else "bare"}" '
        f'style="--tall:{page.height / page.width if drawn else 0.5:.3f}"><h2>Page {page.number} '
        f'<small class="o-{html.escape(page.origin)}">{html.escape(" · ".join(facts))}</small></h2>'
        f'<div class="pair">{figure}<div class="texts">{"".join(texts)}</div></div></section>\n'
    )


def _counted(n: int, thing: str) -> str:
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.3f}%"


class PageImages:
    """Pages of a file drawn one at a time, for an HTML page; ``folder``: written there, None: inside the page."""

    def __init__(self, file: Path, folder: Path | None = None, passwords: Path | None = None) -> None:
        self.file, self.folder, self.passwords = file, folder, passwords
        self.pdf: Any = None
        self.password: str | None = None
        self.drawn = 0  # pages since the file was opened
        self._open()

    def _open(self) -> None:
        self.drawn = 0
        with suppress(Exception):  # what cannot be opened cannot be shown; the document's warnings say why
            self.pdf, self.password = open_pdf(self.file, self.passwords)

    def close(self) -> None:
        if self.pdf is not None:
            self.pdf.close()
            self.pdf = None

    def page(self, number: int) -> Page | None:
        """A page by what the file says of it (from 1), without text; None where it cannot be read."""
        try:
            drawn = self.pdf[number - 1]
            try:
                width, height = drawn.get_size()
                return Page(number, width, height, drawn.get_rotation(), "", 1.0, 0, 0)
            finally:
                drawn.close()
        except Exception as error:  # also a file that did not open
            if may_pass(error):
                raise
            return None

    def source(self, page: Page) -> str:
        """What to put into ``src``, "" for a page that cannot be drawn."""
        try:
            data = self._jpeg(page)
        except Exception as error:  # a damaged page raises many types
            if may_pass(error):
                raise
            return ""
        if self.folder is None:
            return "data:image/jpeg;base64," + base64.b64encode(data).decode()
        (self.folder / f"{page.number:04d}.jpg").write_bytes(data)
        # A "#" or "?" in the document's name would end the path; the name need not be UTF-8.
        return quote(os.fsencode(f"{self.folder.name}/{page.number:04d}.jpg"))

    def _jpeg(self, page: Page) -> bytes:
        import numpy as np
        from PIL import Image

        if self.drawn >= REOPEN:
            self.close()
            self._open()
        self.drawn += 1
        scale = min(DPI / 72, _LONGEST / max(page.width, page.height))
        drawn: Any = self.pdf[page.number - 1] if self.pdf is not None else None
        try:
            own = drawn.get_rotation() if drawn is not None else 0
            opened = self.pdf is not None
            image = page_image(self.file, drawn, page.number, scale, "pdfium", self.password, opened)
        finally:
            if drawn is not None:
                drawn.close()
        turned = (page.rotation - own) % 360  # by more than its /Rotate, which the image has already
        image = np.ascontiguousarray(np.rot90(image[:, :, ::-1], -(turned // 90)))
        out = io.BytesIO()
        Image.fromarray(image).save(out, "JPEG", quality=_QUALITY, optimize=True)
        return out.getvalue()


def _colours() -> str:
    return "".join(
        f".k-{kind}{{--h:{hue}}}" + (f".k-{kind}{{--s:0%}}" if kind in _REMOVED else "") for kind, hue in _HUES.items()
    )


STYLE = """
:root{color-scheme:light dark;--paper:#f4f4f2;--card:#fff;--ink:#1c1c1e;--dim:#62626a;--rule:#d9d9de;
--l:42%;--warn:#8a5300}
@media (prefers-color-scheme:dark){:root{--paper:#151517;--card:#1f1f22;--ink:#ececee;--dim:#a0a0a8;--rule:#38383e;
--l:72%;--warn:#f0b45c}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
header{position:sticky;top:0;z-index:5;background:var(--paper);border-bottom:1px solid var(--rule);padding:.6rem 1.2rem;
display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;align-items:baseline}
h1{font-size:1.1rem;margin:0;overflow-wrap:anywhere}h2{font-size:1rem;margin:0 0 .6rem}
header p{margin:0;color:var(--dim)}small{color:var(--dim);font-weight:400}
.status{font-size:.8rem;font-weight:600;padding:.05rem .5rem;border-radius:1rem;border:1px solid currentColor;
color:var(--warn)}
.s-ok{color:hsl(140 60% var(--l))}
input{font:inherit;width:5em;background:var(--card);color:inherit;
border:1px solid var(--rule);border-radius:4px;padding:0 .3em}
nav{display:flex;flex-wrap:wrap;gap:.3rem;width:100%}
.key{font:inherit;font-size:.82rem;color:inherit;background:none;border:1px solid var(--rule);border-radius:1rem;
padding:.05rem .6rem;cursor:pointer}
.key i{display:inline-block;width:.75em;height:.75em;margin-right:.35em;border:2px solid;border-radius:2px;
color:hsl(var(--h) var(--s,65%) var(--l))}
.key.gone i{border-style:dashed}.key[aria-pressed=false]{opacity:.45;text-decoration:line-through}
main{max-width:1500px;margin:0 auto;padding:1.2rem}
.warnings{border:1px solid var(--warn);border-left-width:5px;border-radius:6px;padding:.7rem 1rem;margin-bottom:1.2rem;
background:var(--card);overflow-wrap:anywhere}
.warnings h2{color:var(--warn);margin:0}.warnings ul{margin:.3rem 0 0;padding-left:1.2rem;max-height:12em;overflow:auto}
section{margin-bottom:2rem;content-visibility:auto;
contain-intrinsic-size:auto calc(50vw*var(--tall));scroll-margin-top:7rem}
.pair{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:1.2rem;align-items:start}
.bare .pair{grid-template-columns:minmax(0,60rem)}
figure{position:sticky;margin:0;
top:min(6rem,calc(100vh - 1rem - min(50vw - 1.8rem,730px)*var(--tall)));
background:#fff;border:1px solid var(--rule);color:#333}
figure img{display:block;width:100%;height:100%}
.box{position:absolute;border:1.5px solid hsl(var(--h) var(--s,75%) 42%);background:hsl(var(--h) var(--s,75%) 50%/.07);
border-radius:2px;text-decoration:none}
.box.gone{border-style:dashed;background:none}
.box b{position:absolute;right:100%;top:-1.5px;margin-right:1px;font:600 10px/1.35 system-ui,sans-serif;padding:0 .3em;
color:#fff;background:hsl(var(--h) var(--s,75%) 38%);border-radius:2px}
.box b:empty{display:none}
.box.on,.box.picked{background:hsl(var(--h) var(--s,75%) 50%/.3);z-index:2;
outline:2px solid hsl(var(--h) var(--s,75%) 42%)}
.piece{border-left:4px solid hsl(var(--h) var(--s,65%) var(--l));padding:.1rem .7rem;margin-bottom:.5rem;
background:var(--card);border-radius:0 4px 4px 0;scroll-margin-top:8rem}
.piece.gone{border-left-style:dashed;color:var(--dim);background:none}
.piece.on,.piece.picked{outline:2px solid hsl(var(--h) var(--s,65%) var(--l))}
.piece>span{font-size:.75rem;color:var(--dim)}.piece.gone{display:flex;gap:.6em;font-size:.82rem;align-items:baseline}
pre{margin:0;font:inherit;white-space:pre-wrap;overflow-wrap:anywhere;tab-size:4}
.k-table pre,.k-equation pre{font:12.5px/1.45 ui-monospace,monospace;
white-space:pre;overflow-x:auto;overflow-wrap:normal}
.k-title pre,.k-heading pre{font-weight:650}.on-from{color:var(--dim)}
.o-ocr,.o-mixed{color:var(--warn)}.empty{color:var(--dim);padding:.5rem}
.hide{display:none!important}
@media (max-width:899px){figure{position:relative;top:0}
.pair{grid-template-columns:minmax(0,1fr)}header{position:static}
section{contain-intrinsic-size:auto calc(160vw*var(--tall));scroll-margin-top:1rem}.piece{scroll-margin-top:1rem}
main,header{padding:.7rem .9rem .7rem 1.5rem}}
@media print{header{position:static}section{break-inside:avoid}}
"""

_SCRIPT = """
const all=(key)=>document.querySelectorAll(`[data-b="${key}"]`);
const mark=(event,on)=>{const at=event.target.closest('[data-b]');
if(at)for(const e of all(at.dataset.b))e.classList.toggle('on',on)};
for(const [name,on] of [['mouseover',1],['focusin',1],['mouseout',0],['focusout',0]])
document.addEventListener(name,e=>mark(e,!!on));
document.addEventListener('click',event=>{
const key=event.target.closest('.key'),box=event.target.closest('.box'),piece=event.target.closest('.piece');
const at=box||piece;
if(at){for(const e of document.querySelectorAll('.picked'))e.classList.remove('picked');
for(const e of all(at.dataset.b))e.classList.add('picked')}
if(key){const on=key.getAttribute('aria-pressed')!=='true';key.setAttribute('aria-pressed',on);
for(const e of document.querySelectorAll(`[data-b].k-${key.dataset.kind}`))e.classList.toggle('hide',!on)}
else if(box){event.preventDefault();document.getElementById('t'+box.dataset.b).scrollIntoView({block:'nearest'})}
else if(piece&&String(getSelection())===''){const b=document.querySelector(`.box[data-b="${piece.dataset.b}"]`);
if(b)b.scrollIntoView({block:'nearest'})}});
const go=document.getElementById('go');
if(go)go.addEventListener('change',()=>{const s=document.getElementById('p'+go.value);if(s)s.scrollIntoView()});
"""
