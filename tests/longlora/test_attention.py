"""S²-Attn against a dense float64 oracle, and what it must never let through."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longlora import attention
from longlora.attention import document_lengths, group_tokens, make_plan, s2_attention, segments

HEADS = [(4, 4), (9, 3), (6, 2), (5, 1), (8, 4), (3, 3), (1, 1)]


def dense_mask(documents: list[list[int]], length: int, heads: int, group: int | None) -> torch.Tensor:
    """The definition, (B, H, L, L) bool: same document, same segment of this half of the heads, not the
    future."""
    mask = torch.zeros(len(documents), heads, length, length, dtype=torch.bool)
    for b, lengths in enumerate(documents):
        for h in range(heads):
            shift = 0 if group is None or h < heads // 2 else group // 2
            start = 0
            for n in lengths:
                cuts = segments(n, group, shift)
                for lo, hi in pairwise(cuts):
                    block = torch.ones(hi - lo, hi - lo, dtype=torch.bool).tril()
                    mask[b, h, start + lo : start + hi, start + lo : start + hi] = block
                start += n
    return mask


def oracle(q, k, v, mask):
    """Dense attention in float64. (B, H, L, D) -> (B, L, H, D)."""
    q, k, v = (x.double() for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    return (scores.masked_fill(~mask, float("-inf")).softmax(-1) @ v).transpose(1, 2)


def distance(a, b) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30))


@st.composite
def batches(draw):
    """Heads, group, L and per row: padding left, documents, padding right."""
    heads, kv = draw(st.sampled_from(HEADS))
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        left, right = draw(st.sampled_from([(0, 0), (0, 3), (5, 0)]))
        rows.append(
            (left, draw(st.lists(st.integers(1, 40) | st.sampled_from([64, 70, 130]), min_size=1, max_size=4)), right)
        )
    length = max(left + sum(docs) + right for left, docs, right in rows)
    rows = [(left, docs, length - left - sum(docs)) for left, docs, _ in rows]
    group = draw(st.one_of(st.none(), st.integers(1, 50), st.sampled_from([64, 100])))
    return heads, kv, group, length, rows, draw(st.integers(0, 2**16))


@settings(max_examples=120, deadline=None)
@given(batches())
def test_equals_dense_oracle_with_gradients(batch):
    heads, kv, group, length, rows, seed = batch
    generator = torch.Generator().manual_seed(seed)
    positions = torch.zeros(len(rows), length, dtype=torch.long)
    real = torch.zeros(len(rows), length, dtype=torch.bool)
    for b, (left, docs, right) in enumerate(rows):
        positions[b] = torch.cat([torch.arange(n) for n in [left, *docs, right]])
        real[b, left : length - right] = True
    documents = document_lengths(len(rows), length, None if real.all() else real, positions)
    assert documents == [[n for n in [left, *docs, right] if n] for left, docs, right in rows]

    shape = (len(rows), heads, length, 8)
    q = torch.randn(shape, generator=generator)
    k, v = (torch.randn(len(rows), kv, length, 8, generator=generator) for _ in range(2))
    upstream = torch.randn(len(rows), length, heads, 8, generator=generator) * real[:, :, None, None]
    results = []
    for form in ("ours", "oracle"):
        leaves = [
            x.clone().to(torch.float64 if form == "oracle" else torch.float32).requires_grad_() for x in (q, k, v)
        ]
        if form == "ours":
            out = s2_attention(*leaves, make_plan(documents, group))
        else:
            out = oracle(*leaves, dense_mask(documents, length, heads, group))
        out = out * real[:, :, None, None]
        gradients = torch.autograd.grad(out, leaves, upstream.to(out.dtype))
        # One vector: where documents have two tokens, q's own gradient is all cancellation.
        results.append((out.detach(), torch.cat([g.flatten() for g in gradients])))
    for ours, reference in zip(*results, strict=True):
        assert distance(ours, reference) <= 1e-5


@given(st.integers(1, 500), st.integers(1, 500), st.booleans())
def test_segments_partition(length, group, shifted):
    cuts = segments(length, group, group // 2 if shifted else 0)
    sizes = [b - a for a, b in pairwise(cuts)]
    assert cuts[0] == 0 and cuts[-1] == length and all(0 < n <= group for n in sizes)
    first = group // 2 if shifted and group > 1 else group
    assert sizes[0] == min(first, length) and all(n == group for n in sizes[1:-1])


def test_segments_of_the_released_flash_code():
    # notes/longlora.md 1.1: N = 16, g = 4 gives [0, 4, 8, 12, 16] and [0, 2, 6, 10, 14, 16]
    assert segments(16, 4) == [0, 4, 8, 12, 16]
    assert segments(16, 4, 2) == [0, 2, 6, 10, 14, 16]
    assert group_tokens(0.25, 16) == 4 and group_tokens(0.25, 9) == 3 and group_tokens(2048, 9) == 2048


def test_holes_in_the_mask_are_refused():
    with pytest.raises(ValueError, match="holes"):
        document_lengths(1, 5, torch.tensor([[1, 0, 1, 1, 1]]), None)


# ------------------------------------------------------------------ through a real model


def tiny(group: int | None, heads: int = 9, kv: int = 3, seed: int = 0):
    from transformers import LlamaConfig, LlamaForCausalLM

    attention.register()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=101, hidden_size=8 * heads, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=heads, num_key_value_heads=kv, head_dim=8, max_position_embeddings=256,
        attn_implementation="s2_attn",
    )  # fmt: skip
    config.s2_group_size = group
    return LlamaForCausalLM(config).double()


def logits(model, ids, **kwargs):
    return model(input_ids=ids, use_cache=False, **kwargs).logits


@pytest.mark.parametrize("heads,kv", [(9, 3), (4, 2)])
def test_no_token_sees_a_later_one(heads, kv):
    model = tiny(6, heads, kv).train()
    ids = torch.randint(0, 101, (2, 29))
    with torch.no_grad():
        before = logits(model, ids)
        for t in (1, 3, 6, 17, 28):
            changed = ids.clone()
            changed[:, t:] = (changed[:, t:] + 1) % 101
            assert torch.equal(logits(model, changed)[:, :t], before[:, :t])


def test_sparse_in_training_full_in_evaluation():
    model, ids = tiny(6), torch.randint(0, 101, (1, 24))
    with torch.no_grad():
        changed = ids.clone()
        changed[:, 0] = (changed[:, 0] + 1) % 101
        trained = (logits(model.train(), ids) - logits(model, changed)).abs().amax(-1)[0]
        # two layers of groups of 6, shifted by 3: token 0 reaches 5 in one step and 8 in two, and no further
        assert trained[8] > 0 and torch.all(trained[12:] == 0)
        evaluated = logits(model.eval(), ids)
        model.set_attn_implementation("sdpa")
        torch.testing.assert_close(evaluated, logits(model, ids))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_padding_and_packing_change_nothing(mode):
    model = tiny(5)
    model.train(mode == "train")
    documents = [torch.randint(0, 101, (n,)) for n in (13, 7, 1, 22)]
    with torch.no_grad():
        alone = [logits(model, d[None])[0] for d in documents]
        packed = logits(
            model,
            torch.cat(documents)[None],
            position_ids=torch.cat([torch.arange(len(d)) for d in documents])[None],
        )[0]
        torch.testing.assert_close(packed, torch.cat(alone))
        for side in ("left", "right"):
            ids, mask = torch.zeros(4, 25, dtype=torch.long), torch.zeros(4, 25, dtype=torch.long)
            positions = torch.ones(4, 25, dtype=torch.long)
            for b, d in enumerate(documents):
                at = slice(25 - len(d), 25) if side == "left" else slice(0, len(d))
                ids[b, at], mask[b, at], positions[b, at] = d, 1, torch.arange(len(d))
            for extra in ({}, {"position_ids": positions}) if side == "right" else ({"position_ids": positions},):
                out = logits(model, ids, attention_mask=mask, **extra)
                for b, reference in enumerate(alone):
                    torch.testing.assert_close(out[b, mask[b].bool()], reference)


def test_another_packed_document_changes_nothing():
    model = tiny(4).train()
    ids, positions = torch.randint(0, 101, (1, 20)), torch.cat([torch.arange(9), torch.arange(11)])[None]
    other = ids.clone()
    other[:, :9] = (other[:, :9] + 1) % 101
    with torch.no_grad():
        a, b = (logits(model, x, position_ids=positions)[:, 9:] for x in (ids, other))
        assert torch.equal(a, b)


def test_gradient_checkpointing_gives_the_same_gradients():
    ids = torch.randint(0, 101, (2, 21))
    positions = torch.cat([torch.arange(8), torch.arange(13)]).expand(2, -1)
    gradients = []
    for checkpointing in (False, True):
        model = tiny(5).train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        logits(model, ids, position_ids=positions).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_generation_with_cache_equals_sdpa():
    model = tiny(4).eval()
    ids, mask = torch.randint(0, 101, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[0, :4] = 0
    runs = []
    for name in ("s2_attn", "sdpa"):
        model.set_attn_implementation(name)
        runs.append(model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0))
    assert torch.equal(*runs)


def test_inference_mode():
    """Inference tensors have no version counter, so their plan is not kept: a changed mask is seen."""
    model = tiny(4).eval()
    ids, positions = torch.randint(0, 101, (1, 12)), torch.cat([torch.arange(5), torch.arange(7)])[None]
    expected = [logits(model, ids, position_ids=p).detach() for p in (positions, torch.arange(12)[None])]
    with torch.inference_mode():
        given = positions.clone()
        assert given.is_inference()
        assert torch.equal(logits(model, ids, position_ids=given), expected[0])
        given.copy_(torch.arange(12)[None])
        assert torch.equal(logits(model, ids, position_ids=given), expected[1])
    assert not torch.equal(*expected)


def test_group_size_must_be_said():
    model = tiny(4).train()
    del model.config.s2_group_size
    with pytest.raises(ValueError, match="s2_group_size"):
        logits(model, torch.zeros(1, 4, dtype=torch.long))


def test_what_it_cannot_honour_is_refused():
    module = tiny(4).model.layers[0].self_attn.train()
    q, k = torch.zeros(1, 9, 4, 8), torch.zeros(1, 3, 4, 8)
    with pytest.raises(ValueError, match="sliding_window"):
        attention.s2_attention_forward(module, q, k, k, None, sliding_window=2)
    with pytest.raises(ValueError, match="cache"):
        attention.s2_attention_forward(module, q[:, :, :1], k, k, None)
