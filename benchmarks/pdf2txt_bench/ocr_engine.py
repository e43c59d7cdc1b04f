"""An OCR engine over page images, one by one: ``python ocr_engine.py rapidocr|easyocr IMAGE...``.

Runs by its path under any interpreter, as EasyOCR has an environment of its own. Prints ``{"pages": [{"image", "text",
"seconds"}]}``; the models are loaded, and a first image is read, before the clock starts (EasyOCR, which takes a
minute a page, reads an empty image instead).
"""

import json
import sys
import time
from pathlib import Path


def rapidocr():
    from rapidocr import RapidOCR

    engine = RapidOCR()
    return lambda image: "\n".join(engine(image).txts or ())


def easyocr():
    import easyocr as library

    # Weights come from a package; nothing is downloaded.
    weights = next((p for root in sys.path if root for p in Path(root).glob("*/**/craft_mlt_25k.pth")), None)
    if weights is None:
        sys.exit("no package with EasyOCR's weights (craft_mlt_25k.pth)")
    engine = library.Reader(
        ["en"], gpu=False, model_storage_directory=str(weights.parent), download_enabled=False, verbose=False
    )
    return lambda image: "\n".join(engine.readtext(image, detail=0))


def main():
    import numpy as np
    from PIL import Image

    name, *paths = sys.argv[1:]
    stdout, sys.stdout = sys.stdout, sys.stderr
    read = {"rapidocr": rapidocr, "easyocr": easyocr}[name]()
    images = [np.asarray(Image.open(path).convert("RGB"))[:, :, ::-1].copy() for path in paths]
    read(images[0] if name == "rapidocr" else np.full((64, 256, 3), 255, np.uint8))
    pages = []
    for path, image in zip(paths, images, strict=True):
        began = time.perf_counter()
        text = read(image)
        pages.append({"image": path, "text": text, "seconds": time.perf_counter() - began})
    print(json.dumps({"pages": pages}), file=stdout)


if __name__ == "__main__":
    main()
