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
from longlora.merge.whole import trained_folder
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
            LongQLoRA; of full fine-tuning, the output or the model in it.
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
    folder = _trained(adapter)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file", "give a folder, or a name that is free")
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


def _trained(given: Path) -> Path:
    """The folder of what was trained: ``given`` or, of a training output, the one in it.

    Raises:
        UserError: nothing there was trained.
    """
    inside = trained_folder(given)
    folder = inside if inside.is_dir() else given
    ours = (folder / "config.json").is_file() and (folder / "longfolio.json").is_file()
    if ours or (folder / "adapter_config.json").is_file():
        return folder
    what = "has no adapter_config.json" if folder.is_dir() else "does not exist" if not folder.exists() else "is a file"
    raise UserError(
        f"{folder} is neither an adapter nor a model of our full fine-tuning: it {what}",
        "give the folder of a training output, or the adapter/ or model/ in it",
    )


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
