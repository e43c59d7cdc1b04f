"""S²-Attn inside transformers' models: what it must never let through, and what is refused."""

from __future__ import annotations

import pytest
import torch

from longlora import attention
from longlora.errors import UserError

SMALL = {
    "vocab_size": 101, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256,
}  # fmt: skip
NINE_ON_THREE = {"hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3}
MODELS = {
    "llama": ("llama", {}),
    "llama 9/3": ("llama", NINE_ON_THREE),
    "llama 5/1": ("llama", {"hidden_size": 40, "num_attention_heads": 5, "num_key_value_heads": 1}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral, window": ("mistral", {"sliding_window": 64}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "gpt_neox": ("gpt_neox", {"rotary_pct": 0.5}),
}


def config_of(kind: str, group: int | None = None, **extra):
    from transformers import AutoConfig

    config = AutoConfig.for_model(kind, **{k: v for k, v in {**SMALL, **extra}.items() if v != "none"})
    config.s2_group_size = group
    return config


def build(kind: str, group: int | None = 5, name: str = "s2_attn", **extra):
    from transformers import AutoModelForCausalLM

    attention.register()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(kind, group, **extra), attn_implementation=name).double()
    with torch.no_grad():  # attention far from uniform, so that masks matter
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    return model


@pytest.fixture(params=MODELS)
def model(request):
    kind, extra = MODELS[request.param]
    attention.check(config_of(kind, 5, **extra))
    return build(kind, **extra)


def logits(model, ids, **kwargs):
    return model(input_ids=ids, use_cache=False, **kwargs).logits


def changed_at(ids, where):
    other = ids.clone()
    other[:, where] = (other[:, where] + 1) % 101
    return other


def random_ids(*shape):
    return torch.randint(0, 101, shape, generator=torch.Generator().manual_seed(1))


def test_no_token_sees_a_later_one(model):
    model.train()
    ids = random_ids(2, 29)
    with torch.no_grad():
        before = logits(model, ids)
        for t in (1, 3, 5, 17, 28):
            after = logits(model, changed_at(ids, slice(t, None)))
            assert torch.equal(after[:, :t], before[:, :t]) and not torch.equal(after[:, t], before[:, t])


def test_another_packed_document_changes_nothing(model):
    model.train()
    ids, positions = random_ids(1, 20), torch.cat([torch.arange(9), torch.arange(11)])[None]
    with torch.no_grad():
        before = logits(model, ids, position_ids=positions)
        after = logits(model, changed_at(ids, slice(0, 9)), position_ids=positions)
        assert torch.equal(before[:, 9:], after[:, 9:]) and not torch.equal(before[:, :9], after[:, :9])


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", ["s2_attn", "s2_attn_wrap"])
def test_padding_and_packing_change_nothing(model, mode, name):
    model.set_attn_implementation(name)
    model.train(mode == "train")
    documents = [random_ids(n) for n in (13, 7, 1, 22)]
    with torch.no_grad():
        alone = [logits(model, d[None])[0] for d in documents]
        positions = torch.cat([torch.arange(len(d)) for d in documents])[None]
        packed = logits(model, torch.cat(documents)[None], position_ids=positions)[0]
        torch.testing.assert_close(packed, torch.cat(alone))
        for side in ("left", "right"):
            ids, mask, positions = (torch.zeros(4, 25, dtype=torch.long) for _ in range(3))
            for b, d in enumerate(documents):
                at = slice(25 - len(d), 25) if side == "left" else slice(0, len(d))
                ids[b, at], mask[b, at], positions[b, at] = d, 1, torch.arange(len(d))
            for extra in ({}, {"position_ids": positions}) if side == "right" else ({"position_ids": positions},):
                out = logits(model, ids, attention_mask=mask, **extra)
                for b, reference in enumerate(alone):
                    torch.testing.assert_close(out[b, mask[b].bool()], reference)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(model, reentrant):
    ids = random_ids(2, 21)
    positions = torch.cat([torch.arange(8), torch.arange(13)]).expand(2, -1)
    model.train()
    gradients = []
    for checkpointing in (False, True):
        model.zero_grad()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
            model.enable_input_require_grads()
        logits(model, ids, position_ids=positions).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert gradients[0] and all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_evaluation_is_full_attention_and_training_is_not(model):
    ids = random_ids(2, 24)
    with torch.no_grad():
        evaluated, trained = logits(model.eval(), ids), logits(model.train(), ids)
        model.set_attn_implementation("sdpa")  # eager attention has its softmax in float32
        torch.testing.assert_close(evaluated, logits(model.eval(), ids))
        assert (trained - evaluated).abs().max() > 1e-3
        # the first group sees all there is
        torch.testing.assert_close(trained[:, :2], evaluated[:, :2])


def test_training_gradients_of_a_long_group_are_those_of_sdpa(model):
    model.config.s2_group_size = 64
    ids, mask = random_ids(2, 24), torch.ones(2, 24, dtype=torch.long)
    mask[0, 20:] = 0
    gradients = []
    for name in ("s2_attn", "sdpa"):
        model.set_attn_implementation(name)
        model.zero_grad()
        (logits(model.train(), ids, attention_mask=mask) * mask[..., None]).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_generation_with_cache_equals_sdpa(model):
    model.eval()
    ids, mask = random_ids(2, 9), torch.ones(2, 9, dtype=torch.long)
    mask[0, :4] = 0
    runs = []
    for name in ("s2_attn", "sdpa"):
        model.set_attn_implementation(name)
        runs.append(model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0))
    assert torch.equal(*runs)


def test_the_trial_passes_on_the_tested_models(model):
    """And leaves the model as it was."""
    for name in ("s2_attn", "s2_attn_wrap"):
        model.set_attn_implementation(name)
        model.eval()
        random = torch.get_rng_state()
        attention.selftest(model)
        assert not model.training and model.config.s2_group_size == 5 and torch.equal(random, torch.get_rng_state())
        assert model.config._attn_implementation == name


def test_reach_of_two_layers():
    model, ids = build("llama", group=6).train(), random_ids(1, 24)
    with torch.no_grad():
        moved = (logits(model, ids) - logits(model, changed_at(ids, 0))).abs().amax(-1)[0]
    # groups of 6, shifted by 3: token 0 reaches 5 in one layer and 8 in two, and no further
    assert moved[8] > 0 and torch.all(moved[9:] == 0)


def test_the_wrap_shows_the_last_tokens_to_the_first():
    model = build("llama", group=6, name="s2_attn_wrap", num_hidden_layers=1).train()
    ids = random_ids(1, 24)
    with torch.no_grad():
        moved = (logits(model, ids) - logits(model, changed_at(ids, 23))).abs().amax(-1)[0]
    assert torch.all(moved[:3] > 0) and torch.all(moved[3:23] == 0) and moved[23] > 0


def test_autocast_and_mixed_types():
    """Trained norms on queries and keys are float32 in a bfloat16 model: all meet in one type."""
    model = build("qwen3", group=6).to(torch.bfloat16).train()
    for name, module in model.named_modules():
        if name.endswith(("q_norm", "k_norm")):
            module.float()
    with torch.autocast("cpu", torch.bfloat16):
        out = logits(model, random_ids(1, 24))
        out.float().square().mean().backward()
    assert bool(torch.isfinite(out).all())


def test_inference_mode():
    """Inference tensors have no version counter, so their plan is not kept: a changed mask is seen."""
    model = build("llama").eval()
    ids, positions = random_ids(1, 12), torch.cat([torch.arange(5), torch.arange(7)])[None]
    expected = [logits(model, ids, position_ids=p).detach() for p in (positions, torch.arange(12)[None])]
    with torch.inference_mode():
        given = positions.clone()
        assert given.is_inference()
        assert torch.equal(logits(model, ids, position_ids=given), expected[0])
        given.copy_(torch.arange(12)[None])
        assert torch.equal(logits(model, ids, position_ids=given), expected[1])
    assert not torch.equal(*expected)


def test_group_size_must_be_said():
    model = build("llama").train()
    del model.config.s2_group_size
    with pytest.raises(ValueError, match="s2_group_size"):
        logits(model, torch.zeros(1, 4, dtype=torch.long))


def test_the_backend_of_the_config_is_used():
    model = build("llama").train()
    model.config.s2_backend = "flash_attn"
    with pytest.raises(UserError, match="flash_attn cannot be used: it needs a CUDA device"):
        logits(model, random_ids(1, 8))
    model.config.s2_backend = "sdpa"
    logits(model, random_ids(1, 8))


# ------------------------------------------------------------------ refusals

REFUSED = {
    "bloom": ({"n_head": 4, "n_layer": 2}, "own code"),
    "falcon": ({"head_dim": "none"}, "own code"),
    "gptj": ({"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}, "own code"),
    "llama4_text": ({"num_local_experts": 2, "attention_chunk_size": 8}, "chunk"),
    "qwen3_next": ({}, "linear_attention"),
    "gpt_oss": ({"num_local_experts": 2, "num_experts_per_tok": 1}, "sinks"),
    "gemma2": ({}, "attn_logit_softcapping"),
    "gemma3_text": ({"sliding_window": 4}, "sliding window of 4"),
    "mistral": ({"sliding_window": 4}, "sliding window of 4 tokens is shorter than the 5 "),
    "t5": ({}, "encoder-decoder"),
    "vit": ({}, "no causal language model"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_before_weights_are_loaded(kind):
    extra, reason = REFUSED[kind]
    with pytest.raises(UserError, match=reason) as refusal:
        attention.check(config_of(kind, 5, **extra))
    assert kind in str(refusal.value) and "Llama" in refusal.value.remedy


def test_a_window_is_judged_by_what_attends():
    window = {"sliding_window": 4096, "max_position_embeddings": 32768}
    attention.check(config_of("mistral", 4096, **window))
    attention.check(config_of("mistral", None, **window), length=4000)
    for group, length in ((4097, None), (None, None), (None, 5000)):
        with pytest.raises(UserError, match="sliding window"):
            attention.check(config_of("mistral", group, **window), length)
    attention.check(config_of("qwen2", None, sliding_window=4, use_sliding_window=False))


def test_a_window_that_matters_is_refused_at_run_time_too():
    model = build("mistral", group=6, sliding_window=8)
    ids = random_ids(1, 24)
    with torch.no_grad():
        logits(model.train(), ids)
        logits(model.eval(), ids[:, :8])
        with pytest.raises(ValueError, match="sliding_window of 8"):
            logits(model, ids)  # evaluation is full attention


@pytest.mark.parametrize("kind", ["mixtral", "olmo2", "granite", "smollm3", "phi3", "starcoder2", "cohere"])
def test_models_that_nobody_named_pass_their_trial(kind):
    extra = {"pad_token_id": 0} if kind in ("phi3", "smollm3") else {}
    attention.check(config_of(kind, 5, **extra))
    assert kind not in attention.TESTED
    attention.selftest(build(kind, **extra).float())


def test_the_trial_finds_a_model_whose_own_code_ignores_the_attention():
    model = build("bloom", n_head=4, n_layer=2)
    with pytest.raises(UserError, match=r"bloom: S²-Attn fails its trial .*(plain attention|see later)"):
        attention.selftest(model)


def test_the_trial_finds_documents_that_mix(monkeypatch):
    model = build("llama")
    forward = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda *a, position_ids=None, **k: forward(*a, **k))
    with pytest.raises(UserError, match="packed documents see each other"):
        attention.selftest(model)


@pytest.mark.parametrize("name", ["softcap", "s_aux", "position_bias", "cu_seq_lens_q", "something_new"])
def test_arguments_that_are_not_known_are_refused(name):
    module = build("llama").model.layers[0].self_attn.train()
    q, k = torch.zeros(1, 4, 4, 8), torch.zeros(1, 2, 4, 8)
    with pytest.raises(ValueError, match=name):
        attention.s2_attention_forward(module, q, k, k, None, **{name: torch.ones(1)})
    attention.s2_attention_forward(module, q, k, k, None, **{name: None})


def test_no_cache_in_training():
    module = build("llama").model.layers[0].self_attn.train()
    q, k = torch.zeros(1, 4, 4, 8), torch.zeros(1, 2, 4, 8)
    with pytest.raises(ValueError, match="cache"):
        attention.s2_attention_forward(module, q[:, :, :1], k, k, None)


def test_masks_that_are_more_than_causal_are_refused():
    from transformers.masking_utils import create_causal_mask, create_chunked_causal_mask

    config = build("llama").config
    config.attention_chunk_size = 4
    embeddings = torch.zeros(1, 12, 32)
    given = {"inputs_embeds": embeddings, "attention_mask": None, "past_key_values": None}
    assert create_causal_mask(config, position_ids=torch.arange(12)[None], **given) is None
    assert create_causal_mask(config, position_ids=torch.arange(12)[None] % 5, **given) is None
    with pytest.raises(ValueError, match="chunks of 4"):
        create_chunked_causal_mask(config, position_ids=None, **given)
    with pytest.raises(ValueError, match="own"):
        create_causal_mask(config, position_ids=None, or_mask_function=lambda b, h, q, k: q <= k, **given)
    with pytest.raises(ValueError, match="later ones"):
        attention.s2_mask(1, 4, 4, mask_function=lambda b, h, q, k: k <= q + 1)
