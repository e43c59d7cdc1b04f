"""An HTML page of rows: what is asked and answered, beside the page of the document with the evidence drawn on it.

The page needs nothing from elsewhere; images are part of it. It shares its look with pdf2txt's view of a document.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets_build.rows import Row
from pdf2txt.schema import Page
from pdf2txt.units import write_atomic_pieces
from pdf2txt.view import STYLE, PageImages

EDGE, AROUND = 700, 350  # characters of an instruction shown at its ends, and around the answer in it
FEW = 200  # characters between those that are not worth hiding
MOST_PAGES = 4  # of one row
_ANSWER_TOO_LONG = 4000  # characters; longer ones are not looked for in the instruction


@dataclass(frozen=True)
class DocumentFile:
    """What there is to draw a document's pages from."""

    name: str
    file: Path | None = None
    problem: str = ""  # why there is no file
    pages: Mapping[int, Page] = field(default_factory=dict)  # by number, as pdf2txt saw them


def write_view(
    target: Path, title: str, rows: Sequence[Row], documents: Mapping[str, DocumentFile], total: int
) -> Path:
    """Write ``target``.

    Args:
        rows: each with its ``split``.
        documents: by doc_id; one that lacks is said to be unknown.
        total: rows of the dataset, to say how many are shown.

    Raises:
        OSError: the place cannot be written.
    """
    pieces = (piece.encode("utf-8", "replace") for piece in _html(title, rows, documents, total))
    write_atomic_pieces(target, pieces)
    return target


def _html(title: str, rows: Sequence[Row], documents: Mapping[str, DocumentFile], total: int) -> Iterator[str]:
    tasks = Counter(row["task"] for row in rows)
    chips = "".join(
        f'<button type="button" class="key" data-task="{html.escape(task)}" aria-pressed="true">{html.escape(task)} '
        f"<small>{n}</small></button>"
        for task, n in sorted(tasks.items())
    )
    name = html.escape(title)
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{STYLE}{_STYLE}</style></head>\n<body>\n<header><h1>{name}</h1>"
        f"<p>{len(rows):,} of {total:,} rows</p>"
        f'<nav aria-label="Tasks">{chips}</nav></header>\n<main>\n'
    )
    if not rows:
        yield '<p class="empty">No rows to show.</p>\n'
    for number, row in enumerate(rows):
        yield _row(number, row, documents)
    yield f"</main>\n<script>{_SCRIPT}</script>\n</body></html>\n"


def _row(number: int, row: Row, documents: Mapping[str, DocumentFile]) -> str:
    figures, places = _evidence(number, row, documents)
    facts = [row.get("split", ""), f"{row['n_tokens']:,} tokens", f"licence {row['license']}"]
    if row["answer_source"] != "document":
        facts.append(f"answer from: {row['answer_source']}")
    return (
        f'<section id="r{number}" data-task="{html.escape(row["task"])}" class="{"" if figures else "bare"}">'
        f"<h2>{html.escape(row['task'])} <code>{html.escape(row['id'])}</code> "
        f"<small>{html.escape(' · '.join(f for f in facts if f))}</small></h2>"
        f'<div class="pair">{figures}<div class="texts">'
        f'<div class="piece k-answer"><span>answer</span><pre>{html.escape(row["output"])}</pre></div>'
        f"{_instruction(row)}{places}</div></div></section>\n"
    )


def _instruction(row: Row) -> str:
    text = row["instruction"]
    spans = _answer_in(text, row["output"])
    shown = [(0, min(EDGE, len(text))), (max(0, len(text) - EDGE), len(text))]
    shown += [(max(0, start - AROUND), min(len(text), end + AROUND)) for start, end in spans[:1]]
    parts, at = [], 0
    for start, end in _joined(text, shown):
        if start > at:
            between = f"<summary>{start - at:,} characters</summary><pre>{_marked(text, at, start, spans)}</pre>"
            parts.append(f"<details>{between}</details>")
        parts.append(f"<pre>{_marked(text, start, end, spans)}</pre>")
        at = end
    label = f"instruction, {len(text):,} characters" + (", the answer marked" if spans else "")
    return f'<div class="piece k-question"><span>{label}</span>{"".join(parts)}</div>'


def _joined(text: str, shown: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Pieces of a text to show, in order, from word to word, those close to each other as one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(shown):
        start, end = _word_start(text, start), _word_start(text, end)
        if joined and start - joined[-1][1] <= FEW:
            start, end = joined[-1][0], max(end, joined.pop()[1])
        joined.append((start, end))
    return joined


def _word_start(text: str, at: int) -> int:
    """The next place from ``at`` where a word begins, or the end."""
    while 0 < at < len(text) and not text[at - 1].isspace():
        at += 1
    return at


def _answer_in(text: str, answer: str) -> list[tuple[int, int]]:
    """Where the answer stands in the instruction, whatever its white space: as a whole, or line by line."""
    if len(answer) > _ANSWER_TOO_LONG or not answer.strip():
        return []
    for pieces in ([answer], [line for line in answer.splitlines() if len(line.split()) > 1]):
        patterns = [r"\s+".join(map(re.escape, piece.split())) for piece in pieces]
        found = [match.span() for pattern in patterns if (match := re.search(rf"(?<!\w){pattern}(?!\w)", text))]
        if found and len(found) == len(pieces):
            return sorted(found)
    return []


def _marked(text: str, start: int, end: int, spans: list[tuple[int, int]]) -> str:
    parts, at = [], start
    for a, b in spans:
        a, b = max(a, at), min(b, end)
        if a < b:
            parts += [html.escape(text[at:a]), "<mark>", html.escape(text[a:b]), "</mark>"]
            at = b
    return "".join([*parts, html.escape(text[at:end])])


def _evidence(number: int, row: Row, documents: Mapping[str, DocumentFile]) -> tuple[str, str]:
    """The figures of the pages, and the list of the places on them."""
    pages: dict[tuple[str, int], list[tuple[int, Any]]] = {}
    for order, place in enumerate(row["evidence"] or [], 1):
        pages.setdefault((place["doc_id"], place["page"]), []).append((order, place["box"]))
    figures: list[str] = []
    for doc_id, page in list(pages)[:MOST_PAGES]:
        figures.append(_figure(number, documents.get(doc_id) or _unknown(doc_id), page, pages[doc_id, page]))
    if len(pages) > MOST_PAGES:
        figures.append(f'<p class="empty">Evidence on {len(pages) - MOST_PAGES} more pages is not drawn.</p>')
    items = []
    for (doc_id, page), boxes in pages.items():
        document = documents.get(doc_id) or _unknown(doc_id)
        orders = ", ".join(str(order) for order, _ in boxes)
        keys = " ".join(f"{number}-{order}" for order, _ in boxes)
        items.append(
            f'<div class="piece k-evidence" data-b="{keys}"><span>evidence {orders}</span>'
            f"<pre>{html.escape(document.name)}, page {page} <small>{html.escape(doc_id)}</small></pre></div>"
        )
    # One page stays in view beside a long instruction; of several, the first would hide the others.
    look = ' class="one"' if len(figures) == 1 else ""
    return f"<div{look}>{''.join(figures)}</div>" if figures else "", "".join(items)


def _unknown(doc_id: str) -> DocumentFile:
    return DocumentFile(doc_id, None, "The document is not known here.")


def _figure(number: int, document: DocumentFile, page_number: int, boxes: list[tuple[int, Any]]) -> str:
    caption = f"<figcaption>{html.escape(document.name)}, page {page_number}</figcaption>"
    if document.file is None:
        return f'{caption}<p class="lost">{html.escape(document.problem)}</p>'
    with closing(PageImages(document.file)) as images:
        page = document.pages.get(page_number) or images.page(page_number)
        if page is not None and not page.width:
            return f'{caption}<p class="lost">A text file: it has no pages to draw.</p>'
        source = images.source(page) if page is not None else ""
    if page is None or not source:
        return f'{caption}<p class="lost">This page cannot be drawn.</p>'
    drawn = []
    for order, box in boxes:
        if box is None:
            continue
        x0, y0, x1, y1 = box
        place = (
            f"left:{100 * x0 / page.width:.3f}%;top:{100 * y0 / page.height:.3f}%;"
            f"width:{100 * (x1 - x0) / page.width:.3f}%;height:{100 * (y1 - y0) / page.height:.3f}%"
        )
        drawn.append(
            f'<a class="box k-evidence" data-b="{number}-{order}" style="{place}" title="evidence {order}">'
            f"<b>{order}</b></a>"
        )
    return (
        f'{caption}<figure style="aspect-ratio:{page.width:.2f}/{page.height:.2f}">'
        f'<img src="{html.escape(source)}" alt="{html.escape(document.name)}, page {page_number}" decoding="async">'
        f"{''.join(drawn)}</figure>"
    )


_STYLE = """
.k-answer{--h:140}.k-question{--h:215}.k-evidence{--h:20}
section{content-visibility:visible;padding-top:1rem;border-top:1px solid var(--rule);margin-bottom:1.6rem}
section:first-child{border-top:0;padding-top:0}
h2 code{font:.85em ui-monospace,monospace;color:var(--dim);font-weight:400}
figure{position:relative;top:0;margin-bottom:.8rem}
.one{position:sticky;top:min(5.5rem,calc(100vh - 3.4rem - min(50vw - 1.8rem,730px)*1.42))}
@media (max-width:899px){.one{position:static}}
figcaption{font-size:.82rem;color:var(--dim);margin-bottom:.25rem;
overflow-wrap:anywhere}
.box{background:hsl(var(--h) 90% 55%/.16);border-width:2px}
.box.on{background:hsl(var(--h) 90% 55%/.28);outline-offset:2px}
.lost{border:1px dashed var(--rule);border-radius:6px;padding:1.6rem 1rem;margin:0 0 .8rem;color:var(--dim);
text-align:center;overflow-wrap:anywhere}
.key[aria-pressed=false]{text-decoration:line-through}
.k-question pre{max-height:none}
details{margin:.4rem 0;border-block:1px dashed var(--rule)}
summary{cursor:pointer;font-size:.82rem;color:var(--dim);padding:.1rem 0}
mark{background:hsl(140 70% 50%/.3);color:inherit;border-radius:2px}
"""

_SCRIPT = """
const keys=(e)=>(e?.dataset.b??'').split(' ').filter(Boolean);
const mark=(event,on)=>{const mine=keys(event.target.closest('[data-b]'));
for(const e of document.querySelectorAll('[data-b]'))
if(mine.some(key=>keys(e).includes(key)))e.classList.toggle('on',on)};
document.addEventListener('mouseover',e=>mark(e,true));
document.addEventListener('mouseout',e=>mark(e,false));
document.addEventListener('click',event=>{
const chip=event.target.closest('.key');
if(chip){const on=chip.getAttribute('aria-pressed')!=='true';chip.setAttribute('aria-pressed',on);
for(const e of document.querySelectorAll('section'))
if(e.dataset.task===chip.dataset.task)e.classList.toggle('hide',!on);return}
const piece=event.target.closest('.piece[data-b]');
if(piece&&String(getSelection())===''){const key=keys(piece)[0];
document.querySelector(`.box[data-b="${key}"]`)?.scrollIntoView({block:'center'})}});
"""
