"""Scans made from PDFs: every page as one JPEG image, in the forms in which scanned documents arrive.

    python benchmarks/scans.py OUT_DIR FORM [FORM ...] -- PDF [PDF ...]

writes ``OUT_DIR/FORM/<stem>.pdf``. The same sources give the same images: what is left to chance (which way
a page is skewed or turned) is drawn from a seed and the file's name.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pypdfium2
from PIL import Image, ImageFilter


@dataclass(frozen=True)
class Form:
    """How pages are turned into images."""

    dpi: int = 200
    blur: float = 0.0  # radius of a Gaussian, pixels
    skew: float = 0.0  # degrees, to either side
    turn: int = 0  # degrees, to either side


FORMS = {
    "150": Form(dpi=150),
    "200": Form(),
    "300": Form(dpi=300),
    "blur": Form(blur=1.0),
    "skew": Form(skew=1.5),
    "rotate90": Form(turn=90),
}
_QUALITY = 85  # of the JPEG images
_SEED = 20


def make_scans(source_pdfs: Iterable[Path], out_dir: Path, form: str) -> list[Path]:
    """Image-only PDFs of ``source_pdfs`` under their own names in ``out_dir`` (made if missing), in grey.

    Raises:
        KeyError: no such form in ``FORMS``.
    """
    how = FORMS[form]
    out_dir.mkdir(parents=True, exist_ok=True)
    made = []
    for source in source_pdfs:
        target = out_dir / f"{source.stem}.pdf"
        images = _images(source, how, random.Random(f"{_SEED} {source.name}"))
        first = next(images)
        first.save(target, "PDF", resolution=how.dpi, quality=_QUALITY, save_all=True, append_images=images)
        made.append(target)
    return made


def _images(source: Path, how: Form, chance: random.Random) -> Iterator[Image.Image]:
    with pypdfium2.PdfDocument(source) as pdf:
        for page in pdf:
            image = page.render(scale=how.dpi / 72, grayscale=True).to_pil().convert("L")
            side = chance.choice((-1, 1))
            if how.skew:
                image = image.rotate(side * how.skew, Image.Resampling.BICUBIC, fillcolor=255)
            if how.blur:
                image = image.filter(ImageFilter.GaussianBlur(how.blur))
            if how.turn:
                image = image.rotate(side * how.turn, expand=True)
            yield image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="+", metavar="FORM | PDF", help=f"forms ({', '.join(FORMS)}) and PDFs")
    args = parser.parse_args()
    forms = [n for n in args.names if n in FORMS]
    for form in forms:
        for path in make_scans([Path(n) for n in args.names if n not in FORMS], args.out / form, form):
            print(path)


if __name__ == "__main__":
    main()
