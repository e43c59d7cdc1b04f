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


def supervised_loss(hidden: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor], chunk: int = CHUNK) -> Tensor:
    """Sum of the next-token losses at supervised positions.

    Args:
        hidden: (B, L, d), the backbone's last hidden states.
        labels: (B, L), token ids or -100; position t predicts ``labels[t + 1]``.
        head: (n, d) -> (n, V).
        chunk: positions whose logits exist at once.

    Returns:
        A scalar, fp32. Divide by the number of labels other than -100 for the mean.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    targets = labels[:, 1:]  # (B, L-1)
    wanted = targets != -100
    states, targets = hidden[:, :-1][wanted], targets[wanted]  # (n, d), (n,)
    if len(targets) <= chunk:
        return _chunk_loss(states, targets, head)
    losses = [
        checkpoint(_chunk_loss, h, y, head, use_reentrant=False)
        for h, y in zip(states.split(chunk), targets.split(chunk), strict=True)
    ]
    return torch.stack(losses).sum()


def _chunk_loss(states: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    from torch.nn.functional import cross_entropy

    return cross_entropy(head(states).float(), targets, reduction="sum")
