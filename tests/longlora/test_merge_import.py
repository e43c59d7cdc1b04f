"""Adapters in the layouts that LongLoRA and LongQLoRA released become ours, or are refused with the reason."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from tiny_models import WORDS, logits, save_base, silent
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from longlora.errors import UserError
from longlora.merge import MergeSettings
from longlora.merge.alone import merge_alone
from longlora.merge.importer import import_released

PREFIX = "base_model.model."
# As peft 0.4 wrote it.
RELEASED = {
    "auto_mapping": None, "base_model_name_or_path": "/home/somebody/Llama-2-7b-hf", "bias": "none",
    "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True, "layers_pattern": None,
    "layers_to_transform": None, "lora_alpha": 16, "lora_dropout": 0.0, "modules_to_save": None, "peft_type": "LORA",
    "r": 4, "revision": None, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"], "task_type": "CAUSAL_LM",
    "enable_lora": None,
}  # fmt: skip
IDS = torch.randint(3, WORDS, (1, 100), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module", params=["untied", "tied"])
def base(request, tmp_path_factory) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "llama", "llama", tie_word_embeddings=request.param == "tied")


@pytest.fixture(scope="module")
def untied(tmp_path_factory) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "llama", "llama", tie_word_embeddings=False)


def lora_tensors(base: Path) -> dict[str, torch.Tensor]:
    """Matrices of every attention layer, by their names in the model."""
    draw = torch.Generator().manual_seed(2)
    found = {}
    for name, weight in AutoModelForCausalLM.from_pretrained(base).state_dict().items():
        if "self_attn" in name:
            module = name.removesuffix(".weight")
            found[f"{module}.lora_A.weight"] = torch.randn(4, weight.shape[1], generator=draw) * 0.1
            found[f"{module}.lora_B.weight"] = torch.randn(weight.shape[0], 4, generator=draw) * 0.1
    return found


def full_tensors(base: Path, rows: int = WORDS + 1) -> dict[str, torch.Tensor]:
    """Embedding (with a row for [PAD]) and norms, as ``--trainable_params embed,norm`` leaves them."""
    draw = torch.Generator().manual_seed(3)
    found = {}
    for name, weight in AutoModelForCausalLM.from_pretrained(base).state_dict().items():
        if "embed" in name:
            found[name] = torch.randn(rows, weight.shape[1], generator=draw)
        elif "norm" in name:
            found[name] = 1 + 0.1 * torch.randn(weight.shape, generator=draw)
    return found


def release(
    folder: Path, lora: dict[str, torch.Tensor], full: dict[str, torch.Tensor] | None, *, lora_prefix: str = PREFIX,
    full_prefix: str = "",
) -> Path:  # fmt: skip
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(RELEASED))
    torch.save({lora_prefix + name: tensor for name, tensor in lora.items()}, folder / "adapter_model.bin")
    if full is not None:
        torch.save({full_prefix + name: t.half() for name, t in full.items()}, folder / "trainable_params.bin")
    return folder


def expected_model(base: Path, lora: dict, full: dict, factor: float, rows: int | None = None):
    """What LongLoRA's scripts compute, plainly: resize, load, W + (alpha / r) B A; RoPE with their factor."""
    config = AutoConfig.from_pretrained(base)
    config.rope_parameters = {**config.rope_parameters, "rope_type": "linear", "factor": factor}
    model = AutoModelForCausalLM.from_pretrained(base, config=config, dtype=torch.float32)
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
        head = model.get_output_embeddings().weight.data
        head[-1] = head[:-1].mean(0)
    state = model.state_dict()
    for name, tensor in full.items():
        state[name].copy_(tensor.half().float())
    for name in lora:
        if ".lora_A." in name:
            weight = name.replace(".lora_A", "")
            state[weight] += 4.0 * lora[name.replace("lora_A", "lora_B")] @ lora[name]
    return model


def merged(adapter: Path, base: Path, work: Path, length: int):
    metrics = merge_alone(MergeSettings(dtype="float32"), adapter, str(base), work, silent, context_length=length)
    return metrics, work / "output/model"


@pytest.mark.parametrize("prefixes", [(PREFIX, ""), ("", PREFIX), (PREFIX, PREFIX), ("", "")], ids=str)
def test_longlora(base, tmp_path, prefixes) -> None:
    """Embeddings, norms and [PAD], names with and without the prefix."""
    lora, full = lora_tensors(base), full_tensors(base)
    folder = release(tmp_path / "released", lora, full, lora_prefix=prefixes[0], full_prefix=prefixes[1])
    (folder / "training_args.bin").write_bytes(b"not of tensors")
    (folder / "pytorch_model.bin").write_bytes(b"what zero_to_fp32.py left, whole or not")
    metrics, model = merged(folder, base, tmp_path / "work", 128)
    found = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    expected = logits(expected_model(base, lora, full, 2.0, WORDS + 1), IDS)
    assert (logits(found, IDS) - expected).abs().max() <= 1e-4
    config = json.loads((model / "config.json").read_text())
    assert config["vocab_size"] == WORDS + 1 and config["max_position_embeddings"] == 128
    assert config["rope_parameters"]["rope_type"] == "linear" and config["rope_parameters"]["factor"] == 2
    assert metrics["context_length"] == 128
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert tokenizer.pad_token == "[PAD]" and tokenizer.pad_token_id == WORDS and len(tokenizer) == WORDS + 1
    lineage = json.loads((model / "longfolio.json").read_text())
    assert set(lineage["released"]) == {"adapter_config.json", "adapter_model.bin", "trainable_params.bin"}


@pytest.mark.parametrize("full", [None, {}, "empty file"], ids=["missing", "no tensors", "empty file"])
def test_longqlora_with_lora_alone(untied, tmp_path, full) -> None:
    lora, warnings = lora_tensors(untied), []
    folder = release(tmp_path / "released", lora, None if full == "empty file" else full)
    if full == "empty file":
        (folder / "trainable_params.bin").touch()

    def report(event: str, **fields: str) -> None:
        if event == "warning":
            warnings.append(fields["message"])

    settings = MergeSettings(dtype="float32")
    merge_alone(settings, folder, str(untied), tmp_path / "work", report, context_length=128)
    assert len(warnings) == 1 and "trainable_params.bin" in warnings[0]
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "work/output/model", dtype=torch.float32)
    assert (logits(found, IDS) - logits(expected_model(untied, lora, {}, 2.0), IDS)).abs().max() <= 1e-4
    assert found.config.vocab_size == WORDS


def test_the_factor_is_rounded_up_as_the_release_does(untied, tmp_path) -> None:
    """100k on a window of 4k was trained with factor 25, not 24.4."""
    folder = release(tmp_path / "released", lora_tensors(untied), full_tensors(untied))
    metrics, model = merged(folder, untied, tmp_path / "work", 100)
    config = json.loads((model / "config.json").read_text())
    assert config["rope_parameters"]["factor"] == 2 and config["max_position_embeddings"] == 100
    assert metrics["context_length"] == 100


def test_same_files_give_the_same_bytes(untied, tmp_path) -> None:
    folder = release(tmp_path / "released", lora_tensors(untied), full_tensors(untied))
    a, b = (import_released(folder, untied, tmp_path / name, context_length=128) for name in "ab")
    assert sorted(p.name for p in a.iterdir()) == sorted(p.name for p in b.iterdir())
    assert all(path.read_bytes() == (b / path.name).read_bytes() for path in a.iterdir())


def _without_a_layer(lora: dict, full: dict) -> None:
    for name in [n for n in lora if "layers.1" in n]:
        del lora[name]


def _of_a_deeper_model(lora: dict, full: dict) -> None:
    full["model.layers.7.input_layernorm.weight"] = torch.ones(32)


def _cut_names(lora: dict, full: dict) -> None:
    full["mbed_tokens.weight"] = full.pop("model.embed_tokens.weight")


def _of_a_wider_model(lora: dict, full: dict) -> None:
    full["model.norm.weight"] = torch.ones(48)


def _another_rank(lora: dict, full: dict) -> None:
    name = next(n for n in lora if "lora_A" in n)
    lora[name] = torch.zeros(8, lora[name].shape[1])


def _two_more_tokens(lora: dict, full: dict) -> None:
    full["model.embed_tokens.weight"] = torch.zeros(WORDS + 2, 32)


def _no_pairs(lora: dict, full: dict) -> None:
    lora.clear()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_without_a_layer, r"lacks model\.layers\.1"),
        (_of_a_deeper_model, r"layers\.7\.input_layernorm.*no parameter of that name"),
        (_cut_names, r"mbed_tokens\.weight.*no parameter of that name"),
        (_of_a_wider_model, r"model\.norm\.weight has shape \[48\], the base needs \[32\]"),
        (_another_rank, r"lora_A\.weight has shape \[8, 32\], the base needs \[4, 32\]"),
        (_two_more_tokens, r"67 rows, the tokenizer 65 tokens"),
        (_no_pairs, "no LoRA matrices"),
    ],
)
def test_what_does_not_fit_is_refused(untied, tmp_path, change, reason) -> None:
    lora, full = lora_tensors(untied), full_tensors(untied)
    change(lora, full)
    folder = release(tmp_path / "released", lora, full)
    with pytest.raises(UserError, match=reason) as caught:
        import_released(folder, untied, tmp_path / "out", context_length=128)
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_a_pickle_that_runs_code_is_not_run(untied, tmp_path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    folder = release(tmp_path / "released", lora_tensors(untied), None)
    torch.save({"model.norm.weight": Evil()}, folder / "trainable_params.bin")
    with pytest.raises(UserError, match=r"trainable_params\.bin cannot be read"):
        import_released(folder, untied, tmp_path / "out", context_length=128)
    assert not (tmp_path / "ran").exists()


def test_context_length_is_never_guessed(untied, tmp_path) -> None:
    folder = release(tmp_path / "released", lora_tensors(untied), None)
    with pytest.raises(UserError, match="does not say the context length"):
        merge_alone(MergeSettings(), folder, str(untied), tmp_path / "work", silent)
    ours = import_released(folder, untied, tmp_path / "ours", context_length=128)
    with pytest.raises(UserError, match=r"is 256, but .* says 128"):
        merge_alone(MergeSettings(), ours, str(untied), tmp_path / "work", silent, context_length=256)


def command(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)], capture_output=True, text=True, cwd=cwd, check=False
    )


@pytest.mark.parametrize("program", [("flows.cli", "merge"), ("longlora.merge",)], ids=str)
def test_command_line(untied, tmp_path, program) -> None:
    """Exit codes, one JSON object on stdout, messages with a remedy on stderr."""
    release(tmp_path / "released", lora_tensors(untied), full_tensors(untied))
    base = shutil.copytree(untied, tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: llama2\nlanguage: en\n---\n# A base\n")
    arguments = (*program, "released", "--base", "base", "--out", "out")
    json_ = ("--json",) if program[0] == "flows.cli" else ()
    missing = command(*arguments, *json_, cwd=tmp_path)
    assert missing.returncode == 2 and "--context-length" in missing.stderr, missing.stderr
    assert "Traceback" not in missing.stderr and not missing.stdout
    done = command(*arguments, "--context-length", "128", *json_, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["context_length"] == 128 and result["logits_max_difference"] <= 1e-4
    card = ModelCard.load(Path(result["model"]) / "README.md")
    assert card.data.license == "llama2" and card.data.pipeline_tag == "text-generation"
    (tmp_path / "file").write_text("kept")
    file = command(*arguments[:-1], "file", "--context-length", "128", *json_, cwd=tmp_path)
    assert file.returncode == 2 and "--out file is a file" in file.stderr and "Traceback" not in file.stderr
    assert (tmp_path / "file").read_text() == "kept"
    wrong = command(*arguments, "--context-length", "128", "--set", "dtype=int8", *json_, cwd=tmp_path)
    assert wrong.returncode == 2 and "dtype" in wrong.stderr
    (tmp_path / "out/output/verification.json").unlink()  # as if it had been stopped before the end
    weights = Path(result["model"]) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x01\x3f\x01\x3f")
    damaged = command(*arguments, "--context-length", "128", *json_, cwd=tmp_path)
    assert damaged.returncode == 1 and "stored wrong" in damaged.stderr, damaged.stderr
    if program[0] == "flows.cli":
        assert "longfolio merge released --base base --out out --context-length 128" in damaged.stderr
