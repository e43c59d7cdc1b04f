"""What a user can choose about the conversion."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Pdf2txtSettings(BaseModel):
    """Settings of the ``pdf2txt`` stage; ``engines.resolve`` says what ``auto`` comes to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    render: Literal["pdfium", "poppler"] = Field(
        default="pdfium",
        description="Who turns a page into an image for OCR and layout. pdfium ships in its wheel and is "
        "the faster one; poppler (through pdf2image) needs the system package poppler-utils. The other one "
        "is the second opinion on pages the first cannot draw.",
    )
    layout: Literal["auto", "geometry", "rapid"] = Field(
        default="auto",
        description="Who finds columns and regions. geometry: whitespace and alignment, about a millisecond "
        "a page; rapid: the PP-PicoDet model on every page, 0.1 to 0.4 s a page; auto: geometry, and the "
        "model only on pages where geometry is not sure.",
    )
    ocr: Literal["auto", "rapidocr", "easyocr", "off"] = Field(
        default="auto",
        description="Who reads pages without a good text layer. rapidocr: Latin, Greek, Chinese and Japanese "
        "script, about 1 s a page and core on OpenVINO, 3 s on onnxruntime; easyocr: English, for CUDA (on a CPU "
        "many times slower); off: such pages keep whatever text layer they have. auto: easyocr where it, its "
        "weights and a CUDA device are present, else rapidocr where installed, else off.",
    )
    ocr_backend: Literal["auto", "onnxruntime", "openvino"] = Field(
        default="auto",
        description="What runs RapidOCR's models. openvino is about three times as fast on x86 processors; "
        "auto takes it where it is installed and the processor is x86, else onnxruntime.",
    )
    dpi: int = Field(
        default=200,
        ge=72,
        le=600,
        description="Resolution of page images for OCR, dots per inch. Higher reads smaller print and costs "
        "time in proportion to its square; page sides are kept between 1,500 and 3,600 pixels.",
    )
    language: str = Field(
        default="",
        pattern=r"^([a-z]{2})?$",
        description="ISO 639-1 code of the documents; empty: found per document from its text.",
    )
    format: Literal["plain"] = Field(
        default="plain", description="Form of the text. plain: paragraphs apart by an empty line."
    )
    keep_headers: bool = Field(
        default=False,
        description="Keep running heads, feet and page numbers in the text. They break sentences that run "
        "over a page, so off is better for training.",
    )
    page_seconds: float = Field(
        default=60.0,
        gt=0,
        description="CPU seconds that one page may take; a page over it is left out with a warning and its "
        "document becomes `partial`. A busy machine does not shorten it.",
        json_schema_extra={"digest": False},
    )
    workers: int = Field(
        default=0,
        ge=0,
        description="Worker processes, 0: one per core. Each takes about 150 MB, about 800 MB while it runs OCR.",
        json_schema_extra={"digest": False},
    )
