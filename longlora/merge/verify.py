"""Is the merged model the same function as base + adapter? Logits on a fixed probe say so.

1. base + adapter (`longlora.merge.reference`) against the exact merge, before any rounding: must agree;
2. the tensors on disk must be the exact merge, rounded, bit for bit, and be all that the model's config asks for, in
   the shapes it asks for: transformers draws what it misses at random;
3. what the rounding changed, next to what the training changed: recorded, not judged.

No model is ever whole in memory (`longlora.merge.streaming`), so that float64 is affordable at every size. It is
needed: float32 noise alone is near 1e-4 in a model of 135M parameters.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora.errors import UserError
from longlora.merge.reference import adapted_logits
from longlora.merge.streaming import Fetch, skeleton, streamed_logits
from longlora.merge.weights import Checkpoint, Merge
from longlora.merge.writer import Spec
from longlora.models import load_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

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

    text = load_tokenizer(folder)(PROBE_TEXT, add_special_tokens=False, verbose=False)["input_ids"]
    half = (text * tokens)[: tokens // 2]
    draw = random.Random(0)
    return torch.tensor([half + [draw.randrange(vocabulary) for _ in range(tokens - len(half))]])


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest absolute difference of two tensors of one shape."""
    return float((a - b).abs().max())


def mean_kl(p: torch.Tensor, q: torch.Tensor) -> float:
    """Mean over tokens of KL(p || q) in nats, of two logit tensors (tokens, vocabulary).

    Where one has more tokens (the adapter brought some), those are left out.
    """
    import torch

    common = min(p.shape[-1], q.shape[-1])
    p, q = torch.log_softmax(p[:, :common], -1), torch.log_softmax(q[:, :common], -1)
    return float((p.exp() * (p - q)).sum(-1).mean().clamp(min=0))


def compare(
    model: Path, merge: Merge, specs: list[Spec], *, probe_tokens: int, tolerance: float, device: str
) -> dict[str, Any]:
    """Run the comparison of this module's head on the merged model in folder ``model``.

    Args:
        model: what was written.
        merge: what it was computed from: base and adapter.
        specs: the tensors that were written.
        probe_tokens: length of the probe.
        tolerance: largest difference of logits that passes.
        device: where to compute.

    Returns:
        JSON: ``exact`` ({max_absolute, max_relative}, the latter to the largest reference logit), ``stored``
        ({tensors, not_identical: names}), ``rounding`` ({max_absolute, mean_kl_nats}), ``training``
        ({mean_kl_nats}), ``precision``, ``finite``, ``passed``.

    Raises:
        UserError: weights are missing, or the adapter does not fit.
        VerificationError: a tensor has another shape than the config says.
    """
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(model), local_files_only=True)
    files = Checkpoint(model)
    changed = [
        s.name for s in specs if not torch.equal(files.get(s.name), merge.exact(s.name).to(getattr(torch, s.dtype)))
    ]
    ids = probe_ids(model, config.get_text_config().vocab_size, probe_tokens)

    def logits(fetch: Fetch, names: Collection[str], ids: torch.Tensor = ids) -> torch.Tensor:
        built = skeleton(config)
        return streamed_logits(built, _by_parameter(built, fetch, names, merge.tied), ids, device)

    _check_shapes(skeleton(config), files, merge.tied)
    exact = logits(merge.exact, merge.names)
    stored = logits(files.get, files.files)
    built = skeleton(config)
    base = _by_parameter(built, merge.base.get, merge.base.files, merge.tied)
    reference = adapted_logits(built, base, merge.adapter, merge.tied if merge.is_tied else {}, ids, device)
    before = logits(merge.base.get, merge.base.files, ids.clamp(max=_base_vocabulary(built, merge) - 1))

    difference = largest_difference(reference, exact)
    finite = bool(torch.isfinite(stored).all() and torch.isfinite(reference).all())
    return {
        "probe_tokens": ids.shape[1],
        "tolerance": tolerance,
        "precision": "float64",
        "exact": {"max_absolute": difference, "max_relative": difference / float(reference.abs().max())},
        "stored": {"tensors": len(specs), "not_identical": changed},
        "rounding": {
            "max_absolute": largest_difference(exact, stored),
            "mean_kl_nats": mean_kl(exact, stored),
        },
        "training": {"mean_kl_nats": mean_kl(exact, before)},
        "finite": finite,
        "passed": finite and difference <= tolerance and not changed,
    }


def _by_parameter(model: PreTrainedModel, fetch: Fetch, names: Collection[str], tied: dict[str, str]) -> Fetch:
    """Tensors by the names of ``model``'s parameters, of a checkpoint that holds ``names``.

    They are the same names, but for tied tensors, of which a file may hold one, and for architectures whose files are
    converted when they are loaded (experts, each its own tensor in the file, one in the model). The latter have to be
    loaded whole.
    """
    import torch

    if all(name in names or tied.get(name) in names for name, _ in model.named_parameters()):
        return lambda name: fetch(name if name in names else tied[name])
    loaded: Any = type(model).from_pretrained(
        None,
        config=model.config,
        state_dict={name: fetch(name).float() for name in names},
        dtype=torch.float32,
        output_loading_info=True,
    )
    whole, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise UserError(f"the weights lack {missing[0]}", "copy all weight files of the base model")
    return whole.state_dict().__getitem__


def _check_shapes(model: PreTrainedModel, files: Checkpoint, tied: dict[str, str]) -> None:
    for name, parameter in model.named_parameters():
        key = name if name in files.files else tied.get(name)
        if key in files.files and files.shape(key) != list(parameter.shape):
            raise VerificationError(f"{key} has shape {files.shape(key)}, config.json says {list(parameter.shape)}")


def _base_vocabulary(model: PreTrainedModel, merge: Merge) -> int:
    """Rows of the base's embedding: fewer than the merged one's where the adapter brought tokens."""
    wanted: Any = model.get_input_embeddings()
    (name,) = [f"{path}.weight" for path, module in model.named_modules() if module is wanted]
    return merge.base.shape(name)[0]
