"""Tokens of documents and dataset rows, and which of them are learned.

A token that carries no loss is stored as its complement (``~id``, negative): one array holds ids and labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from longlora.errors import UserError
from longlora.prompts import Template, plain_batch, render, render_messages
from longlora.train.data.sources import PART, Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WRONG_ROW = "correct the row, or leave it out"
BATCH = 8 * PART  # characters: enough for several cores, little enough for memory


class Piece(NamedTuple):
    """Some tokens (int32, complement: no loss) of an entry; an entry without tokens ends empty."""

    name: str
    tokens: np.ndarray
    ends: bool  # the entry's last piece


def text_pieces(documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase) -> Iterator[Piece]:
    """Every document's tokens, all learned, with EOS at its end; special tokens that it prints are text."""
    names: list[str] = []
    texts: list[str] = []
    last: list[bool] = []
    size = 0
    for document in documents:
        ahead: str | None = None
        for part in document.parts:
            if ahead is not None:
                names.append(document.name)
                texts.append(ahead)
                last.append(False)
                size += len(ahead)
                if size >= BATCH:
                    yield from _tokenized(tokenizer, names, texts, last)
                    names, texts, last, size = [], [], [], 0
            ahead = part
        names.append(document.name)
        texts.append(ahead or "")
        last.append(True)
        size += len(ahead or "")
        if size >= BATCH or len(texts) >= 10_000:
            yield from _tokenized(tokenizer, names, texts, last)
            names, texts, last, size = [], [], [], 0
    if texts:
        yield from _tokenized(tokenizer, names, texts, last)


def _tokenized(
    tokenizer: PreTrainedTokenizerBase, names: list[str], texts: list[str], last: list[bool]
) -> Iterator[Piece]:
    for name, text, ids, ends in zip(names, texts, plain_batch(tokenizer, texts), last, strict=True):
        if ends and text:
            ids.append(tokenizer.eos_token_id)
        yield Piece(name, np.asarray(ids, dtype=np.int32), ends)


def row_pieces(
    rows: Iterable[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, template: Template
) -> Iterator[Piece]:
    """Every row's prompt and answer, the answer and its end-of-turn token learned; of ``messages`` every answer.

    Raises:
        UserError: a row that is not of that form, or that the template cannot render, by its id.
    """
    for row in rows:
        try:
            if row.get("messages") or "instruction" not in row:
                pieces = render_messages(tokenizer, template, _checked(row.get("messages")))
            else:
                for column in ("instruction", "output"):
                    if not isinstance(row[column], str):
                        raise UserError(f"{column} is {_kind(row[column])}, not text", WRONG_ROW)
                rendered = render(tokenizer, template, row["instruction"], row["output"])
                start = max(1, rendered.answer_start)
                pieces = [(rendered.input_ids[:start], False), (rendered.input_ids[start:], True)]
        except UserError as error:
            where = "dataset" if error.remedy == WRONG_ROW else "train.template"
            raise UserError(f"{where}, row {row['id']}: {error}", error.remedy) from error
        except ValueError as error:
            raise UserError(
                f"train.template, row {row['id']}: {error}", "set train.template to inst or plain"
            ) from error
        tokens = np.concatenate(
            [np.asarray(ids, np.int32) if learns else ~np.asarray(ids, np.int32) for ids, learns in pieces]
        )
        tokens[:1] = np.minimum(tokens[:1], ~tokens[:1])  # nothing predicts the first token
        if not (tokens >= 0).any():
            raise UserError(f"row {row['id']} has nothing to learn", "give it an answer, or leave it out")
        yield Piece(str(row["id"]), tokens, True)


def _checked(messages: Any) -> list[Mapping[str, str]]:
    """``messages`` of a row, each with a role and a content.

    Raises:
        UserError: they are anything else.
    """
    if not isinstance(messages, list):
        raise UserError(f"messages is {_kind(messages)}, not a list of role and content", WRONG_ROW)
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise UserError(f"message {number} is {_kind(message)}, not a role and a content", WRONG_ROW)
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                raise UserError(f"{key} of message {number} is {_kind(message.get(key))}, not text", WRONG_ROW)
    return messages


def _kind(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"
