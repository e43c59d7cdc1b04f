"""Heads of a half, and the key-value heads they share, without repeating any where views can say it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from longlora.attention.plan import Partition

if TYPE_CHECKING:
    from torch import Tensor


class Part(NamedTuple):
    """Query heads [first, last) and the segments they attend in."""

    first: int
    last: int
    partition: Partition


class Piece(NamedTuple):
    """Query heads [first, last) on whole key-value heads [kv_first, kv_last), equally many on each."""

    first: int
    last: int
    kv_first: int
    kv_last: int


def pieces(first: int, last: int, repeat: int) -> list[Piece]:
    """Query heads [first, last) cut so that each piece is grouped-query attention on a slice of the KV heads.

    The cut between the halves may fall inside a key-value head: of 9 query heads on 3, the first half is heads
    0 to 2 on KV head 0 and head 3 on KV head 1. At most three pieces.
    """
    result: list[Piece] = []
    at = first
    while at < last:
        kv = at // repeat
        if at % repeat or last - at < repeat:  # inside one key-value head
            stop = min(last, (kv + 1) * repeat)
            result.append(Piece(at, stop, kv, kv + 1))
        else:
            stop = last // repeat * repeat
            result.append(Piece(at, stop, kv, stop // repeat))
        at = stop
    return result


def attend_by_pieces(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    parts: Sequence[Part],
    attend: Callable[[Tensor, Tensor, Tensor, Partition], Tensor],
) -> Tensor:
    """``attend`` for each piece of each part, the results side by side.

    Args:
        q: (B, H, L, D); k, v: (B, Hkv, L, D).
        attend: of (B, h, L, D) and twice (B, hkv, L, D) with h a multiple of hkv, returns (B, L, h, D).

    Returns:
        (B, L, h, D), h the heads of all parts.
    """
    import torch

    repeat = q.shape[1] // k.shape[1]
    outputs = [
        attend(
            q.narrow(1, piece.first, piece.last - piece.first),
            k.narrow(1, piece.kv_first, piece.kv_last - piece.kv_first),
            v.narrow(1, piece.kv_first, piece.kv_last - piece.kv_first),
            part.partition,
        )
        for part in parts
        for piece in pieces(part.first, part.last, repeat)
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
