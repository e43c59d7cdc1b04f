"""Operations of a step: against the attended pairs of a mask, torch's own counter, and the figures of the analysis."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longlora import attention
from longlora.flops import PEAKS, Shape, Work, attended_pairs, measure_peak, peak_of

LLAMA2_7B = Shape(32, 4096, 32, 32, 128, 11008, 32000, 4 * 4096 * 4096, 3 * 4096 * 11008)
LLAMA31_8B = Shape(32, 4096, 32, 8, 128, 14336, 128256, 2 * 4096 * 128 * (32 + 8), 3 * 4096 * 14336)

# Tokens; share of full attention's pairs with g = L/4 and g = 2,048 (wrap) and without wrap; per cent that attention
# is of the forward pass (7B, 8B); forward pass of S² to full attention for L/4 (7B, 8B) and 2,048 (7B, 8B);
# speed-up of a LoRA step with checkpointing (7B) for L/4 and 2,048. From an independent derivation.
TABLE = [
    (8192, 0.250, 0.2345, 0.250, 0.2345, (14.0, 12.5), (0.895, 0.906), (0.895, 0.906), (1.17, 1.17)),
    (16384, 0.250, 0.2344, 0.125, 0.121, (24.5, 22.2), (0.816, 0.833), (0.785, 0.805), (1.33, 1.40)),
    (32768, 0.250, 0.2344, 0.0625, 0.0616, (39.4, 36.4), (0.705, 0.727), (0.631, 0.659), (1.59, 1.86)),
    (65536, 0.250, 0.2344, 0.0313, 0.0310, (56.5, 53.4), (0.576, 0.600), (0.452, 0.483), (1.98, 2.78)),
    (100352, 0.250, 0.2344, 0.0204, 0.0203, (66.6, 63.7), (0.501, 0.522), (0.348, 0.376), (2.28, 3.76)),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row[0]))
def test_table_of_the_analysis(row):
    length, quarter_wrap, quarter, fixed_wrap, fixed, shares, quarter_forward, fixed_forward, speed_up = row
    full = attended_pairs([length], None, 32)
    expected = {(length // 4, True): quarter_wrap, (length // 4, False): quarter, (2048, True): fixed_wrap,
                (2048, False): fixed}  # fmt: skip
    for (group, wrap), share in expected.items():
        assert attended_pairs([length], group, 32, wrap=wrap) / full == pytest.approx(share, abs=2e-4)
    for i, shape in enumerate((LLAMA2_7B, LLAMA31_8B)):
        dense = Work(shape, recomputed=0).step([length])
        # forward alone: a third of the linear work (two of backward where trained is not), 1 of 3.5 of attention
        linear, pairs = (dense.linear + dense.head) / 2, dense.attention / 3.5
        assert 100 * pairs / (linear + pairs) == pytest.approx(shares[i], abs=0.06)
        for group, ratios in ((length // 4, quarter_forward), (2048, fixed_forward)):
            sparse = Work(shape, group=group, wrap=True, recomputed=0).step([length]).attention / 3.5
            assert (linear + sparse) / (linear + pairs) == pytest.approx(ratios[i], abs=1e-3)
    step = Work(LLAMA2_7B, head_recomputed=1).step([length]).total
    for group, ratio in zip((length // 4, 2048), speed_up, strict=True):
        sparse = Work(LLAMA2_7B, group=group, wrap=True, head_recomputed=1).step([length]).total
        assert step / sparse == pytest.approx(ratio, abs=6e-3)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.one_of(st.none(), st.integers(1, 24)),
    st.integers(1, 9),
)
def test_pairs_are_those_of_the_attention(documents, group, heads):
    """Counted in the outputs: with one-hot values, what is not zero was looked at."""
    from types import SimpleNamespace

    length = sum(documents)
    module: Any = SimpleNamespace(training=True, is_causal=True, config=SimpleNamespace(s2_group_size=group))
    positions = torch.cat([torch.arange(n) for n in documents])[None]
    scores = torch.zeros(1, heads, length, length)  # queries and keys: all alike, as wide as the values
    value = torch.eye(length).expand(1, heads, length, length).contiguous()
    out, _ = attention.s2_attention_forward(module, scores, scores, value, None, position_ids=positions)
    assert int((out > 0).sum()) == attended_pairs(documents, group, heads)  # out: (1, L, H, L)


def test_wrap_has_whole_groups_only():
    # 16 tokens, groups of 4: rolled heads have four triangles of 4, unrolled ones too
    assert attended_pairs([16], 4, 2, wrap=True) == 2 * 4 * 10
    assert attended_pairs([16], 4, 2) == 4 * 10 + (3 * 10 + 2 * 3)


def configs():
    import transformers as t

    small = {
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "vocab_size": 130,
    }
    grouped = {**small, "num_key_value_heads": 2}
    return [
        t.LlamaConfig(**grouped, tie_word_embeddings=False),
        t.MistralConfig(**grouped),
        t.Qwen2Config(**grouped),
        t.Qwen3Config(**grouped, head_dim=16),
        t.GPTNeoXConfig(**small),
    ]


@pytest.mark.parametrize("config", configs(), ids=lambda c: c.model_type)
def test_shape_counts_the_linear_layers(config):
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    shape = Shape.of(config)
    assert shape.linear == sum(m.weight.numel() for m in linear)
    assert shape.head == head.weight.numel()


def test_mixture_of_experts_is_not_counted():
    from transformers import MixtralConfig

    with pytest.raises(ValueError, match="mixture of experts"):
        Shape.of(MixtralConfig())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("attention_name", ["s2_attn", "full"])
def test_a_real_step_does_the_operations_that_are_counted(checkpointing, lora, attention_name):
    """torch counts matrix products (not its CPU attention kernel): layers, LoRA, head; with all recomputation."""
    from torch.utils.checkpoint import set_checkpoint_early_stop
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import LlamaConfig, LlamaForCausalLM

    from longlora.adapters import LoraSettings, add_adapters
    from longlora.train.loss import supervised_loss
    from longlora.train.metrics import step_flops, work_of
    from longlora.train.settings import TrainSettings

    config = LlamaConfig(
        vocab_size=300, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, tie_word_embeddings=True, use_cache=False,
    )  # fmt: skip
    attention.register()
    setattr(config, attention.GROUP_ATTRIBUTE, 16 if attention_name == "s2_attn" else None)
    base = LlamaForCausalLM._from_config(config, attn_implementation=attention.NAME)
    settings = TrainSettings(
        attention=attention_name, group=16, gradient_checkpointing=checkpointing, global_batch_size=1,
        **({} if lora else {"lora": None}),
    )  # fmt: skip
    model = add_adapters(base, LoraSettings(), ("embed", "norm")) if lora else base
    if checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    base.train()
    length = 64
    ids = torch.arange(length)[None] % 300
    labels = ids.clone()
    labels[:, :11] = -100  # the head sees 53 positions
    in_place = {torch.ops.aten.addmm_: lambda out, a, b, **more: 2 * a[0] * a[1] * b[1]}  # torch knows addmm only
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter, set_checkpoint_early_stop(False):
        hidden = base.model(input_ids=ids, use_cache=False).last_hidden_state
        supervised_loss(hidden, labels, base.lm_head).backward()
    counted = counter.get_flop_counts()["Global"]
    products = sum(n for op, n in counted.items() if str(op) in ("aten.mm", "aten.addmm", "aten.addmm_"))

    from longlora.train.data import Sample

    work = work_of(model, settings)
    row = [Sample("a", ids[0].numpy(), labels[0].numpy())]
    flops = work.step([length], 53)
    assert products == flops.linear + flops.head
    assert step_flops(work, [row]) == flops.total
    assert (
        work.head_trained
        and work.layers_trained == (not lora)
        and work.lora == (0 if not lora else sum(p.numel() for n, p in model.named_parameters() if "lora_" in n))
    )


def test_parts_add_up():
    work = Work(LLAMA2_7B, group=2048, lora=8_388_608, head_recomputed=1)
    flops = work.step([8192, 100, 3000], 5000)
    assert flops.total == flops.linear + flops.attention + flops.head
    plain = Work(LLAMA2_7B, group=2048, lora=8_388_608, recomputed=0).step([8192, 100, 3000], 5000)
    assert flops.model == plain.total and plain.recomputed == 0
    twice = Work(LLAMA2_7B, group=2048, lora=8_388_608, recomputed=2).step([8192, 100, 3000], 5000)
    once = Work(LLAMA2_7B, group=2048, lora=8_388_608, recomputed=1).step([8192, 100, 3000], 5000)
    assert twice.total - once.total == pytest.approx(once.total - plain.total)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIE"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA H200", "H200"),
        ("h200 nvl", "H200 NVL"),
        ("Tesla T4", None),
    ],
)
def test_devices_by_the_names_that_torch_gives(name, key):
    assert peak_of(name) == (PEAKS[key] if key else None)


def test_measuring_a_cpu_draws_no_random_numbers():
    before = torch.get_rng_state()
    assert measure_peak("cpu", "float32", seconds=0.01) > 1e8
    assert torch.equal(before, torch.get_rng_state())
