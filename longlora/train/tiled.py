"""MLPs and norms over parts of the sequence (Bekman et al., Arctic Long Sequence Training, arXiv 2506.13996).

An MLP looks at each token alone, so it can run on some of them at a time, and only their gate, up and product exist:
`memory.mlp_bytes`. Each part is recomputed in the backward pass. Likewise a norm, which otherwise keeps a float32 copy
of its input and the normalised one: 12 bytes a token and width in bfloat16 where the norm is trained, two norms a
layer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from longlora.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def tile_mlp(model: Any, tokens: int) -> None:
    """Have every MLP of ``model`` run on at most ``tokens`` tokens at once. Equal up to the rounding of sums.

    Args:
        model: a causal language model whose layers have their MLP as ``mlp``; changed in place.
        tokens: of all rows of a micro batch together.

    Raises:
        UserError: a layer has no ``mlp``, or one that mixes experts.
    """
    from longlora.train.blocks import decoder_layers

    for layer in decoder_layers(model):
        mlp: Any = getattr(layer, "mlp", None)
        if mlp is None or hasattr(mlp, "experts"):
            raise UserError(
                f"{model.config.model_type}: train.tile_mlp does not know the MLPs of this architecture",
                "set train.tile_mlp to null",
            )
        mlp.forward = partial(_forward_tiled, mlp.forward, tokens)


def tile_norms(model: Any, tokens: int) -> None:
    """Have the norms on the residual stream of every layer keep their input alone, however short it is.

    Args:
        model: as there; modules right below a layer whose only weights are vectors of the hidden size are its norms.
        tokens: as there.
    """
    from longlora.train.blocks import decoder_layers

    for layer in decoder_layers(model):
        for module in layer.children():
            weights = list(module.parameters())
            if weights and all(tuple(w.shape) == (model.config.hidden_size,) for w in weights):
                norm: Any = module
                norm.forward = partial(_forward_tiled, norm.forward, tokens, recompute_one=True)


def _forward_tiled(
    forward: Callable[[Tensor], Tensor], tokens: int, states: Tensor, *, recompute_one: bool = False
) -> Tensor:
    """(B, L, d) -> (B, L, d) through ``forward``, in pieces (1, n, d), each recomputed; a single one if asked for."""
    import torch
    from torch.utils.checkpoint import checkpoint

    flat = states.flatten(0, -2)  # (B·L, d), a view
    if len(flat) <= tokens and not recompute_one:
        return forward(states)
    pieces = [piece[None] for piece in flat.split(tokens)]
    if torch.is_grad_enabled():
        done = [checkpoint(forward, piece, use_reentrant=False) for piece in pieces]
    else:
        done = [forward(piece) for piece in pieces]
    return torch.cat(done, dim=1).view(states.shape)
