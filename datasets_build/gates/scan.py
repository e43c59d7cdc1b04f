"""One look at each row, in the process that built it: what the gates need to know of it later.

What a look found is a unit, one per document or chunk of an import, so that a build after a change looks at new rows
only, and the deciding process holds a few hundred bytes per row.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from datasets_build.build import Unit, pack, unpack
from datasets_build.gates import language, near, pii, rows
from datasets_build.gates.decontaminate import Index
from datasets_build.gates.leakage import describe
from datasets_build.gates.settings import GatesSettings
from datasets_build.rows import FROM_IMPORT, Row, row_id
from pdf2txt.units import Units, digest

SCAN_VERSION = 1  # raised when the same rows give another scan
KIND = "gates"  # of the units

Measure = Callable[[str, str], int]  # (instruction, output) -> tokens


@dataclass(frozen=True)
class RowScan:
    """What was seen of one row."""

    name: str  # how messages call it
    doc_ids: list[str]
    problems: list[tuple[str, str]]  # (gate, what is wrong)
    signature: bytes
    hit: str  # where it stands in the evaluation files
    language: str
    pii: dict[str, int]  # kind -> how many


@dataclass(frozen=True)
class Scan:
    """Of all rows of a document, or of a chunk of an import."""

    signature: bytes  # of the document's text; b"" of imports
    hit: str  # where the document's text stands in the evaluation files
    units: dict[str, tuple[str, list[RowScan]]]  # unit key -> (key of its masked copy or the same, its rows in order)


@dataclass
class Scanner:
    """Looks at rows. Small enough to send to another process."""

    settings: GatesSettings
    max_tokens: int
    row_units: Units
    units: Units
    index: Index | None = None
    tokenizer: str = ""  # digest; masked rows are measured anew
    masks: bool = field(init=False)

    def __post_init__(self) -> None:
        self.masks = self.settings.level("pii") == "mask" and bool(self.settings.pii)

    def key(self, text_digest: str, keys: Sequence[str]) -> str:
        """Identity of a scan: everything that can change what it finds."""
        s = self.settings
        looks = [bool(s.languages), list(s.pii), s.phone_region, s.level("pii") in ("mask", "off"), self.masks]
        versions = [SCAN_VERSION, near.NEAR_VERSION, pii.PII_VERSION]
        evaluation = self.index.key if self.index else ""
        return digest("gates", versions, looks, self.max_tokens, evaluation, self.tokenizer, text_digest, list(keys))

    def ensure(
        self, text: Callable[[], str] | None, text_digest: str, keys: Sequence[str], measure: Callable[[], Measure]
    ) -> bool:
        """Make the scan of the row units ``keys`` unless it is there; returns whether it was.

        Args:
            text: gives the document's text, where it has to be looked at; None for imports.
            text_digest: of it.
            measure: called where a masked row has to be measured.
        """
        key = self.key(text_digest, keys)
        if self.units.path(key).exists():
            return True
        scanned = {}
        for unit_key in keys:
            unit = self._load(unit_key)
            found = [self._row(row) for row in unit["rows"]]
            shown = unit_key
            if self.masks and any(scan["pii"] for scan in found):
                shown = digest("masked", pii.PII_VERSION, list(self.settings.pii), self.settings.phone_region, unit_key)
                masked: Unit = {**unit, "rows": [self._masked(row, measure()) for row in unit["rows"]]}
                self.row_units.put(shown, pack(masked))
                # Masked text is another length, and matches other texts.
                found = [
                    {**self._row(row), "pii": scan["pii"]} for row, scan in zip(masked["rows"], found, strict=True)
                ]
            scanned[unit_key] = [shown, found]
        words = text() if text else ""
        data = {
            "signature": near.text_signature(words) if words else b"",
            "hit": self.index.hit(words) if self.index and words else "",
            "units": scanned,
        }
        self.units.put(key, zlib.compress(msgpack.packb(data), 1))
        return False

    def read(self, text_digest: str, keys: Sequence[str]) -> Scan:
        """The scan that ``ensure`` made."""
        key = self.key(text_digest, keys)
        data = self.units.get(key)
        if data is None:
            raise FileNotFoundError(f"unit {self.units.path(key)} vanished during the build")
        value = msgpack.unpackb(zlib.decompress(data))
        units = {
            unit_key: (shown, [RowScan(**{**row, "problems": [tuple(p) for p in row["problems"]]}) for row in found])
            for unit_key, (shown, found) in value["units"].items()
        }
        return Scan(value["signature"], value["hit"], units)

    def _load(self, key: str) -> Unit:
        data = self.row_units.get(key)
        if data is None:
            raise FileNotFoundError(f"unit {self.row_units.path(key)} vanished during the build")
        return unpack(data)

    def _row(self, row: Row) -> dict[str, Any]:
        problems = list(rows.problems(row, self.max_tokens))
        broken = any(gate == "schema" for gate, _ in problems)
        s = self.settings
        text = "" if broken else f"{row['instruction']}\n{row['output']}"
        looks_for_pii = bool(text) and s.level("pii") != "off"
        return {
            "name": describe(row),
            "doc_ids": list(row.get("doc_ids") or []),
            "problems": problems,
            "signature": b"\0" * 4 * near.PERMUTATIONS if broken else near.row_signature(row),
            "hit": self.index.hit(text) if self.index and not broken else "",
            "language": language.row_language(text)
            if s.languages and not broken and row["answer_source"] == FROM_IMPORT
            else "",
            "pii": dict(Counter(f.kind for f in pii.find(text, s.pii, s.phone_region))) if looks_for_pii else {},
        }

    def _masked(self, row: Row, measure: Measure) -> Row:
        s = self.settings
        changed = {
            name: pii.mask(row[name], s.pii, s.phone_region)
            for name in ("instruction", "output", "question")
            if isinstance(row.get(name), str)
        }
        if all(row[name] == text for name, text in changed.items()):
            return row
        instruction, output = changed["instruction"], changed["output"]
        return {
            **row,
            **changed,
            "id": row_id(row["task"], row["doc_ids"], instruction, output),
            "n_tokens": measure(instruction, output),
        }
