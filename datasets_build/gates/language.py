"""The language of imported rows; of documents, pdf2txt has found it."""

from __future__ import annotations

from pdf2txt.language import detect_language

FEWEST_LETTERS = 200  # fewer letters of two sentences are too little to tell close languages apart


def row_language(text: str) -> str:
    """ISO 639-1 code, "" where it cannot be told."""
    return detect_language(text) if sum(map(str.isalpha, text[:10_000])) >= FEWEST_LETTERS else ""
