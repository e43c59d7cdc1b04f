"""Is the merged model the same function as base + adapter? Logits on a fixed probe say so.

One model is in memory at a time:

1. base + adapter, as training left it, against the exact merge (float32 weights, before any rounding): must agree;
2. the tensors on disk must be the exact merge, rounded, bit for bit, and plain transformers must load all of them;
3. what the rounding changed, next to what the training changed: recorded, not judged.

Step 1 computes in float64 up to a billion parameters: float32 noise alone is near 1e-4 in a 135M-parameter model
(measured: 8e-5, against 1e-5 in float64). Larger models are compared in float32, relative to their largest logit.
"""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora.merge.weights import Checkpoint, Merge
from longlora.merge.writer import Spec
from longlora.models import load_model, load_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

FLOAT64_UP_TO = 1_000_000_000  # parameters: 8 GB in float64

PROBE_TEXT = (
    "A model that was trained to read long documents is merged once and used many times. Before anybody uses "
    "it, the merged weights are compared with the parts they were made of, on this text and random tokens.\n"
)


class VerificationError(Exception):
    """The merged model is not what was trained. ``remedy`` says what to try."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.remedy = "run `train` and `merge` again; if it stays, report it with verification.json"


def probe_ids(folder: Path, vocabulary: int, tokens: int) -> torch.Tensor:
    """(1, tokens) ids: half of them text, half drawn at random from the whole vocabulary by a fixed seed."""
    import torch

    text = load_tokenizer(folder)(PROBE_TEXT, add_special_tokens=False)["input_ids"]
    half = (text * (tokens // len(text) + 1))[: tokens // 2]
    draw = random.Random(0)
    return torch.tensor([half + [draw.randrange(vocabulary) for _ in range(tokens - len(half))]])


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """(tokens, vocabulary) logits in the model's own precision."""
    import torch

    model.eval()
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits[0]


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest absolute difference of two tensors of one shape, taken in float64."""
    return float((a.double() - b.double()).abs().max())


def mean_kl(p: torch.Tensor, q: torch.Tensor) -> float:
    """Mean over tokens of KL(p || q) in nats, of two logit tensors (tokens, vocabulary)."""
    import torch

    p, q = torch.log_softmax(p.float(), -1), torch.log_softmax(q.float(), -1)
    return float((p.exp() * (p - q)).sum(-1).mean().clamp(min=0))


def compare(
    base: Path,
    adapter: Path,
    model: Path,
    merge: Merge,
    specs: list[Spec],
    probe_tokens: int,
    tolerance: float,
) -> dict[str, Any]:
    """Run the comparison of this module's head.

    Returns:
        JSON: ``exact`` ({max_absolute, max_relative}, the latter to the largest reference logit), ``stored``
        ({tensors, not_identical: names}), ``rounding`` ({max_absolute, mean_kl_nats}), ``training``
        ({mean_kl_nats}), ``precision``, ``finite``, ``passed``.
    """
    import torch
    from transformers import AutoConfig

    from longlora.adapters import load_adapter

    config = AutoConfig.from_pretrained(str(model), local_files_only=True)
    reference_model = load_model(base, dtype="float32", config=config, attn_implementation="sdpa")
    ids = probe_ids(model, config.get_text_config().vocab_size, probe_tokens)
    embedding: Any = reference_model.get_input_embeddings()
    before = logits(reference_model, ids.clamp(max=embedding.weight.shape[0] - 1))
    architecture = type(reference_model)
    with warnings.catch_warnings():  # PEFT remarks that the base has another path than in training
        warnings.simplefilter("ignore", UserWarning)
        with_adapter = load_adapter(reference_model, adapter)
    wide = sum(p.numel() for p in with_adapter.parameters()) <= FLOAT64_UP_TO
    precision = torch.float64 if wide else torch.float32
    reference = logits(with_adapter.to(precision), ids)
    del reference_model, with_adapter

    state = {name: merge.exact(name).float() for name in merge.names}
    exact = logits(_from_state(architecture, config, state).to(precision), ids)  # type: ignore[arg-type]
    files = Checkpoint(model)
    changed = [s.name for s in specs if not torch.equal(files.get(s.name), state[s.name].to(getattr(torch, s.dtype)))]
    del state
    stored = logits(load_model(model, dtype="float32", attn_implementation="sdpa"), ids)

    scale = float(reference.abs().max())
    difference = largest_difference(reference, exact)
    judged = difference if wide else difference / scale
    finite = bool(torch.isfinite(stored).all() and torch.isfinite(reference).all())
    return {
        "probe_tokens": ids.shape[1],
        "tolerance": tolerance,
        "precision": str(precision).removeprefix("torch."),
        "exact": {"max_absolute": difference, "max_relative": difference / scale},
        "stored": {"tensors": len(specs), "not_identical": changed},
        "rounding": {
            "max_absolute": largest_difference(exact, stored),
            "mean_kl_nats": mean_kl(exact, stored),
        },
        "training": {"mean_kl_nats": mean_kl(exact, before)},
        "finite": finite,
        "passed": finite and judged <= tolerance and not changed,
    }


def _from_state(architecture: type[PreTrainedModel], config: Any, state: dict[str, torch.Tensor]) -> PreTrainedModel:
    import torch

    loaded: Any = architecture.from_pretrained(
        None,
        config=config,
        state_dict=dict(state),
        dtype=torch.float32,
        attn_implementation="sdpa",
        output_loading_info=True,
    )
    model, info = loaded
    if info["missing_keys"]:
        raise VerificationError(f"the merged weights lack {sorted(info['missing_keys'])[0]}")
    return model
