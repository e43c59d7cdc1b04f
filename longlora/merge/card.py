"""The merged model's README: what it was made of."""

from __future__ import annotations

import json
from typing import Any


def model_card(facts: dict[str, Any], lineage: dict[str, Any]) -> str:
    """Markdown with the hub's YAML head.

    ``facts``: base, parameters, context_length, base_context_length, rope, dtype, adapter (settings), checks.
    ``lineage``: the adapter's ``longfolio.json``.
    """
    adapter = facts["adapter"]
    checks = facts["checks"]
    shown = {k: v for k, v in lineage.items() if k != "trained"}  # in the table, layer numbers left out
    trained = ", ".join(facts["trained"]) or "none"
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        f"base_model: {json.dumps(facts['base'])}",
        "tags: [longfolio, long-context, lora]",
        "---",
        "",
        f"# {facts['base']}, {facts['context_length']:,} tokens",
        "",
        "Made by Longfolio: base model and adapter merged into one ordinary model directory.",
        "",
        "| | |",
        "|---|---|",
        f"| base model | {facts['base']} |",
        f"| context length | {facts['context_length']:,} tokens (base: {facts['base_context_length']:,}) |",
        f"| RoPE | `{json.dumps(facts['rope'], sort_keys=True)}` |",
        f"| parameters | {facts['parameters']:,}, stored as {facts['dtype']} |",
        f"| LoRA | rank {adapter.get('r')}, alpha {adapter.get('lora_alpha')}, "
        f"on {', '.join(sorted(adapter.get('target_modules') or [])) or 'none'} |",
        f"| trained in full | {trained} |",
        f"| logits against base + adapter | largest difference {checks['exact']['max_absolute']:.1e} "
        f"({checks['precision']}, {checks['probe_tokens']} tokens) |",
        f"| rounding to {facts['dtype']} | mean KL {checks['rounding']['mean_kl_nats']:.1e} nats; training: "
        f"{checks['training']['mean_kl_nats']:.1e} |",
        "",
        "## Lineage",
        "",
        "```json",
        json.dumps(shown, indent=2, sort_keys=True, ensure_ascii=False),
        "```",
        "",
        "The base model's licence applies to these weights.",
        "",
    ]
    return "\n".join(lines)
