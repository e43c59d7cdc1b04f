"""A merge outside the pipeline: any adapter folder, any base, one call."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from longlora.errors import UserError
from longlora.merge.importer import import_released, is_released
from longlora.merge.settings import MergeSettings
from longlora.merge.stage import config_window, merge
from longlora.models import EMBEDDED, ModelSettings, model_files, prepare


def merge_alone(
    settings: MergeSettings,
    adapter: Path,
    base: str,
    out: Path,
    report: Callable[..., None],
    *,
    context_length: int | None = None,
) -> dict[str, Any]:
    """Merge ``adapter`` into ``base``; the same call again goes on where an earlier one was stopped.

    Args:
        settings: of the merge.
        adapter: our adapter folder or the training output around it, one of PEFT, or a released one of LongLoRA or
            LongQLoRA.
        base: model directory, embedded name or hub id.
        out: work folder. The model is in ``out/output/model``, its check in ``out/output/verification.json``.
        report: see docs/architecture.md.
        context_length: of a released adapter, whose files do not say it; of any other only to be compared.

    Returns:
        As `longlora.merge.stage.merge`.

    Raises:
        UserError: base or adapter cannot be read, do not belong together, or the context length is missing or wrong.
        VerificationError: the merged model is not base + adapter.
    """
    folder = adapter / "adapter" if (adapter / "adapter").is_dir() else adapter
    if not (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} is no adapter: it has no adapter_config.json", "give the folder that holds one")
    settings.resolved_device()  # before anything is converted
    model = _model(base, out)
    if is_released(folder):
        if context_length is None:
            raise UserError(
                f"{folder} does not say the context length that it was trained for",
                "give it with --context-length: 32768 for a model called 32k, say",
            )
        folder = import_released(folder, model, out / "imported", context_length=context_length, report=report)
    elif context_length is not None:
        _compare(folder, model, context_length)
    return merge(settings, model, folder, out, report)


def _model(base: str, out: Path) -> Path:
    """The directory of a base model.

    Raises:
        UserError: there is no such model.
    """
    if base not in EMBEDDED and (Path(base).is_dir() or Path(base).is_absolute() or base.startswith(".")):
        model_files(ModelSettings(name=None, path=Path(base), revision=None))
        return Path(base)
    return prepare(ModelSettings.model_validate(base), out / "models")


def _compare(folder: Path, base: Path, context_length: int) -> None:
    own = folder / "config.json"
    source = own if own.is_file() else base / "config.json"
    window = config_window(dict(json.loads(source.read_text())))
    if window != context_length:
        raise UserError(
            f"--context-length is {context_length:,}, but {source} says {window:,} tokens",
            "leave it out: only LongLoRA's and LongQLoRA's released adapters need it",
        )
