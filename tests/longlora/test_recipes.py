"""The packaged recipes say what was published."""

from __future__ import annotations

import pytest

from flows.config import load
from flows.resources import packaged_configs
from longlora.train.model import check_settings

LONGLORA = {  # README, fine-tune.py and supervised-fine-tune.py
    "lora.r": 8,
    "lora.alpha": 16,
    "lora.dropout": 0,
    "lora.targets": None,
    "trainable": ("embed", "norm"),
    "learning_rate": 2e-5,
    "schedule": "constant_with_warmup",
    "warmup_steps": 20,
    "weight_decay": 0,
    "rope": "linear",
    "attention": "s2_attn",
    "group": 0.25,
    "global_batch_size": 64,
}
PUBLISHED = {
    "llama2-7b-32k": LONGLORA | {"data": "text", "context_length": 32768, "max_steps": 1000, "quantize": None},
    "llama2-7b-sft-16k": LONGLORA | {"data": "sft", "context_length": 16384, "epochs": 5, "max_steps": None},
    "longqlora-llama2-7b-8k": {  # README and arguments of LongQLoRA
        "data": "text",
        "context_length": 8192,
        "group": 0.25,
        "quantize": "nf4",
        "lora.r": 64,
        "lora.alpha": 16,
        "lora.dropout": 0.05,
        "lora.targets": "all-linear",
        "trainable": (),
        "learning_rate": 2e-4,
        "schedule": "constant_with_warmup",
        "warmup_steps": 20,
        "max_grad_norm": 0.3,
        "max_steps": 1000,
        "global_batch_size": 16,
        "optimizer": "paged_adamw",
    },
    "pythia-1.4b-qlora": {  # notebook of isabelarvelo/LongLoRA; embed_in and embed_out as LongLoRA's substring rule
        "context_length": 32768,
        "group": 0.25,
        "quantize": "nf4",
        "lora.r": 8,
        "lora.targets": ("query_key_value", "dense"),
        "trainable": ("embed", "norm", "head"),
        "learning_rate": 2e-5,
        "warmup_steps": 20,
        "max_steps": 1000,
        "global_batch_size": 8,
    },
}
MODELS = {
    "llama2-7b-32k": "meta-llama/Llama-2-7b-hf",
    "llama2-7b-sft-16k": "meta-llama/Llama-2-7b-chat-hf",
    "longqlora-llama2-7b-8k": "meta-llama/Llama-2-7b-hf",
    "pythia-1.4b-qlora": "EleutherAI/pythia-1.4b",
}


@pytest.mark.parametrize("name", list(packaged_configs()))
def test_settings_go_together_and_the_command_stands_on_top(name):
    pytest.importorskip("bitsandbytes")
    check_settings(load(name).train)
    head = packaged_configs()[name].read_text().partition("\npdfs:")[0]
    assert f"longfolio run {name}" in head


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_figures(name):
    config = load(name)
    assert config.model.name == MODELS[name]
    found = {}
    for key in PUBLISHED[name]:
        value = config.train
        for part in key.split("."):
            value = getattr(value, part)
        found[key] = value
    assert found == PUBLISHED[name]


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_evaluated_at_the_length_it_is_trained_for(name):
    config = load(name)
    assert config.evaluate.perplexity.window == config.train.context_length
    assert not config.train.row_tokens or config.train.row_tokens == config.train.context_length


@pytest.mark.parametrize("name", ["demo", "extend-cpu"])
def test_cpu_recipes_compute_in_what_the_machine_is_good_at(name):
    assert load(name).train.dtype == "auto"


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_every_training_key_says_what_it_trades(name):
    """Comments are part of a recipe: half of the keys and more have one on their line."""
    text = packaged_configs()[name].read_text()
    body = text.partition("\ntrain:\n")[2].partition("\nevaluate:")[0]
    keys = [line for line in body.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert sum("#" in line for line in keys) >= len(keys) / 2
