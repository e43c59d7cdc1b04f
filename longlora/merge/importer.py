"""Adapters as LongLoRA and LongQLoRA released them -> our adapter folder (`longlora.adapters`).

LongLoRA's ``get_trainable_weights.py`` leaves ``adapter_config.json``, ``adapter_model.bin`` (the LoRA pairs) and
``trainable_params.bin`` (embeddings and norms, names without ``base_model.model.``). LongQLoRA's trainer writes the
same files, names with the prefix, the last one empty or missing where only LoRA was trained. What neither says is set
here as their scripts do it:

- the context length is in no file, so it has to be given; RoPE is linear, its factor a whole number, rounded up;
- LongLoRA adds a ``[PAD]`` token (Llama 2: 32,001 rows in the embedding); where the output head is another matrix,
  its new row is the mean of the others.

LongLoRA's merge script skips names that do not fit (``strict=False``); here they are refused.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora import rope
from longlora.adapters import FORMAT_VERSION, PREFIX
from longlora.errors import UserError
from longlora.merge.origin import base_name
from longlora.merge.streaming import skeleton
from longlora.merge.weights import ADAPTER, LORA_KEY, Checkpoint
from longlora.merge.writer import Spec, write_file
from longlora.models import load_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

CONFIG = "adapter_config.json"
TRAINED = "trainable_params.bin"
INSIDE = re.compile(r"\.(default|modules_to_save)(?=\.|$)")  # names PEFT puts inside a path
OTHER_BASE = "give the base model that the adapter was trained on"

Fetch = Callable[[], "torch.Tensor"]


def is_released(folder: Path) -> bool:
    """Whether a folder is of this layout: PyTorch files, no config of an extended model."""
    return not (folder / "config.json").is_file() and (
        (folder / TRAINED).is_file() or (folder / "adapter_model.bin").is_file()
    )


def import_released(
    folder: Path, base: Path, out: Path, *, context_length: int, report: Callable[..., None] = lambda *_, **__: None
) -> Path:
    """Write the adapter of a released folder to ``out``; equal files give equal bytes.

    Args:
        folder: ``adapter_config.json``, ``adapter_model.bin`` and, where more than LoRA was trained,
            ``trainable_params.bin``. Other files are not looked at.
        base: directory of the base model.
        out: the new adapter folder; one that is there is replaced.
        context_length: tokens it was trained for.
        report: told ``warning`` where nothing but LoRA is found.

    Returns:
        ``out``.

    Raises:
        UserError: a file is missing or cannot be read, or its tensors do not fit the base.
    """
    from transformers import AutoConfig

    settings = _settings(folder)
    config = AutoConfig.from_pretrained(str(base), local_files_only=True)
    model = skeleton(config)
    pairs, trained = _sort(folder, model, settings)
    if not trained:
        report("warning", message=f"{folder} has no {TRAINED} with tensors: embeddings and norms stay the base's")
    aside = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    tensors = {**pairs, **trained}
    if rows := _new_vocabulary(model, trained):
        _fit_vocabulary(folder, base, aside, model, tensors, rows)
        config.vocab_size = rows
    _write(aside, tensors)
    config = _extended(config, context_length)
    fields = json.loads(config.to_json_string(use_diff=True))
    _write_json(aside / "config.json", fields)
    full = sorted(name for name in tensors if ".lora_" not in name)
    settings |= {
        "base_model_name_or_path": base_name(base, {}),
        "modules_to_save": sorted({name.rpartition(".")[0] for name in full}) or None,
        "target_modules": sorted({_module(name).rpartition(".")[2] for name in pairs}),
    }
    _write_json(aside / CONFIG, settings)
    lineage = {
        "format": FORMAT_VERSION,
        "base_model": {"name": base_name(base, {})},
        "context_length": context_length,
        "released": {name: _sha256(folder / name) for name in _files(folder)},
        "trained": [PREFIX + name for name in full],
    }
    _write_json(aside / "longfolio.json", lineage)
    shutil.rmtree(out, ignore_errors=True)
    aside.rename(out)
    return out


def _settings(folder: Path) -> dict[str, Any]:
    """The released ``adapter_config.json`` without keys that today's PEFT does not know.

    Raises:
        UserError: it cannot be read, or is of an adapter that is more than LoRA on linear layers.
    """
    from peft import LoraConfig

    try:
        found = dict(json.loads((folder / CONFIG).read_text()))
        rank = int(found["r"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{folder / CONFIG} cannot be read: {error!r}", "copy the released file there") from error
    if found.get("bias", "none") != "none" or found.get("peft_type", "LORA") != "LORA":
        raise UserError(
            f"{folder / CONFIG}: peft_type {found.get('peft_type')}, bias {found.get('bias')}",
            "only LoRA without biases can be merged",
        )
    known = {field.name for field in dataclasses.fields(LoraConfig)}
    return {k: v for k, v in found.items() if k in known} | {"r": rank, "peft_type": "LORA", "inference_mode": True}


@dataclass(frozen=True)
class _Released:
    """Tensors of the released files by their names in the model."""

    sources: dict[str, tuple[Checkpoint, str]]

    @classmethod
    def read(cls, folder: Path) -> _Released:
        checkpoints = [Checkpoint(folder, ADAPTER)]
        if (folder / TRAINED).is_file() and (folder / TRAINED).stat().st_size:
            checkpoints.append(Checkpoint(folder, ((Path(TRAINED).stem, ".bin"),)))
        sources: dict[str, tuple[Checkpoint, str]] = {}
        for checkpoint in checkpoints:
            for key in sorted(checkpoint.files):
                name = INSIDE.sub("", key.removeprefix(PREFIX))
                if name in sources:
                    raise UserError(
                        f"{folder}: {name} is there twice", "leave the file out that is not of this adapter"
                    )
                sources[name] = (checkpoint, key)
        return cls(sources)

    def shape(self, name: str) -> list[int]:
        checkpoint, key = self.sources[name]
        return checkpoint.shape(key)

    def fetch(self, name: str) -> Fetch:
        checkpoint, key = self.sources[name]
        return lambda: checkpoint.get(key)


Tensors = dict[str, tuple[list[int], Fetch]]  # name in the model -> shape, and what gives it


def _sort(folder: Path, model: PreTrainedModel, settings: dict[str, Any]) -> tuple[Tensors, Tensors]:
    """LoRA matrices and tensors trained in full, each with a place in ``model``."""
    from torch import nn

    released = _Released.read(folder)
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    shapes = {name: list(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    embedding, *heads = _vocabulary_names(model)
    if embedding in released.sources:  # it may have rows for new tokens
        for name in (embedding, *heads):
            shapes[name] = [released.shape(embedding)[0], *shapes[name][1:]]
    pairs: Tensors = {}
    trained: Tensors = {}
    for name in released.sources:
        shape, where = released.shape(name), f"{folder}: {name}"
        if match := LORA_KEY.fullmatch(name):
            layer = linear.get(match["module"])
            if layer is None:
                raise UserError(f"{where}: this base has no linear layer {match['module']}", OTHER_BASE)
            rank, (rows, columns) = settings["r"], layer.weight.shape
            wanted = {"A": [rank, columns], "B": [rows, rank], "magnitude_vector": [rows]}[match["part"]]
            pairs[name] = (shape, released.fetch(name))
        elif name in shapes:
            wanted = shapes[name]
            trained[name] = (shape, released.fetch(name))
        else:
            raise UserError(f"{where}: this base has no parameter of that name", OTHER_BASE)
        if shape != wanted:
            raise UserError(f"{where} has shape {shape}, the base needs {wanted}", OTHER_BASE)
    _check_complete(folder, linear, pairs)
    return pairs, trained


def _check_complete(folder: Path, linear: dict[str, Any], pairs: Tensors) -> None:
    """Both matrices of every layer of the kinds that have some: else the file is only a part of the adapter."""
    kinds = {_module(name).rpartition(".")[2] for name in pairs}
    if not kinds:
        raise UserError(
            f"{folder}: adapter_model.bin holds no LoRA matrices (ZeRO-3 without gathering leaves such files)",
            "make it with zero_to_fp32.py and get_trainable_weights.py of the release",
        )
    wanted = {
        f"{module}.lora_{part}.weight" for module in linear if module.rpartition(".")[2] in kinds for part in "AB"
    }
    if missing := sorted(wanted - set(pairs)):
        raise UserError(f"{folder} lacks {missing[0]} (and {len(missing) - 1} more)", "copy the whole files again")


def _module(name: str) -> str:
    match = LORA_KEY.fullmatch(name)
    return match["module"] if match else name


def _vocabulary_names(model: PreTrainedModel) -> list[str]:
    """Names of the input embedding's weight and the output head's, the embedding first."""
    ends: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    return [f"{path}.weight" for end in ends for path, module in model.named_modules() if module is end]


def _new_vocabulary(model: PreTrainedModel, trained: Tensors) -> int | None:
    """Rows of the trained embedding where the base has another number, else None."""
    embedding, *_ = _vocabulary_names(model)
    if embedding not in trained:
        return None
    rows = trained[embedding][0][0]
    return None if rows == model.get_parameter(embedding).shape[0] else rows


def _fit_vocabulary(folder: Path, base: Path, out: Path, model: PreTrainedModel, tensors: Tensors, rows: int) -> None:
    """A tokenizer of ``rows`` tokens in ``out``, and an output head with as many rows among ``tensors``.

    Raises:
        UserError: tokenizer and embedding do not go together.
    """
    import torch

    tokenizer = load_tokenizer(folder if (folder / "tokenizer_config.json").is_file() else base)
    have = len(tokenizer)
    if have + 1 == rows:
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    if len(tokenizer) != rows:
        raise UserError(
            f"{folder}: the trained embedding has {rows} rows, the tokenizer {have} tokens (with [PAD]: {have + 1})",
            f"copy the tokenizer of the adapter into {folder}, or {OTHER_BASE}",
        )
    tokenizer.save_pretrained(out)
    weights = Checkpoint(base)
    for head in _vocabulary_names(model)[1:]:
        if head in tensors or model.config.tie_word_embeddings:
            continue

        def grown(head: str = head) -> torch.Tensor:
            kept = weights.get(head)[: rows - 1].float()
            return torch.cat([kept, kept.mean(0, keepdim=True)])

        tensors[head] = ([rows, *weights.shape(head)[1:]], grown)


def _extended(config: PretrainedConfig, context_length: int) -> PretrainedConfig:
    """RoPE as the released scripts set it: linear, the factor a whole number, the window as it was asked for."""
    window = rope.window(config)
    if context_length <= window:
        return copy.deepcopy(config)
    extended = rope.extend(config, math.ceil(context_length / window) * window)
    extended.max_position_embeddings = context_length
    return extended


def _write(folder: Path, tensors: Tensors) -> None:
    by_key = {f"{PREFIX}{name}": value for name, value in sorted(tensors.items())}
    specs = [Spec(key, shape, "float32") for key, (shape, _) in by_key.items()]
    write_file(folder / "adapter_model.safetensors", specs, lambda key: by_key[key][1]())


def _files(folder: Path) -> list[str]:
    names = [CONFIG, *(f"{stem}{suffix}" for stem, suffix in ADAPTER), TRAINED]
    return [name for name in names if (folder / name).is_file()]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str) + "\n")
