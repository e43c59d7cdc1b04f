"""Each parameter group has its own rate and decay, whatever kind of AdamW runs."""

from __future__ import annotations

import pytest
import torch

from longlora.adapters import LoraSettings, add_adapters, parameter_groups, train_whole
from longlora.train.optimizer import make_optimizer
from longlora.train.settings import TrainSettings


def llama(**kwargs):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, **kwargs,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def adapted(**lora):
    return add_adapters(llama(), LoraSettings(**lora), ("embed", "norm", "head"))


def rates(model, **settings) -> dict[str, set[float]]:
    found: dict[str, set[float]] = {}
    for group in make_optimizer(model, TrainSettings(**settings)).param_groups:
        found.setdefault(group["name"], set()).add(group["lr"])
    return found


def test_rates_of_groups():
    own = {"embed": 1e-5, "B": 3e-4}
    assert rates(adapted(), learning_rate=1e-4, learning_rates=own) == {
        "A": {1e-4}, "B": {3e-4}, "embed": {1e-5}, "norm": {1e-4}, "head": {1e-4},
    }  # fmt: skip


@pytest.mark.parametrize("dora", [False, True])
def test_loraplus_raises_b_alone(dora):
    """PEFT's helper would give norms and DoRA's magnitudes B's rate."""
    found = rates(adapted(dora=dora), learning_rate=1e-4, learning_rates={"A": 2e-4}, loraplus_lr_ratio=16)
    assert found == {"A": {2e-4}, "B": {2e-4 * 16}, "embed": {1e-4}, "norm": {1e-4}, "head": {1e-4}}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("kind", ["adamw", "paged_adamw", "paged_adamw_8bit"])
def test_every_trained_parameter_once_and_no_vector_decays(whole, kind):
    pytest.importorskip("bitsandbytes")
    model = train_whole(llama(attention_bias=True), torch.float32) if whole else adapted(dora=True)
    optimizer = make_optimizer(model, TrainSettings(optimizer=kind, weight_decay=0.1))
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, listed)) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    for group in optimizer.param_groups:
        assert all((p.ndim >= 2) == (group["weight_decay"] == 0.1) for p in group["params"])
    assert {g["name"] for g in optimizer.param_groups} == {g.name for g in parameter_groups(model)}


@pytest.mark.parametrize("kind", ["paged_adamw", "paged_adamw_8bit"])
def test_paged_optimizers_step_as_adamw_does(kind):
    pytest.importorskip("bitsandbytes")
    ids = torch.arange(32)[None]
    ends = {}
    for name in ("adamw", kind):
        model = adapted(r=8)
        before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        optimizer = make_optimizer(model, TrainSettings(optimizer=name, learning_rate=1e-3))
        for _ in range(3):
            model(ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        ends[name] = torch.cat([(p - before[n]).flatten() for n, p in model.named_parameters() if n in before]).detach()
    difference = (ends[kind] - ends["adamw"]).norm() / ends["adamw"].norm()
    assert difference < (1e-3 if kind == "paged_adamw" else 0.1)


def test_embeddings_keep_their_state_in_full():
    pytest.importorskip("bitsandbytes")
    model = adapted(r=128)  # matrices above bitsandbytes' least size for 8 bits
    optimizer = make_optimizer(model, TrainSettings(optimizer="paged_adamw_8bit"))
    ids = torch.arange(32)[None]
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    dtypes: dict[str, set[torch.dtype]] = {}
    for group in optimizer.param_groups:
        dtypes.setdefault(group["name"], set()).update(
            optimizer.state[p]["state1"].dtype for p in group["params"] if p.numel() >= 4096
        )
    assert dtypes["B"] == {torch.uint8} and dtypes["embed"] == dtypes["head"] == {torch.float32}
