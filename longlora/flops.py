"""What a training step computes, in floating-point operations, and what devices can do of them in a second.

    Shape      of a decoder, read from its config
    Work       what of it a step computes: the attention pattern, what is trained, what is recomputed
    Flops      of one step, by part; counted from the lengths of the documents in it
    PEAKS      operations per second of GPUs

One multiply-add is two operations. Per token and weight of a linear layer: 2 forward, 2 for the gradient of the
input, 2 more for the gradient of the weight if it is trained, and 2 for each recomputation in the backward pass.
Per attended pair of a query and a key and per head: 4 · head_dim forward, 10 · head_dim backward (five products
instead of two, since flash kernels build the scores again; Dao, arXiv 2307.08691, section 3.1). Pairs are counted
exactly, with the segments that the attention itself uses: S²-Attn is not credited with pairs that it skips.

What is counted is what the hardware has to compute, recomputation included (the numerator of "hardware FLOPs
utilisation"; Korthikanti et al., arXiv 2205.05198, section 6.3); `Flops.model` leaves it out, as MFU does (Chowdhery
et al., arXiv 2204.02311, appendix B). Norms, RoPE, activation functions, softmax and the optimizer are not counted;
padding neither. PyTorch stops a recomputation at the last tensor that the backward pass needs, which can save a
layer's last product (the MLP's output); it is counted as if it were done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from longlora.attention import segments


@dataclass(frozen=True)
class Shape:
    """Sizes of a dense decoder. ``attention`` and ``mlp``: weights of the linear layers of one layer."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    attention: int
    mlp: int

    @classmethod
    def of(cls, config: Any) -> Shape:
        """Read a Hugging Face config (Llama, Mistral, Qwen, GPT-NeoX and their like).

        Raises:
            ValueError: a mixture of experts, or a config without the usual names.
        """
        if any(getattr(config, name, None) for name in ("num_local_experts", "num_experts", "n_routed_experts")):
            raise ValueError(f"{config.model_type}: the work of a mixture of experts is not counted")
        try:
            d, heads, ff = int(config.hidden_size), int(config.num_attention_heads), int(config.intermediate_size)
            layers, vocabulary = int(config.num_hidden_layers), int(config.vocab_size)
        except (AttributeError, TypeError) as error:
            raise ValueError(f"{config.model_type}: sizes of this architecture are not known ({error})") from error
        kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
        head_dim = int(getattr(config, "head_dim", None) or d // heads)
        # Query and output are (d, heads * head_dim), key and value (d, kv_heads * head_dim).
        attention = 2 * d * head_dim * (heads + kv_heads)
        return cls(
            layers, d, heads, kv_heads, head_dim, ff, vocabulary, attention, (3 if _gated(config) else 2) * d * ff
        )

    @property
    def linear(self) -> int:
        """Weights of the linear layers of all layers, without the head."""
        return self.layers * (self.attention + self.mlp)

    @property
    def head(self) -> int:
        """Weights of the output head."""
        return self.vocabulary * self.hidden


def _gated(config: Any) -> bool:
    """Whether the MLP has a gate beside its first matrix (SwiGLU), as all but the older architectures."""
    return config.model_type not in ("gpt_neox", "gpt_neox_japanese", "starcoder2", "opt", "gpt2", "phi")


def attended_pairs(documents: Sequence[int], group: int | None, heads: int, *, wrap: bool = False) -> int:
    """Pairs of a query and a key that it looks at, summed over all heads.

    Args:
        documents: lengths in tokens.
        group: tokens; None for full causal attention.
        heads: query heads; the first half is unshifted, the rest shifted by half a group in longer documents.
        wrap: the paper's roll, whose shifted heads have as many whole groups as the others.
    """
    half = heads // 2
    shift = 0 if group is None or wrap else group // 2
    return sum(half * _pairs(n, group, 0) + (heads - half) * _pairs(n, group, shift) for n in documents)


def _pairs(length: int, group: int | None, shift: int) -> int:
    sizes = (b - a for a, b in pairwise(segments(length, group, shift)))
    return sum(s * (s + 1) // 2 for s in sizes)


@dataclass(frozen=True)
class Flops:
    """Of one optimizer step. The first three are all that is computed; ``recomputed`` is the share done again."""

    linear: float  # of the layers, with LoRA's matrices
    attention: float
    head: float
    recomputed: float

    @property
    def total(self) -> float:
        """All that is computed."""
        return self.linear + self.attention + self.head

    @property
    def model(self) -> float:
        """Without what is only recomputed to save memory."""
        return self.total - self.recomputed


@dataclass(frozen=True)
class Work:
    """What of a model a training step computes.

    ``lora``: parameters of LoRA's matrices, of all layers. ``layers_trained``: full fine-tuning, the weights of all
    linear layers. ``head_trained``: the output head, or the embedding it is tied to. ``recomputed``: how often the
    layers are computed again in the backward pass, on average (1 with checkpointing, nearly 2 with several layers in
    a checkpoint); ``mlp_recomputed``: how often the MLPs alone are, besides. ``head_recomputed``: of the head.
    """

    shape: Shape
    group: int | None = None
    wrap: bool = False
    lora: int = 0
    layers_trained: bool = False
    head_trained: bool = False
    recomputed: float = 1
    mlp_recomputed: int = 0
    head_recomputed: int = 0

    def step(self, documents: Sequence[int], supervised: int | None = None) -> Flops:
        """The operations of a step.

        Args:
            documents: lengths in tokens of all documents of the step, over all devices.
            supervised: positions that carry a loss; the head sees no others. None: all.
        """
        s, tokens = self.shape, sum(documents)
        supervised = tokens if supervised is None else supervised
        forward = 2 * tokens * (s.linear + self.lora)
        again = self.recomputed * forward + self.mlp_recomputed * 2 * tokens * s.layers * s.mlp
        backward = 2 * tokens * (s.linear * (1 + self.layers_trained) + 2 * self.lora)
        pairs = attended_pairs(documents, self.group, s.heads, wrap=self.wrap)
        attention = 4 * s.head_dim * s.layers * pairs
        head = 2 * supervised * s.head
        attention_again, head_again = self.recomputed * attention, self.head_recomputed * head
        return Flops(
            linear=forward + again + backward,
            attention=3.5 * attention + attention_again,
            head=head * (2 + self.head_trained) + head_again,
            recomputed=again + attention_again + head_again,
        )


# bfloat16, dense (no sparsity), accumulated in float32: operations per second as in NVIDIA's and AMD's data sheets
# and architecture white papers (Ampere GA100/GA102, Ada, Hopper, Blackwell; CDNA 2 and 3). The first name that the
# device's name contains, in this order.
PEAKS: dict[str, float] = {
    "GB200": 2500e12, "B200": 2250e12, "H200 NVL": 835e12, "H200": 989e12, "GH200": 989e12, "H100 PCIE": 756e12,
    "H100 NVL": 835e12, "H100": 989e12, "H800": 989e12, "A100": 312e12, "A800": 312e12, "A40": 149.7e12,
    "A30": 165e12, "A10G": 70e12, "A10": 125e12, "L40S": 362e12, "L40": 181e12, "L4": 121e12,
    "RTX 6000 ADA": 364e12, "RTX A6000": 154.8e12, "RTX 5090": 209.5e12, "RTX 4090": 165.2e12, "RTX 4080": 97.5e12,
    "RTX 3090": 71e12, "MI300X": 1307e12, "MI250": 362e12,
}  # fmt: skip


def peak_of(name: str) -> float | None:
    """bf16 operations per second of a GPU by its name (``NVIDIA H100 80GB HBM3``); None if it is not known."""
    return by_name(PEAKS, name)


def by_name(table: Mapping[str, float], name: str) -> float | None:
    """The value of the first key whose words stand in a device's name: A10 is not in ``A100-SXM4-80GB``."""
    words = " ".join(name.upper().replace("-", " ").replace("_", " ").split())
    return next((value for key, value in table.items() if f" {key} " in f" {words} "), None)


def measure_peak(device: str, dtype: str, seconds: float = 0.1) -> float:
    """Operations per second of the fastest square product of 512 that this process gets done on a CPU.

    Draws no random numbers and uses torch's present number of threads. What other processes take is missing from it.

    Args:
        device: a torch device.
        dtype: bfloat16 or float32.
        seconds: how long to try; at least three products are done.
    """
    import time

    import torch

    n = 512
    a = torch.full((n, n), 0.5, dtype=getattr(torch, dtype), device=device)
    best, tries, end = float("inf"), 0, time.perf_counter() + seconds
    with torch.no_grad():
        while tries < 3 or time.perf_counter() < end:
            began = time.perf_counter()
            torch.mm(a, a)
            best, tries = min(best, time.perf_counter() - began), tries + 1
    return 2 * n**3 / best


def device_peak(device: str, dtype: str) -> float | None:
    """Operations per second of the device that torch computes on: from `PEAKS`, or measured on a CPU.

    Args:
        device: cpu or cuda.
        dtype: of the arithmetic; float32 on a GPU is not in the table.

    Returns:
        None where it is not known.
    """
    import torch

    if device == "cpu":
        return measure_peak(device, dtype)
    return peak_of(torch.cuda.get_device_name()) if dtype == "bfloat16" else None
