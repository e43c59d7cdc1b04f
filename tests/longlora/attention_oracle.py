"""The definition of S²-Attn, dense in float64, and random batches to judge implementations by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

HEADS = [(4, 4), (9, 3), (6, 2), (5, 1), (8, 4), (10, 5), (12, 3), (3, 3), (1, 1)]


def dense_mask(rows, length: int, heads: int, group: int | None, mode: str) -> torch.Tensor:
    """(B, H, L, L) bool, written from the paper's words and not from the code.

    ``rows``: of each row the (start, stop) of its documents. In a document of n tokens, token i of a head belongs
    to the segment i // g. Of the shifted heads, split: (i + g - g // 2) // g; wrap: i is first replaced by its
    place in the document rolled left by g // 2, which is also the order in which "before" is meant. A document of at
    most g tokens is not shifted.
    """
    mask = torch.zeros(len(rows), heads, length, length, dtype=torch.bool)
    for b, documents in enumerate(rows):
        for start, stop in documents:
            n = stop - start
            for h in range(heads):
                place = torch.arange(n)
                segment = place * 0 if group is None else place // group
                if group is not None and h >= heads // 2 and 1 < group < n:
                    s = group // 2
                    if mode == "split":
                        segment = (place + group - s) // group
                    else:
                        place = (place - s) % n
                        segment = place // group
                same = segment[:, None] == segment[None, :]
                mask[b, h, start:stop, start:stop] = same & (place[:, None] >= place[None, :])
    return mask


def attention(q, k, v, mask, scale=None):
    """Dense attention in the type of its input, (B, H, L, D) -> (B, L, H, D); zero where nothing may be seen."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    scores = (q @ k.transpose(-1, -2)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    seen = mask.any(-1, keepdim=True)
    weights = scores.masked_fill(~mask & seen, float("-inf")).softmax(-1) * seen
    return (weights @ v).transpose(1, 2)


def distance(a, b) -> float:
    """Relative, in the Euclidean norm."""
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30))


@dataclass
class Batch:
    heads: int
    kv_heads: int
    group: int | None
    mode: str
    length: int
    rows: list  # of each row (tokens of padding left, lengths of documents, tokens of padding right)
    scale: float | None
    seed: int

    def inputs(self):
        """Attention mask (None if all is real) and position ids, as a data collator makes them."""
        positions = torch.zeros(len(self.rows), self.length, dtype=torch.long)
        real = torch.zeros(len(self.rows), self.length, dtype=torch.bool)
        for b, (left, docs, right) in enumerate(self.rows):
            positions[b] = torch.cat([torch.arange(n) for n in [left, *docs, right]])
            real[b, left : self.length - right] = True
        return None if bool(real.all()) else real, positions

    def spans(self):
        result = []
        for left, docs, _ in self.rows:
            row, at = [], left
            for n in docs:
                row.append((at, at + n))
                at += n
            result.append(row)
        return result

    def tensors(self, head_dim: int):
        """q, k, v (B, H, L, D) and an upstream gradient (B, L, H, D), float32."""
        generator = torch.Generator().manual_seed(self.seed)

        def normal(*shape):
            return torch.randn(len(self.rows), *shape, generator=generator)

        q = normal(self.length, self.heads, head_dim).transpose(1, 2)  # as models make them
        k, v = (normal(self.length, self.kv_heads, head_dim).transpose(1, 2) for _ in range(2))
        return q, k, v, normal(self.length, self.heads, head_dim)


@st.composite
def batches(draw, longest: int = 40, long_ones=(64, 70, 130), modes=("split", "wrap")):
    """Heads, group, length and of each row padding, documents, padding."""
    heads, kv_heads = draw(st.sampled_from(HEADS))
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        left, right = draw(st.sampled_from([(0, 0), (0, 3), (5, 0)]))
        lengths = st.integers(1, longest) | st.sampled_from(long_ones)
        rows.append((left, draw(st.lists(lengths, min_size=1, max_size=4)), right))
    length = max(left + sum(docs) + right for left, docs, right in rows)
    rows = [(left, docs, length - left - sum(docs)) for left, docs, _ in rows]
    group = draw(st.one_of(st.none(), st.integers(1, 50), st.sampled_from([64, 100])))
    return Batch(
        heads, kv_heads, group, draw(st.sampled_from(modes)), length, rows,
        draw(st.sampled_from([None, 0.5])), draw(st.integers(0, 2**16)),
    )  # fmt: skip


def judge(batch: Batch, compute, tolerance: float, head_dim: int = 8, dtype=torch.float32, device="cpu") -> None:
    """Assert that ``compute(q, k, v)`` -> (B, L, H, D) has the oracle's output and gradients, each by itself.

    A gradient may be off by ``tolerance`` of itself, or of a tenth of its terms before they cancelled: the rows of
    dS sum to zero, so in documents of one or two tokens the gradients of q and k are all cancellation.
    """
    q, k, v, upstream = batch.tensors(head_dim)
    q, k, v = (x.to(dtype) for x in (q, k, v))
    mask = dense_mask(batch.spans(), batch.length, batch.heads, batch.group, batch.mode)
    real = mask.any(-1).transpose(1, 2)[..., None]  # (B, L, H, 1)
    upstream = (upstream * real).to(dtype)

    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    expected = attention(*leaves, mask, batch.scale)
    gradients = torch.autograd.grad(expected, leaves, upstream.double())
    ours = [x.to(device).detach().requires_grad_() for x in (q, k, v)]
    out = compute(*ours)
    assert out.shape == expected.shape and out.dtype == dtype
    assert torch.equal(out.cpu() * ~real, torch.zeros_like(out.cpu()) * ~real), "padding is not zero"
    got = torch.autograd.grad(out, ours, upstream.to(device))
    assert distance(out.detach().cpu(), expected.detach()) <= tolerance, "output"
    for name, mine, theirs, size in zip(
        "qkv", got, gradients, _terms(leaves, mask, batch.scale, upstream), strict=True
    ):
        error = float((mine.cpu().double() - theirs).norm())
        assert error <= tolerance * max(float(theirs.norm()), size / 10), (
            f"gradient of {name}: {error} of {theirs.norm()}"
        )


def _terms(leaves, mask, scale, upstream):
    """How large the gradients of q, k and v would be if none of the terms in their sums cancelled."""
    q, k, v = (x.detach() for x in leaves)
    repeat = q.shape[1] // k.shape[1]
    wide_k, wide_v = (x.repeat_interleave(repeat, dim=1) for x in (k, v))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    seen = mask.any(-1, keepdim=True)
    p = (q @ wide_k.transpose(-1, -2) * scale).masked_fill(~mask & seen, float("-inf")).softmax(-1) * seen
    g = upstream.double().transpose(1, 2)
    ds = p * (g.abs() @ wide_v.abs().transpose(-1, -2)) * scale
    fold = (len(q), k.shape[1], repeat, *k.shape[2:])
    return (
        float((ds @ wide_k.abs()).norm()),
        float((ds.transpose(-1, -2) @ q.abs()).reshape(fold).sum(2).norm()),
        float((p.transpose(-1, -2) @ g.abs()).reshape(fold).sum(2).norm()),
    )
