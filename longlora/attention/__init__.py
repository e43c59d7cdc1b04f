"""Shifted sparse attention (S²-Attn, LongLoRA, arXiv 2309.12307, section 3.2) for transformers.

    attention.check(config)                        # before weights are loaded: refusals with their reason
    attention.register()                           # once per process
    config.s2_group_size = 2048                    # tokens; None: full attention, mask-free even when packed
    config.s2_backend = "auto"                     # or flash_attn, torch_varlen, sdpa
    model.set_attn_implementation("s2_attn")       # or s2_attn_wrap

Every segment is plain causal attention, so cost grows with L·g instead of L². Information crosses a boundary
of one half of the heads through the other half. ``s2_attn`` cuts a short first segment for the shifted half (as
the authors' flash code does) and leaks nothing; ``s2_attn_wrap`` rolls by g/2 as the paper does, which lets the
first g/2 tokens of the shifted heads see the last g/2: it is there for comparison. A document of at most g tokens
is cut by neither.

Outside training (``module.training`` is False) the attention is full, as LongLoRA evaluates.

plan.py      documents and segments           backends.py  the choice of kernels, s2_attention
heads.py     grouped queries                  sdpa.py, cpu.py, varlen.py  the kernels
hf.py        what transformers calls          check.py     which models can be trained so
"""

from longlora.attention.backends import BACKENDS, choose, s2_attention
from longlora.attention.check import TESTED, check, selftest
from longlora.attention.hf import (
    BACKEND_ATTRIBUTE,
    GROUP_ATTRIBUTE,
    NAME,
    WRAP_NAME,
    register,
    s2_attention_forward,
    s2_mask,
)
from longlora.attention.plan import Plan, Span, document_spans, group_tokens, make_plan, segments

__all__ = [
    "BACKENDS",
    "BACKEND_ATTRIBUTE",
    "GROUP_ATTRIBUTE",
    "NAME",
    "TESTED",
    "WRAP_NAME",
    "Plan",
    "Span",
    "check",
    "choose",
    "document_spans",
    "group_tokens",
    "make_plan",
    "register",
    "s2_attention",
    "s2_attention_forward",
    "s2_mask",
    "segments",
    "selftest",
]
