"""What is installed, what can be used, and what to install for more."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

OK, MISSING, WARN = "ok", "optional", "problem"
GIB = 2**30


@dataclass(frozen=True)
class Check:
    """One line of the report. ``remedy`` says what to do for more; "" if nothing is to be done."""

    area: str
    name: str
    state: str  # OK | MISSING (an option that is not installed) | WARN (something needed is wrong)
    detail: str
    remedy: str = ""


def examine(store: Path) -> list[Check]:
    """Every check, in the order in which a person reads them."""
    checks: list[Check] = [
        Check(
            "machine",
            "python",
            OK,
            f"{platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores",
        ),
        _memory(),
        _disk(store),
    ]
    for check in (_torch, _accelerator, _model, _prefect, lambda: _server(store)):
        checks.append(_safely(check))
    checks += [
        _package("pdf2txt", "pypdfium2", "pypdfium2", needed=True),
        _poppler(),
        _package("pdf2txt", "rapidocr", "rapidocr", needed=True),
        _safely(_opencv),
        _package(
            "pdf2txt",
            "openvino",
            "openvino",
            remedy="pip install openvino (about three times faster OCR on x86)",
        ),
        _package("pdf2txt", "rapid-layout", "rapid_layout", needed=True),
        _package(
            "pdf2txt",
            "easyocr",
            "easyocr",
            remedy="OCR of English on a CUDA device: README, Optional engines",
        ),
        _package("pdf2txt", "detectron2", "detectron2", remedy="layout models of detectron2: README, Optional engines"),
        _package("train", "transformers", "transformers", needed=True),
        _package("train", "peft", "peft", needed=True),
        _package(
            "train",
            "bitsandbytes",
            "bitsandbytes",
            remedy="on its way: 4-bit base models",
        ),
        _package("train", "flash-attn", "flash_attn", remedy="on its way: flash-attn kernels on a CUDA machine"),
        _package("train", "deepspeed", "deepspeed", remedy="on its way: several GPUs"),
        _package("dataset", "datasets", "datasets", needed=True),
    ]
    return checks


def _prefect() -> Check:
    """That it can be imported beside what is installed, and which server there would be."""
    import prefect.flows
    import sqlalchemy

    if int(sqlalchemy.__version__.split(".")[1]) > 0:
        remedy = "pip install 'sqlalchemy<2.1'"
        return Check("prefect", "prefect", WARN, f"sqlalchemy {sqlalchemy.__version__}: nothing is scheduled", remedy)
    return Check("prefect", "prefect", OK, str(prefect.__version__))


def _server(store: Path) -> Check:
    from flows.orchestration.server import Home, alive, read_json

    configured = os.environ.get("PREFECT_API_URL")
    if configured:
        return Check("prefect", "server", OK, f"{configured} (PREFECT_API_URL)")
    note = read_json(Home.of(store).path / "up.json")
    if note and alive(note):
        return Check("prefect", "server", OK, f"up: {note['ui']}")
    return Check("prefect", "server", OK, "started for each run; `longfolio up` keeps one, with a UI and workers")


def _safely(check: Callable[[], Check]) -> Check:
    """A check that fails is itself a finding."""
    try:
        return check()
    except Exception as error:
        name = check.__name__.strip("_")
        return Check("machine", name, WARN, f"{type(error).__name__}: {error}", "reinstall: make install")


def _package(area: str, name: str, module: str, *, needed: bool = False, remedy: str = "") -> Check:
    if importlib.util.find_spec(module) is None:
        return Check(area, name, WARN if needed else MISSING, "not installed", remedy or f"pip install {name}")
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        version = "installed"
    return Check(area, name, OK, version)


def _memory() -> Check:
    memory = psutil.virtual_memory()
    state = OK if memory.total >= 7 * GIB else WARN
    remedy = "" if state == OK else "training SmolLM2-135M wants about 6 GiB: lower dataset.max_tokens"
    return Check(
        "machine",
        "memory",
        state,
        f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free",
        remedy,
    )


def _disk(store: Path) -> Check:
    folder = next(p for p in (store, *store.parents) if p.exists())
    if not os.access(folder, os.W_OK):
        return Check("machine", "store", WARN, f"{store} cannot be written", "use --store with another directory")
    free = shutil.disk_usage(folder).free
    state = OK if free >= 5 * GIB else WARN
    remedy = "" if state == OK else "longfolio gc, or --store on another disk"
    return Check("machine", "store", state, f"{store}: {free / GIB:.1f} GiB free", remedy)


def _torch() -> Check:
    import torch

    kind = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return Check("machine", "torch", OK, f"{torch.__version__} ({kind}), {torch.get_num_threads()} threads")


def _accelerator() -> Check:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Check("machine", "accelerator", OK, ", ".join(names))
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fast = [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
    if fast:
        return Check("machine", "accelerator", OK, f"none; the processor has bf16 instructions ({', '.join(fast)})")
    return Check(
        "machine",
        "accelerator",
        MISSING,
        "none, and the processor has no bf16 instructions",
        "training will be slow: use a GPU machine",
    )


def _poppler() -> Check:
    if shutil.which("pdftoppm") is None:
        return Check(
            "pdf2txt",
            "poppler",
            MISSING,
            "pdftoppm not found",
            "apt-get install poppler-utils (second opinion on damaged PDFs)",
        )
    return Check("pdf2txt", "poppler", OK, "pdftoppm found")


def _opencv() -> Check:
    import cv2

    return Check("pdf2txt", "opencv", OK, str(cv2.__version__))


def _model() -> Check:
    from longlora.errors import UserError
    from longlora.models import EMBEDDED, embedded_file

    name = next(iter(EMBEDDED))
    try:
        return Check("train", f"model {name}", OK, f"{embedded_file(name).stat().st_size / 1e6:.0f} MB")
    except UserError as error:
        return Check("train", f"model {name}", WARN, str(error), error.remedy)
