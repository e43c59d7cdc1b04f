"""QLoRA: the base in NF4, what is trained in fp32, the merge on the base in full precision."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from longlora.adapters import parameter_report
from longlora.errors import UserError
from longlora.train.model import build_model, make_config
from longlora.train.settings import TrainSettings

bitsandbytes = pytest.importorskip("bitsandbytes")
IDS = torch.arange(3, 40)[None]
NF4 = {"quantize": "nf4", "lora": {"r": 4, "targets": "all-linear"}, "dtype": "float32"}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # bitsandbytes asks the hub for a CPU kernel


def built(folder, **options):
    settings = TrainSettings(**{**NF4, "device": "cpu", **options})
    config = make_config(folder, settings)
    config.s2_group_size = None
    return build_model(folder, config, settings)


def test_linear_layers_in_4_bits_the_rest_as_it_was(tiny_model_dir):
    model = built(tiny_model_dir, dtype="bfloat16", trainable=["embed"])
    base = model.get_base_model()
    layer = base.model.layers[0]
    linear = layer.mlp.up_proj.base_layer
    assert isinstance(linear, bitsandbytes.nn.Linear4bit) and linear.compute_dtype == torch.bfloat16
    state = linear.weight.quant_state
    assert state.quant_type == "nf4" and state.nested  # double quantisation
    assert not linear.weight.requires_grad
    assert layer.input_layernorm.weight.dtype == torch.float32 and not layer.input_layernorm.weight.requires_grad
    assert base.model.embed_tokens.weight.dtype == torch.float32 and base.model.embed_tokens.weight.requires_grad
    assert not isinstance(base.lm_head, bitsandbytes.nn.Linear4bit)


def test_frozen_embeddings_keep_their_dtype(tiny_model_dir):
    model = built(tiny_model_dir, dtype="bfloat16", trainable=["norm"])
    assert model.get_base_model().model.embed_tokens.weight.dtype == torch.bfloat16


def test_report_counts_what_the_bits_stand_for(tiny_model_dir):
    quantized = parameter_report(built(tiny_model_dir))
    plain = parameter_report(built(tiny_model_dir, quantize=None))
    assert quantized == plain


def test_near_the_base_and_differentiable(tiny_model_dir):
    from longlora.models import load_model

    model = built(tiny_model_dir)
    out = model(IDS, labels=IDS)
    with torch.no_grad():
        reference = load_model(tiny_model_dir, dtype="float32")(IDS).logits
    error = (out.logits - reference).norm() / reference.norm()
    assert 0 < error < 0.2  # four bits: not equal, not far
    out.loss.backward()
    gradients = [p.grad for n, p in model.named_parameters() if ".lora_B." in n]
    assert len(gradients) == 14 and all(g.abs().sum() > 0 for g in gradients)


@pytest.mark.parametrize("lora", [{"r": 4}, {"r": 4, "targets": "all-linear", "dora": True, "rslora": True}])
def test_trains_and_resumes_to_the_same_bytes(train, tmp_path, lora):
    options = {**NF4, "lora": lora, "optimizer": "paged_adamw", "max_steps": 3, "save_every_steps": 1}
    metrics, _ = train(tmp_path / "a", **options)
    assert metrics["last_loss"] < metrics["first_loss"]
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", stop_after=2, **options)
    resumed, _ = train(tmp_path / "b", **options)
    assert resumed["resumed_from"] == 1
    a, b = (load_file(tmp_path / x / "output/adapter/adapter_model.safetensors") for x in "ab")
    assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
    config = json.loads((tmp_path / "a/output/adapter/config.json").read_text())
    assert "quantization_config" not in config


def test_merges_onto_the_base_in_full_precision(train, tmp_path, tiny_model_dir):
    from longlora.merge.settings import MergeSettings
    from longlora.merge.stage import run
    from longlora.models import load_model

    train(tmp_path / "train", **NF4, max_steps=2)
    inputs = {"model": tiny_model_dir, "train": tmp_path / "train/output"}
    metrics = run(MergeSettings(dtype="float32"), inputs, tmp_path / "merge", lambda *a, **k: None)
    assert metrics["logits_max_difference"] <= 1e-4
    merged, base = (load_file(f / "model.safetensors") for f in (tmp_path / "merge/output/model", tiny_model_dir))
    name = "model.layers.0.mlp.up_proj.weight"
    assert merged.keys() == base.keys() and merged[name].dtype == base[name].dtype
    assert 0 < (merged[name] - base[name]).norm() < 0.2 * base[name].norm()  # what two steps at this rate move
    load_model(tmp_path / "merge/output/model", dtype="float32")


def test_a_quantized_base_is_refused(tiny_model_dir, tmp_path):
    import shutil

    folder = shutil.copytree(tiny_model_dir, tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="quantised already") as caught:
        built(folder)
    assert "full precision" in caught.value.remedy


@pytest.mark.parametrize(
    "options", [{"quantize": "nf4"}, {"optimizer": "paged_adamw"}, {"optimizer": "paged_adamw_8bit"}]
)
def test_without_bitsandbytes(options, monkeypatch, train, tmp_path):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "bitsandbytes" else find(n, *a))
    with pytest.raises(UserError, match="needs bitsandbytes") as caught:
        train(tmp_path, **options)
    assert "pip install" in caught.value.remedy


@pytest.mark.gpu
def test_on_a_gpu(train, tmp_path):
    metrics, _ = train(
        tmp_path, **{**NF4, "dtype": "bfloat16", "device": "cuda", "optimizer": "paged_adamw"}, max_steps=3
    )
    assert metrics["last_loss"] < metrics["first_loss"]
