"""What pdfium itself makes of every page of some files: ``python fingerprints.py LIST``, one JSON line a file.

A line is ``{"path", "pages": [fingerprint or null]}``: a hash of the page's size, its characters and its drawing at
72 dpi. A page of a damaged file that has the fingerprint of a page of the sound one is as good as that one. A process
of its own, as pdfium may crash on what it is given.
"""

import hashlib
import json
import sys
from pathlib import Path


def fingerprint(page):
    text = page.get_textpage().get_text_range()
    drawing = page.render(scale=1, grayscale=True).to_numpy()
    head = f"{page.get_size()} {page.get_rotation()} {drawing.shape} {text}"
    return hashlib.sha256(head.encode("utf-8", "replace") + drawing.tobytes()).hexdigest()[:16]


def pages(path):
    import pypdfium2

    try:
        pdf = pypdfium2.PdfDocument(path)
    except Exception:
        return []
    found = []
    for number in range(min(len(pdf), 500)):
        try:
            found.append(fingerprint(pdf[number]))
        except Exception:
            found.append(None)
    pdf.close()
    return found


if __name__ == "__main__":
    for name in Path(sys.argv[1]).read_text().splitlines():
        print(json.dumps({"path": name, "pages": pages(Path(name))}), flush=True)
