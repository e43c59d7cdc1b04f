"""What computes losses and answers: transformers in this process, vLLM, or a server that others run."""

from __future__ import annotations

from longlora.evaluation.engines.base import Batch, Engine, batches
from longlora.evaluation.engines.endpoint import EndpointEngine, EndpointSettings
from longlora.evaluation.engines.transformers import TransformersEngine
from longlora.evaluation.engines.vllm import VllmEngine

__all__ = ["Batch", "EndpointEngine", "EndpointSettings", "Engine", "TransformersEngine", "VllmEngine", "batches"]
