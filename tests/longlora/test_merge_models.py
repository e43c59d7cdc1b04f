"""Every architecture and every RoPE through train's adapter folder, merge, and plain transformers in a new process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import logits, save_base, shake, silent
from transformers import AutoConfig, AutoModelForCausalLM

from longlora.adapters import LoraSettings, add_adapters, load_adapter, save_adapter
from longlora.merge import MergeSettings, run
from longlora.rope import extend

# Of the base, what it is extended to and how, and the factor that comes out.
ROPES = {
    "linear": ({}, 128, "linear", 2.0),
    "dynamic": ({}, 128, "dynamic", 2.0),
    "yarn": ({}, 128, "yarn", 2.0),
    "llama3": ({}, 128, "llama3", 2.0),
    "extended": ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, 256, "linear", 4.0),
}
CASES = [
    ("llama", True, "linear"), ("llama", False, "llama3"), ("llama", False, "extended"),
    ("mistral", False, "yarn"), ("mistral", True, "linear"),
    ("qwen2", True, "dynamic"), ("qwen2", False, "linear"),
    ("qwen3", True, "yarn"), ("qwen3", False, "linear"),
    ("gpt_neox", False, "linear"), ("gpt_neox", True, "yarn"), ("gpt_neox", False, "dynamic"),
    ("mixtral", False, "linear"),
]  # fmt: skip
IDS = torch.randint(3, 65, (1, 100), generator=torch.Generator().manual_seed(5))  # past the base's 64 positions
FRESH = """
import json, sys
for name in ("longlora", "flows", "peft"):
    sys.modules[name] = None  # an import of it fails
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
ids = torch.tensor(json.loads(sys.argv[1]))
found = {}
for folder in sys.argv[2:]:
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    prompt = AutoTokenizer.from_pretrained(folder)("A LONG ONE", return_tensors="pt")
    prompt.pop("token_type_ids", None)
    with torch.inference_mode():
        written = model.generate(**prompt, max_new_tokens=4, min_new_tokens=4, do_sample=False)
        total = model(ids).logits[0].double()
    found[folder] = {"written": written.shape[1] - prompt["input_ids"].shape[1], "logits": total.tolist(),
                     "missing": sorted(info["missing_keys"]), "unexpected": sorted(info["unexpected_keys"])}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def merged(tmp_path_factory) -> dict[tuple[str, bool, str], dict]:
    """For each case: the folders, the merge's metrics, and the logits of base + adapter."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    done = {}
    for case in CASES:
        kind, tied, rope = case
        changes, length, method, _ = ROPES[rope]
        root = tmp_path_factory.mktemp(f"{kind}-{tied}-{rope}")
        base = save_base(root / "base", kind, tie_word_embeddings=tied, **changes)
        config = extend(AutoConfig.from_pretrained(base), length, method)
        model = add_adapters(
            AutoModelForCausalLM.from_pretrained(base, config=config, dtype=torch.float32), LoraSettings(r=4)
        )
        shake(model)
        save_adapter(model, root / "train/adapter", base_name=kind)
        metrics = run(MergeSettings(dtype="float32"), {"model": base, "train": root / "train"}, root / "work", silent)
        config = AutoConfig.from_pretrained(root / "train/adapter")
        plain = AutoModelForCausalLM.from_pretrained(base, config=config, dtype=torch.float32)
        untrained = logits(plain, IDS)
        expected = logits(load_adapter(plain, root / "train/adapter"), IDS)
        done[case] = {"root": root, "metrics": metrics, "expected": expected, "untrained": untrained}
    torch.set_num_threads(before)
    return done


@pytest.fixture(scope="module")
def fresh(merged) -> dict[str, dict]:
    """What a process without this package gets from the merged folders."""
    folders = [str(item["root"] / "work/output/model") for item in merged.values()]
    done = subprocess.run(
        [sys.executable, "-c", FRESH, json.dumps(IDS.tolist()), *folders], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_base_plus_adapter(merged, fresh, case) -> None:
    item = merged[case]
    found = fresh[str(item["root"] / "work/output/model")]
    difference = (torch.tensor(found["logits"]) - item["expected"][0]).abs().max()
    print(f"{case}: {difference:.1e}, judged by the merge {item['metrics']['logits_max_difference']:.1e}")
    assert difference <= 1e-4
    assert (item["expected"] - item["untrained"]).abs().max() > 0.1
    assert 0 <= item["metrics"]["logits_max_difference"] <= 1e-6  # float64: far below what counts as equal
    assert found["written"] == 4 and not found["missing"] and not found["unexpected"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_config_carries_context_and_rope(merged, case) -> None:
    (kind, tied, rope), item = case, merged[case]
    _, length, method, factor = ROPES[rope]
    config = json.loads((item["root"] / "work/output/model/config.json").read_text())
    assert item["metrics"]["context_length"] == length
    assert config["max_position_embeddings"] == (64 if method == "dynamic" else length)
    assert config["rope_parameters"]["rope_type"] == method and config["rope_parameters"]["factor"] == factor
    assert config["tie_word_embeddings"] == tied
    if kind == "gpt_neox":
        assert config["rope_parameters"]["partial_rotary_factor"] == 0.5
    if method in ("yarn", "llama3"):
        assert config["rope_parameters"]["original_max_position_embeddings"] == 64
    tokenizer = json.loads((item["root"] / "work/output/model/tokenizer_config.json").read_text())
    assert tokenizer["model_max_length"] == length


@pytest.mark.parametrize("options", [{"use_rslora": True}, {"use_dora": True}, {"use_dora": True, "use_rslora": True}])
def test_variants_of_lora_on_gpt_neox(tmp_path, options) -> None:
    """Biases, rsLoRA and DoRA, in a folder of PEFT itself."""
    from peft import LoraConfig, get_peft_model

    base = save_base(tmp_path / "base", "gpt_neox")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    peft = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, target_modules=["query_key_value", "dense"], **options))
    shake(peft)
    peft.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    metrics = run(MergeSettings(dtype="float32"), {"model": base, "train": tmp_path}, tmp_path / "work", silent)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "work/output/model", dtype=torch.float32)
    assert (logits(found, IDS[:, :64]) - logits(peft, IDS[:, :64])).abs().max() <= 1e-4
    assert metrics["logits_max_difference"] <= 1e-6


def test_adapters_that_changed_the_base_are_refused(tmp_path) -> None:
    from longlora.errors import UserError
    from longlora.merge.weights import Adapter

    (tmp_path / "adapter_config.json").write_text(json.dumps({"init_lora_weights": "pissa_niter_4", "r": 4}))
    with pytest.raises(UserError, match="pissa_niter_4 changed the base"):
        Adapter.read(tmp_path)


def test_other_files_in_the_folders_are_not_weights(merged, tmp_path) -> None:
    """A Trainer leaves training_args.bin and optimizer.bin beside the weights: neither is opened."""
    import shutil

    root = merged[CASES[1]]["root"]
    base = shutil.copytree(root / "base", tmp_path / "base")
    shutil.copytree(root / "train", tmp_path / "train")
    weights = AutoModelForCausalLM.from_pretrained(base).state_dict()
    (base / "model.safetensors").unlink()
    torch.save(weights, base / "pytorch_model.bin")
    for folder in (base, tmp_path / "train/adapter"):
        (folder / "training_args.bin").write_bytes(b"a pickle of no tensors")
        (folder / "optimizer.bin").write_bytes(b"neither")
    inputs = {"model": base, "train": tmp_path / "train"}
    metrics = run(MergeSettings(dtype="float32"), inputs, tmp_path / "work", silent)
    assert metrics == merged[CASES[1]]["metrics"]


def device_or_skip() -> str:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return "cuda"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_gpu_writes_the_same_bytes(merged, tmp_path, dtype) -> None:
    root = merged[CASES[0]]["root"]
    inputs = {"model": root / "base", "train": root / "train"}
    files: list[list[bytes]] = []
    for device in ("cpu", device_or_skip()):
        run(MergeSettings(dtype=dtype, device=device), inputs, tmp_path / device, silent)
        folder = Path(tmp_path / device / "output/model")
        files.append([p.read_bytes() for p in sorted(folder.glob("*.safetensors"))])
    assert files[0] == files[1]


def test_a_gpu_that_is_not_there(merged, tmp_path, monkeypatch) -> None:
    from longlora.errors import UserError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    root = merged[CASES[0]]["root"]
    inputs = {"model": root / "base", "train": root / "train"}
    with pytest.raises(UserError, match="no CUDA device"):
        run(MergeSettings(device="cuda"), inputs, tmp_path, silent)
