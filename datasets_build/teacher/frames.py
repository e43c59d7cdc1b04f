"""The wording of a row's instruction around its document, or its two."""

from __future__ import annotations

SEPARATOR = "\n\n"  # between passages
ONE = (
    "Here is {article} {noun}.\n\n{context}\n\nThe {noun} ends here. {question}",
    "Read the following {noun} and answer the question below it.\n\n{context}\n\n{question}",
    "{question}\n\nAnswer from this {noun}:\n\n{context}",
    "{context}\n\nAnswer from the {noun} above. {question}",
)
TWO = (
    "Here are two documents.\n\nFirst document:\n\n{first}\n\nSecond document:\n\n{second}\n\n{question}",
    "{question}\n\nAnswer from these two documents.\n\nFirst document:\n\n{first}\n\nSecond document:\n\n{second}",
    "First document:\n\n{first}\n\nSecond document:\n\n{second}\n\nBoth documents end here. {question}",
)
# Article and noun where the text is all of the document, and where it is a part.
WHOLE, PART = ("a", "document"), ("an", "excerpt")
