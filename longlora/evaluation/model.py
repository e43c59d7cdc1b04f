"""What identifies a model directory, and how long a text its model reads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from longlora.models import WEIGHT_SUFFIXES

WRITTEN_BY = ("transformers_version", "_name_or_path", "torch_dtype")  # no part of what a model computes


def content_digest(folder: Path) -> str:
    """sha256 over what a model directory computes with: weights, configuration, tokenizer (270 MB: 0.3 s)."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in WEIGHT_SUFFIXES or path.name == "longfolio.json":  # that is its lineage
            continue
        if path.name in ("config.json", "generation_config.json"):
            fields = json.loads(path.read_text())
            kept = {k: v for k, v in fields.items() if k not in WRITTEN_BY}
            part = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
        else:
            with path.open("rb") as file:
                part = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.name}\0{part}\n".encode())
    return total.hexdigest()


def context_length(folder: Path) -> int | None:
    """Tokens that its model reads, positions stretched included; None where its configuration does not say."""
    from transformers import AutoConfig

    from longlora.errors import UserError
    from longlora.rope import window

    if not (folder / "config.json").is_file():  # the tokenizer of an endpoint's model
        return None
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        return window(config.get_text_config())
    except (UserError, OSError, ValueError, AttributeError, KeyError):
        return None
