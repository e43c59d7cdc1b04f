"""lora: null: every parameter trains, in fp32, and the output is a model."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from longlora.adapters import parameter_groups, parameter_report
from longlora.errors import UserError
from longlora.train.model import build_model, check_head, check_settings, make_config
from longlora.train.settings import TrainSettings

FULL = {"lora": None, "learning_rate": 1e-3}
IDS = torch.arange(3, 40)[None]


def built(folder, **options):
    settings = TrainSettings(**{"lora": None, "device": "cpu", **options})
    config = make_config(folder, settings)
    config.s2_group_size = None
    return build_model(folder, config, settings)


@pytest.fixture(scope="module")
def bf16_base(tiny_model_dir, tmp_path_factory):
    """The tiny model in bfloat16, as published models are."""
    import shutil

    from longlora.models import load_model

    folder = shutil.copytree(tiny_model_dir, tmp_path_factory.mktemp("bf16") / "base")
    load_model(folder, dtype="bfloat16").save_pretrained(folder)
    return folder


def test_everything_is_trained_in_fp32_and_belongs_to_a_group(bf16_base):
    model = built(bf16_base, dtype="bfloat16")
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    groups = {g.name: g.count for g in parameter_groups(model)}
    assert groups.keys() == {"embed", "norm", "base"} and groups["norm"] == 5 * 72
    report = parameter_report(model)
    assert report["share"] == 1 and report["total"] == sum(groups.values()) and report["tied"]


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt_neox"])
def test_residual_stream_stays_in_bfloat16(architecture):
    """Qwen3's norms on queries and keys too: attention takes one dtype."""
    from test_adapters import small

    from longlora.adapters import train_whole

    model = train_whole(small(architecture), torch.bfloat16)
    seen = []
    for layer in model.base_model.layers:
        layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(IDS, labels=IDS).loss
    loss.backward()
    assert seen == [torch.bfloat16] * 2
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_learns_and_resumes_to_the_same_bits(train, tmp_path):
    options = {**FULL, "max_steps": 6, "save_every_steps": 2, "weight_decay": 0.01}
    straight, _ = train(tmp_path / "a", **options)
    assert straight["last_loss"] < straight["first_loss"] - 0.3
    assert set(straight["trainable_parameters"]) == {"embed", "norm", "base"}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", stop_after=5, **options)
    resumed, _ = train(tmp_path / "b", **options)
    assert resumed["resumed_from"] == 4 and resumed["last_loss"] == straight["last_loss"]
    a, b = (load_file(tmp_path / x / "output/model/model.safetensors") for x in "ab")
    assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
    assert (tmp_path / "a/output/model/config.json").read_bytes() == (
        tmp_path / "b/output/model/config.json"
    ).read_bytes()
    assert not (tmp_path / "a/output/adapter").exists()


def test_output_is_the_trained_model(train, tmp_path, tiny_model_dir):
    from transformers import AutoModelForCausalLM

    train(tmp_path, **FULL, max_steps=2, context_length=1024, row_tokens=96)
    folder = tmp_path / "output/model"
    config = json.loads((folder / "config.json").read_text())
    assert config["max_position_embeddings"] == 1024 and config["rope_parameters"]["factor"] == 2
    assert config["use_cache"] and "s2_group_size" not in config and config["tie_word_embeddings"]
    lineage = json.loads((folder / "longfolio.json").read_text())
    assert lineage["context_length"] == 1024 and lineage["settings"]["lora"] is None
    weights, base = load_file(folder / "model.safetensors"), load_file(tiny_model_dir / "model.safetensors")
    assert weights.keys() == base.keys()
    assert all(t.dtype == torch.float32 and not torch.equal(t, base[n].float()) for n, t in weights.items())
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.isfinite(model(IDS).logits).all()


def test_merge_takes_every_tensor_from_it(train, tmp_path, bf16_base):
    from longlora.merge.stage import _ties
    from longlora.merge.weights import Checkpoint, Merge
    from longlora.merge.whole import read_trained, trained_folder

    train(tmp_path, model=bf16_base, **FULL, max_steps=2)
    folder = trained_folder(tmp_path / "output")
    assert folder.name == "model"
    config = json.loads((folder / "config.json").read_text())
    merge = Merge(Checkpoint(bf16_base), read_trained(folder), *_ties(config))
    trained = load_file(folder / "model.safetensors")
    assert set(merge.names) == set(trained)
    assert all(torch.equal(merge.exact(n), t) and merge.dtype(n) == "bfloat16" for n, t in trained.items())


@pytest.mark.parametrize("dtype", ["base", "float32"])
def test_merged_model_is_the_trained_one(train, tmp_path, bf16_base, dtype):
    from longlora.merge.settings import MergeSettings
    from longlora.merge.stage import run
    from longlora.models import load_model

    train(tmp_path / "train", model=bf16_base, **FULL, max_steps=2, context_length=1024, row_tokens=96)
    inputs = {"model": bf16_base, "train": tmp_path / "train/output"}
    metrics = run(MergeSettings(dtype=dtype), inputs, tmp_path / "merge", lambda *a, **k: None)
    assert metrics["context_length"] == 1024 and metrics["logits_max_difference"] == 0
    folder = tmp_path / "merge/output/model"
    merged, trained = load_file(folder / "model.safetensors"), load_file(inputs["train"] / "model/model.safetensors")
    stored = torch.bfloat16 if dtype == "base" else torch.float32
    assert merged.keys() == trained.keys()
    assert all(torch.equal(t, trained[n].to(stored)) for n, t in merged.items())
    assert (folder / "tokenizer.json").is_file() and "none" in (folder / "README.md").read_text()
    load_model(folder, dtype="float32")


@pytest.mark.parametrize("given", ["output", "output/model"])
def test_merge_alone_takes_it(train, tmp_path, bf16_base, given):
    from longlora.merge.alone import merge_alone
    from longlora.merge.settings import MergeSettings

    train(tmp_path / "train", model=bf16_base, **FULL, max_steps=1, context_length=1024, row_tokens=96)
    metrics = merge_alone(
        MergeSettings(dtype="float32"), tmp_path / "train" / given, str(bf16_base), tmp_path / "out", silent
    )
    assert metrics["context_length"] == 1024 and metrics["logits_max_difference"] == 0
    merged = load_file(tmp_path / "out/output/model/model.safetensors")
    trained = load_file(tmp_path / "train/output/model/model.safetensors")
    assert merged.keys() == trained.keys() and all(torch.equal(t, trained[n]) for n, t in merged.items())


def test_merge_alone_refuses_what_was_not_trained(tmp_path, bf16_base):
    from longlora.merge.alone import merge_alone
    from longlora.merge.settings import MergeSettings

    (tmp_path / "file").write_text("")
    for given, cause in (
        (bf16_base, "has no adapter_config"),
        (tmp_path / "no", "not exist"),
        (tmp_path / "file", "a file"),
    ):
        with pytest.raises(UserError, match=cause) as refused:
            merge_alone(MergeSettings(), given, str(bf16_base), tmp_path / "out", silent)
        assert "model/" in refused.value.remedy


def silent(*_, **__) -> None: ...


def test_an_adapter_folder_is_read_as_before(train, tmp_path):
    from longlora.merge.whole import read_trained, trained_folder

    train(tmp_path, max_steps=1)
    adapter = read_trained(trained_folder(tmp_path / "output"))
    assert adapter.pairs and adapter.config["r"] == 8
    with pytest.raises(UserError, match="neither"):
        read_trained(tmp_path)


# ------------------------------------------------------------------ what cannot work


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"lora": None, "quantize": "nf4"}, "nothing else to train"),
        ({"lora": None, "loraplus_lr_ratio": 4}, "train.lora is null"),
        ({"lora": None, "learning_rates": {"B": 1e-4}}, "learning_rates.B"),
        ({"lora": None, "learning_rates": {"A": 1e-4}}, "learning_rates.A"),
        ({"loraplus_lr_ratio": 4, "learning_rates": {"B": 1e-4}}, "both set the rate of B"),
        ({"quantize": "nf4", "strategy": "zero3"}, "cannot share out 4-bit"),
    ],
)
def test_combinations_are_refused_before_anything_is_read(options, cause, tmp_path):
    settings = TrainSettings(**options)
    with pytest.raises(UserError, match=cause) as caught:
        make_config(tmp_path / "no-model", settings)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "options",
    [{}, {"loraplus_lr_ratio": 4, "learning_rates": {"A": 1e-4}}, {"lora": None, "learning_rates": {"embed": 1e-4}}],
)
def test_sound_combinations_pass(options):
    check_settings(TrainSettings(**options))


def tiny(kind: str, **kwargs):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=64, hidden_size=32, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, **kwargs,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "phi3"])
def test_a_plain_head_passes(kind):
    check_head(tiny(kind, **({"pad_token_id": 0} if kind == "phi3" else {})))


@pytest.mark.parametrize(
    ("kind", "kwargs"),
    [
        ("granite", {"logits_scaling": 8.0}),
        ("gemma2", {"final_logit_softcapping": 30.0, "head_dim": 16}),
        ("cohere", {"logit_scale": 0.06, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}),
    ],
)
def test_logits_beyond_the_head_are_found_without_their_names(kind, kwargs):
    with pytest.raises(UserError, match="logits are not its output head's alone"):
        check_head(tiny(kind, **kwargs))


def test_states_changed_before_the_head_are_found():
    model = tiny("llama")
    head = model.lm_head
    model.lm_head.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    assert head is model.get_output_embeddings()
    with pytest.raises(UserError, match="logits"):
        check_head(model)
