"""Documents made by hand: text, offsets and boxes agree, and every fact is known."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

from pdf2txt.schema import Block, Document, Page, Paragraph, Place, write_documents
from pdf2txt.units import Units

BLOCKS_PER_PAGE = 6
TOPICS = ("bookbinding", "joinery", "basketry", "glazing", "thatching")

Piece = tuple[str, str]  # (kind, text)


def make_document(pieces: list[Piece], name: str = "a.pdf", boxes: bool = True) -> Document:
    """A document of blocks in order, six to a page, one above the other; without boxes like a .txt file."""
    parts, blocks, paragraphs = [], [], []
    at = 0
    for i, (kind, text) in enumerate(pieces):
        page = i // BLOCKS_PER_PAGE + 1 if boxes else 1
        y = 72.0 + 100 * (i % BLOCKS_PER_PAGE)
        box = (72.0, y, 520.0, y + 60) if boxes else (0.0, 0.0, 0.0, 0.0)
        start = at
        parts.append(text + "\n\n")
        at += len(parts[-1])
        blocks.append(Block(page, kind, box, start, start + len(text), 1.0))
        paragraphs.append(Paragraph(start, start + len(text), (Place(page, box),) if boxes else ()))
    text = "".join(parts)
    size = (612.0, 792.0) if boxes else (0.0, 0.0)
    pages = []
    for number in sorted({b.page for b in blocks}):
        mine = [b for b in blocks if b.page == number]
        pages.append(Page(number, *size, 0, "text-layer", 1.0, mine[0].start, mine[-1].end))
    sha256 = hashlib.sha256((name + text).encode()).hexdigest()
    return Document(sha256, name, "ok", text, "en", tuple(pages), tuple(blocks), tuple(paragraphs))


def paper(topic: str, boxes: bool = True) -> Document:
    """A small paper in which every recipe finds something; ``topic`` makes its sentences its own."""
    other = topic[::-1].capitalize()
    return make_document(
        [
            ("title", f"A Practical Study of {topic} in Small Workshops"),
            ("text", "Ada Example, Institute of Examples"),
            ("heading", "Abstract"),
            (
                "text",
                f"We describe how {topic} is done in small workshops and what it costs the people who do it. "
                f"Over two winters we followed nine workshops and wrote down every step of their {topic}. "
                f"We find that care at the start saves most of the time that {topic} is feared for.",
            ),
            ("heading", "1 Introduction"),
            (
                "text",
                f"The craft of {topic} has been described many times, but seldom by those who practise it. "
                f"Our first visit took place on 14 March 1987, when the river had just thawed. "
                f"Nobody in the workshop called the work {topic}, and nobody had learned it from a book.",
            ),
            (
                "text",
                f"This paper uses the workshop record method (WRM) to describe the craft of {topic}. "
                f"The method asks the observer to write before speaking to anyone about {topic}.",
            ),
            ("heading", "2 Materials"),
            (
                "text",
                f"Every workshop kept its own store of materials for {topic}, and guarded it well. "
                f"The largest store held 4,250 boards, each of them marked with a year and a name. "
                f"Smaller stores were kept under the stairs, where the air was dry and {other} rare.",
            ),
            ("figure", "0 10 20 30"),
            ("caption", f"Figure 1: Boards used for {topic} in each of the nine workshops."),
            (
                "text",
                f"Many of them keep a tool wall, a plain board on which each tool for {topic} has its own outline. "
                "The tool wall tells at a glance what is missing at the end of the day (Example, 1990).",
            ),
            (
                "text",
                f"Glue was made on the day and thrown away at night in all but one case of {topic}. "
                f"In that case the master claimed that old glue taught apprentices patience with {topic}.",
            ),
            ("caption", f"Table 1: Hours per week spent on {topic} by season."),
            ("table", "winter 31\nsummer 12"),
            ("heading", "3 Results"),
            (
                "text",
                f"Workshops that measured twice lost 12.5% less wood during {topic} than the others did. "
                f"The difference was largest in winter, when mistakes in {topic} were hard to mend. "
                "Masters explained this by the light, apprentices by the masters.",
            ),
            ("heading", "4 Conclusion"),
            (
                "text",
                f"Good {topic} begins long before the first cut, and most of it cannot be seen afterwards. "
                f"We hope that other observers of {topic} will write down what they do not understand.",
            ),
            ("heading", "References"),
            ("reference", f"Example, A. (1990). Notes on {topic} in the valley. Example Press."),
            ("reference", f"Sample, B. (1994). What {topic} owes to rivers. Sample Books."),
        ],
        name=f"{topic}.pdf",
        boxes=boxes,
    )


def write_input(folder: Path, documents: list[Document]) -> Path:
    """A folder as the stage pdf2txt leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_documents(folder / "documents.parquet", sorted(documents, key=lambda d: d.doc_id))
    return folder


class KillingUnits(Units):
    """Units that kill the process they are sent to, as the kernel does when memory runs out."""

    def __setstate__(self, state: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
