"""The row: its columns, its identity, and digests that do not depend on Parquet."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pdf2txt.units import digest

if TYPE_CHECKING:
    import pyarrow as pa

FROM_DOCUMENT = "document"  # answer_source: the answer stands in the document
FROM_IMPORT = "import"  # answer_source: as the imported file has it
IMPORT_TASK = "import"
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
    license: str,
    answer_source: str,
    split_group: str,
    doc_ids: tuple[str, ...] = (),
    evidence: tuple[dict[str, Any], ...] = (),
) -> Row:
    """A row with its id: 16 hex digits of what it teaches and where from, the same in every build."""
    return {
        "instruction": instruction,
        "output": output,
        "id": digest(task, list(doc_ids), instruction, output)[:16],
        "task": task,
        "doc_ids": list(doc_ids),
        "evidence": list(evidence),
        "answer_source": answer_source,
        "n_tokens": n_tokens,
        "source_sha256": source_sha256,
        "split_group": split_group,
        "license": license,
    }


def duplicate_key(row: Row) -> str:
    """Equal for rows that differ only in case and white space."""
    return digest(_normalised(row["instruction"]), _normalised(row["output"]))


def import_group(instruction: str) -> str:
    """The split group of an imported row.

    Rows on one long text share it though their questions differ, so the group is drawn from the longest line:
    of a LongAlpaca row a paragraph of the paper, of a short row the question.
    """
    longest = max(instruction.splitlines(), key=len, default="")
    return "import:" + digest(_normalised(longest))[:16]


def _normalised(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().casefold()


def arrow_schema() -> pa.Schema:
    """The columns of the data files."""
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
