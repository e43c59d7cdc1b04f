"""DeepSpeed ZeRO (arXiv 1910.02054): gradients and optimizer state (stage 2) or the weights too (stage 3), shared.

The configurations are configs/deepspeed/zero2.json and zero3.json. They name no optimizer and no schedule (ours
apply, with their parameter groups), and no bf16 section: the frozen weights are bf16 anyway, the trained ones
fp32, and `Objective` opens autocast inside the engine, which would switch off one around it. So there is no
second copy of what is trained, and what a rank gathers is exact.

The model is built in full by every process and divided afterwards, not while it is loaded: what is mixed, tied
and cast in it stays as on one device. The host needs memory for one copy of the base per process.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from longlora.errors import UserError

_PACKAGED = Path(__file__).parents[1] / "resources" / "deepspeed"
# In a checkout the wheel's resource folder is the repository's own.
FOLDER = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "configs" / "deepspeed"


def configuration(strategy: str) -> dict[str, Any]:
    """DeepSpeed's configuration of ``zero2`` or ``zero3``."""
    config: dict[str, Any] = json.loads((FOLDER / f"{strategy}.json").read_text())
    return config


def prepare(device: str) -> dict[str, Any]:
    """Have accelerate know that DeepSpeed comes; returns the ``accelerator_config`` for TrainingArguments.

    Transformers sets this up itself on GPUs; on a CPU it would not (``use_cpu`` excludes DeepSpeed there).

    Raises:
        UserError: DeepSpeed is not installed.
    """
    import importlib.util

    if importlib.util.find_spec("deepspeed") is None:
        raise UserError("DeepSpeed is not installed", "pip install 'longfolio[deepspeed]', or set train.strategy: ddp")
    if device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    import deepspeed.ops
    from accelerate import PartialState
    from accelerate.state import AcceleratorState

    if device == "cpu":
        # Its all-reduce through shared memory is compiled on first use; gloo does the same.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    try:
        PartialState(backend="gloo" if device == "cpu" else None)
    finally:
        del os.environ["ACCELERATE_USE_DEEPSPEED"]
    return {"use_configured_state": True}
