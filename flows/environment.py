"""What every process of ours sets before torch and transformers are imported."""

from __future__ import annotations

import os
import warnings


def quiet() -> None:
    """Threads that wait asleep; no talk of other libraries about their own future."""
    # Two threads that wait for each other by spinning make a step ten times slower as soon as anything else
    # runs on the machine; sleeping costs nothing measurable. Read by OpenMP when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
