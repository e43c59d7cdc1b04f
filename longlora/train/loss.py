"""Cross-entropy without the logits of a whole row.

At 16k tokens and a vocabulary of 49k the logits alone are 3 GB in fp32, and most of them are of prompt
tokens that carry no loss. Here the hidden states of supervised positions are selected before the output
head, and the head runs on chunks of them that are recomputed in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 1024  # positions; 200 MB of fp32 logits at a vocabulary of 49k


def chunk_count(labels: Tensor, chunk: int = CHUNK) -> int:
    """How often `supervised_loss` calls the head for these labels (B, L)."""
    return max(1, -(-int((labels[:, 1:] != -100).sum()) // chunk))


def supervised_loss(
    hidden: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor], chunk: int = CHUNK, min_chunks: int = 1
) -> Tensor:
    """Sum of the next-token losses at supervised positions.

    Args:
        hidden: (B, L, d), the backbone's last hidden states.
        labels: (B, L), token ids or -100; position t predicts ``labels[t + 1]``.
        head: (n, d) -> (n, V).
        chunk: positions whose logits exist at once.
        min_chunks: calls of ``head`` at least; those beyond what the labels need get no positions.

    Returns:
        A scalar, fp32. Divide by the number of labels other than -100 for the mean.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    targets = labels[:, 1:]  # (B, L-1)
    wanted = targets != -100
    states, targets = hidden[:, :-1][wanted], targets[wanted]  # (n, d), (n,)
    if len(targets) <= chunk and min_chunks <= 1:
        return _chunk_loss(states, targets, head)
    pieces = list(zip(states.split(chunk), targets.split(chunk), strict=True))
    pieces += [(states[:0], targets[:0])] * (min_chunks - len(pieces))
    losses = [checkpoint(_chunk_loss, h, y, head, use_reentrant=False) for h, y in pieces]
    return torch.stack(losses).sum()


def _chunk_loss(states: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    from torch.nn.functional import cross_entropy

    return cross_entropy(head(states).float(), targets, reduction="sum")
