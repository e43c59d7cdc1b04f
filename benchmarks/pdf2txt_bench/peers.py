"""Environments of the peers, which are never dependencies: made by pip below the cache, kept by their pins."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.pdf2txt_bench.common import Bench, Skip, content_key

# AGPL-3.0: used here as a program beside ours, never imported and never shipped.
PYMUPDF4LLM = ("pymupdf==1.28.2", "pymupdf4llm==1.28.2", "pymupdf-layout==1.28.2")


def python_of(bench: Bench, pins: tuple[str, ...]) -> Path:
    """The interpreter of an environment that holds ``pins``, made where there is none yet.

    Raises:
        Skip: pip could not install them.
    """
    folder = bench.cache / f"peers-{content_key(pins, sys.version_info[:2])}"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    print(f"installing {', '.join(pins)} into {folder}", flush=True)
    venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        print(done.stderr.strip()[-1000:], flush=True)
        raise Skip(f"pip could not install {' '.join(pins)}")
    (folder / "complete").write_text("\n".join(pins) + "\n")
    return python
