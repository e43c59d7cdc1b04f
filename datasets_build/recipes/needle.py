"""A needle: a short statement of our own is put into the document, and has to be found again.

The answer stands in no document, so the row says "planted" and cites no page.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from random import Random

from datasets_build.reading import Reading
from datasets_build.recipes.base import Candidate, Found, FromWindow, Reject, recipe

OWNERS = (
    "the harbour office", "the north archive", "the mill at the weir", "the night watch", "the map room",
    "the glass works", "the old observatory", "the rowing club", "the seed store", "the bell foundry",
    "the ferry station", "the paper museum", "the upper greenhouse", "the print shop", "the salt depot",
    "the railway canteen",
)  # fmt: skip
THINGS = (
    "copper kettle", "blue ledger", "spare lantern", "brass compass", "oak ladder", "red toolbox", "silver whistle",
    "green umbrella", "iron stamp", "wicker basket", "leather satchel", "tin drum",
)  # fmt: skip
PLACES = (
    "behind the third bookcase", "under the stairs", "in the loft of the boathouse", "beside the south gate",
    "on the shelf above the sink", "in the drawer of the long table", "inside the stove", "at the foot of the well",
    "between the two wardrobes", "below the window seat",
)  # fmt: skip
MONTHS = ("January", "March", "April", "June", "July", "September", "October", "December")
# statement, questions, and which of them want the statement as it stands
KINDS = (
    (
        "The access code of {owner} is {code}.",
        ("What is the access code of {owner}?", "Which code opens {owner}?", "Give the access code of {owner}."),
        "{code}",
    ),
    (
        "The {thing} of {owner} is kept {place}.",
        ("Where is the {thing} of {owner} kept?", "Where would one find the {thing} of {owner}?"),
        "{place}",
    ),
    (
        "The next inspection of {owner} takes place on {date}.",
        ("When does the next inspection of {owner} take place?", "On which date is {owner} inspected next?"),
        "{date}",
    ),
    (
        "The serial number of the {thing} of {owner} is {serial}.",
        ("What is the serial number of the {thing} of {owner}?", "Which serial number has the {thing} of {owner}?"),
        "{serial}",
    ),
)  # fmt: skip
QUOTE = "Repeat the statement about {subject} that was slipped into the text, word for word."
MAX_DECOYS = 3
MIN_WORDS = 100  # of running text to hide in
MAX_NEEDLES = 100  # of one document


@recipe("needle", version=1)
def needle(reading: Reading, rng: Random) -> Iterator[Found]:
    """One statement per question at a drawn depth, among up to three of its kind about something else."""
    words = sum(len(p.text.split()) for p in reading.body)
    if words < MIN_WORDS:
        yield Reject("no-haystack", f"{words} words")
        return
    for _ in range(MAX_NEEDLES):
        anchor = rng.choice(reading.body).index
        yield FromWindow(anchor, partial(_given, _draw(rng)))


def _given(candidate: Candidate, _first: int, _last: int) -> Candidate:
    return candidate


def _draw(rng: Random) -> Candidate:
    statement, questions, answer = rng.choice(KINDS)
    owners = rng.sample(OWNERS, 1 + rng.randint(0, MAX_DECOYS))
    places = rng.sample(PLACES, len(owners))
    values = [_values(owner, place, rng) for owner, place in zip(owners, places, strict=True)]
    # Decoys keep the thing, so that the owner alone tells them apart.
    for other in values[1:]:
        other["thing"] = values[0]["thing"]
    told = [statement.format(**v) for v in values]
    mine = values[0]
    if rng.random() < 0.2:
        subject = mine["owner"] if "{thing}" not in statement else f"the {mine['thing']} of {mine['owner']}"
        question, answer = QUOTE.format(subject=subject), told[0]
    else:
        question, answer = rng.choice(questions).format(**mine), answer.format(**mine)
    return Candidate(question, answer, (), keys=tuple(owners), plants=tuple(told), distinct=True)


def _values(owner: str, place: str, rng: Random) -> dict[str, str]:
    letters = "".join(rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(3))
    return {
        "owner": owner,
        "thing": rng.choice(THINGS),
        "place": place,
        "code": str(rng.randint(10_000, 99_999)),
        "date": f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {rng.randint(2031, 2069)}",
        "serial": f"{letters}-{rng.randint(1000, 9999)}",
    }
