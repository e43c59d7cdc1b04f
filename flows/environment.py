"""What every process of ours sets before torch and transformers are imported."""

from __future__ import annotations

import os
import warnings

# Nothing leaves the machine, and Prefect's UI shows no advertisements.
PRIVACY = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}


def quiet() -> None:
    """Threads that wait asleep; no talk of other libraries about their own future, and none to their makers."""
    for name, value in PRIVACY.items():
        os.environ.setdefault(name, value)
    # A module of the user's, named like one of ours or of Python's, is not imported by what we start there.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    # Two threads that wait for each other by spinning make a step ten times slower as soon as anything else
    # runs on the machine; sleeping costs nothing measurable. Read by OpenMP when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
