"""Training runs of several processes, as a user starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


def command(dataset: Path, model: Path, work: Path, **settings: Any) -> list[str]:
    """``python -m longlora.train`` with these settings."""
    work.mkdir(parents=True, exist_ok=True)
    file = work.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(settings))
    parts = [sys.executable, "-m", "longlora.train", "--dataset", dataset, "--model", model, "--out", work]
    return [str(part) for part in [*parts, "--settings", file]]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(*args: Any, **settings: Any) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(
        command(*args, **settings), capture_output=True, text=True, env=environment(), timeout=300, check=False
    )
