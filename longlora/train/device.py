"""The device that an estimate is for: this machine's, or one by name, such as ``H100 80GB``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from longlora.errors import UserError
from longlora.flops import by_name, device_peak, peak_of

GIB = 2**30
DRIVER_SHARE = 0.98  # of the nominal memory: what torch sees (80GB: 79.2 GiB, 24GB: 23.6 GiB)
# Of one GPU, in GB, where the name alone says it (an A100 has 40 or 80).
MEMORY = {
    "GB200": 186, "GH200": 96, "B200": 180, "H200": 141, "H100 NVL": 94, "H100": 80, "H800": 80, "A40": 48, "A30": 24,
    "A10": 24, "A10G": 24, "L40S": 48, "L40": 48, "L4": 24, "RTX 6000 ADA": 48, "RTX A6000": 48, "RTX 5090": 32,
    "RTX 4090": 24, "RTX 4080": 16, "RTX 3090": 24, "MI300X": 192, "MI250": 64,
}  # fmt: skip


@dataclass(frozen=True)
class Device:
    """One device. ``memory`` and ``host_memory`` in bytes, ``peak`` in operations per second; None: not known."""

    name: str
    kind: str  # cuda or cpu
    memory: int
    peak: float | None
    peak_source: str
    host_memory: int | None
    here: bool  # this machine's own


def this_device(device: str, dtype: str) -> Device:
    """The device that training would use on this machine.

    Args:
        device: cpu or cuda, see `longlora.hardware.resolve_device`.
        dtype: bfloat16 or float32.
    """
    peak = device_peak(device, dtype)
    if device == "cpu":
        return Device(f"CPU, {_threads()} threads", "cpu", host_memory(), peak, "measured", None, True)
    import torch

    properties = torch.cuda.get_device_properties(0)
    source = "data sheet" if peak else "not known"
    return Device(properties.name, "cuda", int(properties.total_memory), peak, source, host_memory(), True)


def named_device(text: str, dtype: str) -> Device:
    """A device by name and memory: ``H100 80GB``, ``A100 40GB``, ``RTX 4090``, ``cpu``, ``cpu 64GB``.

    Raises:
        UserError: neither the name nor the memory says how much it holds.
    """
    size = re.search(r"(\d+(?:\.\d+)?)\s*Gi?B\b", text, re.IGNORECASE)
    name = (text[: size.start()] + text[size.end() :] if size else text).strip(" -")
    if name.lower() == "cpu":
        local = this_device("cpu", dtype)
        memory = int(float(size[1]) * GIB) if size else local.memory
        return Device(local.name, "cpu", memory, local.peak, local.peak_source, None, True)
    gigabytes = float(size[1]) if size else by_name(MEMORY, name)
    if gigabytes is None or not name:
        raise UserError(
            f"--device {text!r}: how much memory it has is not known",
            f'give it, such as --device "{name or "H100"} 80GB"; known without: {", ".join(MEMORY)}',
        )
    peak = peak_of(name) if dtype == "bfloat16" else None
    source = "data sheet" if peak else "not known" if dtype == "bfloat16" else "not known for float32"
    return Device(f"{name} {gigabytes:g}GB", "cuda", int(gigabytes * GIB * DRIVER_SHARE), peak, source, None, False)


def host_memory() -> int:
    """Bytes of this machine's memory, or of the control group that this process is confined to."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def _threads() -> int:
    import torch

    return torch.get_num_threads()
