"""The merged model's README: what it was made of, for people (Markdown) and for the hub (YAML)."""

from __future__ import annotations

import json
from typing import Any


def model_card(facts: dict[str, Any], lineage: dict[str, Any]) -> str:
    """Markdown with the hub's YAML head.

    Args:
        facts: base, hub_id (or None), license (the hub's keys), parameters, context_length, base_context_length,
            rope, dtype, adapter (its settings), trained, checks, stage_version, settings (of the merge).
        lineage: the adapter's ``longfolio.json``.
    """
    import yaml

    lines = [
        "---",
        yaml.safe_dump(_head(facts), sort_keys=False).strip(),
        "---",
        "",
        f"# {facts['base']}, {facts['context_length']:,} tokens",
        "",
        "Made by Longfolio: base model and adapter merged into one ordinary model directory.",
        "",
        *_table(_model_rows(facts)),
        "",
        "## Data",
        "",
        *_data(lineage.get("dataset")),
        "",
        "## Licences",
        "",
        *_licences(facts["license"], lineage.get("dataset")),
        "",
        "## Lineage",
        "",
        *_quantized(lineage),
        "Training, as in `longfolio.json`:",
        "",
        *_json({k: v for k, v in lineage.items() if k != "trained"}),  # that is in the table
        "",
        f"Merge (version {facts['stage_version']}):",
        "",
        *_json(facts["settings"]),
        "",
    ]
    return "\n".join(lines)


def _head(facts: dict[str, Any]) -> dict[str, Any]:
    """What the hub reads. It takes only its own ids for ``base_model``: a local base is named in the text alone."""
    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if facts["hub_id"]:
        head |= {"base_model": facts["hub_id"], "base_model_relation": "finetune"}
    return head | ({"license": "unknown"} | facts["license"]) | {"tags": ["longfolio", "long-context", "lora"]}


def _model_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    adapter, checks = facts["adapter"], facts["checks"]
    targets = adapter.get("target_modules") or []
    names = targets if isinstance(targets, str) else ", ".join(sorted(targets))
    return [
        ("base model", facts["base"]),
        ("context length", f"{facts['context_length']:,} tokens (base: {facts['base_context_length']:,})"),
        ("RoPE", f"`{json.dumps(facts['rope'], sort_keys=True)}`"),
        ("parameters", f"{facts['parameters']:,}, stored as {facts['dtype']}"),
        (
            "LoRA",
            f"rank {adapter.get('r')}, alpha {adapter.get('lora_alpha')}, on {names or 'none'}" if adapter else "none",
        ),
        ("trained in full", ", ".join(facts["trained"]) or "none"),
        (
            "logits against base + adapter",
            f"largest difference {checks['exact']['max_absolute']:.1e} "
            f"({checks['precision']}, {checks['probe_tokens']} tokens)",
        ),
        (
            f"rounding to {facts['dtype']}",
            f"mean KL {checks['rounding']['mean_kl_nats']:.1e} nats; training: "
            f"{checks['training']['mean_kl_nats']:.1e}",
        ),
    ]


def _data(dataset: Any) -> list[str]:
    if not isinstance(dataset, dict):
        return ["The adapter does not say what it was trained on."]
    known = {key: "not recorded" if dataset.get(key) is None else dataset[key] for key in ("row_digest", "rows")}
    documents = dataset.get("documents")
    listed = "; listed in the dataset's `stats.json`, under `rows_by_document`"
    return _table(
        [
            ("dataset row digest", f"`{known['row_digest']}`"),
            ("rows", str(known["rows"])),
            ("documents", "not recorded" if documents is None else f"{documents}{listed}"),
        ]
    )


def _licences(base: dict[str, str], dataset: Any) -> list[str]:
    name = base.get("license_name") or base.get("license")
    rows = dataset.get("licences") if isinstance(dataset, dict) else None
    of_rows = ", ".join(f"{licence} ({count} rows)" for licence, count in (rows or {}).items())
    return [
        f"- Base model: {name or 'not recorded, see where it was published'}. It applies to these weights.",
        f"- Documents and rows: {of_rows or 'not recorded'}.",
    ]


def _quantized(lineage: dict[str, Any]) -> list[str]:
    settings = lineage.get("settings")
    kind = settings.get("quantize") if isinstance(settings, dict) else None
    if not kind:
        return []
    return [f"The adapter was trained on the base in {kind}; it is merged into the base in full precision.", ""]


def _table(rows: list[tuple[str, str]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


def _json(value: Any) -> list[str]:
    return ["```json", json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False), "```"]
