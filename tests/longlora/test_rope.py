"""RoPE scaling composes, keeps theta, and survives config files."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, GPTNeoXConfig, LlamaConfig, LlamaForCausalLM

from longlora.errors import UserError
from longlora.rope import extend, window


def llama(**kwargs):
    small = {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_hidden_layers": 1,
        "intermediate_size": 8,
        "vocab_size": 16,
    }
    return LlamaConfig(**{**small, "max_position_embeddings": 4096, "rope_theta": 5e5, **kwargs})


def test_factors_multiply():
    once = extend(llama(), 16384, "linear")
    twice = extend(once, 32768, "linear")
    assert once.rope_parameters["factor"] == 4 and twice.rope_parameters["factor"] == 8
    assert twice.rope_parameters["rope_theta"] == 5e5 and twice.max_position_embeddings == 32768
    assert twice.original_max_position_embeddings == 4096 and window(twice) == 32768


@pytest.mark.parametrize("length", [1001, 1003, 3999])
def test_window_is_the_length_asked_for(length):
    """The factor is a rounded quotient: 500 * (1001 / 500) is a little below 1001."""
    assert window(extend(llama(max_position_embeddings=500), length, "dynamic")) == length


@pytest.mark.parametrize("method", ["linear", "dynamic", "yarn", "llama3"])
def test_composes_through_files_and_models(method, tmp_path):
    config = extend(llama(), 16384, method)
    config.save_pretrained(tmp_path)
    again = extend(AutoConfig.from_pretrained(tmp_path), 32768, method)
    assert again.rope_parameters["factor"] == 8 and again.rope_parameters["rope_type"] == method
    assert window(again) == 32768
    LlamaForCausalLM(again).save_pretrained(tmp_path)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.rope_parameters == again.rope_parameters
    torch.testing.assert_close(loaded.model.rotary_emb.inv_freq, LlamaForCausalLM(again).model.rotary_emb.inv_freq)
    assert torch.isfinite(loaded(torch.arange(8)[None]).logits).all()


def test_position_interpolation_divides_frequencies():
    plain, extended = llama(), extend(llama(), 6144, "linear")
    a, b = (LlamaForCausalLM(c).model.rotary_emb.inv_freq for c in (plain, extended))
    torch.testing.assert_close(b, a / 1.5)


def test_long_enough_is_left_alone():
    config = llama()
    same = extend(config, 4096, "linear")
    assert same.rope_parameters == config.rope_parameters and same is not config


def test_longlora_and_llama3_conventions():
    # LongLoRA's and Vicuna's files keep the original length beside the factor
    old = llama(rope_scaling={"type": "linear", "factor": 4.0})
    assert window(old) == 16384 and extend(old, 32768).rope_parameters["factor"] == 8
    # Llama 3.1: factor 8 is not the ratio of the lengths (16)
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    meta = llama(max_position_embeddings=131072, rope_scaling={**scaling, "original_max_position_embeddings": 8192})
    assert window(meta) == 131072 and extend(meta, 262144, "llama3").rope_parameters["factor"] == 16


def test_other_methods_on_top_are_refused():
    with pytest.raises(UserError, match="yarn"):
        extend(extend(llama(), 8192, "yarn"), 16384, "linear")


def test_gpt_neox_keeps_its_partial_rotation():
    config = GPTNeoXConfig(
        hidden_size=32,
        num_attention_heads=2,
        num_hidden_layers=1,
        rotary_pct=0.25,
        max_position_embeddings=2048,
    )
    new = extend(config, 8192, "linear")
    assert new.rope_parameters["partial_rotary_factor"] == config.rope_parameters["partial_rotary_factor"] == 0.25
    assert new.rope_parameters["factor"] == 4
