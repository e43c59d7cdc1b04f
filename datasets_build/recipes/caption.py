"""Captions of figures and tables: the caption of a number, and the number of a caption."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from random import Random

from datasets_build.reading import Reading
from datasets_build.recipes.base import Candidate, Found, Reject, recipe, shuffled

OF_LABEL = (
    "What is the caption of {label}?",
    "Quote the caption of {label}.",
    "What does the caption of {label} say?",
    "Repeat the words that stand as caption with {label}.",
)
OF_TEXT = (
    "Which figure or table has the caption “{text}”?",
    "Name the figure or table whose caption reads “{text}”.",
    "To which figure or table does this caption belong: “{text}”?",
)
_CAPTION = re.compile(
    r"^((Figure|Fig\.|Table|Tab\.|Listing|Algorithm|Scheme|Box|Chart|Plate|Exhibit|Map|Diagram|FIGURE|TABLE|FIG\.)"
    r"\s?((?:[A-Z]\.?)?(?:\d+(?:[.-]\d+)*[a-z]?|[IVX]+)))\s*[.:|—–-]\s*(?=\S)"
)
MIN_WORDS, MAX_WORDS = 3, 100


@recipe("caption", version=3)
def caption(reading: Reading, rng: Random) -> Iterator[Found]:
    """One question per caption whose label occurs once as a label."""
    found = []
    for passage in reading.passages:
        match = _CAPTION.match(passage.text) if passage.kind in ("caption", "text") else None
        if match:
            label, kind, number = match.groups()
            same = f"{kind.casefold()[:3]} {number}"  # Figure 3, Fig. 3, Figure3
            text = passage.text[match.end() :]
            again = _CAPTION.match(text) or re.match(rf"{re.escape(label)}\s+(?=[A-Z])", text)
            found.append((passage, label, same, text[again.end() :] if again else text))  # "Figure 1: Figure 1 The ..."
    labels = Counter(same for _, _, same, _ in found)
    texts = Counter(text for *_, text in found)
    if not found:
        yield Reject("no-caption")
    for passage, label, same, text in shuffled(found, rng):
        ask_label = rng.random() < 0.3
        question = rng.choice(OF_TEXT if ask_label else OF_LABEL).format(label=label, text=text)
        if labels[same] > 1 or texts[text] > 1:
            yield Reject("ambiguous-caption", label)
        elif not MIN_WORDS <= len(text.split()) <= MAX_WORDS:
            yield Reject("caption-length", f"{label}: {len(text.split())} words")
        else:
            keys = (text,) if ask_label else ()
            yield Candidate(question, label if ask_label else text, ((passage.index, ""),), keys=keys)
