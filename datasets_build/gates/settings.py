"""Settings of the gates."""

from __future__ import annotations

import difflib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from datasets_build.gates.base import GATES, Level

Kind = Literal["email", "phone", "ip", "iban", "card"]
KINDS: tuple[Kind, ...] = ("email", "phone", "ip", "iban", "card")


def _choices() -> str:
    return "; ".join(f"{gate.name}: {', '.join(gate.levels)}" for gate in GATES.values())


class GatesSettings(BaseModel):
    """What rows have to pass."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    levels: dict[str, Level] = Field(
        {},
        description="What a gate does with what it finds, where that is not the first of its levels: error stops the "
        "build and names the rows, drop leaves them out (reason in rejects.parquet), mask replaces personal data in "
        "them, warn keeps and reports them, off does not look. " + _choices() + ".",
    )
    similarity: float = Field(
        0.8, gt=0.3, le=1,
        description="Share of common runs of three words (Jaccard, by MinHash) of question and answer from which two "
        "rows are near duplicates. Lower finds looser copies and takes rows that only share a phrasing.",
    )  # fmt: skip
    document_similarity: float = Field(
        0.7, gt=0.3, le=1,
        description="The same for documents, by runs of five words: near duplicates are never in different splits. "
        "A preprint and its printed version are at about 0.7 to 0.95, two scans of one text at 0.6 and more.",
    )  # fmt: skip
    ngram: int = Field(
        13, ge=5, le=50,
        description="Words in a row that a dataset row and a file of dataset.decontaminate may not have in common, "
        "whatever case and punctuation. Fewer find paraphrases and common phrases too.",
    )  # fmt: skip
    languages: tuple[str, ...] = Field(
        (),
        description="ISO 639-1 codes of the languages wanted, such as [en, de]; none takes all. Documents are judged "
        "by pdf2txt's finding, imported rows of 200 letters and more by their text; what cannot be told passes.",
    )
    pii: tuple[Kind, ...] = Field(
        KINDS,
        description="Personal data to look for: email, phone (international form; also national with phone_region), "
        "ip (public addresses), iban, card (payment cards). Checked by number plans and check digits.",
    )
    phone_region: str = Field(
        "",
        description="Country (ISO 3166, such as US) whose national phone numbers count as well; empty: only numbers "
        "that begin with +. Tables of figures hold many that could be national numbers.",
    )

    @field_validator("levels")
    @classmethod
    def _known_levels(cls, levels: dict[str, Any]) -> dict[str, Any]:
        for name, level in levels.items():
            if name not in GATES:
                near = difflib.get_close_matches(name, GATES, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(f"unknown gate {name!r}; {hint}known: {', '.join(GATES)}")
            if level not in GATES[name].levels:
                raise ValueError(f"gate {name} cannot be {level!r}: {', '.join(GATES[name].levels)}")
        return levels

    @field_validator("languages")
    @classmethod
    def _two_letters(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        for code in languages:
            if len(code) != 2 or not code.isalpha() or not code.islower():
                raise ValueError(f"{code!r} is no ISO 639-1 code such as en")
        return languages

    @field_validator("phone_region")
    @classmethod
    def _known_region(cls, region: str) -> str:
        if region:
            from phonenumbers import SUPPORTED_REGIONS

            if region not in SUPPORTED_REGIONS:
                raise ValueError(f"{region!r} is no country code such as US")
        return region

    def level(self, gate: str) -> Level:
        """The level of a gate."""
        return self.levels.get(gate, GATES[gate].levels[0])
