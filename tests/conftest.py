"""Real parts for tests: the embedded model, a tiny random model of the same architecture, shared data."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

with contextlib.suppress(ImportError):  # EasyOCR's environment does without
    from hypothesis import settings

    settings.register_profile("any machine", deadline=None)  # a busy one takes its time
    settings.load_profile("any machine")
if "PYTEST_XDIST_WORKER" in os.environ:  # each process its share of the cores, and what it starts likewise
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("LONGFOLIO_SHARED", ROOT.parent / "shared"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest, most of it waiting, goes first: last it would have the machine for itself."""
    items.sort(key=lambda item: item.path.name != "test_up.py")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Benchmark data that is not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"benchmark data not found at {SHARED}; set LONGFOLIO_SHARED")
    return SHARED


@pytest.fixture(scope="session")
def smollm2_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M as an ordinary model directory."""
    from longlora.models import ModelSettings, prepare

    cache = os.environ.get("LONGFOLIO_TEST_MODELS")
    root = Path(cache) if cache else tmp_path_factory.mktemp("models")
    return prepare(ModelSettings(name="smollm2-135m-q4"), root)


@pytest.fixture(scope="session")
def tokenizer(smollm2_dir: Path):
    from longlora.models import load_tokenizer

    return load_tokenizer(smollm2_dir)


@pytest.fixture(scope="session")
def tiny_model_dir(smollm2_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random 2-layer Llama with SmolLM2's tokenizer and head layout (9 query / 3 key-value heads, tied)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from longlora.models import load_tokenizer

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=72, intermediate_size=96, num_hidden_layers=2, num_attention_heads=9,
        num_key_value_heads=3, head_dim=8, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(folder)
    load_tokenizer(smollm2_dir).save_pretrained(folder)
    return folder
