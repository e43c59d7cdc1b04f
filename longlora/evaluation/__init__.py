"""Stage ``evaluate``: base and merged model on the same samples, with intervals."""

from longlora.evaluation.settings import EvaluateSettings

__all__ = ["EvaluateSettings"]
