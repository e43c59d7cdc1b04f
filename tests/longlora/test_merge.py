"""The merged model is base + adapter, in one ordinary directory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from longlora.errors import UserError
from longlora.merge import MergeSettings, run
from longlora.merge.verify import VerificationError
from longlora.merge.weights import Adapter, Checkpoint, Merge
from longlora.merge.writer import Spec, shards, write_file, write_model
from longlora.rope import extend

EXTENDED = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def silent(event: str, **fields: object) -> None:
    pass


@pytest.fixture(scope="module", params=["tied", "untied"])
def base(request, tokenizer, tmp_path_factory) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=36, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=9, num_key_value_heads=3, head_dim=4, max_position_embeddings=256,
        tie_word_embeddings=request.param == "tied", bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp(f"base-{request.param}")
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def train(base, tmp_path_factory) -> Path:
    """A train output whose adapter changed everything it may: LoRA, embeddings, norms, RoPE."""
    from longlora.adapters import LoraSettings, add_adapters, save_adapter

    config = extend(AutoConfig.from_pretrained(base), 512)
    assert config.rope_parameters == EXTENDED
    model = AutoModelForCausalLM.from_pretrained(base, config=config, dtype=torch.bfloat16)
    adapted = add_adapters(model, LoraSettings(r=4, alpha=8), ("embed", "norm"))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    folder = tmp_path_factory.mktemp("train")
    save_adapter(adapted, folder / "adapter", base_name="tiny", info={"dataset": "d1g3st"})
    return folder


@pytest.fixture(scope="module")
def merged(base, train, tmp_path_factory) -> tuple[dict, Path]:
    work = tmp_path_factory.mktemp("merge")
    return run(MergeSettings(dtype="float32"), {"model": base, "train": train}, work, silent), work


def logits(model, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(ids).logits


def test_equals_base_plus_adapter(base, train, merged) -> None:
    from longlora.adapters import load_adapter

    metrics, work = merged
    config = AutoConfig.from_pretrained(train / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(base, config=config, dtype=torch.float32)
    ids = torch.randint(0, 49152, (2, 300), generator=torch.Generator().manual_seed(5))
    before = logits(AutoModelForCausalLM.from_pretrained(base, config=config, dtype=torch.float32), ids)
    expected = logits(load_adapter(plain, train / "adapter"), ids)
    found = logits(AutoModelForCausalLM.from_pretrained(work / "output/model", dtype=torch.float32), ids)
    assert (found - expected).abs().max() <= 1e-4
    assert (found - before).abs().max() > 0.1  # the adapter did change the model
    assert 0 <= metrics["logits_max_difference"] <= 1e-4
    assert metrics["context_length"] == 512


def test_is_an_ordinary_model(base, merged) -> None:
    metrics, work = merged
    folder = work / "output/model"
    config = json.loads((folder / "config.json").read_text())
    assert config["max_position_embeddings"] == 512
    assert config["rope_parameters"] == EXTENDED
    tied = json.loads((base / "config.json").read_text())["tie_word_embeddings"]
    names = set(load_file(folder / "model.safetensors"))
    assert ("lm_head.weight" in names) != tied
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert sum(p.numel() for p in model.parameters()) == metrics["parameters"]
    assert (folder / "model.safetensors").stat().st_size == metrics["bytes"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template
    prompt = tokenizer("A long document", return_tensors="pt")
    assert model.generate(**prompt, max_new_tokens=3, do_sample=False).shape[1] > prompt["input_ids"].shape[1]
    card = (folder / "README.md").read_text()
    assert f"| base model | {base.name} |" in card and "512 tokens" in card and "d1g3st" in card


def test_rounding_is_recorded_apart(base, train, tmp_path) -> None:
    metrics = run(MergeSettings(), {"model": base, "train": train}, tmp_path, silent)
    checks = json.loads((tmp_path / "output/verification.json").read_text())
    assert checks["exact"]["max_absolute"] <= 1e-4 and not checks["stored"]["not_identical"]
    assert checks["rounding"]["max_absolute"] > 1e-4 > checks["exact"]["max_absolute"]
    assert 0 < checks["rounding"]["mean_kl_nats"] < checks["training"]["mean_kl_nats"]
    with safe_open(tmp_path / "output/model/model.safetensors", "pt") as file:
        assert {file.get_slice(k).get_dtype() for k in file.keys()} == {"BF16"}  # noqa: SIM118
    assert json.loads((tmp_path / "output/model/config.json").read_text())["dtype"] == "bfloat16"
    assert metrics["bytes"] < 2.1 * metrics["parameters"]


def test_same_bytes_twice_and_again_is_harmless(base, train, tmp_path) -> None:
    settings = MergeSettings(max_shard_bytes=2_000_000)
    inputs = {"model": base, "train": train}
    first = run(settings, inputs, tmp_path / "a", silent)
    assert run(settings, inputs, tmp_path / "b", silent) == first
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a/output").rglob("*") if p.is_file())
    assert sum(p.suffix == ".safetensors" for p in files) > 1
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    changed = (tmp_path / "a/output/model/config.json").stat().st_mtime_ns
    assert run(settings, inputs, tmp_path / "a", silent) == first
    assert (tmp_path / "a/output/model/config.json").stat().st_mtime_ns == changed


def test_goes_on_after_a_kill(base, train, tmp_path) -> None:
    settings = MergeSettings(max_shard_bytes=2_000_000)
    inputs = {"model": base, "train": train}
    expected = run(settings, inputs, tmp_path / "whole", silent)
    for limit in (1, 15):
        work = tmp_path / f"killed-{limit}"

        def kill(event: str, limit: int = limit, **fields: int) -> None:
            if fields["done"] == limit:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(settings, inputs, work, kill)
        assert not (work / "output").exists()
        assert run(settings, inputs, work, silent) == expected
        for path in (tmp_path / "whole/output/model").iterdir():
            assert path.read_bytes() == (work / "output/model" / path.name).read_bytes()
    # between the model's rename and the verification's
    (work / "output/verification.json").unlink()
    assert run(settings, inputs, work, silent) == expected


def test_a_wrong_merge_is_found(base, train, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Adapter, "scale", lambda self, module, rank: 1.0)
    with pytest.raises(VerificationError, match="differ"):
        run(MergeSettings(), {"model": base, "train": train}, tmp_path, silent)
    assert not (tmp_path / "output").exists()
    assert json.loads((tmp_path / "verification.json").read_text())["passed"] is False


def test_a_shard_damaged_since_the_last_attempt_is_found(base, train, tmp_path) -> None:
    settings = MergeSettings(max_shard_bytes=2_000_000)
    inputs = {"model": base, "train": train}
    run(settings, inputs, tmp_path, silent)
    (tmp_path / "output/verification.json").unlink()
    shard = sorted((tmp_path / "output/model").glob("*.safetensors"))[-1]
    shard.write_bytes(shard.read_bytes()[:-4] + b"\x01\x3f\x01\x3f")
    with pytest.raises(VerificationError, match="stored wrong"):
        run(settings, inputs, tmp_path, silent)
    assert run(settings, inputs, tmp_path, silent)["parameters"]  # the damaged files are gone


def test_damaged_or_foreign_adapter(base, train, tmp_path) -> None:
    with pytest.raises(UserError, match="holds neither an adapter nor a model"):
        run(MergeSettings(), {"model": base, "train": tmp_path}, tmp_path / "w1", silent)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for path in (train / "adapter").iterdir():
        (adapter / path.name).write_bytes(path.read_bytes())
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {k.replace("layers.0", "layers.7"): v for k, v in weights.items()},
        adapter / "adapter_model.safetensors",
    )
    with pytest.raises(UserError, match=r"layers\.7.*does not have"):
        run(MergeSettings(), {"model": base, "train": tmp_path}, tmp_path / "w2", silent)
    whole = (train / "adapter/adapter_model.safetensors").read_bytes()
    (adapter / "adapter_model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        run(MergeSettings(), {"model": base, "train": tmp_path}, tmp_path / "w3", silent)


@pytest.mark.parametrize("options", [{"use_rslora": True}, {"use_dora": True}, {"alpha_pattern": {"v_proj": 3}}])
def test_weights_equal_peft(base, tmp_path, options) -> None:
    """Variants of LoRA, and embeddings and norms saved by PEFT itself, against PEFT's own merge."""
    from peft import LoraConfig, get_peft_model

    tied = AutoConfig.from_pretrained(base).tie_word_embeddings
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    peft = get_peft_model(
        model,
        LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj"],
                   modules_to_save=["embed_tokens", "input_layernorm", "norm"], ensure_weight_tying=tied,
                   **options),
    )  # fmt: skip
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in peft.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    peft.save_pretrained(tmp_path, save_embedding_layers=False)
    merge = Merge(Checkpoint(base), Adapter.read(tmp_path), {"lm_head.weight": "model.embed_tokens.weight"}, tied)
    expected = peft.merge_and_unload().state_dict()
    for name in merge.names:
        assert torch.allclose(merge.exact(name).float(), expected[name].float(), atol=1e-6), name


@pytest.mark.parametrize("options", [{}, {"use_dora": True}])
def test_folder_of_peft_alone_is_merged(base, tmp_path, options) -> None:
    """A whole merge, with its check, of an adapter that was not trained here: no config, no lineage."""
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    peft = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj"], **options))
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in peft.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    peft.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    metrics = run(MergeSettings(dtype="float32"), {"model": base, "train": tmp_path}, tmp_path / "work", silent)
    assert metrics["context_length"] == 256 and metrics["logits_max_difference"] <= 1e-4
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "work/output/model", dtype=torch.float32)
    ids = torch.randint(0, 49152, (1, 40), generator=torch.Generator().manual_seed(5))
    assert (logits(found, ids) - logits(peft, ids)).abs().max() <= 1e-4


def test_dynamic_rope_is_told_at_its_extended_length(base, tmp_path) -> None:
    """transformers wants the original window in max_position_embeddings there; people want the other."""
    from longlora.adapters import LoraSettings, add_adapters, save_adapter

    limited = shutil.copytree(base, tmp_path / "base")
    fields = json.loads((limited / "tokenizer_config.json").read_text())
    (limited / "tokenizer_config.json").write_text(json.dumps({**fields, "model_max_length": 256}))
    config = extend(AutoConfig.from_pretrained(limited), 1000, "dynamic")
    model = AutoModelForCausalLM.from_pretrained(limited, config=config)
    save_adapter(add_adapters(model, LoraSettings(r=4), ()), tmp_path / "train/adapter", base_name="tiny")
    metrics = run(MergeSettings(), {"model": limited, "train": tmp_path / "train"}, tmp_path / "work", silent)
    folder = tmp_path / "work/output/model"
    assert metrics["context_length"] == 1000
    assert json.loads((folder / "config.json").read_text())["max_position_embeddings"] == 256
    assert json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"] == 1000
    assert "1,000 tokens (base: 256)" in (folder / "README.md").read_text()


def test_finished_work_counts_for_its_own_inputs_only(base, train, tmp_path) -> None:
    """Settings, base or adapter changed: made anew, with a word, and equal to a fresh merge."""
    work, warnings = tmp_path / "work", []

    def report(event: str, **fields: str) -> None:
        if event == "warning":
            warnings.append(fields["message"])

    run(MergeSettings(), {"model": base, "train": train}, work, report)
    other = shutil.copytree(base, tmp_path / "other" / base.name)
    weights = load_file(other / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"] *= 2
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    adapter = shutil.copytree(train, tmp_path / "train")
    weights = load_file(adapter / "adapter/adapter_model.safetensors")
    weights["base_model.model.model.norm.weight"] *= 2
    save_file(weights, adapter / "adapter/adapter_model.safetensors", metadata={"format": "pt"})
    for n, (settings, model, trained) in enumerate(
        [
            (MergeSettings(dtype="float32"), base, train),
            (MergeSettings(dtype="float32"), other, train),
            (MergeSettings(dtype="float32"), other, adapter),
        ]
    ):
        inputs = {"model": model, "train": trained}
        run(settings, inputs, work, report)
        assert len(warnings) == n + 1 and "made anew" in warnings[-1]
        run(settings, inputs, tmp_path / f"fresh-{n}", silent)
        for path in (tmp_path / f"fresh-{n}/output/model").iterdir():
            assert path.read_bytes() == (work / "output/model" / path.name).read_bytes()


def test_bin_weights(base, tmp_path) -> None:
    torch.save(load_file(base / "model.safetensors"), tmp_path / "pytorch_model.bin")
    a, b = Checkpoint(base), Checkpoint(tmp_path)
    assert sorted(a.files) == sorted(b.files)
    for name in a.files:
        assert torch.equal(a.get(name), b.get(name))
        assert a.shape(name) == b.shape(name) and a.dtype(name) == b.dtype(name)


def test_writer_writes_what_safetensors_reads(tmp_path) -> None:
    tensors = {"a": torch.randn(3, 5), "b": torch.arange(7), "c": torch.randn(4, 4).to(torch.bfloat16)}
    specs = [Spec(n, list(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in tensors.items()]
    write_file(tmp_path / "x.safetensors", specs, tensors.__getitem__)
    found = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(found[n], t) for n, t in tensors.items())
    assert [len(g) for g in shards(specs, 60)] == [1, 1, 1]
    assert [len(g) for g in shards(specs, 116)] == [2, 1]
    write_model(tmp_path, specs, tensors.__getitem__, 60)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"]["c"] == "model-00003-of-00003.safetensors"
    with pytest.raises(ValueError, match="announced"):
        write_file(tmp_path / "y.safetensors", [Spec("a", [5, 3], "float32")], tensors.__getitem__)
    assert not (tmp_path / "y.safetensors").exists()
