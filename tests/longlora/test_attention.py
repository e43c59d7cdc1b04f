"""S²-Attn against a dense float64 oracle: every backend and mode, outputs and gradients; its parts."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import torch
from attention_oracle import Batch, attention, batches, dense_mask, distance, judge
from hypothesis import given, settings
from hypothesis import strategies as st

from longlora.attention import (
    BACKENDS,
    Span,
    choose,
    cpu,
    document_spans,
    group_tokens,
    make_plan,
    s2_attention,
    segments,
    varlen,
)
from longlora.attention.heads import Part, pieces
from longlora.attention.sdpa import stock
from longlora.errors import UserError


class Stock:
    """SDPA alone, as on a GPU or where torch lacks the CPU's kernels."""

    name = "stock"

    def why_not(self, q, k, v, dropout):
        return None

    def __call__(self, q, k, v, parts, scale, dropout):
        return stock(q, k, v, parts, scale, dropout)


def dense_varlen(q, k, v, cu_seqlens, scale):
    """What varlen kernels promise, by a dense mask. (T, h, D), twice (T, hkv, D) -> (T, h, D)."""
    assert cu_seqlens.dtype == torch.int32 and int(cu_seqlens[-1]) == len(q)
    assert bool((cu_seqlens.diff() > 0).all())
    spans = [list(pairwise(cu_seqlens.tolist()))]
    mask = dense_mask(spans, len(q), q.shape[1], None, "split")
    out = attention(*(x.transpose(0, 1)[None] for x in (q, k, v)), mask, scale)
    return out[0]


def check_shapes(q, k, v, cu_q, cu_k, max_q, max_k):
    assert cu_q is cu_k or torch.equal(cu_q, cu_k)
    assert max_q == max_k == int(cu_q.diff().max())
    assert q.shape[1] % k.shape[1] == 0 and k.shape == v.shape


# The signatures of releases of `torch.nn.attention.varlen.varlen_attn` and of flash-attn 2.


def varlen_attn_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
    assert is_causal and query.shape == key.shape, "no window, no grouped queries, no scale"
    check_shapes(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k)
    return dense_varlen(query, key, value, cu_seq_q, None)


def varlen_attn_2_11(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)
):
    assert window_size == (-1, 0) and query.shape == key.shape
    check_shapes(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k)
    return dense_varlen(query, key, value, cu_seq_q, scale)


def varlen_attn_2_13(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1),
    enable_gqa=False, seqused_k=None, block_table=None,
):  # fmt: skip
    assert window_size == (-1, 0) and enable_gqa == (query.shape[1] != key.shape[1])
    check_shapes(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k)
    return dense_varlen(query, key, value, cu_seq_q, scale)


def flash_attn_varlen_func(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None, causal=False,
    window_size=(-1, -1), softcap=0.0, alibi_slopes=None, deterministic=False, return_attn_probs=False,
    block_table=None,
):  # fmt: skip
    assert causal and dropout_p == 0.0 and window_size == (-1, -1)
    check_shapes(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    return dense_varlen(q, k, v, cu_seqlens_q, softmax_scale)


class StandIn(varlen.Varlen):
    """A varlen backend on a function that a CPU can run."""

    def __init__(self, kernel):
        super().__init__("stand-in", lambda: kernel, takes_dropout=True)

    def why_not(self, q, k, v, dropout):
        return None


IMPLEMENTATIONS = {
    "sdpa": "sdpa",
    "stock": Stock(),
    "varlen_attn 2.10": StandIn(varlen.torch_kernel(varlen_attn_2_10)),
    "varlen_attn 2.11": StandIn(varlen.torch_kernel(varlen_attn_2_11)),
    "varlen_attn 2.13": StandIn(varlen.torch_kernel(varlen_attn_2_13)),
    "flash-attn": StandIn(varlen.flash_attn_kernel(flash_attn_varlen_func)),
}


def computed_by(batch: Batch, backend):
    mask, positions = batch.inputs()
    documents = document_spans(len(batch.rows), batch.length, mask, positions)
    assert documents == batch.spans()
    plan = make_plan(documents, batch.length, batch.group, batch.mode)
    return lambda q, k, v: s2_attention(q, k, v, plan, scaling=batch.scale, backend=backend)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@settings(max_examples=40, deadline=None)
@given(batch=batches())
def test_equals_dense_oracle(name, batch):
    judge(batch, computed_by(batch, IMPLEMENTATIONS[name]), 1e-5)


@settings(max_examples=30, deadline=None)
@given(batch=batches())
def test_split_in_small_tiles_equals_dense_oracle(batch):
    """The recursion of the CPU kernel with triangles of 8 tokens: many levels, every kind of rest."""
    assert cpu.available()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "TRIANGLES", dict.fromkeys(cpu.TRIANGLES, 8))
        judge(batch, computed_by(batch, "sdpa"), 1e-5)


@settings(max_examples=3, deadline=None)
@given(batch=batches(longest=700, long_ones=(512, 513, 1100), modes=("split",)))
def test_real_tiles_equal_dense_oracle(batch):
    batch.group = batch.group and batch.group * 6
    judge(batch, computed_by(batch, "sdpa"), 1e-5)


@pytest.mark.parametrize("native", [False, True])
@settings(max_examples=15, deadline=None)
@given(batch=batches())
def test_bfloat16(native, batch):
    """Widened to float32, and in bfloat16 itself as on CPUs that have it (which pads segments)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "cpu_bfloat16", lambda: native)
        cpu.compute_dtype.cache_clear()
        try:
            judge(batch, computed_by(batch, "sdpa"), 2e-2, dtype=torch.bfloat16)
        finally:
            cpu.compute_dtype.cache_clear()


@pytest.mark.gpu
@pytest.mark.parametrize("name", BACKENDS)
@settings(max_examples=60, deadline=None)
@given(batch=batches())
def test_equals_dense_oracle_on_a_gpu(name, batch):
    q, k, v = (x.to("cuda", torch.bfloat16) for x in batch.tensors(64)[:3])
    if reason := BACKENDS[name].why_not(q, k, v, 0.0):
        pytest.skip(reason)
    judge(batch, computed_by(batch, name), 1e-2, head_dim=64, dtype=torch.bfloat16, device="cuda")


# ------------------------------------------------------------------ wrap


def seen_by(plan, heads: int, length: int) -> torch.Tensor:
    """(H, L, L) bool: whether an output depends on a value, measured."""
    q = torch.zeros(1, heads, length, length)  # all scores are equal, and value i is the i-th unit vector
    return s2_attention(q, q, torch.eye(length).expand_as(q), plan)[0].transpose(0, 1) > 0


def test_the_leak_of_the_wrap_is_the_one_described():
    # notes: N = 16, g = 4 leaks (0, 14), (0, 15), (1, 14), (1, 15) in the shifted heads, and nothing else
    for mode, leak in (("wrap", {(0, 14), (0, 15), (1, 14), (1, 15)}), ("split", set())):
        seen = seen_by(make_plan([[Span(0, 16)]], 16, 4, mode), 4, 16)
        for head in range(4):
            future = {(q, k) for q, k in seen[head].nonzero().tolist() if k > q}
            assert future == (leak if head >= 2 else set())


@pytest.mark.parametrize("length,group", [(16, 4), (24, 8), (12, 3), (20, 5)])
def test_wrap_is_the_roll_of_the_paper(length, group):
    """Algorithm 1: roll the second half of the heads, cut into groups, attend, roll back."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, length, 8, dtype=torch.float64) for _ in range(3))
    rolled = [torch.cat([x[:, :2], x[:, 2:].roll(-(group // 2), 2)], 1) for x in (q, k, v)]
    grouped = [x.unflatten(2, (-1, group)).transpose(1, 2).flatten(0, 1) for x in rolled]
    out = attention(*grouped, torch.ones(group, group).tril().bool().expand(len(grouped[0]), 4, -1, -1))
    out = out.unflatten(0, (2, -1)).flatten(1, 2)  # (B, L, H, D)
    out = torch.cat([out[:, :, :2], out[:, :, 2:].roll(group // 2, 1)], 2)
    plan = make_plan([[Span(0, length)]] * 2, length, group, "wrap")
    assert distance(s2_attention(q, k, v, plan), out) < 1e-12


@pytest.mark.parametrize("mode", ["split", "wrap"])
def test_a_document_that_fits_one_group_has_full_attention(mode):
    """Alone and beside a longer one; with one token more it is cut."""
    fits, full = (make_plan([[Span(0, 24), Span(24, 64)]], 64, group, mode) for group in (24, None))
    seen, all_of_it = seen_by(fits, 4, 64), seen_by(full, 4, 64)
    assert torch.equal(seen[:, :24], all_of_it[:, :24])
    assert not torch.equal(seen[0, 24:], all_of_it[0, 24:]) and not torch.equal(seen[3, 24:], all_of_it[3, 24:])
    alone = make_plan([[Span(0, 1000)]], 1000, 1024, mode)
    assert alone.uniform and alone.straight.rows == ((Span(0, 1000),),)
    assert not make_plan([[Span(0, 1025)]], 1025, 1024, mode).uniform


# ------------------------------------------------------------------ the parts


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 500), st.booleans())
def test_segments_partition(length, group, shifted):
    cuts = segments(length, group, group // 2 if shifted else 0)
    sizes = [b - a for a, b in pairwise(cuts)]
    assert cuts[0] == 0 and cuts[-1] == length and all(0 < n <= group for n in sizes)
    first = group // 2 if shifted and 1 < group < length else group
    assert sizes[0] == min(first, length) and all(n == group for n in sizes[1:-1])


def test_segments_of_the_released_flash_code():
    # notes/longlora.md 1.1: N = 16, g = 4 gives [0, 4, 8, 12, 16] and [0, 2, 6, 10, 14, 16]
    assert segments(16, 4) == [0, 4, 8, 12, 16]
    assert segments(16, 4, 2) == [0, 2, 6, 10, 14, 16]
    assert segments(4, 4, 2) == [0, 4] and segments(5, 4, 2) == [0, 2, 5]  # nothing to bridge in one group
    assert group_tokens(0.25, 16) == 4 and group_tokens(0.25, 9) == 3 and group_tokens(2048, 9) == 2048


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 3000), st.sampled_from(sorted({*cpu.TRIANGLES.values()})))
def test_tiles_cover_each_causal_pair_once(count, size, triangle):
    seen = torch.zeros(count * size, count * size, dtype=torch.int8)
    for tile in cpu.tiles(count, size, triangle):
        for i in range(tile.count):
            q, k = tile.q + i * tile.stride, tile.k + i * tile.stride
            block = torch.ones(tile.q_size, tile.k_size, dtype=torch.int8)
            seen[q : q + tile.q_size, k : k + tile.k_size] += block.tril() if tile.causal else block
        if count * size > 6000:
            return
    segment = torch.arange(count * size) // size
    expected = (segment[:, None] == segment[None, :]).tril()
    assert torch.equal(seen.bool(), expected) and int(seen.max()) == 1


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.data())
def test_pieces_map_heads_as_grouped_queries_do(kv_heads, repeat, data):
    cut = data.draw(st.integers(0, kv_heads * repeat))
    for first, last in ((0, cut), (cut, kv_heads * repeat)):
        found = []
        for piece in pieces(first, last, repeat):
            share, rest = divmod(piece.last - piece.first, piece.kv_last - piece.kv_first)
            assert rest == 0
            found += [(h, piece.kv_first + (h - piece.first) // share) for h in range(piece.first, piece.last)]
        assert found == [(h, h // repeat) for h in range(first, last)]


def test_holes_in_the_mask_are_refused():
    with pytest.raises(ValueError, match="holes"):
        document_spans(1, 5, torch.tensor([[1, 0, 1, 1, 1]]), None)


def test_padding_is_left_out():
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0]])
    plan = make_plan(document_spans(2, 7, mask, None), 7, 4)
    cu_seqlens, longest, index = plan.shifted.boundaries("cpu")
    assert cu_seqlens.tolist() == [0, 2, 5, 8] and longest == 3
    assert index.tolist() == [2, 3, 4, 5, 6, 7, 8, 9]


def test_nothing_but_padding():
    plan = make_plan([[]], 5, 4)
    q = torch.randn(1, 2, 5, 8)
    for backend in IMPLEMENTATIONS.values():
        assert torch.equal(s2_attention(q, q, q, plan, backend=backend), torch.zeros(1, 5, 2, 8))


# ------------------------------------------------------------------ the choice of a backend


@pytest.mark.parametrize("name", ["flash_attn", "torch_varlen"])
def test_a_backend_that_cannot_be_used_is_refused_with_the_reason(name):
    q = torch.zeros(1, 2, 8, 8)
    with pytest.raises(UserError, match=f"{name} cannot be used: it needs a CUDA device") as refusal:
        choose(name, q, q, q)
    assert "auto" in refusal.value.remedy
    assert choose("auto", q, q, q).name == "sdpa" and choose("sdpa", q, q, q).name == "sdpa"
    with pytest.raises(UserError, match="unknown"):
        choose("xformers", q, q, q)


@pytest.mark.parametrize(
    "change,reason",
    [
        ({}, None),
        ({"dtype": torch.float32}, "bfloat16 or float16, not float32"),
        ({"width": 320}, "dimensions"),
        ({"width": 20}, "dimensions"),
        ({"dropout": 0.1}, "dropout"),
        ({"capability": (7, 5)}, "Ampere"),
        ({"load": ImportError("no such package")}, "cannot be imported .*no such package"),
    ],
)
def test_what_a_varlen_backend_declines(monkeypatch, change, reason):
    class OnCuda:
        """A tensor that says where it is; there is none here."""

        device = torch.device("cuda")
        dtype = change.get("dtype", torch.bfloat16)
        shape = (1, 2, 8, change.get("width", 64))

    def load():
        if "load" in change:
            raise change["load"]

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: change.get("capability", (8, 0)))
    why = varlen.Varlen("x", load, takes_dropout=False).why_not(OnCuda, OnCuda, OnCuda, change.get("dropout", 0.0))
    assert (why is None) if reason is None else re.search(reason, why)


def test_without_the_private_kernels_sdpa_computes(monkeypatch):
    q = torch.randn(1, 4, 40, 8)
    plan = make_plan([[Span(0, 40)]], 40, 16)
    expected = s2_attention(q, q, q, plan)
    monkeypatch.setattr(cpu, "FORWARD", "_no_such_kernel")
    cpu.available.cache_clear()
    try:
        assert not cpu.available()
        torch.testing.assert_close(s2_attention(q, q, q, plan), expected)
    finally:
        cpu.available.cache_clear()


def test_values_of_another_width_and_dropout_go_to_sdpa():
    """Latent attention has values narrower than its keys; dropout is not what the CPU kernel does."""
    torch.manual_seed(0)
    q, v = torch.randn(1, 4, 40, 12), torch.randn(1, 4, 40, 8)
    plan = make_plan([[Span(0, 40)]], 40, 16)
    out = s2_attention(q, q, v, plan)
    assert distance(out, attention(q, q, v, dense_mask([[(0, 40)]], 40, 4, 16, "split"))) < 1e-5
    with_dropout = s2_attention(q, q, q, plan, dropout=0.5)
    assert distance(with_dropout, s2_attention(q, q, q, plan)) > 0.1


def test_the_cpu_function_keeps_its_inputs_as_they_are():
    """Grouped keys are saved once, not once per query head, and bfloat16 is not saved as float32."""
    q, k = torch.randn(1, 9, 64, 8, dtype=torch.bfloat16), torch.randn(1, 3, 64, 8, dtype=torch.bfloat16)
    leaves = [x.requires_grad_() for x in (q, k, k.detach().clone())]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        cpu.attend(*leaves, [Part(0, 9, make_plan([[Span(0, 64)]], 64, None).straight)])
    large = [x for x in saved if x.ndim == 4]
    assert sum(x.numel() * x.element_size() for x in large) == 2 * 64 * 8 * (9 + 3 + 3 + 9)
