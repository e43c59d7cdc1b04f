"""The wording of a row's instruction around two documents; around one it is that of `layout.ONE`."""

from __future__ import annotations

TWO = (
    "Here are two documents.\n\nFirst document:\n\n{first}\n\nSecond document:\n\n{second}\n\n{question}",
    "{question}\n\nAnswer from these two documents.\n\nFirst document:\n\n{first}\n\nSecond document:\n\n{second}",
    "First document:\n\n{first}\n\nSecond document:\n\n{second}\n\nBoth documents end here. {question}",
)
