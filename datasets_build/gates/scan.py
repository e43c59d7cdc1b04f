"""One look at each row, in the process that built it: what the gates need to know of it later.

What a look found is a unit, one per pack of rows and one per document's text, so that a build after a change looks
at new rows only, and the deciding process holds a few hundred bytes per row.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from sys import intern
from typing import Any

import msgpack

from datasets_build.build import Unit
from datasets_build.gates import language, near, pii, rows
from datasets_build.gates.decontaminate import Index
from datasets_build.gates.settings import GatesSettings
from datasets_build.gates.sketch import SKETCH_VERSION, sketch
from datasets_build.packs import Packs
from datasets_build.rows import FROM_IMPORT, Row, long_lines, row_id
from pdf2txt.units import Units, digest

SCAN_VERSION = 3  # raised when the same rows give another scan
KIND = "gates"  # of the units

Measure = Callable[[str, str], int]  # (instruction, output) -> tokens


@dataclass(frozen=True, slots=True)
class RowScan:
    """What was seen of one row."""

    doc_ids: tuple[str, ...]
    problems: tuple[tuple[str, str], ...]  # (gate, what is wrong)
    signature: bytes
    hit: str  # where it stands in the evaluation files
    language: str
    sketch: bytes  # of an imported row with a text in it
    pii: tuple[tuple[str, int], ...]  # (kind, how many)


@dataclass(frozen=True)
class Scan:
    """Of the rows of a pack."""

    shown: str  # the pack with personal data masked, or the same
    parts: dict[str, list[RowScan]]  # part -> its rows in order


@dataclass(frozen=True, slots=True)
class TextScan:
    """What was seen of a document's text."""

    signature: bytes
    hit: str  # where it stands in the evaluation files
    sketch: bytes  # where imports have texts


@dataclass
class Scanner:
    """Looks at texts and rows. Small enough to send to another process."""

    settings: GatesSettings
    max_tokens: int
    packs: Packs
    units: Units
    index: Index | None = None
    tokenizer: str = ""  # digest; masked rows are measured anew
    sketches: bool = False  # of documents: where there is something to compare them with
    masks: bool = field(init=False)

    def __post_init__(self) -> None:
        self.masks = self.settings.level("pii") == "mask" and bool(self.settings.pii)

    @property
    def _evaluation(self) -> str:
        return self.index.key if self.index else ""

    def text_key(self, text_digest: str) -> str:
        """Identity of a text's scan."""
        sketched = [SKETCH_VERSION] if self.sketches else []
        return digest("text", SCAN_VERSION, near.NEAR_VERSION, *sketched, self._evaluation, text_digest)

    def text(self, text_digest: str, text: Callable[[], str]) -> tuple[TextScan, bool]:
        """The scan of a text, and whether it was there; ``text`` is only asked where it was not."""
        key = self.text_key(text_digest)
        data = self.units.get(key)
        if data is not None:
            return TextScan(*msgpack.unpackb(data)), True
        words = text()
        hit = self.index.hit(words) if self.index else ""
        scan = TextScan(near.text_signature(words), hit, sketch(words) if self.sketches else b"")
        self.units.put(key, msgpack.packb([scan.signature, scan.hit, scan.sketch]))
        return scan, False

    @cached_property
    def _looks(self) -> str:
        """Everything that can change what is found in a pack."""
        s = self.settings
        looks = [bool(s.languages), list(s.pii), s.phone_region, s.level("pii") in ("mask", "off"), self.masks]
        versions = [SCAN_VERSION, near.NEAR_VERSION, pii.PII_VERSION, SKETCH_VERSION]
        return digest("rows", versions, looks, self.max_tokens, self._evaluation, self.tokenizer)

    def key(self, name: str) -> str:
        """Identity of the scan of a pack."""
        return digest(self._looks, name)

    def has(self, name: str) -> bool:
        """Whether the rows of a pack have been looked at."""
        return self.units.path(self.key(name)).exists()

    def ensure(self, name: str, rows_of: Callable[[], Mapping[str, Unit]], measure: Callable[[], Measure]) -> None:
        """Make the scan of a pack unless it is there.

        Args:
            rows_of: gives its units by part.
            measure: called where a masked row has to be measured.
        """
        if self.has(name):
            return
        made = rows_of()
        found = {part: [self._row(row) for row in unit["rows"]] for part, unit in made.items()}
        shown = name
        if self.masks and any(scan[-1] for scans in found.values() for scan in scans):
            masked = {
                part: {**unit, "rows": [self._masked(row, measure()) for row in unit["rows"]]}
                for part, unit in made.items()
            }
            masks = [pii.PII_VERSION, list(self.settings.pii), self.settings.phone_region, self.tokenizer]
            filed = self.packs.put(digest("masked", masks, name), masked)
            shown = next(iter(filed.values())).name
            # Masked text is another length, and matches other texts.
            found = {
                part: [[*self._row(row)[:-1], scan[-1]] for row, scan in zip(unit["rows"], found[part], strict=True)]
                for part, unit in masked.items()
            }
        self.units.put(self.key(name), zlib.compress(msgpack.packb([shown, found]), 1))

    def read(self, name: str) -> Scan:
        """The scan that ``ensure`` made.

        Raises:
            FileNotFoundError: it is gone.
        """
        found = self.find(name)
        if found is None:
            raise FileNotFoundError(f"unit {self.units.path(self.key(name))} vanished during the build")
        return found

    def find(self, name: str) -> Scan | None:
        """The scan of a pack, if the gates have looked at it."""
        data = self.units.get(self.key(name))
        if data is None:
            return None
        shown, found = msgpack.unpackb(zlib.decompress(data), use_list=False)
        return Scan(shown, {part: [_held(*scan) for scan in scans] for part, scans in found.items()})

    def _row(self, row: Row) -> list[Any]:
        """The fields of a `RowScan`."""
        problems = list(rows.problems(row, self.max_tokens))
        broken = any(gate == "schema" for gate, _ in problems)
        s = self.settings
        text = "" if broken else f"{row['instruction']}\n{row['output']}"
        foreign = bool(text) and row["answer_source"] == FROM_IMPORT
        looks_for_pii = bool(text) and s.level("pii") != "off"
        counted = Counter(f.kind for f in pii.find(text, s.pii, s.phone_region)) if looks_for_pii else Counter[str]()
        return [
            list(row.get("doc_ids") or []),
            problems,
            b"\0" * 4 * near.PERMUTATIONS if broken else near.row_signature(row),
            self.index.hit(text) if self.index and text else "",
            language.row_language(text) if s.languages and foreign else "",
            sketch(row["instruction"]) if foreign and long_lines(row["instruction"]) else b"",
            sorted(counted.items()),
        ]

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


def _held(doc_ids: tuple[str, ...], *others: Any) -> RowScan:
    """A `RowScan` for a long time: a document is named by all rows that show it, and its name kept once."""
    # A broken row, which the schema gate names, may have anything there.
    return RowScan(tuple(intern(d) if type(d) is str else d for d in doc_ids), *others)
