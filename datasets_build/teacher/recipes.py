"""The tasks that a teacher can be given, by name. To add one: an entry here; raise its version to change it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from datasets_build.reading import Reading
from datasets_build.recipes.base import Reject

BOOK_WORDS = 25_000  # a longer document is a book, a shorter one a paper
MIN_WORDS = 150  # of running text: less has nothing to ask about


def _paper(reading: Reading) -> Reject | None:
    n = words(reading)
    return Reject("not-a-paper", f"{n} words") if n > BOOK_WORDS else None


def _book(reading: Reading) -> Reject | None:
    n = words(reading)
    return Reject("not-a-book", f"{n} words") if n <= BOOK_WORDS else None


def words(reading: Reading) -> int:
    """Words of running text outside back matter."""
    return sum(len(p.text.split()) for p in reading.body)


@dataclass(frozen=True)
class TeacherRecipe:
    """A task. Either the teacher writes the question, from a passage (``kinds``), or it is one of ``questions``."""

    name: str
    version: int
    manner: str  # how to answer
    kinds: tuple[str, ...] = ()  # "Write one question ...", drawn by seed
    questions: tuple[str, ...] = ()
    origin: str = "a document"
    pair: bool = False  # about two documents
    whole: bool = False  # needs the whole document in the window
    answer_words: int = 400
    fits: Callable[[Reading], Reject | None] = lambda reading: None


QA_MANNER = "Answer in one to four full sentences."
TEACHER_RECIPES = {
    r.name: r
    for r in (
        TeacherRecipe(
            "paper-qa",
            version=1,
            manner=QA_MANNER,
            kinds=(
                "about how something was done",
                "about what was found, with its figures where there are some",
                "about why the authors chose or claim something",
                "about what a term or a part of the method means here",
                "about a limitation, a condition or an exception that is mentioned",
            ),
            origin="a scientific or technical paper",
            fits=_paper,
        ),
        TeacherRecipe(
            "book-qa",
            version=1,
            manner=QA_MANNER,
            kinds=(
                "about what somebody does and why",
                "about how two people, places or ideas named in it belong together",
                "about what happens, and what comes of it",
                "about what is said or argued about a subject",
                "about where or when something takes place, and what tells us so",
            ),
            origin="a book",
            fits=_book,
        ),
        TeacherRecipe(
            "comparison",
            version=1,
            manner="Answer in two to six full sentences that say how the two documents agree and differ.",
            kinds=(
                "that asks how the two differ on a subject that both touch",
                "that asks what the two have in common, and where that ends",
                "that asks to set the aim, the approach or the finding of one against that of the other",
            ),
            pair=True,
        ),
        TeacherRecipe(
            "review",
            version=1,
            manner="Write four short paragraphs, with three to six quotations as evidence in all.",
            questions=(
                "Review this document as a fair and careful referee: what it claims, what speaks for it, what is weak "
                "or missing, and what you would ask the authors.",
                "Write a referee's report on this document: its contribution, its strengths, its weaknesses, questions "
                "to the authors.",
                "Assess this document critically. Say what it sets out to do, how well it supports its claims, and "
                "what should be improved.",
            ),
            whole=True,
            fits=_paper,
        ),
        TeacherRecipe(
            "summary",
            version=1,
            manner="Write one or two paragraphs of your own words, with three to six quotations as evidence in all.",
            questions=(
                "Summarise this {noun}.",
                "What does this {noun} say, in short? Keep to what matters most.",
                "Write a summary of this {noun} for somebody who has no time to read it.",
                "Give the main points of this {noun} in a paragraph or two.",
            ),
        ),
    )
}
