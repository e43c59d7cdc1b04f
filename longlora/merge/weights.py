"""The merged tensors, one at a time: W + scale * B @ A, or the trained tensor where there is one.

LoRA: Hu et al. 2021 (arXiv 2106.09685), section 4.1; the scale is alpha / r, or alpha / sqrt(r) with rsLoRA
(Kalajdzievski 2023, arXiv 2312.03732). DoRA: Liu et al. 2024 (arXiv 2402.09353), equation 5. Embeddings and
norms trained in full (Chen et al. 2023, LongLoRA, arXiv 2309.12307, section 3.3) replace the base's.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora.errors import UserError
from longlora.merge.writer import DTYPES

if TYPE_CHECKING:
    import torch

LORA_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<part>A|B|magnitude_vector)(\.weight)?")
# Files by stem and suffix, in the order of preference. Others (training_args.bin, optimizer.bin) are not weights.
Kinds = tuple[tuple[str, str], ...]
MODEL: Kinds = (("model", ".safetensors"), ("pytorch_model", ".bin"))
ADAPTER: Kinds = (("adapter_model", ".safetensors"), ("adapter_model", ".bin"))
CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # beginnings of PEFT's init_lora_weights
WRAPPERS = re.compile(r"\.(modules_to_save(\.default)?|base_layer)(?=\.)")  # names PEFT puts inside a path


class Checkpoint:
    """The tensors of a folder, read lazily: safetensors, or PyTorch's ``.bin`` memory-mapped.

    Args:
        folder: where the files lie; the weights of a model in one file, or in shards.
        kinds: which files are meant.

    Raises:
        UserError: a file is missing or damaged.
    """

    def __init__(self, folder: Path, kinds: Kinds = MODEL) -> None:
        self.folder = folder
        self.kinds = kinds
        self.files = self._files()

    def _files(self) -> dict[str, Path]:
        """Tensor name -> file."""
        for stem, suffix in self.kinds:
            index = self.folder / f"{stem}{suffix}.index.json"
            if index.is_file():
                return {k: self.folder / v for k, v in json.loads(index.read_text())["weight_map"].items()}
            single = self.folder / f"{stem}{suffix}"
            found = [single] if single.is_file() else sorted(self.folder.glob(f"{stem}-*-of-*{suffix}"))
            if found:
                return {name: path for path in found for name in self._open(path).keys()}  # noqa: SIM118
        names = " or ".join(stem + suffix for stem, suffix in self.kinds)
        raise UserError(f"{self.folder} has no weights", f"copy {names} there, with all its shards if there are some")

    @cached_property
    def _opened(self) -> dict[Path, Any]:
        return {}

    def _open(self, path: Path) -> Any:
        if path not in self._opened:
            try:
                if path.suffix == ".safetensors":
                    from safetensors import safe_open

                    self._opened[path] = safe_open(path, framework="pt")
                else:
                    import torch

                    mapped = zipfile.is_zipfile(path)  # files of before torch 1.6 cannot be memory-mapped
                    self._opened[path] = torch.load(path, map_location="cpu", mmap=mapped, weights_only=True)
            except Exception as error:
                raise UserError(f"{path} cannot be read: {error}", "copy the file again") from error
        return self._opened[path]

    def shape(self, name: str) -> list[int]:
        source = self._open(self.files[name])
        return list(source[name].shape) if isinstance(source, dict) else source.get_slice(name).get_shape()

    def dtype(self, name: str) -> str:
        """PyTorch's name of the storage type, without reading the tensor."""
        source = self._open(self.files[name])
        if isinstance(source, dict):
            return str(source[name].dtype).removeprefix("torch.")
        code = source.get_slice(name).get_dtype()
        return DTYPES.get(code, code)

    def get(self, name: str) -> torch.Tensor:
        source = self._open(self.files[name])
        return source[name] if isinstance(source, dict) else source.get_tensor(name)


@dataclass
class Adapter:
    """An adapter folder in PEFT's layout: LoRA pairs by module, and tensors trained in full by name."""

    folder: Path
    config: dict[str, Any]
    tensors: Checkpoint
    pairs: dict[str, dict[str, str]] = field(default_factory=dict)  # module -> {A, B, magnitude_vector: key}
    trained: dict[str, str] = field(default_factory=dict)  # parameter name in the model -> key

    @classmethod
    def read(cls, folder: Path) -> Adapter:
        """Sort the keys of ``adapter_model.safetensors`` (or ``.bin``, of older PEFT).

        Raises:
            UserError: the folder is no adapter, or of a kind that cannot be merged (lora_bias, LoRA on
            embeddings).
        """
        try:
            config = json.loads((folder / "adapter_config.json").read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} is not an adapter: {error}", "run the train stage again") from error
        start = config.get("init_lora_weights")
        if isinstance(start, str) and start.lower().startswith(CHANGE_THE_BASE):
            raise UserError(
                f"{folder}: init_lora_weights {start} changed the base model too, and how is not in the adapter",
                "convert the adapter to plain LoRA (PEFT: path_initial_model_for_weight_conversion)",
            )
        self = cls(folder, config, Checkpoint(folder, ADAPTER))
        for key in sorted(self.tensors.files):
            name = WRAPPERS.sub("", key.removeprefix("base_model.model."))
            if match := LORA_KEY.fullmatch(name):
                self.pairs.setdefault(match["module"], {})[match["part"]] = key
            elif "lora_" in name or "token_adapter" in name:
                raise UserError(
                    f"{folder}: cannot merge {key}", "train with plain LoRA, rsLoRA or DoRA on linear layers"
                )
            else:
                self.trained[name] = key
        return self

    def scale(self, module: str, rank: int) -> float:
        from peft.utils.other import get_pattern_key

        patterns: dict[str, float] = self.config.get("alpha_pattern") or {}
        alpha = patterns.get(get_pattern_key(list(patterns), module), float(self.config["lora_alpha"]))
        return float(alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank))

    def apply(self, module: str, weight: torch.Tensor, device: str = "cpu") -> torch.Tensor:
        """Merged weight of a linear layer, in float64. ``weight``: (out, in), or (in, out) for a Conv1D.

        In float64 the order of summation does not show once the sum is rounded: every CPU and GPU stores the same.
        """
        import torch

        keys = self.pairs[module]
        a, b = (self.tensors.get(keys[part]).to(device, torch.float64) for part in "AB")  # (r, in), (out, r)
        merged = weight.to(device, torch.float64, copy=True)
        rows = merged.T if self.config.get("fan_in_fan_out") else merged  # (out, in), the same storage
        rows.addmm_(b, a, alpha=self.scale(module, a.shape[0]))
        if "magnitude_vector" in keys:
            magnitude = self.tensors.get(keys["magnitude_vector"]).to(device, torch.float64)
            rows *= (magnitude / torch.linalg.vector_norm(rows, dim=1))[:, None]
        return merged.cpu()


@dataclass
class Merge:
    """A base checkpoint with an adapter on it. ``names`` are what the merged model's files hold, sorted.

    ``tied``: name of a tied tensor -> the tensor it shares (``lm_head.weight`` ->
    ``model.embed_tokens.weight``). Where the model ties, only the source is stored; where the base tied and
    the model does not, both are.
    """

    base: Checkpoint
    adapter: Adapter
    tied: dict[str, str]
    is_tied: bool
    device: str = "cpu"  # where B·A is computed

    def __post_init__(self) -> None:
        names = set(self.base.files)
        if self.is_tied:
            for alias, source in self.tied.items():
                names.discard(alias)
                self._fold_alias(alias, source)
        else:
            names |= {alias for alias, source in self.tied.items() if source in names}
        targets = {f"{m}.weight" for m in self.adapter.pairs} | set(self.adapter.trained)
        if unknown := sorted(targets - names):
            raise UserError(
                f"the adapter changes {unknown[0]} (and {len(unknown) - 1} more) that {self.base.folder} does not have",
                "merge with the base model that the adapter was trained on",
            )
        self.names = sorted(names)

    def _fold_alias(self, alias: str, source: str) -> None:
        trained = self.adapter.trained
        if alias.removesuffix(".weight") in self.adapter.pairs or source.removesuffix(".weight") in self.adapter.pairs:
            raise UserError(f"LoRA on {alias} or {source}, which the model ties", "train embed in full instead")
        key = trained.pop(alias, None)
        if key is None:
            return
        if source in trained:
            import torch

            if not torch.equal(self.adapter.tensors.get(key), self.adapter.tensors.get(trained[source])):
                raise UserError(
                    f"the adapter trained {alias} and {source} apart, but the model ties them",
                    'set "tie_word_embeddings": false in the adapter\'s config.json',
                )
        else:
            trained[source] = key

    def _base_name(self, name: str) -> str:
        return name if name in self.base.files else self.tied[name]

    def shape(self, name: str) -> list[int]:
        key = self.adapter.trained.get(name)
        return self.adapter.tensors.shape(key) if key else self.base.shape(self._base_name(name))

    def dtype(self, name: str) -> str:
        """The base's storage type of a tensor."""
        return self.base.dtype(self._base_name(name))

    def exact(self, name: str) -> torch.Tensor:
        """The merged tensor: float64 with LoRA, float32 where trained in full, else as the base has it."""
        if key := self.adapter.trained.get(name):
            return self.adapter.tensors.get(key).float()
        tensor = self.base.get(self._base_name(name))
        module = name.removesuffix(".weight")
        return self.adapter.apply(module, tensor, self.device) if module in self.adapter.pairs else tensor
