"""Cross-entropy in chunks against the whole."""

from __future__ import annotations

import pytest
import torch

from longlora.train.loss import supervised_loss


@pytest.mark.parametrize("chunk", [3, 1000])
def test_loss_equals_full_logits(chunk):
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 50, bias=False)
    hidden = torch.randn(2, 17, 8, requires_grad=True)
    labels = torch.randint(0, 50, (2, 17))
    labels[:, :6] = -100
    logits = head(hidden)[:, :-1].flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=-100, reduction="sum")
    ours = supervised_loss(hidden, labels, head, chunk)
    torch.testing.assert_close(ours, expected)
    inputs = [hidden, head.weight]
    for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_loss_equals_transformers(tiny_model_dir):
    from longlora.models import load_model

    model = load_model(tiny_model_dir, dtype="float32").eval()
    ids = torch.randint(3, 900, (1, 40))
    labels = ids.clone()
    labels[:, :15] = -100
    with torch.no_grad():
        reference = model(input_ids=ids, labels=labels).loss
        hidden = model.base_model(input_ids=ids).last_hidden_state
        ours = supervised_loss(hidden, labels, model.get_output_embeddings()) / (labels[:, 1:] != -100).sum()
    torch.testing.assert_close(ours, reference)
