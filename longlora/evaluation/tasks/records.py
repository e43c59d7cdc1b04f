"""Data files of published suites: JSON lines in a folder, one file per subset; and the samples made of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longlora.errors import UserError
from longlora.evaluation.settings import EvaluateSettings, LocalFilesSettings
from longlora.evaluation.tasks.base import Context, Sample, Skipped, answer_sample


@dataclass(frozen=True)
class Record:
    """One line of a file. ``index`` counts the records of a file from 0, ``line`` its lines from 1."""

    file: Path
    line: int
    index: int
    fields: dict[str, Any]

    def text(self, key: str) -> str:
        """A text.

        Raises:
            UserError: it is missing, or no text.
        """
        value = self._value(key)
        if not isinstance(value, str):
            raise self.wrong(f"{key} is no text")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of texts; numbers in it count as texts.

        Raises:
            UserError: it is missing, empty, or holds something else.
        """
        value = self._value(key)
        if not isinstance(value, list) or not value or not all(isinstance(v, str | int | float) for v in value):
            raise self.wrong(f"{key} is no list of texts")
        return [str(v) for v in value]

    def wrong(self, what: str) -> UserError:
        """An error that says which record of which file is no good."""
        return UserError(f"{self.file}, line {self.line}: {what}", "mend or remove the line, or get the file again")

    def _value(self, key: str) -> Any:
        if self.fields.get(key) is None:
            raise self.wrong(f"{key} is missing")
        return self.fields[key]


def records(settings: LocalFilesSettings, task: str) -> Iterator[Record]:
    """Every record of the files asked for, by file name and line; empty lines are none.

    Raises:
        UserError: the folder or a file is missing, or a line is no JSON object.
    """
    for file in _files(settings, task):
        index = 0
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(_decoded(lines, file), 1):
                if not line.strip():
                    continue
                record = Record(file, number, index, {})
                try:
                    fields = json.loads(line)
                except ValueError as error:
                    raise record.wrong(f"no JSON ({error})") from error
                if not isinstance(fields, dict):
                    raise record.wrong("no JSON object")
                yield Record(file, number, index, fields)
                index += 1


def _files(settings: LocalFilesSettings, task: str) -> list[Path]:
    folder = settings.path
    if folder is None:
        raise Skipped(f"evaluate.{task}.path is not set")
    there = {p.stem: p for p in sorted(folder.glob("*.jsonl"))}
    if not there:
        what = "holds no .jsonl file" if folder.is_dir() else "is no folder"
        raise UserError(f"evaluate.{task}.path: {folder} {what}", "give the folder that its data files are in")
    if missing := [name for name in settings.subsets if name not in there]:
        raise UserError(
            f"evaluate.{task}.subsets: {folder} has no {missing[0]}.jsonl", f"use some of: {', '.join(there)}"
        )
    return [there[name] for name in settings.subsets or there]


def _decoded(lines: Iterator[str], file: Path) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8: {error}", "get the file again") from error


@dataclass(frozen=True)
class Question:
    """What a sample is made of: the arguments of ``answer_sample``. ``plain``: without the chat format."""

    id: str
    parts: tuple[str, str, str]
    expected: Any
    tokens: int
    about: dict[str, Any]
    document: str
    plain: bool = False


def asked(context: Context, questions: Iterable[Question]) -> list[Sample]:
    """Samples of the questions; with ``evaluate.limit`` only those drawn are tokenized, which takes most of the time.

    Raises:
        Skipped: there are none.
        UserError: a question does not fit into the context.
    """
    every = list(questions)
    if not every:
        raise Skipped("the files hold no records")
    plain = dataclasses.replace(context, settings=context.settings.model_copy(update={"template": "plain"}))
    wanted = chosen(((q.id, q.about["subset"]) for q in every), context.settings)
    return [
        answer_sample(plain if q.plain else context, q.id, q.parts, q.expected, q.tokens, q.about, q.document)
        for q in every
        if q.id in wanted
    ]


def chosen(names: Iterable[tuple[str, Any]], settings: EvaluateSettings) -> set[str]:
    """Of samples (id, subset), the ids of at most ``settings.limit`` per subset, drawn by seed; all without a limit."""
    subsets: dict[Any, list[str]] = {}
    for name, subset in names:
        subsets.setdefault(subset, []).append(name)

    def rank(name: str) -> bytes:
        return hashlib.sha256(f"{settings.seed}\0{name}".encode()).digest()

    return {name for members in subsets.values() for name in sorted(members, key=rank)[: settings.limit]}


def truncation(samples: Sequence[Sample]) -> dict[str, Any]:
    """Per subset its measure, how many samples, how many of them lost part of their document, and how much (tokens).

    ``mean_tokens_cut`` is the mean over those that lost any.
    """
    subsets = []
    for name in dict.fromkeys(sample.about["subset"] for sample in samples):
        mine = [sample.about for sample in samples if sample.about["subset"] == name]
        cut = [about["truncated"] for about in mine if about["truncated"]]
        subsets.append({
            "subset": name, "measure": mine[0]["measure"], "n": len(mine), "truncated": len(cut),
            "mean_tokens_cut": sum(cut) / len(cut) if cut else 0.0,
        })  # fmt: skip
    return {"subsets": subsets}
