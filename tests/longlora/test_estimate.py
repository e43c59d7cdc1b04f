"""Estimates of memory and time: against counted parameters, a real training's memory, and what the advice promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longlora.errors import UserError
from longlora.models import ModelSettings
from longlora.train import memory
from longlora.train.advice import advise
from longlora.train.device import GIB, host_memory, named_device, this_device
from longlora.train.estimate import estimate, with_settings
from longlora.train.footprint import memory_parts
from longlora.train.launch import accumulation
from longlora.train.model import check_together
from longlora.train.settings import TrainSettings
from longlora.train.sizes import Sizes, measure

ROOT = Path(__file__).parents[2]
H100 = named_device("H100 80GB", "bfloat16")
LLAMA2_7B = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def seven_b(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    """Llama-2-7B's config.json, and nothing else."""
    folder = tmp_path_factory.mktemp("llama2-7b")
    (folder / "config.json").write_text(json.dumps(LLAMA2_7B))
    return ModelSettings(path=folder)


@pytest.fixture(scope="module")
def sizes(seven_b) -> Sizes:
    return measure(seven_b, recipe())


def recipe(**changes) -> TrainSettings:
    return TrainSettings.model_validate(
        {"dtype": "bfloat16", "context_length": 32768, "global_batch_size": 64, "max_steps": 1000, **changes}
    )


def part(parts, name: str):
    return next(p for p in parts if p.name == name)


# ------------------------------------------------------------------ sizes


def test_sizes_of_llama_2_7b_from_its_config_alone(sizes):
    assert sizes.total == 6_738_415_616  # the published count
    assert sizes.trained["embed"] == 32000 * 4096 and sizes.trained["norm"] == 65 * 4096
    assert sizes.lora == sizes.trained["A"] + sizes.trained["B"] == 32 * 4 * 2 * 8 * 4096
    assert sizes.frozen_linear == 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert sizes.frozen_linear + sizes.frozen_other + sizes.trained["embed"] + sizes.trained["norm"] == sizes.total
    assert sizes.window == 32768 and not sizes.tied and not sizes.head_trained and not sizes.mlp_input_kept


def test_sizes_agree_with_a_model_that_is_trained(tiny_model_dir, train, tmp_path):
    result, _ = train(tmp_path, max_steps=1)
    small = measure(ModelSettings(path=tiny_model_dir), TrainSettings())
    assert small.trained == result["trainable_parameters"] and small.head_trained and small.tied


def test_sizes_of_the_embedded_model_are_read_without_converting_it():
    small = measure(ModelSettings(name="smollm2-135m-q4"), TrainSettings())
    assert small.total == 134_515_008 and small.shape.kv_heads == 3


def test_lora_on_the_mlp_keeps_its_inputs(seven_b):
    changed = recipe(lora={"targets": ["q_proj", "down_proj"]}, trainable=[])
    found = measure(seven_b, changed)
    assert found.mlp_input_kept and set(found.trained) == {"A", "B"}
    assert found.lora == 32 * 8 * (2 * 4096 + 11008 + 4096)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "nobody/no-such-model"}, "nobody/no-such-model is not to be had"),
        ({"path": "/no/such/folder"}, "does not exist"),
    ],
)
def test_a_config_that_is_not_there_is_a_clear_error(model, message):
    with pytest.raises(UserError, match=message) as refused:
        measure(ModelSettings.model_validate(model), TrainSettings())
    assert "config.json" in refused.value.remedy


@pytest.mark.parametrize("content", ["{", '{"model_type": "no-such-type"}', '{"model_type": "t5"}'])
def test_a_config_that_is_no_use_is_a_clear_error(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError):
        measure(ModelSettings(path=tmp_path), TrainSettings())


# ------------------------------------------------------------------ what training refuses


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": 6}, "cannot be shared by 6 devices"),
        ({"context_length": None, "row_tokens": 65536}, "above the model's context of 4,096"),
        ({"gradient_checkpointing": False, "offload": True}, "gradient_checkpointing is off"),
        ({"gradient_checkpointing": False, "layers_per_checkpoint": 2}, "gradient_checkpointing is off"),
        ({"strategy": "zero3", "devices": 2, "optimizer": "paged_adamw"}, "does not go with train.strategy zero3"),
        ({"strategy": "zero3", "devices": 2, "quantize": "nf4"}, "zero3 cannot share out 4-bit weights"),
        ({"lora": None, "quantize": "nf4"}, "nothing else to train"),
    ],
)
def test_no_estimate_of_what_training_refuses(seven_b, train, tmp_path, monkeypatch, changes, message):
    """Both in the same words: here of the same settings, on a small model."""
    with pytest.raises(UserError, match=message) as refused:
        measure(seven_b, recipe(**changes))
    monkeypatch.setattr("longlora.train.distributed.world", lambda: changes.get("devices", 1))
    monkeypatch.setattr("longlora.train.distributed.launched", lambda: True)
    monkeypatch.setattr("longlora.train.distributed.start", lambda device: None)
    own = {"context_length": None} if "row_tokens" in changes else {"context_length": 1024}
    with pytest.raises(UserError) as told:
        train(tmp_path, dtype="float32", **{**own, "global_batch_size": 64, **changes})
    if "row_tokens" in changes:
        assert told.value.remedy == refused.value.remedy
    else:
        assert str(told.value) == str(refused.value)


def test_devices_of_this_machine_share_the_batch(seven_b):
    with pytest.raises(UserError, match="cannot be shared by 3 devices"):
        measure(seven_b, recipe(), devices=3)
    assert measure(seven_b, recipe(), devices=4)


@pytest.mark.parametrize(("attention", "group", "accepted"), [
    ("s2_attn", 4096, True), ("s2_attn", 8192, False), ("full", 4096, False),
])  # fmt: skip
def test_a_sliding_window_that_holds_a_group_is_no_obstacle(tmp_path, attention, group, accepted):
    mistral = {**LLAMA2_7B, "model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 4096}
    (tmp_path / "config.json").write_text(json.dumps(mistral))
    asked = recipe(attention=attention, group=group)
    if accepted:
        assert measure(ModelSettings(path=tmp_path), asked).window == 32768
        return
    with pytest.raises(UserError, match="sliding window of 4,096 tokens is shorter"):
        measure(ModelSettings(path=tmp_path), asked)


# ------------------------------------------------------------------ devices


@pytest.mark.parametrize(
    ("text", "gib", "peak"),
    [
        ("H100 80GB", 80, 989e12),
        ("h100", 80, 989e12),
        ("NVIDIA A100-SXM4-40GB", 40, 312e12),
        ("RTX 4090 24 GB", 24, 165.2e12),
        ("A10G", 24, 70e12),
        ("H200", 141, 989e12),
        ("Prototype 7 96GB", 96, None),
    ],
)
def test_devices_by_name(text, gib, peak):
    device = named_device(text, "bfloat16")
    assert device.memory == int(gib * GIB * 0.98) and device.peak == peak and device.kind == "cuda"
    assert named_device(text, "float32").peak is None  # the table is bfloat16's


@pytest.mark.parametrize("text", ["Prototype 7", "80GB", "", "A100"])
def test_a_device_that_nobody_knows_is_refused(text):
    with pytest.raises(UserError, match="how much memory") as refused:
        named_device(text, "bfloat16")
    assert "H100" in refused.value.remedy


def test_this_cpu():
    device = this_device("cpu", "float32")
    assert device.memory == host_memory() > 1e9 and device.peak and device.peak_source == "measured"
    assert named_device("cpu 2GB", "float32").memory == 2 * GIB


# ------------------------------------------------------------------ memory


def test_the_static_parts_are_arithmetic(sizes):
    parts = memory_parts(recipe(), sizes, "cuda", 32768, 1)
    trained = sum(sizes.trained.values())
    assert part(parts, "weights").device == 2 * (sizes.total - sizes.trained["embed"] - sizes.trained["norm"])
    assert part(parts, "trained").device == 16 * trained
    assert part(parts, "checkpoints").device == 32 * 32768 * 4096 * 2
    quantized = memory_parts(recipe(quantize="nf4"), sizes, "cuda", 32768, 1)
    assert part(quantized, "weights").device == pytest.approx(
        sizes.frozen_linear * 4.127 / 8 + 2 * sizes.frozen_other, rel=1e-6
    )
    offloaded = memory_parts(recipe(offload=True), sizes, "cuda", 32768, 1)
    assert part(offloaded, "checkpoints").host == part(parts, "checkpoints").device
    assert part(offloaded, "checkpoints").device == part(parts, "checkpoints").device / 16
    blocks = memory_parts(recipe(layers_per_checkpoint=4), sizes, "cuda", 32768, 1)
    assert part(blocks, "checkpoints").device == part(parts, "checkpoints").device / 4
    assert part(blocks, "layers").device == part(parts, "layers").device + 3 * 32768 * 4096 * 2
    shared = memory_parts(recipe(strategy="zero3"), sizes, "cuda", 32768, 4)
    assert part(shared, "trained").device == 16 * trained / 4
    chunk = memory.even_chunk(32768, memory.chunk_rows(32000))
    assert part(shared, "loss").device - part(parts, "loss").device == chunk * 32000 * 8  # logits in fp32, twice more
    assert part(shared, "weights").device < part(parts, "weights").device / 4 + 1e9
    paged = memory_parts(recipe(optimizer="paged_adamw_8bit"), sizes, "cuda", 32768, 1)
    assert part(paged, "trained").device == 10 * trained + 6 * sizes.trained["embed"]


@given(
    st.integers(1, 3),
    st.integers(9, 17),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 2048]),
    st.integers(1, 8),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_more_work_at_once_never_needs_less(sizes, micro, power, checkpointing, offload, tile, layers):
    def memory(**changes):
        options = {
            "micro_batch_size": micro, "row_tokens": 2**power, "gradient_checkpointing": checkpointing,
            "offload": offload, "tile_mlp": tile, "layers_per_checkpoint": layers, "global_batch_size": 12,
            "context_length": 2**18,
        }  # fmt: skip
        return estimate(recipe(**{**options, **changes}), sizes, H100).memory

    now = memory()
    assert memory(micro_batch_size=micro + 1 if 12 % (micro + 1) == 0 else 12) > now
    assert memory(row_tokens=2 ** (power + 1)) > now
    assert memory(quantize="nf4") < now
    assert memory(offload=True) <= memory(offload=False)
    assert memory(tile_mlp=1024) <= now * 1.001 or power < 11  # the tiles' input is kept besides
    if layers == 1:
        assert memory(gradient_checkpointing=True) <= memory(gradient_checkpointing=False)


def test_time_is_operations_over_what_the_device_does(sizes):
    predicted = estimate(recipe(), sizes, H100, efficiency=(0.5, "told"))
    assert predicted.step_seconds == predicted.flops.total / (0.5 * 989e12)
    assert predicted.total_seconds == 1000 * predicted.step_seconds
    twice = estimate(recipe(), sizes, H100, efficiency=(0.5, "told"), devices=2)
    assert twice.step_seconds == predicted.step_seconds / 2
    full = estimate(recipe(attention="full"), sizes, H100, efficiency=(0.5, "told"))
    assert 1.5 < full.step_seconds / predicted.step_seconds < 1.7  # notes: 1.59 at 32k
    unknown = estimate(recipe(), sizes, named_device("Prototype 96GB", "bfloat16"))
    assert unknown.step_seconds is None and unknown.total_seconds is None and unknown.memory > 1e10


def test_known_rows_give_steps_and_less_work(sizes):
    rows = [[4096, 2048], [6000], [1000] * 6] * 40
    predicted = estimate(recipe(max_steps=None, epochs=2, row_tokens=8192), sizes, H100, rows=rows)
    assert predicted.steps == round(2 * 120 / 64)
    assert predicted.step_tokens == round((6144 + 6000 + 6000) * 40 * 64 / 120)
    full = estimate(recipe(max_steps=None, epochs=2, row_tokens=8192), sizes, H100)
    assert full.steps is None and full.flops.total > predicted.flops.total and full.memory > predicted.memory


# ------------------------------------------------------------------ advice


def test_advice_fits_and_every_fix_of_it_is_needed(sizes):
    for changes in (
        {"context_length": 16384, "gradient_checkpointing": False},
        {"context_length": 16384, "micro_batch_size": 16},
        {"context_length": 65536, "micro_batch_size": 2},
        {"context_length": 262144},
    ):
        asked = recipe(**changes)
        own = replace(sizes, window=changes["context_length"])
        assert not estimate(asked, own, H100).fits
        advice = advise(asked, own, H100)
        assert advice.result is not None and advice.result.fits and advice.fixes
        again = estimate(TrainSettings.model_validate({**asked.model_dump(), **advice.changes}), own, H100)
        assert again.memory == advice.result.memory
        for left_out in advice.fixes:
            fewer = {k: v for fix in advice.fixes if fix is not left_out for k, v in fix.changes.items()}
            assert not estimate(TrainSettings.model_validate({**asked.model_dump(), **fewer}), own, H100).fits


def test_advice_prefers_what_changes_nothing(sizes):
    own = replace(sizes, window=16384)
    assert advise(recipe(context_length=16384, micro_batch_size=16), own, H100).changes.keys() == {"micro_batch_size"}
    slow = advise(recipe(context_length=16384, gradient_checkpointing=False), own, H100)
    assert slow.changes == {"gradient_checkpointing": True}


def test_weights_that_do_not_fit_are_quantized(sizes):
    small = named_device("Prototype 12GB", "bfloat16")
    advice = advise(recipe(context_length=8192), replace(sizes, window=8192), small)
    assert advice.result is not None and advice.changes["quantize"] == "nf4" and "devices" not in advice.changes


def test_weights_that_do_not_fit_quantized_are_shared(sizes):
    large = replace(sizes, window=8192, frozen_linear=10 * sizes.frozen_linear)
    advice = advise(recipe(context_length=8192), large, named_device("RTX 4090", "bfloat16"))
    assert advice.result is not None and advice.changes["strategy"] == "zero3"
    assert advice.changes["quantize"] is None or "quantize" not in advice.changes
    assert advice.result.devices == advice.changes["devices"] >= 8
    assert not advise(
        recipe(context_length=8192, global_batch_size=3), large, named_device("RTX 4090", "bfloat16")
    ).fixes


@pytest.mark.parametrize("optimizer", ["adamw", "paged_adamw", "paged_adamw_8bit"])
@pytest.mark.parametrize("quantize", ["nf4", None])
def test_training_takes_the_advice(sizes, optimizer, quantize):
    """LongQLoRA's settings and a model that only several devices hold: ZeRO-3 is for neither of the two."""
    large = replace(sizes, window=8192, frozen_linear=10 * sizes.frozen_linear)
    asked = recipe(context_length=8192, optimizer=optimizer, quantize=quantize)
    advice = advise(asked, large, named_device("RTX 4090", "bfloat16"))
    assert advice.changes["strategy"] == "zero3"
    followed = with_settings(asked, **advice.changes)
    assert followed.optimizer == "adamw" and followed.quantize is None
    check_together(followed)
    assert accumulation(followed, followed.devices) >= 1


def test_zero3_is_not_told_to_quantize(sizes):
    asked = recipe(context_length=8192, strategy="zero3", devices=2)
    advice = advise(asked, replace(sizes, window=8192), named_device("Prototype 14GB", "bfloat16"))
    assert advice.result is not None and "quantize" not in advice.changes


def test_close_to_full_is_called_narrow(sizes):
    predicted = estimate(recipe(), sizes, H100)
    for share, narrow in ((0.85, False), (0.95, True)):
        assert replace(predicted, device=replace(H100, memory=int(predicted.memory / share))).narrow is narrow
    offloaded = estimate(recipe(offload=True), sizes, H100)
    assert replace(offloaded, device=replace(H100, host_memory=int(offloaded.host / 0.95))).narrow


def test_host_memory_bounds_offloading(sizes):
    asked, own = recipe(context_length=2**18), replace(sizes, window=2**18)
    roomy, narrow = replace(H100, host_memory=400 * GIB), replace(H100, host_memory=40 * GIB)
    wide, close = (advise(asked, own, device) for device in (roomy, narrow))
    for advice, device in ((wide, roomy), (close, narrow)):
        assert advice.result is not None and advice.result.host <= device.host_memory
    offloaded = with_settings(asked, offload=True, tile_mlp=2048)
    assert estimate(offloaded, own, roomy).fits and not estimate(offloaded, own, narrow).fits


def test_nothing_helps_a_device_that_is_far_too_small(sizes):
    assert advise(recipe(), sizes, named_device("Prototype 1GB", "bfloat16")).result is None


# ------------------------------------------------------------------ against real trainings

MEASURE = """
import gc, json, resource, sys
from pathlib import Path
from longlora.train import stage
from longlora.train.settings import TrainSettings
model, data, work, settings = *map(Path, sys.argv[1:4]), TrainSettings(**json.loads(sys.argv[4]))
inputs = {"datasets_build": data, "pdf2txt": data, "model": model}
# A training of short rows first: what it leaves behind is libraries, which the estimate has as "workspace".
short = settings.model_copy(update={"row_tokens": 128, "max_steps": 1})
stage.run(short, inputs, work / "short", lambda *a, **k: None)
gc.collect()
before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
stage.run(settings, inputs, work / "long", lambda *a, **k: None)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


def measured_growth(model: Path, dataset: Path, work: Path, options: dict) -> int:
    """Bytes by which a training in a process of its own grew, at its peak."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(model), str(dataset), str(work), json.dumps(options)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout.split()[-1])


@pytest.fixture(scope="session")
def long_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("text")
    text = " ".join(f"word{i % 977} of {i % 89}" for i in range(30_000))
    pq.write_table(pa.Table.from_pylist([{"doc_id": "d", "text": text}]), folder / "documents.parquet")
    (folder / "splits.json").write_text('{"d": "train"}')
    return folder


def predicted_growth(model: Path, options: dict) -> float:
    asked = TrainSettings(**options)
    predicted = estimate(asked, measure(ModelSettings(path=model), asked), this_device("cpu", "float32"))
    return predicted.memory - part(predicted.parts, "workspace").device  # libraries were loaded before


REAL = {"data": "text", "dtype": "float32", "threads": 1, "max_steps": 2, "global_batch_size": 1, "warmup_steps": 0}


@pytest.mark.slow
def test_memory_of_a_small_training(tiny_model_dir, long_text, tmp_path):
    options = {**REAL, "context_length": 4096, "group": 1024}
    grown = measured_growth(tiny_model_dir, long_text, tmp_path, options)
    assert predicted_growth(tiny_model_dir, options) == pytest.approx(grown, rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [True, False])
def test_memory_of_smollm2(smollm2_dir, long_text, tmp_path, checkpointing):
    options = {**REAL, "row_tokens": 4096, "group": 1024, "gradient_checkpointing": checkpointing}
    grown = measured_growth(smollm2_dir, long_text, tmp_path, options)
    assert predicted_growth(smollm2_dir, options) == pytest.approx(grown, rel=0.15)
