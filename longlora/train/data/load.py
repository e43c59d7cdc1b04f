"""The samples that the settings ask for, through the cache of tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora.errors import UserError
from longlora.prompts import NO_EOS, Template, begins_with_bos
from longlora.train.checkpoints import file_sha256
from longlora.train.data import sources
from longlora.train.data.cache import Pieces, Report, TokenCache, token_cache
from longlora.train.data.samples import Samples
from longlora.train.data.sources import TextFile
from longlora.train.data.tokens import Piece, row_pieces, text_pieces
from longlora.train.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HASHES = "files.json"  # beside the caches: digests of files that have not changed since


def quiet(event: str, **fields: Any) -> None:
    """A report that goes nowhere."""


def training_samples(
    settings: TrainSettings,
    inputs: dict[str, Path],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    row_tokens: int,
    folder: Path,
    report: Report = quiet,
) -> Samples:
    """What ``settings.data`` and ``settings.texts`` ask for.

    Args:
        inputs: of the train stage; ``text-<i>`` stands for ``settings.texts[i]``.
        template: what `longlora.templates` made of the settings and put on the tokenizer.
        folder: for the cache of tokens.
        report: takes ``progress`` in tokens.

    Raises:
        UserError: no data, unreadable data, a dataset row that is too long, or a tokenizer without EOS.
    """
    if tokenizer.eos_token_id is None:
        raise UserError("the model's tokenizer has no EOS token: nothing would end an answer or a text", NO_EOS)
    if settings.data == "sft":
        return sft_samples(inputs["datasets_build"], tokenizer, template, row_tokens, folder, report)
    if settings.texts:
        texts = [inputs.get(f"text-{i}", path) for i, path in enumerate(settings.texts)]
        return plain_text_samples(texts, tokenizer, row_tokens, folder, report)
    for name, what in (
        ("pdf2txt", "documents.parquet"),
        ("datasets_build", "splits.json, which says what is to train on"),
    ):
        if name not in inputs:
            raise UserError(
                f"train.data is text, and there is no {what}", f"give the output of {name}, or set train.texts"
            )
    documents, splits = inputs["pdf2txt"] / "documents.parquet", inputs["datasets_build"] / "splits.json"
    return text_samples(documents, splits, tokenizer, row_tokens, folder, report)


def sft_samples(
    dataset: Path,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    row_tokens: int,
    folder: Path,
    report: Report = quiet,
) -> Samples:
    """The train rows of a dataset directory, loss on the answers and their end-of-turn tokens.

    Raises:
        UserError: no rows, missing columns, or a row longer than ``row_tokens`` (no answer is ever cut).
    """
    files = sources.row_files(dataset)
    about = ["sft", template, tokenizer.chat_template if template == "chat" else None]

    def pieces(done: int) -> Iterator[Piece]:
        return row_pieces(islice(sources.dataset_rows(files), done, None), tokenizer, template)

    samples = Samples.whole_entries(_cache(folder, tokenizer, about, _named(files), pieces, report))
    if not len(samples):
        raise UserError(f"the dataset in {dataset} has no training rows", "build it with more documents or recipes")
    too_long = int((samples.lengths > row_tokens).sum())
    if too_long:
        at = int(samples.lengths.argmax())
        longest = int(samples.lengths[at])
        raise UserError(
            f"{too_long} of {len(samples)} dataset rows are longer than a training row "
            f"of {row_tokens:,} tokens (row {samples.cache.name(at)}: {longest:,})",
            f"lower dataset.max_tokens to {row_tokens}, or raise train.row_tokens (and train.context_length) "
            f"to {longest}",
        )
    return samples


def text_samples(
    documents: Path,
    splits: Path,
    tokenizer: PreTrainedTokenizerBase,
    row_tokens: int,
    folder: Path,
    report: Report = quiet,
) -> Samples:
    """The train-split documents as pieces of at most ``row_tokens`` tokens, the first token without loss.

    Args:
        documents: pdf2txt's ``documents.parquet`` (columns doc_id, text).
        splits: datasets_build's ``splits.json``.

    Raises:
        UserError: the train split has no text.
    """
    wanted = sources.train_documents(splits)

    def pieces(done: int) -> Iterator[Piece]:
        return text_pieces(islice(sources.converted_documents(documents, wanted), done, None), tokenizer)

    cache = _cache(folder, tokenizer, ["documents", sorted(wanted)], _named([documents]), pieces, report)
    samples = _pieces(cache, tokenizer, row_tokens)
    if not len(samples):
        raise UserError(
            f"no document of the train split in {documents} has text", "add documents, or use train.data: sft"
        )
    return samples


def plain_text_samples(
    paths: Sequence[Path],
    tokenizer: PreTrainedTokenizerBase,
    row_tokens: int,
    folder: Path,
    report: Report = quiet,
) -> Samples:
    """The text of files and folders, cut as in `text_samples`.

    Raises:
        UserError: a file is missing or cannot be read, or there is no text in any.
    """
    files = sources.text_files(paths)

    def pieces(done: int) -> Iterator[Piece]:
        return text_pieces(islice(sources.documents(files), done, None), tokenizer)

    samples = _pieces(_cache(folder, tokenizer, ["texts"], files, pieces, report), tokenizer, row_tokens)
    if not len(samples):
        raise UserError("there is no text in train.texts", "name files that have some")
    return samples


def _pieces(cache: TokenCache, tokenizer: PreTrainedTokenizerBase, row_tokens: int) -> Samples:
    bos: Any = tokenizer.bos_token_id if begins_with_bos(tokenizer) else None
    return Samples.pieces(cache, row_tokens, bos)


def _named(files: Iterable[Path]) -> list[TextFile]:
    return [TextFile(path.name, path) for path in files]


def _cache(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    about: list[Any],
    files: Sequence[TextFile],
    pieces: Pieces,
    report: Report,
) -> TokenCache:
    key = [about, tokenizer_digest(tokenizer), [[file.name, sha] for file, sha in _digests(folder, files)]]
    return token_cache(folder, key, pieces, report)


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of what turns text into tokens; the chat template is not part of it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    parts = [rules, type(tokenizer).__name__ if backend is None else "", tokenizer.special_tokens_map]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _digests(folder: Path, files: Sequence[TextFile]) -> list[tuple[TextFile, str]]:
    """sha256 of each file; one whose size and time of change are as before is not read again."""
    note = folder / HASHES
    try:
        known = json.loads(note.read_text())
    except (OSError, ValueError):
        known = {}
    now: dict[str, Any] = {}
    result = []
    for file in files:
        try:
            stat = file.path.stat()
            about = [stat.st_size, stat.st_mtime_ns]
            before = known.get(str(file.path.resolve()))
            sha = before[1] if before and before[0] == about else file_sha256(file.path)
        except OSError as error:
            raise UserError(f"{file.path} cannot be read: {error}", "check the file and its permissions") from error
        now[str(file.path.resolve())] = [about, sha]
        result.append((file, sha))
    if now != known:
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(now))
    return result
