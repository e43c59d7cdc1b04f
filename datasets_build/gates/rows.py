"""What a row has to satisfy by itself."""

from __future__ import annotations

from collections.abc import Iterator

from datasets_build.rows import COLUMNS, FROM_IMPORT, PLANTED, Row, arrow_schema

Problem = tuple[str, str]  # (gate, what is wrong)


def problems(row: Row, max_tokens: int) -> Iterator[Problem]:
    """Schema, length and evidence of a row as its unit holds it."""
    wrong = _schema(row)
    if wrong:
        yield "schema", wrong
        return
    if not 0 < row["n_tokens"] <= max_tokens:
        yield "whole-answers", f"{row['n_tokens']} tokens, the window has {max_tokens}"
    if row["answer_source"] == PLANTED:
        # Its answer stands in no document: the only evidence is the context itself.
        if row["evidence"] or row["output"] not in row["instruction"]:
            yield "evidence", "an answer that was not put into the context, or evidence for one that was"
    elif row["answer_source"] != FROM_IMPORT:
        cited = {e["doc_id"] for e in row["evidence"]}
        if not cited or not cited <= set(row["doc_ids"]):
            yield "evidence", "no evidence, or evidence from another document"


def _schema(row: Row) -> str:
    import pyarrow as pa

    missing = [name for name in COLUMNS if name not in row]
    if missing:
        return f"lacks {', '.join(missing)}"
    try:
        pa.Table.from_pylist([{name: row[name] for name in COLUMNS}], schema=arrow_schema())
    except (pa.ArrowException, TypeError, ValueError) as error:  # UnicodeEncodeError for half a character
        return str(error).splitlines()[0]
    if not row["instruction"].strip() or not row["output"].strip():
        return "empty instruction or output"
    return ""
