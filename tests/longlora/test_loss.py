"""Cross-entropy in chunks against the whole."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longlora.train.loss import IGNORE, chunk_count, is_plain, supervised_loss

ROOT = Path(__file__).parents[2]


def whole(hidden, labels, head) -> torch.Tensor:
    """The oracle: all logits at once."""
    logits = head(hidden)[:, :-1].flatten(0, 1).float()
    return torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=IGNORE, reduction="sum")


def gradients(loss, inputs):
    return torch.autograd.grad(loss / 7, [x for x in inputs if x.requires_grad])  # 7: something from above


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(((a - b).norm() / b.norm().clamp(min=1e-30)).detach())


class Shifted(torch.nn.Module):
    """A head that is not a plain linear layer."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.linear, self.calls = linear, 0

    def forward(self, states):
        self.calls += 1
        return self.linear(states)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_full_logits(data):
    rows, length, vocabulary = (data.draw(st.integers(*r)) for r in ((1, 3), (1, 30), (2, 60)))
    share = data.draw(st.sampled_from([0.0, 0.1, 0.6, 0.95, 1.0]))
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    head = torch.nn.Linear(8, vocabulary, bias=data.draw(st.booleans()))
    head.requires_grad_(data.draw(st.booleans()))
    hidden = torch.randn(rows, length, 8, requires_grad=data.draw(st.booleans()) or not head.weight.requires_grad)
    labels = torch.randint(0, vocabulary, (rows, length))
    labels[torch.rand(rows, length) > share] = IGNORE
    chunk, least = data.draw(st.sampled_from([None, 1, 3, 1000])), data.draw(st.integers(1, 5))
    expected, ours = whole(hidden, labels, head), supervised_loss(hidden, labels, head, chunk, least)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    inputs = [hidden, *head.parameters()]
    for a, b in zip(gradients(ours, inputs), gradients(expected, inputs), strict=True):
        assert relative(a, b) <= 1e-5 or float((a - b).abs().max()) < 1e-7


@pytest.mark.parametrize("trained", [False, True])
def test_equals_full_logits_at_a_real_vocabulary(trained):
    torch.manual_seed(0)
    head = torch.nn.Linear(48, 49152, bias=False).requires_grad_(trained)
    hidden, labels = torch.randn(1, 300, 48, requires_grad=True), torch.randint(0, 49152, (1, 300))
    ours, expected = supervised_loss(hidden, labels, head, 64), whole(hidden, labels, head)
    assert relative(ours, expected) <= 1e-6
    inputs = [hidden, head.weight]
    for a, b in zip(gradients(ours, inputs), gradients(expected, inputs), strict=True):
        assert relative(a, b) <= 1e-5


def test_under_autocast_as_good_as_full_logits():
    """bfloat16 rounds differently chunk by chunk: the error against float64 must be no larger than with all logits."""
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 200, bias=False)
    hidden, labels = torch.randn(1, 64, 16, requires_grad=True), torch.randint(0, 200, (1, 64))
    inputs = [hidden, head.weight]
    exact = gradients(whole(hidden.double(), labels, lambda x: x @ head.weight.double().T), inputs)
    with torch.autocast("cpu", torch.bfloat16):
        ours, full = supervised_loss(hidden, labels, head, 8), whole(hidden, labels, head)
    assert ours.dtype == torch.float32
    for a, b, c in zip(gradients(ours, inputs), gradients(full, inputs), exact, strict=True):
        assert a.dtype == torch.float32 and relative(a, c) <= 1.1 * relative(b, c) < 0.02


def test_equals_transformers(tiny_model_dir):
    from longlora.models import load_model

    model = load_model(tiny_model_dir, dtype="float32").eval()
    ids = torch.randint(3, 900, (1, 40))
    labels = ids.clone()
    labels[:, :15] = IGNORE
    with torch.no_grad():
        reference = model(input_ids=ids, labels=labels).loss
        hidden = model.base_model(input_ids=ids).last_hidden_state
        ours = supervised_loss(hidden, labels, model.get_output_embeddings()) / (labels[:, 1:] != IGNORE).sum()
    torch.testing.assert_close(ours, reference)


def test_tied_head_adds_to_the_embedding():
    """Both ends of a tied matrix get their gradient, as with transformers' own loss."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    config = LlamaConfig(**shape, num_attention_heads=2, tie_word_embeddings=True)
    model, ids = LlamaForCausalLM(config).train(), torch.randint(0, 60, (2, 12))
    found = []
    for ours in (False, True):
        model.zero_grad()
        if ours:
            hidden = model.base_model(input_ids=ids).last_hidden_state
            loss = supervised_loss(hidden, ids, model.get_output_embeddings(), 5) / 22
        else:
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        found.append(model.get_input_embeddings().weight.grad.clone())
    assert relative(found[1], found[0]) <= 1e-5


def test_lora_on_the_head_and_hooks_are_honoured():
    from peft import LoraConfig, inject_adapter_in_model

    model = torch.nn.ModuleDict({"head": torch.nn.Linear(8, 50, bias=False).requires_grad_(False)})
    assert is_plain(model["head"])
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["head"], init_lora_weights=False), model)
    head = model["head"]
    assert not is_plain(head) and head.out_features == 50
    hidden, labels = torch.randn(1, 20, 8, requires_grad=True), torch.randint(0, 50, (1, 20))
    inputs = [hidden, *(p for p in head.parameters() if p.requires_grad)]
    assert len(inputs) == 3
    pair = [gradients(f, inputs) for f in (supervised_loss(hidden, labels, head, 6), whole(hidden, labels, head))]
    assert all(relative(a, b) <= 1e-5 for a, b in zip(*pair, strict=True))
    hooked = torch.nn.Linear(8, 50, bias=False)
    hooked.register_forward_hook(lambda module, args, output: output * 2)
    torch.testing.assert_close(supervised_loss(hidden, labels, hooked, 6), whole(hidden, labels, hooked))


@pytest.mark.parametrize("supervised", [0, 1, 3, 40])
def test_every_process_calls_its_head_equally_often(supervised):
    """What ZeRO-3 needs: as many calls as asked for, forward and in recomputation, whatever the labels are."""
    head = Shifted(torch.nn.Linear(8, 50))
    hidden, labels = torch.randn(1, 50, 8, requires_grad=True), torch.full((1, 50), IGNORE)
    labels[0, 5 : 5 + supervised] = 1
    needed = chunk_count(labels, head, 10)
    assert needed == max(1, -(-supervised // 10))
    loss = supervised_loss(hidden, labels, head, 10, min_chunks=6)
    assert head.calls == 6
    loss.backward()
    assert head.calls == 12 and torch.isfinite(hidden.grad).all()
    assert (head.linear.weight.grad.abs().sum() > 0) == (supervised > 0)
    torch.testing.assert_close(loss, whole(hidden, labels, head) if supervised else torch.tensor(0.0))
    head.calls = 0
    supervised_loss(hidden, labels, head, 10, min_chunks=1)
    assert head.calls == needed


def test_states_are_not_copied_where_all_are_supervised():
    """The backbone's states are 8 GB at a million tokens of width 4,096: only chunks of them may be copied."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.made: list[int] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            known = {x.untyped_storage().data_ptr() for x in args if isinstance(x, torch.Tensor)}
            if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() not in known:
                self.made.append(out.nbytes)
            return out

    head = torch.nn.Linear(64, 70, bias=False).requires_grad_(False)
    hidden, labels = torch.randn(1, 4096, 64, requires_grad=True), torch.randint(0, 70, (1, 4096))
    labels[0, ::100] = IGNORE  # the first tokens of packed documents
    with Largest() as largest:
        supervised_loss(hidden, labels, head, 128).backward()
    states = hidden.nbytes
    assert sum(n >= states for n in largest.made) == 1  # the gradient


def test_backward_runs_once():
    head, hidden = torch.nn.Linear(8, 50, bias=False), torch.randn(1, 9, 8, requires_grad=True)
    loss = supervised_loss(hidden, torch.randint(0, 50, (1, 9)), head)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()


@pytest.mark.slow
def test_peak_memory_falls_by_the_logits():
    """A step of a small model at 16k tokens and a vocabulary of 49k: at least the fp32 logits (3.2 GB) less."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import loss_memory

    full, chunked = loss_memory.compare(("full", "chunked"), {"width": 72})
    assert full["logits_bytes"] == 16384 * 49152 * 4
    assert chunked["saved_bytes"] >= full["logits_bytes"]
    assert chunked["loss_difference"] <= 1e-5 and chunked["gradient_difference"] <= 1e-5
