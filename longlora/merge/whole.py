"""A training output that is a whole model (full fine-tuning): merged as an adapter that replaces every tensor.

Merging then is a copy in the base's dtype, checked and described like any other merge.
"""

from __future__ import annotations

from pathlib import Path

from longlora.errors import UserError
from longlora.merge.weights import Adapter, Checkpoint


def trained_folder(train: Path) -> Path:
    """What a train output holds: its ``adapter/``, or its ``model/`` of full fine-tuning."""
    whole = train / "model"
    return whole if whole.is_dir() else train / "adapter"


def read_trained(folder: Path) -> Adapter:
    """The trained tensors of an adapter folder, or of a model folder as an adapter without LoRA.

    Raises:
        UserError: the folder holds neither.
    """
    if (folder / "adapter_config.json").is_file():
        return Adapter.read(folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds neither an adapter nor a model", "run the train stage again")
    tensors = Checkpoint(folder)
    return Adapter(folder, {}, tensors, trained={name: name for name in sorted(tensors.files)})
