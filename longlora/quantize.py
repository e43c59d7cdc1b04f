"""A frozen base in 4 bits: QLoRA (Dettmers et al., arXiv 2305.14314), by bitsandbytes.

NF4 (section 3, "4-bit NormalFloat") with double quantisation (ibid.): 4.127 bits a weight instead of 16. Only linear
layers are quantised; embeddings, norms and the output head stay. Adapters are merged onto the full-precision base, so
nothing of the quantisation is in the result but what training made of it.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora.errors import UserError
from longlora.models import load_model

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel


def check_bitsandbytes(key: str) -> None:
    """Refuse the setting ``key`` where bitsandbytes is missing.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"{key} needs bitsandbytes, which is not installed", "pip install 'bitsandbytes>=0.46'")


def nf4_config(dtype: str) -> BitsAndBytesConfig:
    """NF4 with double quantisation, computing in ``dtype``."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def load_nf4(folder: Path, *, dtype: str, device: str, **kwargs: Any) -> PreTrainedModel:
    """`longlora.models.load_model` with the linear layers in 4 bits, frozen.

    Args:
        folder: a model directory in full precision; weights are quantised as they are read.
        dtype: of the other weights, and of the arithmetic.
        device: cpu or cuda; of several GPUs the one of this process (``LOCAL_RANK``).
        kwargs: for ``from_pretrained``.

    Raises:
        UserError: bitsandbytes is missing, the base is quantised already, or it cannot be loaded.
    """
    check_bitsandbytes("train.quantize: nf4")
    config = kwargs.get("config")
    if getattr(config, "quantization_config", None) is not None:
        raise UserError(
            f"the base model in {folder} is quantised already", "give the model in full precision, or quantize: null"
        )
    place = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if device == "cuda" else device
    return load_model(folder, dtype=dtype, quantization_config=nf4_config(dtype), device_map={"": place}, **kwargs)


def norms_to_fp32(model: PreTrainedModel) -> None:
    """Keep the norms in fp32, as QLoRA does: they are small, and what they scale feeds 4-bit layers.

    PEFT's ``prepare_model_for_kbit_training`` does it to every other weight too, embeddings included: 1 GB more at a
    vocabulary of 128k.
    """
    for module in model.modules():
        if type(module).__name__.endswith("Norm"):
            module.float()
