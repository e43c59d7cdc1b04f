"""Layout engines, each run for real: rapid-layout's own model, and small ones made here."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pdf2txt import layout, stage
from pdf2txt.convert import convert
from pdf2txt.engines import installed, resolve
from pdf2txt.errors import UserError
from pdf2txt.layout import Detection, DetectorSpec
from pdf2txt.layout.labels import MAPS, kinds_of
from pdf2txt.layout.regions import at_edges, order_regions
from pdf2txt.render import page_image
from pdf2txt.schema import KINDS, Document
from pdf2txt.settings import Pdf2txtSettings
from pdf2txt.spans import Line

LEFT = ("Bergen", "Riga", "Turku", "Gdansk", "Visby", "Kiel", "Narva", "Ystad")
RIGHT = ("Anna", "Bela", "Carl", "Dora", "Emil", "Frida", "Georg", "Hanna")
# By geometry alone this is a table: two columns of short words on the same lines.
PAGE = f"""
#set page(width: 320pt, height: 300pt, margin: 0pt)
#set text(12pt)
#place(dx: 60pt, dy: 30pt, block(width: 200pt, align(center, text(20pt)[*Ports and Names*])))
#place(dx: 50pt, dy: 90pt, block(width: 100pt, height: 160pt)[{" #linebreak() ".join(LEFT)}])
#place(dx: 170pt, dy: 90pt, block(width: 100pt, height: 160pt, fill: luma(190))[{" #linebreak() ".join(RIGHT)}])
"""
BOXES = ((60, 28, 260, 48), (50, 88, 150, 250), (170, 88, 270, 250))  # points
CLASSES = ("title", "text", "figure")  # of PubLayNet, whose title is our heading


def having(**fields: Any) -> Pdf2txtSettings:
    return Pdf2txtSettings(ocr="off", **fields)


def line(text: str, x: float, y: float) -> Line:
    return Line(text, x, y, x + 40, y + 10, 10)


# --- labels


def test_labels_map_to_kinds_that_exist():
    assert {kind for known in MAPS.values() for kind in known.values()} <= set(KINDS)
    assert [len(known) for known in MAPS.values()] == [5, 11, 10]


@pytest.mark.parametrize(
    ("labels", "names", "kinds"),
    [
        ("", ("text", "title", "list", "table", "figure"), ("text", "heading", "list", "table", "figure")),
        ("", ("Page-header", "Text", "Title"), ("header", "text", "title")),
        ("", ("figure_caption", "text", "title"), ("caption", "text", "heading")),
        ("doclaynet", ("Title", "Table"), ("title", "table")),
        ({"Code": "text", "4": "list"}, ("Page-footer", "Code", "Title", "Text", "Checkbox"),
         ("footer", "text", "title", "text", "list")),
        ("publaynet", (), ("text", "heading", "list", "table", "figure")),
        ({"1": "table", "0": "text"}, (), ("text", "table")),
    ],
)  # fmt: skip
def test_kinds_of_a_models_classes(labels: Any, names: tuple[str, ...], kinds: tuple[str, ...]):
    assert kinds_of(labels, names, len(kinds), "m") == kinds


@pytest.mark.parametrize(
    ("labels", "names", "count", "message"),
    [
        ("", ("text", "stamp", "seal"), 3, "m has classes of unknown kind: stamp, seal"),
        ("cdla", ("Text", "Picture"), 2, "unknown kind: Picture"),
        ("publaynet", (), 3, "m has 3 classes, the labels of publaynet are 5"),
        ("", (), 2, "does not name its 2 classes, and pdf2txt.layout_labels gives no kind for 0, 1"),
        ({"0": "text"}, (), 2, "no kind for 1"),
        ({"txet": "text"}, ("text",), 1, "txet: no class of m, whose classes are text"),
    ],
)
def test_labels_that_do_not_fit(labels: Any, names: tuple[str, ...], count: int, message: str):
    with pytest.raises(UserError, match=message):
        kinds_of(labels, names, count, "m")


def test_bad_labels_in_the_settings_are_told_at_once():
    for bad, message in (("coco", "publaynet"), ({0: "txt"}, "txt: no kind")):
        with pytest.raises(ValueError, match=message):
            having(layout_labels=bad)
    assert having(layout_labels={0: "text"}).layout_labels == {"0": "text"}


# --- regions


def test_running_heads_of_a_model_stay_in_the_text_and_are_told_to_callers():
    lines = [line("Body", 50, 100), line("7", 50, 20), line("Note", 50, 300)]
    found = [
        Detection((40, 10, 300, 40), "header", 0.6),
        Detection((40, 290, 300, 320), "footnote", 0.9),
        Detection((40, 90, 300, 120), "text", 0.8),
    ]
    reading = order_regions(lines, found)
    assert [(r.kind, r.lines[0].text) for r in reading.regions] == [("", "7"), ("", "Body"), ("footnote", "Note")]
    assert {d.kind for d in reading.detections} == {"header", "footnote", "text"}
    assert [(kind, a.text) for kind, _, a in at_edges(lines, found)] == [("footnote", "Note"), ("header", "7")]


def test_the_most_trusted_of_overlapping_detections_has_the_line():
    found = [Detection((0, 0, 99, 99), "figure", 0.6), Detection((0, 0, 99, 50), "table", 0.9)]
    reading = order_regions([line("in both", 10, 10), line("in one", 10, 60)], found)
    assert [(r.kind, r.lines[0].text) for r in reading.regions] == [("table", "in both"), ("figure", "in one")]


# --- rapid-layout


def test_rapid_is_silent_and_finds_the_columns(typeset, capfd):
    pytest.importorskip("rapid_layout")
    layout.load.cache_clear()
    prose = "The harbour master kept a ledger in which every vessel was entered with its cargo. " * 6
    path = typeset(
        "#set page(width: 420pt, height: 595pt, margin: 50pt)\n#set text(10pt, hyphenate: false)\n"
        f"#grid(columns: (1fr, 1fr), gutter: 18pt, [Left. {prose}], [Right. {prose}])"
    )
    d = convert(path, having(layout="rapid"))
    assert d.text == f"Left. {prose.strip()}\n\nRight. {prose.strip()}"
    assert d.warnings == () and capfd.readouterr() == ("", "")


# --- transformers


@contextlib.contextmanager
def one_thread(torch: Any) -> Iterator[None]:
    """These models are so small that threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def page_pdf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    typst = pytest.importorskip("typst")
    folder = tmp_path_factory.mktemp("page")
    (folder / "page.typ").write_text(PAGE, encoding="utf-8")
    typst.compile(str(folder / "page.typ"), output=str(folder / "page.pdf"))
    return folder / "page.pdf"


def drawn(path: Path) -> tuple[np.ndarray, float]:
    import pypdfium2

    with pypdfium2.PdfDocument(path) as pdf:
        scale = layout.scale_for(*pdf[0].get_size())
        return page_image(path, pdf[0], 1, scale, "pdfium"), scale


@pytest.fixture(scope="module")
def rtdetr(page_pdf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an RT-DETR of 0.2 million parameters that was taught this one page."""
    import torch
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrImageProcessorPil, RTDetrResNetConfig

    side, width, queries = 64, 32, 20
    torch.manual_seed(0)
    backbone = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    model = RTDetrForObjectDetection(
        RTDetrConfig(
            backbone_config=backbone, encoder_in_channels=[16, 24, 32], encoder_hidden_dim=width, d_model=width,
            encoder_ffn_dim=2 * width, decoder_ffn_dim=2 * width, encoder_attention_heads=4,
            decoder_attention_heads=4, decoder_in_channels=[width] * 3, decoder_layers=1, num_denoising=0,
            num_queries=queries,
            id2label=dict(enumerate(CLASSES)), label2id={name: n for n, name in enumerate(CLASSES)},
        )
    )  # fmt: skip
    processor = RTDetrImageProcessorPil(size={"height": side, "width": side})
    image, scale = drawn(page_pdf)
    pages = processor(images=image[:, :, ::-1], return_tensors="pt")["pixel_values"]
    pages = torch.cat([pages, (pages + 0.1 * torch.rand_like(pages)).clamp(0, 1)])
    corners = torch.tensor(BOXES) * scale / torch.tensor([image.shape[1], image.shape[0]] * 2)
    boxes = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
    cells = side // 8  # of the finest map, in either direction; each box is its middle's cell to find
    own = torch.tensor([int(y * cells) * cells + int(x * cells) for x, y in boxes[:, :2].tolist()])

    def loss(logits: Any, found: Any, places: Any) -> Any:
        """Of queries, all made at ``places``: sum of classes' and boxes' errors."""
        total = torch.zeros(())
        for scores, at, place in zip(logits, found, places, strict=True):
            target = (place[:, None] == own[None]).float()  # class n is box n
            weight = 0.25 + 0.75 * target
            query, box = target.nonzero(as_tuple=True)
            total += torch.nn.functional.binary_cross_entropy_with_logits(scores, target, weight, reduction="sum")
            total += 5 * (at[query] - boxes[box]).abs().sum()
        return total / 3 / len(logits)

    steps = 100
    with one_thread(torch):
        optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, 3 * (1 - k / steps)))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.3  # so few steps
        model.train()
        for step in range(steps):
            if step == 60:
                model.eval()  # batch statistics as they are used later on
            out = model(pixel_values=pages)
            classes = out.enc_outputs_class
            everywhere = torch.arange(classes.shape[1]).expand(len(pages), -1)
            chosen = classes.max(-1).values.topk(queries, 1).indices
            wrong = loss(classes, out.enc_outputs_coord_logits.sigmoid(), everywhere)
            wrong = wrong + loss(out.logits, out.pred_boxes, chosen)
            optimizer.zero_grad()
            wrong.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            schedule.step()
    directory = tmp_path_factory.mktemp("rtdetr")
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def check_detections(found: list[Detection]) -> None:
    assert sorted(d.kind for d in found) == ["figure", "heading", "text"]
    for kind, box in zip(("heading", "text", "figure"), BOXES, strict=True):
        (seen,) = [d for d in found if d.kind == kind]
        assert seen.score > 0.5
        assert seen.box == pytest.approx(box, abs=15)


def check_document(d: Document) -> None:
    assert d.status == "ok" and d.warnings == ()
    words = d.text.split()
    assert words == ["Ports", "and", "Names", *LEFT, *RIGHT]
    kinds = {b.kind for b in d.blocks if d.text[b.start : b.end].split()[0] in RIGHT}
    assert kinds == {"figure"}


def test_geometry_reads_the_page_otherwise(page_pdf: Path):
    assert "| Bergen | Anna |" in convert(page_pdf, having(layout="geometry")).text


def test_transformers_finds_what_it_was_taught(page_pdf: Path, rtdetr: Path):
    settings = having(layout="transformers", layout_model=rtdetr)
    spec = resolve(settings).detector
    assert spec is not None
    image, scale = drawn(page_pdf)
    check_detections(layout.load(spec).detect(image, scale))
    check_document(convert(page_pdf, settings))
    other = convert(page_pdf, settings.model_copy(update={"layout_labels": {"figure": "table"}}))
    assert {b.kind for b in other.blocks if other.text[b.start : b.end].split()[0] in RIGHT} == {"table"}


def test_auto_asks_the_model_only_where_geometry_is_not_sure(typeset, rtdetr: Path, monkeypatch):
    settings = having(layout="auto", layout_model=rtdetr)
    asked = []
    monkeypatch.setattr(layout, "load", lambda spec, threads: asked.append(spec.engine) or _Blind())
    assert convert(typeset("One column of text."), settings).text == "One column of text."
    assert asked == []
    numbers = "".join(f"[Some words that fill a line {n}],[{n}]," for n in range(12))
    unsure = typeset(f"#set page(width: 420pt, height: 595pt)\n#grid(columns: (1fr, 1fr), row-gutter: 6pt, {numbers})")
    convert(unsure, settings)
    assert asked == ["transformers"]


class _Blind:
    def detect(self, image: Any, scale: float) -> list[Detection]:
        return []


def test_incomplete_weights_are_refused_and_not_made_up(page_pdf: Path, rtdetr: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    broken = _copy(rtdetr, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    name = next(n for n in weights if n.endswith("enc_output.0.weight"))
    del weights[name]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"lack {name}"):
        convert(page_pdf, having(layout="transformers", layout_model=broken))
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be loaded"):
        convert(page_pdf, having(layout="transformers", layout_model=broken))


def _copy(directory: Path, to: Path) -> Path:
    to.mkdir()
    for file in directory.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


# --- what is refused, and what counts for the cache


def test_a_changed_model_is_another_identity_and_a_moved_one_is_not(rtdetr: Path, tmp_path: Path):
    def of(directory: Path, **more: Any) -> tuple[Any, str]:
        settings = having(layout="transformers", layout_model=directory, **more)
        identity = stage.identity(settings)
        return identity, stage.document_key("0" * 64, ".pdf", settings, identity)

    moved = _copy(rtdetr, tmp_path / "moved")
    assert of(moved) == of(rtdetr)
    assert of(moved, layout_score=0.8)[1] != of(rtdetr)[1]
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**config, "eos_coefficient": 0.2}))
    assert of(moved) != of(rtdetr)
    assert {"torch", "transformers"} <= set(of(rtdetr)[0]["versions"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layout": "transformers"}, "pdf2txt.layout_model is not set"),
        ({"layout_model": "absent"}, "absent does not exist"),
        ({"layout": "transformers", "layout_model": "a.yaml"}, "is a file, not a directory"),
        ({"layout_model": "empty"}, "holds no weights"),
        ({"layout_model": "bare"}, "holds no preprocessor_config.json"),
        ({"layout_model": "strange"}, "classes of unknown kind: spleen"),
        ({"layout_model": "strange", "layout_weights": "a.yaml"}, "layout_weights is set, but"),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_page(tmp_path: Path, monkeypatch, fields: Any, message: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("MODEL: {}\n")
    for name, files in (
        ("empty", {"config.json": "{}"}),
        ("bare", {"config.json": "{}", "model.safetensors": ""}),
        ("strange", {"config.json": '{"id2label": {"0": "text", "1": "spleen"}}', "model.safetensors": "",
                     "preprocessor_config.json": "{}"}),
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        stage.identity(having(**fields))
    assert caught.value.remedy


def test_a_missing_package_is_refused_with_its_remedy(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("pdf2txt.engines.installed", lambda name: False)
    (tmp_path / "a.yaml").write_text("MODEL: {}\n")
    for fields in ({"layout": "detectron2"}, {"layout_model": tmp_path / "a.yaml"}):
        with pytest.raises(UserError, match="needs detectron2, which is not installed") as caught:
            resolve(having(**fields))
        assert "README, Optional engines" in caught.value.remedy
    with pytest.raises(UserError, match="needs rapid-layout"):
        resolve(having(layout="rapid"))
    assert resolve(having()).detector is None and resolve(having()).layout == "geometry"


@pytest.fixture
def configured(tmp_path: Path, monkeypatch) -> Callable[..., DetectorSpec | None]:
    """``configured(**fields)``: what is asked to load the configuration ``a.yaml``, based on ``b.yaml``."""
    monkeypatch.setattr("pdf2txt.engines.installed", lambda name: True)
    (tmp_path / "a.yaml").write_text("_BASE_: b.yaml\nMODEL: {ROI_HEADS: {NAME: CascadeROIHeads}}\n")
    (tmp_path / "b.yaml").write_text("MODEL: {WEIGHTS: w.pth, ROI_HEADS: {NUM_CLASSES: 5}}\n")
    (tmp_path / "w.pth").write_bytes(b"weights")

    def make(**fields: Any) -> DetectorSpec | None:
        settings = having(**{"layout_model": tmp_path / "a.yaml", "layout_labels": "publaynet", **fields})
        files = stage.identity(settings)["weights"]["layout"]
        assert list(files)[:3] == ["config", "base-1", "weights"]
        return resolve(settings).detector

    return make


def test_a_detectron2_configuration_is_known_with_its_bases(configured, tmp_path: Path, monkeypatch):
    spec = configured()
    assert (spec.engine, spec.weights) == ("detectron2", tmp_path / "w.pth")
    assert spec.kinds == tuple(MAPS["publaynet"].values())
    (tmp_path / "other.pth").write_bytes(b"others")
    assert configured(layout_weights=tmp_path / "other.pth").weights == tmp_path / "other.pth"
    (tmp_path / "backbone_of_mine.py").write_text("")
    with pytest.raises(UserError, match="no module backbone_of_mine"):
        configured(layout_import="backbone_of_mine:add")
    monkeypatch.syspath_prepend(tmp_path)
    assert configured(layout_import="backbone_of_mine:add").extension == "backbone_of_mine:add"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("b.yaml", "MODEL: {WEIGHTS: 'https://example.org/w.pth'}", "nothing is fetched"),
        ("b.yaml", "MODEL: {WEIGHTS: absent.pth}", "absent.pth does not exist"),
        ("b.yaml", "MODEL: {}", "names no weights"),
        ("b.yaml", "_BASE_: a.yaml", "based on itself"),
        ("b.yaml", "MODEL: {WEIGHTS: w.pth}", "has 80 classes, the labels of publaynet are 5"),
        ("b.yaml", "- a list", "b.yaml is no configuration"),
        ("b.yaml", "{", "cannot be read"),
        ("a.yaml", "_BASE_: c.yaml", "_BASE_ c.yaml of a.yaml does not exist"),
    ],
)
def test_a_detectron2_configuration_that_will_not_do(configured, tmp_path: Path, file: str, text: str, message: str):
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=message):
        configured()


# --- detectron2

BACKBONE = """
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import nn


def add_tiny_config(cfg):
    cfg.MODEL.TINY_WIDTH = 0


class Tiny(Backbone):
    def __init__(self, width):
        super().__init__()
        layers, channels = [], 3
        for out in (width // 4, width // 2, width):
            layers += [nn.Conv2d(channels, out, 3, 2, 1), nn.GroupNorm(2, out), nn.ReLU()]
            channels = out
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, width, 5, 1, 2), nn.ReLU())
        self._out_features, self._out_feature_strides = ["c3"], {"c3": 8}
        self._out_feature_channels = {"c3": width}

    def forward(self, x):
        return {"c3": self.layers(x)}


@BACKBONE_REGISTRY.register()
def build_tiny_backbone(cfg, input_shape: ShapeSpec):
    return Tiny(cfg.MODEL.TINY_WIDTH)
"""
FASTER_RCNN = {
    "VERSION": 2,
    "MODEL": {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "MASK_ON": False,
        "TINY_WIDTH": 32,
        "BACKBONE": {"NAME": "build_tiny_backbone", "FREEZE_AT": 0},
        "PIXEL_MEAN": [127.5, 127.5, 127.5],
        "PIXEL_STD": [127.5, 127.5, 127.5],
        "WEIGHTS": "tiny.pth",
        "ANCHOR_GENERATOR": {"SIZES": [[34.0, 68.0]], "ASPECT_RATIOS": [[0.1, 1.6]]},
        "PROPOSAL_GENERATOR": {"MIN_SIZE": 0},
        "RPN": {"IN_FEATURES": ["c3"], "PRE_NMS_TOPK_TEST": 100, "POST_NMS_TOPK_TEST": 20,
                "PRE_NMS_TOPK_TRAIN": 100, "POST_NMS_TOPK_TRAIN": 20, "BATCH_SIZE_PER_IMAGE": 64},
        "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": ["c3"], "NUM_CLASSES": 5,
                      "BATCH_SIZE_PER_IMAGE": 32, "POSITIVE_FRACTION": 0.5},
        "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 1, "FC_DIM": 256, "POOLER_RESOLUTION": 5,
                         "CLS_AGNOSTIC_BBOX_REG": True},
    },
    "INPUT": {"MIN_SIZE_TEST": 160, "MAX_SIZE_TEST": 200},
}  # fmt: skip


@pytest.mark.skipif(not installed("detectron2"), reason="detectron2 is not installed: README, Optional engines")
def test_detectron2_finds_what_it_was_taught(page_pdf: Path, tmp_path: Path, monkeypatch):
    import torch
    from detectron2.config import get_cfg
    from detectron2.data.transforms import ResizeShortestEdge
    from detectron2.modeling import build_model
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    (tmp_path / "tiny_backbone.py").write_text(BACKBONE)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(FASTER_RCNN))
    (tmp_path / "tiny.yaml").write_text("_BASE_: base.yaml\n")
    import tiny_backbone

    config = get_cfg()
    tiny_backbone.add_tiny_config(config)
    config.merge_from_file(str(tmp_path / "tiny.yaml"))
    config.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    model = build_model(config)
    image, scale = drawn(page_pdf)
    small = ResizeShortestEdge([160, 160], 200).get_transform(image).apply_image(image)
    truth = Instances(small.shape[:2])
    truth.gt_boxes = Boxes(torch.tensor(BOXES) * scale * small.shape[0] / image.shape[0])
    truth.gt_classes = torch.tensor([list(MAPS["publaynet"]).index(name) for name in CLASSES])
    page = {"image": torch.as_tensor(small.transpose(2, 0, 1).copy()), "instances": truth}
    steps = 200
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, 2 * (1 - k / steps)))
    with one_thread(torch), EventStorage():
        for _ in range(steps):
            optimizer.zero_grad()
            sum(model([page]).values()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
            optimizer.step()
            schedule.step()
    torch.save({"model": model.state_dict()}, tmp_path / "tiny.pth")

    settings = having(
        layout="detectron2", layout_model=tmp_path / "tiny.yaml", layout_labels="publaynet",
        layout_import="tiny_backbone:add_tiny_config",
    )  # fmt: skip
    spec = resolve(settings).detector
    assert spec is not None
    check_detections(layout.load(spec).detect(image, scale))
    check_document(convert(page_pdf, settings))
    assert resolve(settings.model_copy(update={"layout": "auto"})).detector == spec

    weights = model.state_dict()
    del weights["roi_heads.box_predictor.cls_score.weight"]
    torch.save({"model": weights}, tmp_path / "less.pth")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    for name, message in (("less", "it lacks roi_heads.box_predictor.cls_score.weight"), ("junk", "cannot be read")):
        with pytest.raises(UserError, match=message):
            convert(page_pdf, settings.model_copy(update={"layout_weights": tmp_path / f"{name}.pth"}))
    with pytest.raises(UserError, match="has no function nothing"):
        convert(page_pdf, settings.model_copy(update={"layout_import": "tiny_backbone:nothing"}))
