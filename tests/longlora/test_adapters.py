"""Trained embeddings and norms beside LoRA: which, grouped how, saved and loaded exactly; tied heads stay
tied."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from longlora.adapters import (
    LoraSettings,
    add_adapters,
    is_tied,
    load_adapter,
    parameter_groups,
    parameter_report,
    role_modules,
    save_adapter,
    trained_state,
)
from longlora.errors import UserError
from longlora.rope import extend

IDS = torch.arange(3, 40)[None]


def llama(tied: bool, seed: int = 0, **kwargs):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=64, hidden_size=24, intermediate_size=16, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=3, max_position_embeddings=128, tie_word_embeddings=tied, **kwargs,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def disturb(model) -> None:
    """Stands for training: move every trainable tensor."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * 0.1)


@pytest.fixture
def base_dir(tmp_path):
    def make(tied: bool):
        llama(tied).save_pretrained(tmp_path / "base")
        return tmp_path / "base"

    return make


def load_base(folder, config=None, dtype=torch.float32):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **({"config": config} if config else {}))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("trainable", [("embed", "norm"), ("norm",), ("embed", "norm", "head"), ()])
def test_save_and_load_give_the_same_logits(tied, trainable, base_dir, tmp_path):
    from transformers import AutoConfig

    folder = base_dir(tied)
    config = extend(AutoConfig.from_pretrained(folder), 256)
    model = add_adapters(load_base(folder, config), LoraSettings(), trainable)
    disturb(model)
    save_adapter(model, tmp_path / "adapter")
    with torch.no_grad():
        expected = model.eval()(IDS).logits

        ours = load_adapter(load_base(folder, AutoConfig.from_pretrained(tmp_path / "adapter")), tmp_path / "adapter")
        assert torch.equal(ours(IDS).logits, expected)
        assert is_tied(ours.get_base_model()) == tied

        from peft import PeftModel  # the layout is PEFT's own

        theirs = PeftModel.from_pretrained(load_base(folder, config), tmp_path / "adapter").eval()
        torch.testing.assert_close(theirs(IDS).logits, expected)


def test_tied_embedding_trains_both_ends(base_dir):
    model = add_adapters(load_base(base_dir(True)), LoraSettings(), ("embed",))
    base = model.get_base_model()
    before = model(IDS).logits
    # A token that is not in the input: only through the output head can its row have a gradient.
    absent = 63
    before[0, :, absent].sum().backward()
    embedding = base.get_input_embeddings().weight
    assert embedding.grad[absent].abs().sum() > 0 and embedding.grad[3].abs().sum() > 0
    with torch.no_grad():
        embedding[absent] += 1
    assert not torch.equal(model(IDS).logits[..., absent], before[..., absent])
    assert base.lm_head.weight is embedding


def test_untied_head_is_left_alone(base_dir):
    model = add_adapters(load_base(base_dir(False)), LoraSettings(), ("embed",))
    assert not model.get_base_model().lm_head.weight.requires_grad


def test_trained_parts_are_float32_on_a_bf16_base(base_dir):
    model = add_adapters(load_base(base_dir(True), dtype=torch.bfloat16), LoraSettings(), ("embed", "norm"))
    assert all((p.dtype == torch.float32) == p.requires_grad for p in model.parameters())


def test_groups_and_report(base_dir):
    model = add_adapters(load_base(base_dir(False)), LoraSettings(r=4), ("embed", "norm", "head"))
    groups = {g.name: g for g in parameter_groups(model)}
    assert list(groups) == ["A", "B", "embed", "norm", "head"]
    assert groups["norm"].count == 5 * 24 and groups["embed"].count == groups["head"].count == 64 * 24
    assert groups["A"].count == groups["B"].count == 2 * 4 * 4 * 24
    listed = [id(p) for g in groups.values() for p in g.parameters.values()]
    assert sorted(listed) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    report = parameter_report(model)
    assert report["trainable"] == sum(g.count for g in groups.values()) and not report["tied"]


@pytest.mark.parametrize("architecture", ["qwen3", "gpt_neox", "mistral"])
def test_roles_by_architecture(architecture):
    from transformers import AutoConfig, AutoModelForCausalLM

    kwargs = {"num_key_value_heads": 2, "head_dim": 8} if architecture != "gpt_neox" else {}
    config = AutoConfig.for_model(
        architecture, vocab_size=64, hidden_size=32, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=4, **kwargs,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    norms = role_modules(model, "norm")
    assert len(norms) == 5 and not any("q_norm" in n or "k_norm" in n for n in norms)
    assert len(role_modules(model, "embed")) == 1 and len(role_modules(model, "head")) == 1
    groups = {g.name for g in parameter_groups(add_adapters(model, LoraSettings(), ("embed", "norm", "head")))}
    assert groups == {"A", "B", "embed", "norm", *(() if config.tie_word_embeddings else ("head",))}


def test_unknown_target_names_the_valid_ones(base_dir):
    with pytest.raises(UserError, match="query_key_value") as caught:
        add_adapters(load_base(base_dir(True)), LoraSettings(targets=("query_key_value",)))
    assert "q_proj" in caught.value.remedy and "gate_proj" in caught.value.remedy


def test_folder_layout_and_bytes(base_dir, tmp_path):
    model = add_adapters(load_base(base_dir(True)), LoraSettings(), ("embed", "norm"))
    for name in ("a", "b"):
        save_adapter(model, tmp_path / name, base_name="tiny", info={"context_length": 128})
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    weights = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert "base_model.model.model.embed_tokens.weight" in weights
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in weights
    head, embedding = (weights[f"base_model.model.{n}.weight"] for n in ("lm_head", "model.embed_tokens"))
    assert torch.equal(head, embedding)  # as PEFT has it
    longfolio = json.loads((tmp_path / "a" / "longfolio.json").read_text())
    assert longfolio["context_length"] == 128 and "base_model.model.model.norm.weight" in longfolio["trained"]
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny"
    assert "s2_group_size" not in json.loads((tmp_path / "a" / "config.json").read_text())
    assert set(weights) - set(trained_state(model)) == {"base_model.model.lm_head.weight"}


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"modules_to_save": ["embed_tokens", "norm"]}])
def test_folder_of_peft_alone(base_dir, tmp_path, options):
    """No config.json there, and DoRA's vectors under PEFT's own name."""
    from peft import LoraConfig, get_peft_model

    folder = base_dir(False)
    theirs = get_peft_model(load_base(folder), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], **options))
    disturb(theirs)
    theirs.save_pretrained(tmp_path / "peft", save_embedding_layers=False)
    assert not (tmp_path / "peft/config.json").exists()
    with torch.no_grad():
        ours = load_adapter(load_base(folder), tmp_path / "peft")
        assert torch.equal(ours(IDS).logits, theirs.eval()(IDS).logits)


def test_wrong_base_is_refused(base_dir, tmp_path):
    from transformers import AutoConfig

    folder = base_dir(True)
    config = extend(AutoConfig.from_pretrained(folder), 256)
    save_adapter(add_adapters(load_base(folder, config), LoraSettings()), tmp_path / "adapter")
    with pytest.raises(UserError, match="rope_parameters"):
        load_adapter(load_base(folder), tmp_path / "adapter")
    other = llama(True)
    other.config = config
    other.resize_token_embeddings(70)
    with pytest.raises(UserError, match="does not fit"):
        load_adapter(other, tmp_path / "adapter")
