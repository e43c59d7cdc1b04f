"""RoPE scaling composes, keeps theta, and survives config files."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, LlamaForCausalLM

from longlora.errors import UserError
from longlora.rope import extend, hold_dynamic, settled, window
from longlora.train.model import make_config
from longlora.train.settings import TrainSettings


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
    # LongLoRA's and Vicuna's files keep the original length beside the factor; 4096 / 4 is no original window
    old = llama(rope_scaling={"type": "linear", "factor": 4.0})
    assert window(old) == 16384 and extend(old, 32768).rope_parameters["factor"] == 8
    # Llama 3.1: factor 8 is not the ratio of the lengths (16)
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    meta = llama(max_position_embeddings=131072, rope_scaling={**scaling, "original_max_position_embeddings": 8192})
    assert window(meta) == 131072 and extend(meta, 262144, "llama3").rope_parameters["factor"] == 16


@pytest.mark.parametrize(("base_window", "now", "factor"), [(4096, 16384, 8.0), (16384, 65536, 4.0)])
def test_linear_without_an_original_window_has_two_readings(base_window, now, factor, tmp_path):
    """LLaMA-2-7B-32K's convention and LongLoRA's: one answer settles it, for the adapter and the merged model too."""
    raised = llama(max_position_embeddings=16384, rope_scaling={"type": "linear", "factor": 4.0})
    for ask in (window, lambda config: extend(config, 32768)):
        with pytest.raises(UserError, match="16,384 tokens if that was 4,096, 65,536 if it was 16,384") as refused:
            ask(raised)
        assert "train.base_window to 4096 or 16384" in refused.value.remedy
    assert extend(raised, 8192).rope_parameters["factor"] == 4  # long enough either way
    config = settled(raised, base_window)
    assert window(config) == now and extend(config, 32768).rope_parameters["factor"] == factor
    assert extend(config, 131072).rope_parameters["factor"] == 131072 / base_window
    config.save_pretrained(tmp_path / "same")
    extend(config, 131072).save_pretrained(tmp_path / "longer")
    assert window(AutoConfig.from_pretrained(tmp_path / "same")) == now
    assert window(AutoConfig.from_pretrained(tmp_path / "longer")) == 131072
    (tmp_path / "config.json").write_text(raised.to_json_string())
    asked = TrainSettings(base_window=base_window, context_length=32768)
    assert make_config(tmp_path, asked).rope_parameters["factor"] == factor


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        (llama(max_position_embeddings=16384, rope_scaling={"type": "linear", "factor": 4.0}), 8192, "has factor 4"),
        (extend(llama(), 16384), 8192, "config says 4,096"),
        (llama(), 2048, "config says 4,096"),
        (extend(llama(), 16384, "dynamic"), 16384, "config says 4,096"),
    ],
)
def test_a_base_window_that_cannot_be_is_refused(config, given, message):
    with pytest.raises(UserError, match=message):
        settled(config, given)


def test_a_base_window_that_is_known_already_changes_nothing():
    for config in (extend(llama(), 16384), extend(llama(), 16384, "yarn"), extend(llama(), 16384, "dynamic")):
        assert settled(config, 4096).to_dict() == config.to_dict()


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


def neox(**kwargs):
    small = {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 8,
        "vocab_size": 16,
        "rotary_pct": 0.5,
        "max_position_embeddings": 4096,
    }
    return GPTNeoXConfig(**{**small, **kwargs})


@pytest.mark.parametrize("make", [llama, neox])
@pytest.mark.parametrize("method", ["linear", "dynamic", "yarn", "llama3"])
@pytest.mark.parametrize("extended_before", [False, True])
def test_round_trip_through_an_adapter(method, make, extended_before, tmp_path):
    """Frequencies and logits at the new length are the same after save_adapter, reload and plain transformers."""
    from longlora.adapters import LoraSettings, add_adapters, load_adapter, save_adapter

    config = extend(make(), 8192, method) if extended_before else make()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    new = extend(AutoConfig.from_pretrained(tmp_path / "base"), 16384, method)
    assert new.rope_parameters["factor"] == 4 and window(new) == 16384
    model = add_adapters(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base", config=new), LoraSettings(r=2), ("norm",)
    )
    save_adapter(model, tmp_path / "adapter")
    again = AutoConfig.from_pretrained(tmp_path / "adapter")
    assert again.rope_parameters == new.rope_parameters and window(again) == 16384
    assert again.max_position_embeddings == new.max_position_embeddings
    loaded = load_adapter(AutoModelForCausalLM.from_pretrained(tmp_path / "base", config=again), tmp_path / "adapter")
    positions = torch.tensor([[0, 1, 5000, 16383]])  # dynamic RoPE looks at the largest
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        a, b = (m.eval()(ids, position_ids=positions, use_cache=False).logits for m in (model, loaded))
    assert torch.equal(a, b) and torch.isfinite(a).all()
    slowest = [rotary(m).inv_freq[-1] for m in (loaded, AutoModelForCausalLM.from_config(make()))]
    assert slowest[0] < slowest[1]  # what makes far positions familiar
    assert len(rotary(loaded).inv_freq) == 4  # llama: half of a head of 8; gpt_neox: of the rotated half of 16


def rotary(model):
    return next(m for m in model.modules() if hasattr(m, "inv_freq"))


def test_an_attention_factor_of_the_old_scale_is_dropped(caplog):
    """YaRN's temperature follows the factor: an explicit one of factor 2 would stay when the factor becomes 8."""
    scaling = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 4096}
    plain = llama(max_position_embeddings=8192, rope_scaling=scaling)
    explicit = llama(max_position_embeddings=8192, rope_scaling={**scaling, "attention_factor": 1.07})
    assert explicit.rope_parameters["attention_factor"] == 1.07
    a, b = (extend(c, 32768, "yarn") for c in (plain, explicit))
    assert a.rope_parameters == b.rope_parameters and b.rope_parameters["factor"] == 8
    assert "attention_factor" in caplog.text
    scale = LlamaForCausalLM(b).model.rotary_emb.attention_scaling
    assert scale == pytest.approx(0.1 * math.log(8) + 1)
    assert extend(explicit, 8192, "yarn").rope_parameters["attention_factor"] == 1.07  # nothing changes: it stays


@pytest.mark.parametrize("make", [llama, neox])
def test_dynamic_is_held_while_training(make):
    """No document's length changes another's frequencies; at the full length they are those of inference."""
    torch.manual_seed(0)
    config = extend(make(max_position_embeddings=32), 128, "dynamic")
    free, held = (AutoModelForCausalLM.from_config(config).eval() for _ in range(2))
    held.load_state_dict(free.state_dict())
    assert hold_dynamic(held, 128) and not hold_dynamic(held, 128)
    ids = torch.arange(128)[None] % 16
    with torch.no_grad():
        torch.testing.assert_close(held(ids).logits, free(ids).logits)
        short = held(ids[:, :20]).logits  # after a long one: transformers would have gone back
        torch.testing.assert_close(held(ids).logits[:, :20], short)
    assert held.config.rope_parameters["rope_type"] == "dynamic"  # what is saved


def test_other_rope_is_not_held():
    model = LlamaForCausalLM(extend(llama(), 8192, "yarn"))
    before = model.model.rotary_emb.inv_freq.clone()
    assert not hold_dynamic(model, 8192) and torch.equal(model.model.rotary_emb.inv_freq, before)
