"""What a training run is told. Fields marked ``digest: False`` change speed or memory, never the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from longlora.adapters import LoraSettings, Role
from longlora.rope import Method
from longlora.templates import TemplateSetting

SPEED: dict[str, Any] = {"digest": False}
WARMUP_STEPS = 20  # where nothing is set, and the training is long enough
LEAST_GROUP = 16  # tokens


class GroupRates(BaseModel):
    """Learning rates of single parameter groups; null means ``learning_rate``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    A: float | None = Field(None, ge=0, description="Of LoRA's A matrices.")
    B: float | None = Field(
        None,
        ge=0,
        description="Of LoRA's B matrices; 4 to 16 times A's learns faster (Hayou et al., 2402.12354).",
    )
    embed: float | None = Field(None, ge=0, description="Of the token embedding (and a head tied to it).")
    norm: float | None = Field(None, ge=0, description="Of the norms on the residual stream.")
    head: float | None = Field(None, ge=0, description="Of an output head of its own.")


class TrainSettings(BaseModel):
    """The train stage: LoRA with trainable embeddings and norms, S²-Attn, packed rows (arXiv 2309.12307)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Data
    data: Literal["sft", "text"] = Field(
        "sft",
        description="sft: the dataset's rows, loss on answers only. text: the plain text of the train-split "
        "documents (or of texts), loss on every token, for context extension.",
    )
    texts: tuple[Path, ...] = Field(
        (),
        description="For data: text, files or folders (.txt, .md, .jsonl, .jsonl.gz, .parquet with a column text) "
        "instead of the documents.",
    )
    template: TemplateSetting | None = Field(
        None,
        description="How an instruction becomes a prompt: chat, inst, plain, or a .jinja file in place of the model's "
        "chat template; null: as the dataset says, else chat.",
    )
    row_tokens: int | None = Field(
        None,
        ge=16,
        description="Tokens per packed row, at most context_length; null: context_length. Memory grows with "
        "it; no dataset row may be longer.",
    )
    packing: bool = Field(
        True,
        description="Several rows of data in one row of row_tokens, blind to each other. Off: one each, "
        "which wastes most of a step on short data.",
    )

    # Context and attention
    context_length: int | None = Field(
        None,
        ge=16,
        description="Tokens the model shall handle; above its window, RoPE is scaled. null: as it is.",
    )
    base_window: int | None = Field(
        None,
        ge=16,
        description="Tokens the model handled before its config's RoPE scaling, where that leaves it open (linear, "
        "without original_max_position_embeddings). null: as the config says.",
    )
    rope: Method = Field("linear", description="How RoPE is scaled: linear (LongLoRA), dynamic, yarn or llama3.")
    attention: Literal["s2_attn", "s2_attn_wrap", "full"] = Field(
        "s2_attn",
        description="Attention while training: s2_attn costs L·group instead of L²; s2_attn_wrap is the paper's roll, "
        "whose first half group sees the last one (for comparison only); full is exact.",
    )
    attention_backend: Literal["auto", "flash_attn", "torch_varlen", "sdpa"] = Field(
        "auto",
        description="Kernels of the attention; auto: flash-attn where installed, else torch's varlen on a GPU, else "
        "SDPA. All compute the same.",
        json_schema_extra=SPEED,
    )
    group: float = Field(
        0.25,
        gt=0,
        description="Group of s2_attn: a share of row_tokens (below 1; the paper's 1/4) or tokens (16 and more). "
        "Smaller is faster on long rows and further from full attention.",
    )

    # What is trained
    lora: LoraSettings | None = Field(
        default_factory=lambda: LoraSettings.model_validate({}),
        description="Low-rank adapters; null: full fine-tuning, every parameter is trained.",
    )
    quantize: Literal["nf4"] | None = Field(
        None,
        description="nf4: the frozen base in 4 bits (QLoRA, arXiv 2305.14314, with double quantisation): a quarter of "
        "its memory, slower steps, slightly worse. Needs the extra qlora.",
    )
    trainable: tuple[Role, ...] = Field(
        ("embed", "norm"),
        description="Trained in full beside LoRA: embed, norm, head. Embeddings and norms are what lets LoRA "
        "extend a context; embeddings dominate the adapter's size.",
    )

    # Optimisation
    learning_rate: float = Field(2e-5, gt=0, description="Peak rate of AdamW. LongLoRA: 2e-5, LongQLoRA: 2e-4.")
    learning_rates: GroupRates = Field(
        default_factory=lambda: GroupRates.model_validate({}), description="Rates of single groups."
    )
    loraplus_lr_ratio: float | None = Field(
        None,
        gt=0,
        description="Rate of B as a multiple of A's (Hayou et al., arXiv 2402.12354; 4 to 16); norms and embeddings "
        "keep theirs.",
    )
    optimizer: Literal["adamw", "paged_adamw", "paged_adamw_8bit"] = Field(
        "adamw",
        description="paged_adamw moves its state to host memory when the GPU is full (QLoRA); 8bit also quantises it. "
        "Both need the extra qlora.",
    )
    schedule: Literal["constant_with_warmup", "cosine", "linear"] = Field(
        "constant_with_warmup", description="Course of the rate after warm-up; cosine and linear fall to 0."
    )
    warmup_steps: int | None = Field(
        None,
        ge=0,
        description="Steps in which the rate rises from 0; null: 20, but at most a tenth of the training's steps.",
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decay, of all groups but norms.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm.")
    max_steps: int | None = Field(None, ge=1, description="Optimizer steps; null: as many as epochs take.")
    epochs: float = Field(1.0, gt=0, description="Passes over the data where max_steps is null.")
    global_batch_size: int = Field(8, ge=1, description="Packed rows per optimizer step, over all devices.")
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="Of the frozen weights and the arithmetic; what is trained is always kept in float32. auto: "
        "bfloat16 where the machine computes in it, else float32, which is many times faster there.",
    )
    seed: int = Field(0, ge=0, description="Of the A matrices, the order of rows and dropout.")

    # Speed and memory
    micro_batch_size: int = Field(
        1, ge=1, description="Rows at once on a device; divides global_batch_size.", json_schema_extra=SPEED
    )
    gradient_checkpointing: bool = Field(
        True,
        description="Recompute each layer in the backward pass: a third more time, a fraction of the memory.",
        json_schema_extra=SPEED,
    )
    layers_per_checkpoint: int = Field(
        1,
        ge=1,
        description="Layers that share one checkpoint: fewer kept states, more memory while a block is recomputed.",
        json_schema_extra=SPEED,
    )
    offload: bool = Field(
        False,
        description="Keep checkpoints in host memory: length is then bounded by it instead of by the GPU's.",
        json_schema_extra=SPEED,
    )
    tile_mlp: int | None = Field(
        None,
        ge=64,
        description="Tokens that pass an MLP or a norm at once; null: all. Bounds their memory on very long rows.",
        json_schema_extra=SPEED,
    )
    liger: Literal["auto", "off"] = Field(
        "auto",
        description="auto: Liger's fused kernels for RoPE, RMSNorm and SwiGLU where the package and a GPU are there.",
        json_schema_extra=SPEED,
    )
    strategy: Literal["auto", "ddp", "zero2", "zero3"] = Field(
        "auto",
        description="With several devices: ddp replicates the model; zero2 shares gradients and optimizer state, zero3 "
        "the weights as well (DeepSpeed). auto: ddp.",
        json_schema_extra=SPEED,
    )
    devices: int | Literal["auto"] = Field(
        "auto", description="Processes, one per GPU; auto: all GPUs, or one process on a CPU.", json_schema_extra=SPEED
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to train.", json_schema_extra=SPEED)
    threads: int | None = Field(
        None, ge=1, description="CPU threads of torch; null: torch's own choice.", json_schema_extra=SPEED
    )
    save_every_steps: int | None = Field(
        None, ge=1, description="Steps between checkpoints; null: by time only.", json_schema_extra=SPEED
    )
    save_every_minutes: float = Field(
        10.0,
        gt=0,
        description="Minutes between checkpoints at most: what a crash can cost.",
        json_schema_extra=SPEED,
    )
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = Field(
        (), description="Where metrics go besides metrics.jsonl.", json_schema_extra=SPEED
    )

    @model_validator(mode="after")
    def _check(self) -> TrainSettings:
        if self.global_batch_size % self.micro_batch_size:
            raise ValueError(
                f"global_batch_size ({self.global_batch_size}) must be a multiple of "
                f"micro_batch_size ({self.micro_batch_size})"
            )
        if self.texts and self.data != "text":
            raise ValueError("texts is for data: text; with data: sft it would not be read")
        if self.context_length and self.row_tokens and self.row_tokens > self.context_length:
            raise ValueError(f"row_tokens ({self.row_tokens}) is above context_length ({self.context_length})")
        if self.group >= 1 and self.group != int(self.group):
            raise ValueError(f"group ({self.group}) is a share below 1 or a whole number of tokens")
        if 1 <= self.group < LEAST_GROUP:
            raise ValueError(
                f"group ({self.group:g}) would be {self.group:g} token{'s' * (self.group > 1)}, too few to attend to: "
                f"give a share of the row below 1, such as 0.25, or {LEAST_GROUP} tokens or more; "
                "attention: full is the whole row"
            )
        return self

    def warmup(self, steps: int) -> int:
        """Warm-up steps of a training of ``steps``."""
        return min(WARMUP_STEPS, steps // 10) if self.warmup_steps is None else self.warmup_steps

    @property
    def stated_devices(self) -> int:
        """``devices``, auto as 1."""
        return 1 if self.devices == "auto" else self.devices

    def rate(self, group: str) -> float:
        """The peak learning rate of a parameter group (A, B, embed, norm, head)."""
        own = getattr(self.learning_rates, group)
        return self.learning_rate if own is None else float(own)
