"""Stage ``merge``: base model + adapter -> an ordinary Hugging Face model directory, checked.

``longlora.merge.stage`` writes it, ``weights`` computes the tensors, ``writer`` streams them to disk,
``verify`` compares logits with ``reference``, both computed as ``streaming`` has it; ``card`` writes the README.
``alone`` merges outside the pipeline, ``importer`` reads the layouts that LongLoRA and LongQLoRA released.
"""

from longlora.merge.settings import MergeSettings
from longlora.merge.stage import STAGE_VERSION, identity, run

__all__ = ["STAGE_VERSION", "MergeSettings", "identity", "run"]
