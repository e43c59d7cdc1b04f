"""The row: its columns, its identity, and digests that do not depend on Parquet."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from pdf2txt.units import digest

if TYPE_CHECKING:
    import pyarrow as pa

FROM_DOCUMENT = "document"  # answer_source: the answer stands in the document
PLANTED = "planted"  # answer_source: the answer stands in a sentence put into the context; there is no evidence
FROM_IMPORT = "import"  # answer_source: as the imported file has it
IMPORT_TASK = "import"
DOCUMENTS = "documents"  # all documents together, where sources are named
LONG_LINE_WORDS = 40  # a line of an import that is a text, not a question or a remark
COLUMNS = (
    "instruction", "output", "id", "task", "doc_ids", "evidence", "answer_source", "n_tokens",
    "source_sha256", "split_group", "license",
)  # fmt: skip

Row = dict[str, Any]


def make_row(
    *,
    instruction: str,
    output: str,
    task: str,
    n_tokens: int,
    source_sha256: str,
    answer_source: str,
    split_group: str,
    doc_ids: tuple[str, ...] = (),
    evidence: tuple[dict[str, Any], ...] = (),
    question: str = "",
) -> Row:
    """A row with its id: 16 hex digits of what it teaches and where from, the same in every build.

    ``question`` is the instruction without its context, for comparing rows; units keep it, published rows do not.
    The licence is filled in where rows are published: to change it makes no row anew.
    """
    return {
        "instruction": instruction,
        "output": output,
        "id": row_id(task, doc_ids, instruction, output),
        "task": task,
        "doc_ids": list(doc_ids),
        "evidence": list(evidence),
        "answer_source": answer_source,
        "n_tokens": n_tokens,
        "source_sha256": source_sha256,
        "split_group": split_group,
        "license": "",
        "question": question,
    }


def row_id(task: str, doc_ids: Collection[str], instruction: str, output: str) -> str:
    """A row's id: a row with another text is another row."""
    return digest(task, list(doc_ids), instruction, output)[:16]


def facts(row: Row) -> dict[str, Any]:
    """What has to be known of a row to choose rows and to divide them: no text."""
    return {
        "id": row["id"],
        "task": row["task"],
        "source": row["doc_ids"][0] if row["doc_ids"] else f"import:{row['source_sha256'][:16]}",
        "split_group": row["split_group"],
        "duplicate": duplicate_key(row)[:32],
        "n_tokens": row["n_tokens"],
        "n_chars": len(row["instruction"]) + len(row["output"]),
    }


def duplicate_key(row: Row) -> str:
    """Equal for rows that differ only in case and white space."""
    return digest(_normalised(row["instruction"]), _normalised(row["output"]))


def long_lines(instruction: str) -> dict[str, int]:
    """The digests and lengths of the lines of ``LONG_LINE_WORDS`` words and more."""
    lines = (_normalised(line) for line in instruction.splitlines())
    return {digest(line)[:16]: len(line) for line in lines if len(line.split()) >= LONG_LINE_WORDS}


def import_group(instruction: str, common: Collection[str] = ()) -> str:
    """The split group of an imported row.

    Rows on one long text belong together though their questions differ, so the group is the row's longest
    line, if it is long: of a LongAlpaca row a paragraph of the paper. Otherwise it is the whole instruction.

    Args:
        common: ``long_lines`` that say nothing about the row, such as a preamble of all rows of a file.
    """
    lines = {line: length for line, length in long_lines(instruction).items() if line not in common}
    longest = max(lines, key=lambda line: lines[line]) if lines else digest(_normalised(instruction))[:16]
    return f"import:{longest}"


def _normalised(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().casefold()


def arrow_schema() -> pa.Schema:
    """The columns of the data files. ``publish`` adds what `datasets` keeps about them."""
    import pyarrow as pa

    evidence = pa.struct([("doc_id", pa.string()), ("page", pa.int32()), ("box", pa.list_(pa.float32()))])
    return pa.schema([
        ("instruction", pa.string()), ("output", pa.string()), ("id", pa.string()), ("task", pa.string()),
        ("doc_ids", pa.list_(pa.string())), ("evidence", pa.list_(evidence)), ("answer_source", pa.string()),
        ("n_tokens", pa.int32()), ("source_sha256", pa.string()), ("split_group", pa.string()),
        ("license", pa.string()),
    ])  # fmt: skip


def rejects_schema() -> pa.Schema:
    """The columns of ``rejects.parquet``."""
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in ("doc_id", "task", "reason", "detail")])
