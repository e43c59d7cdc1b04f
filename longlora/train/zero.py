"""DeepSpeed ZeRO (arXiv 1910.02054): gradients and optimizer state (stage 2) or the weights too (stage 3), shared.

The configurations are configs/deepspeed/zero2.json and zero3.json. They name no optimizer and no schedule (ours
apply, with their parameter groups), and no bf16 section: the frozen weights are bf16 anyway, the trained ones
fp32, and `Objective` opens autocast inside the engine, which would switch off one around it. So there is no
second copy of what is trained, and what a rank gathers is exact.

The model is built in full by every process and divided afterwards, not while it is loaded: what is mixed, tied
and cast in it stays as on one device. The host needs memory for one copy of the base per process. A device never
holds more than its share and one parameter: DeepSpeed's engine would move the whole model there before dividing it,
so it is divided first (`share_out`).
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora.errors import UserError

if TYPE_CHECKING:
    from torch import nn

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

    _have_it_shared_out_first()
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


def share_out(model: nn.Module, config: dict[str, Any]) -> None:
    """Divide the parameters of ``model`` for ZeRO-3: each goes to the device, and all but its share goes at once.

    They stay the same objects, so optimizer groups and ties hold. Buffers go to the device as they are.

    Args:
        model: on the host, the same on every rank (rank 0's values are given to all).
        config: DeepSpeed's, batch sizes filled in.
    """
    import deepspeed
    import torch
    from deepspeed.accelerator import get_accelerator

    deepspeed.zero.Init(module=model, config_dict_or_path=config)
    device = torch.device(get_accelerator().device_name(int(os.environ["LOCAL_RANK"])))
    for buffer in model.buffers():
        buffer.data = buffer.data.to(device)


def _have_it_shared_out_first() -> None:
    """Put `share_out` before ``deepspeed.initialize``, to which accelerate hands no argument of ours."""
    import deepspeed

    initialize = deepspeed.initialize
    if hasattr(initialize, "__wrapped__"):
        return

    @functools.wraps(initialize)
    def shared_first(*args: Any, **kwargs: Any) -> Any:
        config = kwargs.get("config_params") or {}
        if config.get("zero_optimization", {}).get("stage") == 3:
            share_out(kwargs["model"], config)
        return initialize(*args, **kwargs)

    deepspeed.initialize = shared_first
