"""What this machine is good at: where and in which number format to compute when the settings say ``auto``."""

from __future__ import annotations

from pathlib import Path


def native_bfloat16() -> bool:
    """Whether bfloat16 is fast here: a CUDA device, or a CPU with bfloat16 instructions. Needs no torch."""
    return Path("/dev/nvidia0").exists() or cpu_bfloat16()


def cpu_bfloat16() -> bool:
    """Whether this CPU has bfloat16 instructions; without, torch emulates them many times slower than float32."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.lower().startswith(("flags", "features"))), "")
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags.split()))


def resolve_dtype(dtype: str) -> str:
    """``auto`` -> bfloat16 or float32 for this machine."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if native_bfloat16() else "float32"


def resolve_device(device: str) -> str:
    """``auto`` -> cuda or cpu."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
