"""From a Llama-architecture GGUF file to an ordinary Hugging Face model directory.

transformers reads GGUF too, but parses the file three times, forgets the pre-tokenizer named in it (so that
numbers and blank lines are cut differently from the original tokenizer), and will not save a model that was
quantised. Here the file is parsed once and its tensors are de-quantised one at a time.

Format: ggml-org/ggml, docs/gguf.md. Names: llama.cpp, gguf-py/gguf/constants.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlora.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from gguf import GGUFReader, ReaderTensor
    from transformers import PreTrainedTokenizerFast

WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
CONTROL_TOKEN = 3  # tokenizer.ggml.token_type of special tokens
SPLIT_DIGITS = ("smollm", "starcoder", "refact", "command-r")  # pre-tokenizers that cut each digit off


def convert(gguf: Path, target: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Write config, generation config, tokenizer and bfloat16 weights of ``gguf`` into the folder ``target``.

    ``progress(done, total)`` counts tensors.

    Raises:
        UserError: the file is damaged, or not a Llama with a byte-level BPE tokenizer.
    """
    import gguf as library

    from longlora.merge.writer import Spec, write_file

    try:
        reader = library.GGUFReader(gguf)
    except Exception as error:
        raise UserError(f"{gguf} cannot be read: {error}", "install the package that carries it again") from error
    fields = _Fields(reader)
    kind = (fields["general.architecture"], fields["tokenizer.ggml.model"])
    if kind != ("llama", "gpt2"):
        raise UserError(f"{gguf}: architecture {kind[0]}, tokenizer {kind[1]} is not handled", "use model.path")
    tensors = {_name(t.name): t for t in reader.tensors}
    config = _config(fields, tied="lm_head.weight" not in tensors)
    heads = {
        "self_attn.q_proj.weight": config["num_attention_heads"],
        "self_attn.k_proj.weight": config["num_key_value_heads"],
    }
    done = 0

    def get(name: str) -> torch.Tensor:
        nonlocal done
        done += 1
        progress(done, len(tensors))
        return _weight(tensors[name], next((n for part, n in heads.items() if name.endswith(part)), 0))

    shapes = {name: [int(n) for n in reversed(t.shape)] for name, t in tensors.items()}
    specs = [Spec(name, shapes[name], "bfloat16") for name in sorted(tensors)]
    write_file(target / "model.safetensors", specs, get)
    _tokenizer(fields, config).save_pretrained(target)
    special = {k: config[k] for k in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(target / "generation_config.json", {"_from_model_config": True, **special})
    _write_json(target / "config.json", config)


def read_config(gguf: Path) -> dict[str, Any]:
    """The config that `convert` writes, without converting: the tensors are not read."""
    import gguf as library

    reader = library.GGUFReader(gguf)
    return _config(_Fields(reader), tied="output.weight" not in {t.name for t in reader.tensors})


class _Fields:
    """Metadata by key."""

    def __init__(self, reader: GGUFReader) -> None:
        self._fields = reader.fields

    def __getitem__(self, key: str) -> Any:
        return self._fields[key].contents()

    def get(self, key: str, default: Any) -> Any:
        return self[key] if key in self._fields else default

    def strings(self, key: str) -> list[str]:
        field = self._fields[key]  # contents() takes a second for 50,000 strings
        return [bytes(field.parts[i]).decode() for i in field.data]


def _name(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "blk":
        return ".".join(["model.layers", parts[1], LAYER[parts[2]], parts[3]])
    return f"{WHOLE[parts[0]]}.{parts[1]}"


def _weight(tensor: ReaderTensor, heads: int) -> torch.Tensor:
    """Float32 weight; query and key rows go back from llama.cpp's order (pairs) to halves of a head."""
    import numpy as np
    import torch
    from gguf.quants import dequantize

    weight: np.ndarray = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    if heads:
        pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])
        weight = pairs.swapaxes(1, 2).reshape(weight.shape)
    return torch.from_numpy(np.array(weight))


def _config(fields: _Fields, *, tied: bool) -> dict[str, Any]:
    heads, width = int(fields["llama.attention.head_count"]), int(fields["llama.embedding_length"])
    eps = float(fields["llama.attention.layer_norm_rms_epsilon"])
    eos = int(fields["tokenizer.ggml.eos_token_id"])
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": int(fields["tokenizer.ggml.bos_token_id"]),
        "dtype": "bfloat16",
        "eos_token_id": eos,
        "head_dim": width // heads,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": int(fields["llama.feed_forward_length"]),
        "max_position_embeddings": int(fields["llama.context_length"]),
        "mlp_bias": False,
        "num_attention_heads": heads,
        "num_hidden_layers": int(fields["llama.block_count"]),
        "num_key_value_heads": int(fields.get("llama.attention.head_count_kv", heads)),
        "pad_token_id": int(fields.get("tokenizer.ggml.padding_token_id", eos)),
        "rms_norm_eps": float(f"{eps:.6g}"),  # 1e-5, stored as the nearest float32
        "rope_parameters": {
            "rope_theta": float(fields.get("llama.rope.freq_base", 10_000.0)),
            "rope_type": "default",
        },
        "tie_word_embeddings": tied,
        "use_cache": True,
        "vocab_size": int(fields["llama.vocab_size"]),
    }


def _tokenizer(fields: _Fields, config: dict[str, Any]) -> PreTrainedTokenizerFast:
    """The byte-level BPE tokenizer, with the pre-tokenizer that the file names."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = fields.strings("tokenizer.ggml.tokens")
    merges = [(a, b) for a, _, b in (m.partition(" ") for m in fields.strings("tokenizer.ggml.merges"))]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    split_digits = fields.get("tokenizer.ggml.pre", "") in SPLIT_DIGITS
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_]) if split_digits else bytes_
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    special = [t for t, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    named = {
        "bos_token": tokens[config["bos_token_id"]],
        "eos_token": tokens[config["eos_token_id"]],
        "pad_token": tokens[config["pad_token_id"]],
    }
    if (unknown := fields.get("tokenizer.ggml.unknown_token_id", None)) is not None:
        named["unk_token"] = tokens[unknown]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **named)
    fast.chat_template = fields.get("tokenizer.chat_template", None)
    return fast


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
