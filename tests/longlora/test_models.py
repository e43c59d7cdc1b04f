"""Base models become ordinary directories; broken ones are refused in words."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from longlora import models
from longlora.errors import UserError
from longlora.inference import answer
from longlora.models import ModelSettings, embedded_file, load_model, load_tokenizer, model_files, prepare


def test_settings_accept_a_bare_name() -> None:
    assert ModelSettings.model_validate("smollm2-135m-q4").name == "smollm2-135m-q4"
    with pytest.raises(ValueError, match="either"):
        ModelSettings()


def test_embedded_model_is_converted_once(smollm2_dir) -> None:
    config = json.loads((smollm2_dir / "config.json").read_text())
    assert config["rms_norm_eps"] == 1e-5  # in the GGUF file as the float32 9.99999974e-06
    assert config["rope_parameters"] == {"rope_theta": 100000.0, "rope_type": "default"}
    assert (config["max_position_embeddings"], config["tie_word_embeddings"]) == (8192, True)
    assert prepare(ModelSettings(name="smollm2-135m-q4"), smollm2_dir.parent) == smollm2_dir
    weights = load_file(smollm2_dir / "model.safetensors")
    assert len(weights) == 272 and {t.dtype for t in weights.values()} == {torch.bfloat16}
    assert "lm_head.weight" not in weights


def test_embedded_model_is_converted_anew_for_other_content(tmp_path, monkeypatch) -> None:
    """Two releases under one file name and of one size are two models."""
    gguf = tmp_path / "SmolLM2.gguf"
    monkeypatch.setattr(models, "embedded_file", lambda name: gguf)

    def convert(source, target, report):
        target.mkdir(parents=True)
        (target / "config.json").write_bytes(source.read_bytes())

    monkeypatch.setattr(models, "_convert", convert)
    settings, folders = ModelSettings(name="smollm2-135m-q4"), []
    for content in (b"old!", b"new!", b"old!"):
        gguf.write_bytes(content)
        folders.append(prepare(settings, tmp_path / "cache"))
        assert (folders[-1] / "config.json").read_bytes() == content
    assert folders[0] == folders[2] != folders[1]


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_hub_weights_are_fetched_in_one_format(tiny_model_dir, tmp_path, monkeypatch, weights) -> None:
    """``.bin`` only where the repository has no safetensors."""
    hub = {p.name for p in tiny_model_dir.iterdir()} - {"model.safetensors"} | {weights, "pytorch_model.bin"}
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()

    def download(repo, *, revision, allow_patterns):
        assert (repo, revision) == ("owner/model", "v1")
        for name in hub:
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                source = tiny_model_dir / name
                shutil.copyfile(source if source.exists() else tiny_model_dir / "config.json", snapshot / name)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    found = {p.name for p in model_files(ModelSettings(name="owner/model", revision="v1"))}
    assert {n for n in found if n.endswith((".safetensors", ".bin"))} == {weights}
    assert {"config.json", "tokenizer.json"} <= found


def test_embedded_tokenizer_cuts_like_the_original(tokenizer) -> None:
    """Each digit alone, and split off before white space is grouped (llama.cpp, pre-tokenizer "smollm")."""
    assert tokenizer.tokenize("\n\n12 a  3") == ["ĊĊ", "1", "2", "Ġa", "ĠĠ", "3"]
    text = "Fig. 3: 12,5 %\n\n- naïve “x”\t中文 <|im_end|>"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text and tokenizer.eos_token_id == ids[-1] == 2
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.startswith("<|im_start|>system") and chat.endswith("<|im_start|>assistant\n")


@pytest.mark.slow
def test_conversion_equals_that_of_transformers(smollm2_dir) -> None:
    from transformers import AutoModelForCausalLM

    gguf = embedded_file("smollm2-135m-q4")
    theirs = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    ours = load_file(smollm2_dir / "model.safetensors")
    state = theirs.state_dict()
    assert all(torch.equal(state[name].to(torch.bfloat16), tensor) for name, tensor in ours.items())


@pytest.mark.slow
def test_embedded_model_answers(smollm2_dir) -> None:
    pieces: list[str] = []
    text = answer(smollm2_dir, "What is the capital of France?", max_new_tokens=24, stream=pieces.append)
    assert "Paris" in text and "".join(pieces) == text and len(pieces) > 2


def test_answer_streams_what_it_returns(tiny_model_dir) -> None:
    pieces: list[str] = []
    text = answer(tiny_model_dir, "Hello", max_new_tokens=12, dtype="float32", device="cpu", stream=pieces.append)
    assert "".join(pieces) == text
    sampled = [
        answer(tiny_model_dir, "Hello", max_new_tokens=8, temperature=1.0, seed=s, dtype="float32", device="cpu")
        for s in (1, 1, 2)
    ]
    assert sampled[0] == sampled[1] != sampled[2]


def test_unreadable_directories_are_refused_before_a_run(tiny_model_dir, tmp_path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(UserError, match=match) as error:
            model_files(ModelSettings(path=folder))
        assert error.value.remedy

    folder = tmp_path / "model"
    refused("does not exist")
    shutil.copytree(tiny_model_dir, folder)
    names = {p.name for p in model_files(ModelSettings(path=folder))}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    refused("bytes instead of")
    weights.write_bytes(b"<!DOCTYPE html><html>" * 99)
    refused("not a safetensors file")
    weights.write_bytes(b"")
    refused("not a safetensors file")
    weights.unlink()
    refused("no \\*.safetensors")
    weights.write_bytes(whole)
    (folder / "tokenizer.json").unlink()
    refused("no tokenizer")
    (folder / "config.json").write_text("{")
    refused("cannot be read")
    (folder / "config.json").unlink()
    refused("no config.json")


def test_missing_weights_are_not_drawn_at_random(tiny_model_dir, tmp_path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="tokenizer"):
        load_tokenizer(folder)


def test_a_tokenizer_alone_needs_no_torch_and_is_the_one_that_auto_tokenizer_gives(tiny_model_dir) -> None:
    """A process that only counts tokens starts in a third of the time."""
    from transformers import AutoTokenizer

    code = f"""
import sys
from pathlib import Path
from longlora.models import load_tokenizer
print(load_tokenizer(Path({str(tiny_model_dir)!r}))("It isn't 1,024 tokens.")["input_ids"], "torch" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    auto = AutoTokenizer.from_pretrained(str(tiny_model_dir), local_files_only=True)
    expected = auto("It isn't 1,024 tokens.")["input_ids"]
    assert ran.stdout.strip() == f"{expected} False", ran.stderr


@pytest.mark.parametrize("named", [{"tokenizer_class": "PreTrainedTokenizerFast"}, {}, None])
def test_a_directory_that_names_another_tokenizer_class_or_none_gives_the_same_tokens(
    named, tiny_model_dir, tmp_path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    file = folder / "tokenizer_config.json"
    kept = json.loads(file.read_text())
    del kept["tokenizer_class"]
    file.write_text(json.dumps(kept | named)) if named is not None else file.unlink()
    text = "Rows of 1,024 tokens."
    assert load_tokenizer(folder)(text)["input_ids"] == load_tokenizer(tiny_model_dir)(text)["input_ids"]


def test_a_model_type_that_auto_tokenizer_gives_a_class_of_its_own_keeps_it(tiny_model_dir, tmp_path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "qwen2"}))
    assert type(load_tokenizer(folder)).__name__ == "Qwen2Tokenizer"
