"""Quote the sentence or paragraph that begins with given words."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from datasets_build.reading import Reading
from datasets_build.recipes.base import Candidate, Found, Reject, recipe, shuffled
from datasets_build.sentences import can_stand_alone

SENTENCE = (
    "Quote the sentence that begins with “{words}”.",
    "Complete this sentence exactly as it stands in the text: “{words} …” Write the whole sentence.",
    "Find the sentence that starts with the words “{words}” and repeat all of it.",
    "How does the sentence beginning “{words}” read in full?",
)
PARAGRAPH = (
    "Quote the paragraph that begins with “{words}”.",
    "Find the paragraph that starts with the words “{words}” and repeat it word for word.",
    "Reproduce in full the paragraph whose first words are “{words}”.",
)
MAX_PARAGRAPH_WORDS = 150


@recipe("quote", version=1)
def quote(reading: Reading, rng: Random) -> Iterator[Found]:
    """Sentences, and a third of the time whole paragraphs, whose first words occur nowhere else."""
    some = False
    for passage in shuffled(reading.body, rng):
        n_words = rng.randint(4, 7)
        whole = rng.random() < 1 / 3
        phrase = rng.choice(PARAGRAPH if whole else SENTENCE)
        sentences = reading.sentences(passage)
        if whole:
            good = len(sentences) > 1 and all(can_stand_alone(s.text, min_words=2) for s in sentences)
            if not good or len(passage.text.split()) > MAX_PARAGRAPH_WORDS:
                continue
            text = passage.text
        else:
            fit = [s for s in sentences if can_stand_alone(s.text, min_words=n_words + 6)]
            if not fit:
                continue
            text = rng.choice(fit).text
        words = " ".join(text.split()[:n_words]).rstrip(",;:—–-")
        if not reading.unique(words) or set(words) & set('“”"'):
            continue
        some = True
        yield Candidate(phrase.format(words=words), text, ((passage.index, "" if whole else text),), keys=(words,))
    if not some:
        yield Reject("no-unique-sentence")
