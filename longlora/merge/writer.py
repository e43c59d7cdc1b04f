"""Safetensors files written one tensor at a time, so that memory holds one tensor, not a shard.

The format (huggingface/safetensors, README "Format"): 8 bytes little-endian header length, a JSON header of
``{name: {dtype, shape, data_offsets}}``, then the tensors' bytes back to back.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
DTYPES = {code: name for name, code in CODES.items()}
BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class Spec:
    """What is known of a tensor before it is computed. ``dtype`` is PyTorch's name (``bfloat16``)."""

    name: str
    shape: Sequence[int]
    dtype: str

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * BYTES[CODES[self.dtype]]


def write_file(path: Path, specs: Sequence[Spec], get: Callable[[str], torch.Tensor]) -> None:
    """Write the tensors of ``specs`` in order; the file appears under its name only when whole and on disk.

    ``get(name)`` returns a tensor of the announced shape; it is cast to the announced dtype.
    """
    import torch

    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for spec in specs:
        header[spec.name] = {
            "dtype": CODES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [offset, offset + spec.bytes],
        }
        offset += spec.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for spec in specs:
            tensor = get(spec.name).to(getattr(torch, spec.dtype)).contiguous()
            if list(tensor.shape) != list(spec.shape):
                raise ValueError(f"{spec.name}: shape {list(tensor.shape)}, announced {list(spec.shape)}")
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def shards(specs: Sequence[Spec], max_bytes: int) -> list[list[Spec]]:
    """Split into runs of at most ``max_bytes``; a tensor larger than that has a file of its own."""
    groups: list[list[Spec]] = [[]]
    size = 0
    for spec in specs:
        if groups[-1] and size + spec.bytes > max_bytes:
            groups.append([])
            size = 0
        groups[-1].append(spec)
        size += spec.bytes
    return groups


def write_model(
    folder: Path,
    specs: Sequence[Spec],
    get: Callable[[str], torch.Tensor],
    max_bytes: int,
    written: Callable[[int], None] = lambda n: None,
) -> int:
    """Write ``model.safetensors``, or numbered shards with their index; finished shards stay.

    ``written(n)`` is called with the number of tensors done. Returns the bytes of all files.
    """
    groups = shards(specs, max_bytes)
    names = [
        "model.safetensors" if len(groups) == 1 else f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors"
        for i in range(len(groups))
    ]
    done = 0

    def counted(name: str) -> torch.Tensor:
        nonlocal done
        done += 1
        written(done)
        return get(name)

    for name, group in zip(names, groups, strict=True):
        if (folder / name).exists():
            done += len(group)
        else:
            write_file(folder / name, group, counted)
    if len(groups) > 1:
        index = {
            "metadata": {"total_size": sum(s.bytes for s in specs)},
            "weight_map": {s.name: name for name, group in zip(names, groups, strict=True) for s in group},
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    return sum((folder / name).stat().st_size for name in names)
