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
    load_trained_state,
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
    model = small(architecture)
    config = model.config
    norms = role_modules(model, "norm")
    assert len(norms) == 5 and not any("q_norm" in n or "k_norm" in n for n in norms)
    assert len(role_modules(model, "embed")) == 1 and len(role_modules(model, "head")) == 1
    groups = {g.name for g in parameter_groups(add_adapters(model, LoraSettings(), ("embed", "norm", "head")))}
    assert groups == {"A", "B", "embed", "norm", *(() if config.tie_word_embeddings else ("head",))}


def test_unknown_target_names_the_valid_ones(base_dir):
    with pytest.raises(UserError, match="query_key_value") as caught:
        add_adapters(load_base(base_dir(True)), LoraSettings(targets=("query_key_value",)))
    assert "q_proj" in caught.value.remedy and "gate_proj" in caught.value.remedy


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (("q_proj", "down_proj"), {"q_proj", "down_proj"}),
        (("self_attn.q_proj", "layers.1.mlp.up_proj"), {"q_proj", "up_proj"}),
        ("all-linear", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        (r".*layers\.1\..*_proj", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_targets_by_name_expression_and_all(targets, expected, tied, base_dir, tmp_path):
    from peft import PeftModel

    folder = base_dir(tied)
    model = add_adapters(load_base(folder), LoraSettings(targets=targets), ())
    adapted = {n.split(".lora_A")[0] for n in trained_state(model) if ".lora_A" in n}
    assert {n.rpartition(".")[2] for n in adapted} == expected
    if isinstance(targets, str) and targets != "all-linear":
        assert all(".layers.1." in n for n in adapted)
    disturb(model)
    save_adapter(model, tmp_path / "adapter")
    with torch.no_grad():
        expected_logits = model.eval()(IDS).logits
        assert torch.equal(load_adapter(load_base(folder), tmp_path / "adapter")(IDS).logits, expected_logits)
        theirs = PeftModel.from_pretrained(load_base(folder), tmp_path / "adapter").eval()
        torch.testing.assert_close(theirs(IDS).logits, expected_logits)


@pytest.mark.parametrize(
    ("targets", "what", "remedy"),
    [
        ("q_proj", "fits no module path", "q_proj"),
        (".*", "not linear", "narrow"),
        (r".*_proj|lm_head", "the output head", "head"),
        (("mlp",), "is called mlp", "all-linear"),
    ],
)
def test_targets_that_fit_nothing_or_too_much(targets, what, remedy, base_dir):
    with pytest.raises(UserError, match=what) as caught:
        add_adapters(load_base(base_dir(False)), LoraSettings(targets=targets))
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("targets", ["*_proj", ()])
def test_settings_refuse_targets(targets):
    with pytest.raises(ValueError):
        LoraSettings(targets=targets)


@pytest.mark.parametrize("options", [{"rslora": True}, {"dora": True}, {"rslora": True, "dora": True}])
def test_rslora_and_dora_are_pefts(options, base_dir, tmp_path):
    from peft import PeftModel

    folder = base_dir(True)
    model = add_adapters(load_base(folder), LoraSettings(r=4, alpha=8, **options), ("embed", "norm"))
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == (4 if options.get("rslora") else 2)
    disturb(model)
    save_adapter(model, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["use_rslora"] == options.get("rslora", False) and config["use_dora"] == options.get("dora", False)
    names = set(load_file(tmp_path / "adapter/adapter_model.safetensors"))
    assert any(n.endswith("q_proj.lora_magnitude_vector") for n in names) == options.get("dora", False)
    with torch.no_grad():
        expected = model.eval()(IDS).logits
        assert torch.equal(load_adapter(load_base(folder), tmp_path / "adapter")(IDS).logits, expected)
        theirs = PeftModel.from_pretrained(load_base(folder), tmp_path / "adapter").eval()
        torch.testing.assert_close(theirs(IDS).logits, expected)


def test_magnitudes_are_trained_with_a(base_dir):
    groups = {g.name: g for g in parameter_groups(add_adapters(load_base(base_dir(True)), LoraSettings(dora=True), ()))}
    assert set(groups) == {"A", "B"}
    assert sum("magnitude" in n for n in groups["A"].parameters) == len(groups["B"].parameters) == 8


@pytest.mark.parametrize("missing", ["lora_B", "embed_tokens", "norm", "magnitude"])
def test_a_state_that_lacks_a_trained_tensor_is_refused(missing, base_dir):
    model = add_adapters(load_base(base_dir(True)), LoraSettings(dora=True), ("embed", "norm"))
    state = trained_state(model)
    name = next(n for n in state if missing in n)
    with pytest.raises(UserError, match=name.replace("[", ".")):
        load_trained_state(model, {n: t for n, t in state.items() if n != name})


# ------------------------------------------------------------------ the residual stream in bfloat16


def residuals(model) -> list[torch.dtype]:
    """Of the hidden states between layers and before the head, filled when the model runs."""
    seen: list[torch.dtype] = []
    backbone = model.get_base_model().base_model
    for layer in backbone.layers:
        layer.register_forward_pre_hook(lambda module, args, kwargs: seen.append(args[0].dtype), with_kwargs=True)
    backbone.register_forward_hook(lambda module, args, output: seen.append(output[0].dtype))
    return seen


def gradients(model, compute) -> dict[str, torch.Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=compute == torch.bfloat16):
        loss = model(IDS, labels=IDS).loss
    loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("options", [{}, {"dora": True}])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt_neox"])
def test_residual_stream_stays_in_the_compute_dtype(architecture, options):
    """And the gradients are those of float32, as near as bfloat16 arithmetic comes."""
    models = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = add_adapters(
            small(architecture).to(dtype), LoraSettings(targets="all-linear", **options), ("embed", "norm")
        )
        disturb(model)
        models[dtype] = model
    reference = gradients(models[torch.float32], torch.float32)
    seen = residuals(models[torch.bfloat16])
    found = gradients(models[torch.bfloat16], torch.bfloat16)
    assert seen == [torch.bfloat16] * 3
    assert found.keys() == reference.keys() and all(g.dtype == torch.float32 for g in found.values())
    scale = torch.cat([g.flatten() for g in reference.values()]).norm()
    difference = torch.cat([(found[n] - reference[n]).flatten() for n in reference]).norm()
    assert difference / scale < 0.03


def small(architecture: str):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    kwargs = {"num_key_value_heads": 2, "head_dim": 8} if architecture != "gpt_neox" else {}
    config = AutoConfig.for_model(
        architecture, vocab_size=64, hidden_size=32, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=4, **kwargs,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


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
