"""The files of a layout model and what they say of it, read without the library that runs it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pdf2txt.errors import UserError

_CLASSES = 80  # detectron2's default for MODEL.ROI_HEADS.NUM_CLASSES and MODEL.RETINANET.NUM_CLASSES


@dataclass(frozen=True)
class ModelFiles:
    """What a model consists of. ``files`` are named by what they are, so that a moved model is the same model."""

    files: dict[str, Path]
    names: tuple[str, ...]  # of its classes, by number; () where it does not tell
    count: int  # of its classes


def transformers_files(directory: Path) -> ModelFiles:
    """A directory as ``save_pretrained`` writes it for model and image processor.

    Raises:
        UserError: it lacks a file that is needed.
    """
    setting = f"pdf2txt.layout_model: {directory}"
    if not directory.is_dir():
        what = "is a file, not a directory" if directory.exists() else "does not exist"
        raise UserError(f"{setting} {what}", "name the directory that holds the model's config.json and weights")
    files = sorted(p for p in directory.iterdir() if p.suffix in (".json", ".safetensors") and p.is_file())
    weights = [p for p in files if p.suffix == ".safetensors"]
    if not weights:
        weights = sorted(directory.glob("pytorch_model*.bin"))
        files += weights
    if not weights:
        raise UserError(f"{setting} holds no weights (*.safetensors)", "copy all files of the model there")
    names = {p.name for p in files}
    if "config.json" not in names:
        raise UserError(f"{setting} holds no config.json", "copy all files of the model there")
    if not names & {"preprocessor_config.json", "processor_config.json"}:
        raise UserError(
            f"{setting} holds no preprocessor_config.json, so how to resize pages is unknown",
            "copy all files of the model there",
        )
    config = _tree(directory / "config.json", json.loads, setting, "copy the file again")
    labels = config.get("id2label")
    if not isinstance(labels, dict) or not labels:
        count = config.get("num_labels", 2)  # the default of PretrainedConfig
        return ModelFiles({p.name: p for p in files}, (), count)
    by_number = tuple(str(labels.get(str(n), f"LABEL_{n}")) for n in range(1 + max(map(int, labels))))
    named = not any(re.fullmatch(r"LABEL_\d+", name) for name in by_number)
    return ModelFiles({p.name: p for p in files}, by_number if named else (), len(by_number))


def detectron2_files(config: Path, weights: Path | None) -> tuple[ModelFiles, Path]:
    """A detectron2 configuration (YAML), those that it is based on, and (second) the file of weights.

    Raises:
        UserError: one is missing or is no configuration.
    """
    setting = f"pdf2txt.layout_model: {config}"
    if not config.is_file():
        what = "is a directory" if config.is_dir() else "does not exist"
        raise UserError(f"{setting} {what}", "name the detectron2 configuration of the model, a .yaml file")
    files: dict[str, Path] = {}
    model = _model_section(config, setting, files)
    retina = model.get("META_ARCHITECTURE") == "RetinaNet"
    head = model.get("RETINANET" if retina else "ROI_HEADS") or {}
    found = weights or _named_weights(config, str(model.get("WEIGHTS") or ""), setting)
    if not found.is_file():
        where = "pdf2txt.layout_weights" if weights else f"MODEL.WEIGHTS of {config}"
        raise UserError(f"{where}: {found} does not exist", "set pdf2txt.layout_weights to the file of weights")
    files["weights"] = found
    return ModelFiles(files, (), int(head.get("NUM_CLASSES", _CLASSES))), found


def _named_weights(config: Path, named: str, setting: str) -> Path:
    if not named or "://" in named:
        why = f"asks for weights from {named}, and nothing is fetched" if named else "names no weights"
        raise UserError(f"{setting} {why}", "set pdf2txt.layout_weights to a file of weights on this machine")
    return config.parent / Path(named).expanduser()


def _model_section(config: Path, setting: str, files: dict[str, Path]) -> dict[str, Any]:
    """The section MODEL of a configuration over that of the one it is based on, two levels deep."""
    if config in files.values():
        raise UserError(f"{setting} is based on itself", "correct its _BASE_")
    files["config" if not files else f"base-{len(files)}"] = config
    remedy = "correct the file, or name detectron2's .yaml file"
    tree = _tree(config, yaml.safe_load, setting, remedy)
    section = tree.get("MODEL", {})
    if not isinstance(section, dict):
        raise UserError(f"{setting}: MODEL of {config.name} is no section", remedy)
    model: dict[str, Any] = {}
    if base := tree.get("_BASE_"):
        path = (config.parent / Path(str(base)).expanduser()).resolve()
        if not path.is_file():
            raise UserError(f"{setting}: _BASE_ {base} of {config.name} does not exist", f"copy it to {path}")
        model = _model_section(path, setting, files)
    for key, value in section.items():
        model[key] = {**(model.get(key) or {}), **value} if isinstance(value, dict) else value
    return model


def _tree(path: Path, parse: Callable[[str], Any], setting: str, remedy: str) -> dict[str, Any]:
    """The mapping that a file of JSON or YAML holds.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        tree = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{setting}: {path.name} cannot be read: {why}", remedy) from error
    if not isinstance(tree, dict):
        raise UserError(f"{setting}: {path.name} is no configuration", remedy)
    return tree
