"""Cross-entropy without the logits of a whole row.

At 16k tokens and a vocabulary of 49k the logits are 3.2 GB in fp32, and an ordinary loss holds three such tensors.
Here the output head runs on chunks of `memory.CHUNK_BYTES`. For a plain head the gradients of a chunk are computed
together with its loss, while its logits exist, so that nothing is computed twice (the idea of Liger's and Unsloth's
fused losses; Hsu et al., arXiv 2410.10989, section 3.2). A head with LoRA, a bias or hooks is called as the module
it is, and its chunks are recomputed in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from longlora.train.memory import chunk_rows

IGNORE = -100
MOSTLY = 0.9  # share of supervised positions from which skipping the others is not worth a copy of the states
UNKNOWN_VOCABULARY = 65536  # of a head that does not tell its size

Head = Callable[[Tensor], Tensor]


def supervised_loss(
    hidden: Tensor, labels: Tensor, head: Head, chunk: int | None = None, min_chunks: int = 1
) -> Tensor:
    """Sum of the next-token losses at supervised positions.

    Peak memory: `memory.logits_chunk_bytes`, the gradient of ``hidden``, and fp32 for that of a trained head. Where
    less than 90 % of the positions are supervised, also a copy of the states that are.

    Args:
        hidden: (B, L, d), the backbone's last hidden states.
        labels: (B, L), token ids or -100; position t predicts ``labels[t + 1]``.
        head: (n, d) -> (n, V), usually the model's output head.
        chunk: positions whose logits exist at once; None: as many as fit `memory.CHUNK_BYTES`.
        min_chunks: chunks at least. A head whose weight is gathered from several processes (ZeRO-3) must be called
            equally often by all of them: give the largest `chunk_count` of all. Chunks without a supervised position
            then run on one state, with a loss and gradient of zero.

    Returns:
        A scalar, fp32. Divide by the number of labels other than -100 for the mean. Backward can be run once.
    """
    states, targets = _select(hidden, labels)
    rows = chunk or chunk_rows(_vocabulary(head))
    count = max(-(-len(targets) // rows), min_chunks, 1)
    if is_plain(head):
        assert isinstance(head, nn.Linear)
        return _LinearCrossEntropy.apply(states, head.weight, targets, -(-len(targets) // count))  # as `even_chunk`
    quotient, rest = divmod(len(targets), count)
    sizes = [quotient + (i < rest) for i in range(count)]
    pieces = list(zip(states.split(sizes), targets.split(sizes), strict=True))
    if 0 in sizes:
        nothing = (hidden.flatten(0, 1)[:1], targets.new_full((1,), IGNORE))
        pieces = [piece if len(piece[1]) else nothing for piece in pieces]
    if count == 1:
        return _chunk_loss(*pieces[0], head)
    losses = [
        checkpoint(_chunk_loss, h, y, head, use_reentrant=False, preserve_rng_state=_draws(head)) for h, y in pieces
    ]
    return torch.stack(losses).sum()


def chunk_count(labels: Tensor, head: Head, chunk: int | None = None) -> int:
    """Chunks that `supervised_loss` needs for these labels, at least 1: how often it calls ``head`` going forward."""
    positions = labels.numel()
    wanted = int((labels[:, 1:] != IGNORE).sum())
    if wanted >= MOSTLY * positions:
        wanted = positions
    return max(1, -(-wanted // (chunk or chunk_rows(_vocabulary(head)))))


def is_plain(head: Any) -> bool:
    """Whether calling ``head`` is no more than a product with its weight, which is all here.

    Not so with a bias, LoRA, quantisation, hooks (of accelerate or DeepSpeed) or a weight shared out by ZeRO-3.
    """
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        type(head) is nn.Linear
        and head.bias is None
        and "forward" not in vars(head)
        and not any(getattr(head, name) for name in hooks)
        and not hasattr(head.weight, "ds_id")
    )


def _select(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """States (n, d) and targets (n,) of the supervised positions; a view of all where nearly all are."""
    targets = functional.pad(labels[:, 1:], (0, 1), value=IGNORE).flatten()
    states, index = hidden.flatten(0, 1), (targets != IGNORE).nonzero().squeeze(1)
    if len(index) >= MOSTLY * len(targets):
        return states, targets
    return states.index_select(0, index), targets[index]


def _vocabulary(head: Any) -> int:
    return getattr(head, "out_features", None) or UNKNOWN_VOCABULARY


def _draws(head: Any) -> bool:
    """Whether the head has dropout; stashing the generator's state for every chunk is for that only."""
    modules = head.modules() if isinstance(head, nn.Module) else ()
    return any(isinstance(m, nn.Dropout) and m.p > 0 and m.training for m in modules)


def _chunk_loss(states: Tensor, targets: Tensor, head: Head) -> Tensor:
    return functional.cross_entropy(head(states).float(), targets, ignore_index=IGNORE, reduction="sum")


class _LinearCrossEntropy(torch.autograd.Function):
    """Loss of ``states @ weight.T``; both gradients are made in the forward pass, chunk by chunk.

    They are those of the sum, and are scaled by what comes from above in the backward pass. The weight is cast to
    autocast's format once, its gradient summed over the chunks in fp32.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, rows: int) -> Tensor:
        device = states.device.type
        narrow = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        wide = torch.promote_types(narrow, torch.float32)
        with_states, with_weight = ctx.needs_input_grad[:2]
        matrix = weight.detach().to(narrow)  # (V, d)
        d_states = torch.empty_like(states) if with_states else None
        d_weight = torch.zeros_like(weight, dtype=wide) if with_weight else None
        losses = []
        with torch.autocast(device, enabled=False):
            for start in range(0, len(targets), max(rows, 1)):
                part = slice(start, start + rows)
                inputs, wanted = states[part].to(narrow), targets[part]
                scores = functional.log_softmax(inputs @ matrix.T, dim=-1, dtype=wide)  # (n, V)
                losses.append(functional.nll_loss(scores, wanted, ignore_index=IGNORE, reduction="sum"))
                if d_states is None and d_weight is None:
                    continue
                gradient = _minus_one_at(scores.exp_(), wanted).to(narrow)  # of the logits
                del scores
                if d_states is not None:
                    d_states[part] = gradient @ matrix
                if d_weight is not None and narrow == wide:
                    d_weight.addmm_(gradient.T, inputs)
                elif d_weight is not None:
                    d_weight += gradient.T @ inputs
                del gradient
        ctx.gradients, ctx.weight_dtype = (d_states, d_weight), weight.dtype
        return torch.stack(losses).sum() if losses else torch.zeros((), dtype=wide, device=states.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("supervised_loss: its backward pass can be run once, its gradients are not kept")
        (d_states, d_weight), ctx.gradients = ctx.gradients, None
        if d_states is not None:
            d_states.mul_(above)  # in place: a second tensor of this size would be gigabytes
        if d_weight is not None:
            d_weight = d_weight.mul_(above).to(ctx.weight_dtype)
        return d_states, d_weight, None, None


def _minus_one_at(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Softmax minus one-hot, in place; rows without a target become zero."""
    ignored = targets == IGNORE
    at = targets.clamp(min=0)[:, None]
    probabilities.scatter_add_(1, at, probabilities.new_full((), -1.0).expand_as(at))
    return probabilities.masked_fill_(ignored[:, None], 0.0)
