"""Checkpoints of several layers, checkpoints on the host, MLPs in tiles: the same gradients, and what is kept."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from longlora import attention
from longlora.adapters import LoraSettings, add_adapters
from longlora.errors import UserError
from longlora.train import blocks, kernels, memory, offload, tiled
from longlora.train.settings import TrainSettings

LENGTH, WIDTH, INNER = 48, 24, 40
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "gpt_neox")


def build(kind: str = "llama", layers: int = 5, dropout: float = 0.0, lora: bool = True, inner: int = INNER):
    """A random model with S²-Attn, LoRA on attention, trained embeddings and norms: the causal model itself."""
    from transformers import AutoConfig, AutoModelForCausalLM

    attention.register()
    torch.manual_seed(0)
    heads = {"num_attention_heads": 3, "num_hidden_layers": layers, "vocab_size": 101, "use_cache": False}
    if kind == "gpt_neox":
        own = {"attention_dropout": dropout, "hidden_dropout": dropout}
    else:
        own = {"num_key_value_heads": 3, "head_dim": 8, "attention_dropout": 0.0}
    if kind == "mistral":
        own["sliding_window"] = None
    config = AutoConfig.for_model(
        kind, hidden_size=WIDTH, intermediate_size=inner, max_position_embeddings=64, **heads, **own
    )
    config.s2_group_size = 16
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME).train()
    if lora:
        settings = LoraSettings.model_validate({"dropout": dropout})
        peft = add_adapters(model, settings, ("embed", "norm"))
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    return model


def gradients(model, rows: int = 2) -> list[torch.Tensor]:
    """Of one step on packed rows, with dropout from a fixed seed."""
    torch.manual_seed(1)
    ids = torch.randint(0, 101, (rows, LENGTH))
    positions = torch.cat([torch.arange(20), torch.arange(LENGTH - 20)]).expand(rows, -1)
    torch.manual_seed(2)
    hidden = model.base_model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
    model.get_output_embeddings()(hidden).square().mean().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def saved_bytes(model) -> int:
    """Bytes that a forward pass keeps for backward, parameters and indices apart."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor):
        if tensor.is_floating_point() and tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ids = torch.randint(0, 101, (1, LENGTH))
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model.base_model(input_ids=ids, use_cache=False).last_hidden_state  # kept alive: storages stay apart
    total = sum(kept.values())
    del out
    return total


class Live(TorchDispatchMode):
    """The most bytes that the results of operations took at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        known = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in known:
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.alive = {k: v for k, v in self.alive.items() if not v[0].expired()}
        self.peak = max(self.peak, sum(n for _, n in self.alive.values()))
        return out


def peak_bytes(model) -> int:
    """Of activations in a step; gradients of parameters count as well, so the model should be small."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)  # added to in place
    with Live() as live:
        gradients(model, rows=1)
    return live.peak


def equal(a, b) -> bool:
    return len(a) == len(b) > 0 and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def option(**given) -> TrainSettings:
    return TrainSettings.model_validate(given)


# ------------------------------------------------------------------ checkpoints


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_gradients_are_the_same_to_the_bit(kind, dropout):
    """Every layer, blocks of 2 (last one short), of all; kept, and through buffers on the host."""
    expected = gradients(build(kind, dropout=dropout))
    one = build(kind, dropout=dropout)
    memory.checkpoint_layers(one)
    assert equal(gradients(one), expected)
    for per, moves in ((1, True), (2, False), (2, True), (5, False)):
        moved = offload.HostOffload(smallest=0, everywhere=True) if moves else None
        model = build(kind, dropout=dropout)
        blocks.checkpoint_blocks(model, per, moved.saving if moved else None)
        assert equal(gradients(model), expected), (per, moves)
    model.zero_grad()
    assert equal(gradients(model), expected), "second step"


def test_states_without_gradients_are_checkpointed_too():
    """Only LoRA is trained: what the first block is given needs no gradient, its layers do."""
    pair = []
    for per in (None, 2):
        model = build()
        model.get_input_embeddings().requires_grad_(False)
        if per:
            moved = offload.HostOffload(smallest=0, everywhere=True)
            blocks.checkpoint_blocks(model, per, moved.saving)
        pair.append(gradients(model))
    assert equal(*pair)


def test_what_is_kept_is_one_state_per_block():
    state = LENGTH * WIDTH * 4
    kept = {}
    for per in (1, 2, 3, 5):
        model = build()
        blocks.checkpoint_blocks(model, per)
        kept[per] = saved_bytes(model)
        count = -(-5 // per)
        assert memory.checkpoint_bytes(5, LENGTH, WIDTH, 4, per) == count * state
    rest = kept[5] - state  # of the final norm, the same for all
    assert {per: (n - rest) // state for per, n in kept.items()} == {1: 5, 2: 3, 3: 2, 5: 1}
    assert saved_bytes(build()) > 10 * kept[1]


def test_one_layer_at_a_time_is_recomputed():
    """In backward, a block keeps inner states and the activations of one layer, not of all."""
    plain = peak_bytes(build(layers=8, lora=False))
    model = build(layers=8, lora=False)
    blocks.checkpoint_blocks(model, 8)
    inner = memory.block_bytes(LENGTH, WIDTH, 4, 8)
    assert peak_bytes(model) < plain / 8 + inner + peak_bytes(build(layers=1, lora=False)) < plain / 2


def test_evaluation_and_generation_run_as_before():
    model, plain = build(lora=False), build(lora=False)
    blocks.checkpoint_blocks(model, 2)
    ids = torch.randint(1, 101, (2, 9))
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "use_cache": True}
    assert torch.equal(model.eval().generate(ids, **options), plain.eval().generate(ids, **options))
    with torch.no_grad():
        assert torch.equal(model.train()(input_ids=ids).logits, plain.train()(input_ids=ids).logits)


def test_a_cache_is_not_filled_twice():
    """A model that is left to use its cache while training gives the same gradients."""
    model = build(lora=False)
    expected = gradients(model)
    model.zero_grad()
    blocks.checkpoint_blocks(model, 2)
    torch.manual_seed(1)
    ids = torch.randint(0, 101, (2, LENGTH))
    positions = torch.cat([torch.arange(20), torch.arange(LENGTH - 20)]).expand(2, -1)
    hidden = model.base_model(input_ids=ids, position_ids=positions, use_cache=True).last_hidden_state
    model.get_output_embeddings()(hidden).square().mean().backward()
    assert equal([p.grad for p in model.parameters() if p.grad is not None], expected)


def test_layers_that_differ_cannot_share_a_checkpoint():
    model = build("qwen2")
    model.config.layer_types = ["full_attention", "sliding_attention"] * 2 + ["full_attention"]
    with pytest.raises(UserError, match="different kinds"):
        blocks.checkpoint_blocks(model, 2)
    blocks.checkpoint_blocks(model, 1)
    layers = [torch.nn.Linear(4, 4).train() for _ in range(2)]
    for layer in layers:
        layer.forward = lambda hidden_states, scale: hidden_states * scale
    blocks.Block(layers, memory_of_nothing)
    states = layers[0](torch.ones(1, 4, requires_grad=True), scale=2.0)
    with pytest.raises(RuntimeError, match="different arguments"):
        layers[1](states, scale=3.0)


def memory_of_nothing():
    return saved_tensors_hooks(lambda x: x, lambda x: x)


def test_layers_that_are_not_found_are_refused():
    with pytest.raises(UserError, match="layers that can be checkpointed"):
        model = build(lora=False)
        model.config.num_hidden_layers = 7
        blocks.checkpoint_blocks(model, 2)


# ------------------------------------------------------------------ on the host


def test_offload_moves_the_states_of_blocks_and_fetches_ahead():
    moved = offload.HostOffload(smallest=0, everywhere=True)
    model = build(layers=12, lora=False)
    blocks.checkpoint_blocks(model, 2, moved.saving)
    gradients(model, rows=1)
    state = LENGTH * WIDTH * 4
    assert moved.saved_bytes == memory.checkpoint_bytes(12, LENGTH, WIDTH, 4, 2) == 6 * state
    # the two newest are still there, the third is fetched while the second is used, ...
    assert (moved.prefetched, moved.waited) == (4, 0) and not moved.leaving
    pinned = moved.pool.bytes
    model.zero_grad()
    gradients(model, rows=1)
    assert moved.pool.bytes == pinned == sum(len(b) for free in moved.pool.free.values() for b in free)
    assert pinned < 2 * 6 * state  # a power of two each


def test_offload_without_backward_gives_its_buffers_back():
    moved = offload.HostOffload(smallest=0, everywhere=True)
    for _ in range(5):
        x = torch.randn(100, requires_grad=True)
        with moved.saving():
            out = x.exp().exp()
        del out
    assert moved.pool.bytes <= 4 * 512 * 2


def test_offload_keeps_small_tensors_parts_and_a_cpu():
    moved, x = offload.HostOffload(everywhere=True), torch.randn(4)
    assert moved.pack(x) is x and moved.unpack(x) is x
    big = torch.randn(1024, 600)
    assert moved.pack(big.T) is not None and isinstance(moved.pack(big.T), torch.Tensor)
    assert isinstance(moved.pack(big), offload.State)
    assert offload.HostOffload().pack(big) is big


@pytest.mark.parametrize("slab", [64, 4096])
def test_offload_in_several_buffers(slab, monkeypatch):
    monkeypatch.setattr(offload, "SLAB", slab)
    moved = offload.HostOffload(smallest=0, everywhere=True)
    tensors = [torch.randn(n, dtype=d) for n, d in ((333, torch.float32), (77, torch.bfloat16), (1, torch.float64))]
    states = [moved.pack(t.clone()) for t in tensors] + [moved.pack(torch.zeros(9)) for _ in range(3)]
    for tensor, state in reversed(list(zip(tensors, states, strict=False))):
        assert torch.equal(moved.unpack(state), tensor)
    with pytest.raises(RuntimeError, match="second time"):
        moved.unpack(states[0])


@pytest.mark.gpu
def test_offload_on_a_gpu():
    """Gradients as without, and the states leave the device."""
    results = []
    for moved in (None, offload.HostOffload(smallest=0)):
        model = build(layers=12, lora=False).cuda()
        blocks.checkpoint_blocks(model, 2, moved.saving if moved else None)
        ids = torch.randint(0, 101, (1, 65536), device="cuda", generator=torch.Generator("cuda").manual_seed(0))
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        out = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        kept = torch.cuda.memory_allocated() - before
        out.square().mean().backward()
        torch.cuda.synchronize()
        results.append((kept, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (kept, expected), (less, found) = results
    assert equal(found, expected)
    assert kept - less >= 3 * 65536 * WIDTH * 4


# ------------------------------------------------------------------ tiles


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("tokens", [7, 32, 500])
def test_tiles_change_nothing(kind, tokens):
    expected = gradients(build(kind))
    for checkpointed in (False, True):
        model = build(kind)
        tiled.tile_mlp(model, tokens)
        tiled.tile_norms(model, tokens)
        if checkpointed:
            blocks.checkpoint_blocks(model, 2)
        for a, b in zip(gradients(model), expected, strict=True):
            assert float((a - b).norm()) <= 1e-6 * float(b.norm()) + 1e-9


def test_what_an_mlp_keeps():
    model, kept = build(layers=1, lora=False), {}

    def pack(tensor):
        if tensor.shape[-1] == INNER and LENGTH in tensor.shape:
            kept[tensor.untyped_storage().data_ptr()] = tensor.nbytes
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model.base_model(input_ids=torch.zeros(1, LENGTH, dtype=torch.long)).last_hidden_state
    assert sum(kept.values()) == memory.mlp_bytes(LENGTH, INNER, 4)
    del out


def test_a_norm_in_tiles_keeps_its_input_alone():
    """In bfloat16 a trained RMSNorm keeps 4 + 2 bytes a number of its input; in tiles the input itself."""

    def kept_bytes(tokens):
        model, kept = build(layers=1, lora=False).to(torch.bfloat16), {}
        if tokens:
            tiled.tile_norms(model, tokens)

        def pack(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            out = model.base_model(input_ids=torch.zeros(1, LENGTH, dtype=torch.long)).last_hidden_state
        total = sum(kept.values())
        del out
        return total

    numbers = LENGTH * WIDTH
    assert kept_bytes(None) - kept_bytes(8) >= 2 * numbers * (4 + 2 - 2)


def test_a_tile_bounds_what_exists_at_once():
    peaks = {}
    for tokens in (None, 8):
        model = build(layers=1, lora=False, inner=1000)
        if tokens:
            tiled.tile_mlp(model, tokens)
        peaks[tokens] = peak_bytes(model)
    most = memory.mlp_bytes(LENGTH, 1000, 4) - 2 * memory.mlp_bytes(LENGTH, 1000, 4, tile=8)
    assert peaks[None] - peaks[8] >= most


def test_tiles_keep_dropout_and_refuse_experts():
    from transformers import MixtralConfig, MixtralForCausalLM

    shape = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_local_experts": 2}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    with pytest.raises(UserError, match="tile_mlp"):
        tiled.tile_mlp(MixtralForCausalLM(MixtralConfig(**shape, **heads)), 64)
    results = []
    for checkpointed in (False, True):  # dropout is drawn tile by tile, and drawn again the same
        model = build(lora=False)
        for layer in model.model.layers:
            layer.mlp.down_proj = torch.nn.Sequential(torch.nn.Dropout(0.3), layer.mlp.down_proj)
        tiled.tile_mlp(model, 16)
        if checkpointed:
            blocks.checkpoint_blocks(model, 3)
        results.append(gradients(model))
    assert equal(*results)


# ------------------------------------------------------------------ settings, kernels, number formats


def test_settings_switch_it_on():
    model = build()
    done = memory.enable(model, option(layers_per_checkpoint=2, offload=True, tile_mlp=64, liger="off"))
    assert done == ["MLP and norms over 64 tokens", "checkpoints of 2 layers, on the host"]
    for a, b in zip(gradients(model), gradients(build()), strict=True):  # 96 tokens: two tiles
        assert float((a - b).norm()) <= 1e-6 * float(b.norm()) + 1e-9
    assert memory.enable(build(), option(gradient_checkpointing=False)) == []
    assert memory.enable(build(), option(device="cpu")) == ["checkpoints of 1 layer"]
    for contradiction in ({"offload": True}, {"layers_per_checkpoint": 2}):
        with pytest.raises(UserError, match="gradient_checkpointing is off"):
            memory.enable(build(), option(gradient_checkpointing=False, **contradiction))


def test_training_stage_ends_in_the_same_weights(train, tmp_path):
    import hashlib

    found = set()
    for i, given in enumerate([{}, {"layers_per_checkpoint": 2}, {"offload": True}, {"gradient_checkpointing": False}]):
        train(tmp_path / str(i), max_steps=2, dtype="float32", lora={"dropout": 0.1}, **given)
        file = tmp_path / str(i) / "output/adapter/adapter_model.safetensors"
        found.add(hashlib.sha256(file.read_bytes()).hexdigest())
    assert len(found) == 1


def test_liger_is_for_gpus():
    if not torch.cuda.is_available():
        assert not kernels.available() and kernels.apply_liger(build()) == []
    assert not kernels.available("cpu") and kernels.apply_liger(build(), "off") == []


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_liger_equals_transformers(kind):
    pytest.importorskip("liger_kernel")
    from transformers.models.llama import modeling_llama

    classes = (modeling_llama.LlamaRMSNorm, modeling_llama.LlamaMLP)
    expected = build(kind).cuda()
    model = build(kind).cuda()
    applied = kernels.apply_liger(model)
    assert applied == ([] if kind == "gpt_neox" else ["rms_norm", "rope", "swiglu"])
    assert (modeling_llama.LlamaRMSNorm, modeling_llama.LlamaMLP) == classes
    ids = torch.randint(0, 101, (2, LENGTH), device="cuda")
    pair = []
    for m in (model, expected):
        m.base_model(input_ids=ids, use_cache=False).last_hidden_state.square().mean().backward()
        pair.append([p.grad for p in m.parameters() if p.grad is not None])
    for a, b in zip(*pair, strict=True):
        assert float((a - b).norm() / b.norm()) <= 1e-4
    assert equal(gradients(model.cpu()), gradients(expected.cpu())) or applied  # RoPE still works on a CPU


# ------------------------------------------------------------------ formulas


def test_formulas_need_no_torch():
    code = "import sys, longlora.train.memory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


FREED = """
import gc, resource, torch
from pathlib import Path
from longlora.train.memory import give_back_freed

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

assert give_back_freed() is {wanted}
torch.zeros(30 * 2**20, dtype=torch.uint8)  # freed: from now on glibc would keep blocks of this size
before = resident()
blocks = [torch.ones(20 * 2**20, dtype=torch.uint8) for _ in range(20)]
del blocks[:-1]
gc.collect()
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc")
@pytest.mark.parametrize("own", [False, True])
def test_a_training_on_a_cpu_gives_freed_memory_back(own):
    """The last block stays and keeps those below it on the heap, unless they were never there."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20)} if own else dict(os.environ)
    done = subprocess.run(
        [sys.executable, "-c", FREED.format(wanted=not own)], cwd=Path(__file__).parents[2], env=environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    left = int(done.stdout)
    assert left > 300 * 2**20 if own else left < 40 * 2**20


def test_formulas():
    million = 1_000_000
    assert memory.checkpoint_bytes(32, million, 4096, 2) == 262_144_000_000
    assert memory.checkpoint_bytes(32, million, 4096, 2, 4) == 65_536_000_000
    assert memory.checkpoint_bytes(30, 10, 1, 1, 4) == 80
    assert memory.block_bytes(million, 4096, 2, 1) == 0
    assert memory.chunk_rows(49152) == 1365 and memory.chunk_rows(10**9) == 1
    assert memory.full_logits_bytes(16384, 49152) == 3 * 3_221_225_472
    assert memory.logits_chunk_bytes(million, 49152) <= 2 * memory.CHUNK_BYTES
    assert memory.logits_chunk_bytes(10, 49152) == 10 * 49152 * 8
    assert memory.even_chunk(1366, 1365) == 683 and memory.even_chunk(10, 1365) == 10 and memory.even_chunk(0, 9) == 0
    assert memory.mlp_bytes(10, 3, 2, product=False) == 180 and memory.mlp_bytes(10, 3, 2, gated=False) == 120
    assert memory.mlp_bytes(million, 11008, 2, tile=8192) == 8192 * 11008 * 8
