"""The merge stage: weights, configuration, tokenizer, card; then the check. See docs/architecture.md."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora import rope
from longlora.errors import UserError
from longlora.merge import origin
from longlora.merge.card import model_card
from longlora.merge.settings import MergeSettings
from longlora.merge.weights import Adapter, Checkpoint, Merge
from longlora.merge.whole import read_trained, trained_folder
from longlora.merge.writer import Spec, write_model

if TYPE_CHECKING:
    from transformers import PretrainedConfig

STAGE_VERSION = 3
FLOATS = ("float64", "float32", "float16", "bfloat16")
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
)  # fmt: skip
WRITTEN_BY = (
    "transformers_version",
    "_name_or_path",
)  # says which program wrote a config, not what the model is
# A tokenizer_config whose limit is above this says "no limit"
UNLIMITED = 10**12


def identity(settings: MergeSettings) -> dict[str, Any]:
    """Nothing to resolve: the settings say all."""
    return {}


def run(settings: MergeSettings, inputs: dict[str, Path], work: Path, report: Callable[..., None]) -> dict[str, Any]:
    """The stage: `merge` of ``inputs["train"]``, an adapter or a whole model, into ``inputs["model"]``."""
    return merge(settings, inputs["model"], trained_folder(inputs["train"]), work, report)


def merge(
    settings: MergeSettings, base: Path, adapter_dir: Path, work: Path, report: Callable[..., None]
) -> dict[str, Any]:
    """Merge an adapter folder into a base model directory; result in ``work/output``.

    Output: ``model/`` (safetensors, config with RoPE and context length, tokenizer, generation config,
    README) and ``verification.json``. Equal inputs give equal bytes.

    Returns:
        ``logits_max_difference`` (before rounding), ``context_length`` (tokens), ``parameters``,
        ``bytes`` and ``rounding_kl_nats``.

    Raises:
        UserError: base or adapter cannot be read, or do not belong together.
        VerificationError: the merged model's logits are not those of base + adapter.
    """
    from longlora.merge.verify import VerificationError, compare

    output = work / "output"
    finished = output / "verification.json"
    model_dir = work / "model"
    if _begin(work, fingerprint(settings, base, adapter_dir), report) and finished.is_file():
        return dict(json.loads(finished.read_text())["metrics"])
    if (output / "model").is_dir():  # an attempt that was killed between its last two renames
        (output / "model").replace(model_dir)
    model_dir.mkdir(parents=True, exist_ok=True)

    adapter = read_trained(adapter_dir)
    config = _config(base, adapter_dir)
    context_length = config_window(config)
    _copy_tokenizer(base, adapter_dir, model_dir, context_length)
    device = settings.resolved_device()
    tensors = Merge(Checkpoint(base), adapter, *_ties(config), device)
    specs = [Spec(name, tensors.shape(name), _dtype(tensors, name, settings)) for name in tensors.names]
    stored = sorted({s.dtype for s in specs if s.dtype in FLOATS})
    config["dtype"] = stored[0] if len(stored) == 1 else "float32"
    config.pop("torch_dtype", None)
    _write_json(model_dir / "config.json", config)
    size = write_model(
        model_dir,
        specs,
        tensors.exact,
        settings.max_shard_bytes,
        lambda n: report("progress", done=n, total=len(specs), unit="tensors"),
    )
    checks = compare(
        model_dir, tensors, specs, probe_tokens=settings.probe_tokens, tolerance=settings.tolerance, device=device
    )
    metrics = {
        "logits_max_difference": checks["exact"]["max_absolute"],
        "context_length": context_length,
        "parameters": sum(math.prod(s.shape) for s in specs),
        "bytes": size,
        "rounding_kl_nats": checks["rounding"]["mean_kl_nats"],
    }
    if not checks["passed"]:
        _write_json(work / "verification.json", {**checks, "metrics": metrics})
        shutil.rmtree(model_dir)  # the next attempt writes it anew
        wrong = checks["stored"]["not_identical"]
        raise VerificationError(
            f"merged logits differ from base + adapter by {checks['exact']['max_absolute']:.2e} "
            f"(allowed: {settings.tolerance:.0e}{'' if checks['finite'] else '; some are not finite'})"
            + (f", and {wrong[0]} was stored wrong" if wrong else "")
            + f"; see {work / 'verification.json'}"
        )
    lineage = _lineage(adapter_dir)
    facts = {
        **metrics,
        "base": origin.base_name(base, lineage),
        "hub_id": origin.hub_id(base),
        "license": origin.base_license(base),
        "stage_version": STAGE_VERSION,
        "settings": settings.model_dump(mode="json", exclude={"device"}),
        "base_context_length": config_window(_read_json(base / "config.json")),
        "rope": config.get("rope_parameters") or {},
        "dtype": config["dtype"],
        "adapter": adapter.config,
        "trained": _roles(adapter),
        "checks": checks,
    }
    _write_json(model_dir / "longfolio.json", lineage)
    (model_dir / "README.md").write_text(model_card(facts, lineage))
    output.mkdir(exist_ok=True)
    for path in sorted(model_dir.iterdir()):
        path.chmod(0o644)
        _flush(path)
    model_dir.replace(output / "model")
    _write_json(finished.with_suffix(".tmp"), {**checks, "metrics": metrics})
    _flush(finished.with_suffix(".tmp"))
    finished.with_suffix(".tmp").replace(finished)
    return metrics


def fingerprint(settings: MergeSettings, base: Path, adapter: Path) -> str:
    """sha256 of settings and files: an earlier attempt in ``work`` counts only if it was of the same."""
    chosen = settings.model_dump(mode="json", exclude={"device"})
    parts: list[Any] = [STAGE_VERSION, chosen, base.name]  # the card has the name
    for folder in (base, adapter):
        digests = {}
        for path in sorted(folder.glob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        parts.append(digests)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _begin(work: Path, now: str, report: Callable[..., None]) -> bool:
    """Whether what is in ``work`` was begun with the fingerprint ``now``; anything else is removed."""
    note = work / "fingerprint"
    if note.is_file() and note.read_text() == now:
        return True
    if (work / "output").exists():
        report("warning", message=f"{work / 'output'} is of another merge (base, adapter or settings); made anew")
    for name in ("output", "model"):
        shutil.rmtree(work / name, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    note.write_text(now)
    return False


def _config(base: Path, adapter: Path) -> dict[str, Any]:
    """The adapter's extended config, or the base's where the adapter folder has none (plain PEFT)."""
    source = adapter if (adapter / "config.json").is_file() else base
    config = _read_json(source / "config.json")
    for key in (*WRITTEN_BY, "quantization_config"):
        config.pop(key, None)
    if not isinstance(config.get("max_position_embeddings"), int):
        raise UserError(f"{source / 'config.json'} has no max_position_embeddings", "add the context length there")
    return config


def config_window(config: dict[str, Any]) -> int:
    """Tokens the model handles, its RoPE scaling counted; max_position_embeddings where `rope` cannot say."""
    limit = config.get("max_position_embeddings") or 0
    try:
        return rope.window(_parsed(config))
    except UserError:
        return int(limit)


def _parsed(config: dict[str, Any]) -> PretrainedConfig:
    from transformers import AutoConfig

    return AutoConfig.for_model(config["model_type"], **{k: v for k, v in config.items() if k != "model_type"})


def _ties(config: dict[str, Any]) -> tuple[dict[str, str], bool]:
    """What the architecture can tie (alias -> source), and whether this model does."""
    import torch
    from transformers import AutoModelForCausalLM

    parsed = _parsed(config)
    tied = bool(parsed.tie_word_embeddings)
    parsed.tie_word_embeddings = True
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(parsed)
    return dict(skeleton.all_tied_weights_keys), tied


def _dtype(merge: Merge, name: str, settings: MergeSettings) -> str:
    own = merge.dtype(name)
    return own if settings.dtype == "base" or own not in FLOATS else settings.dtype


def _copy_tokenizer(base: Path, adapter: Path, target: Path, context_length: int) -> None:
    """The adapter's tokenizer where it has one (tokens may have been added), with the new context length."""
    source = adapter if (adapter / "tokenizer_config.json").is_file() else base
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    for pattern in ("generation_config.json", "LICENSE*", "NOTICE*"):
        for path in sorted(base.glob(pattern)):
            shutil.copyfile(path, target / path.name)
    for name in ("tokenizer_config.json", "generation_config.json"):
        if not (target / name).is_file():
            continue
        fields = _read_json(target / name)
        fields.pop("transformers_version", None)
        limit = fields.get("model_max_length")
        if limit is not None and limit < UNLIMITED:
            fields["model_max_length"] = context_length
        _write_json(target / name, fields)


def _roles(adapter: Adapter) -> list[str]:
    """Names of the tensors trained in full, layer numbers left out."""
    return sorted({".".join("*" if p.isdigit() else p for p in n.split(".")) for n in adapter.trained})


def _lineage(adapter: Path) -> dict[str, Any]:
    path = adapter / "longfolio.json"
    return _read_json(path) if path.is_file() else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}", "copy the file again, or run the stage again") from error


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
