"""Reading page images: text lines with boxes, by RapidOCR or EasyOCR."""

from pdf2txt.ocr.page import OcrPage, read

__all__ = ["OcrPage", "read"]
