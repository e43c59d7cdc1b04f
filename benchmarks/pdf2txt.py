"""What pdf2txt can do, measured: quality, speed, OCR, hyphens, damaged files, memory, workers, kills.

    python benchmarks/pdf2txt.py [--only quality,speed,...] [--shared DIR] [--work DIR] [--out DIR] [--list]

Every part prints a table of its figures, each beside its target and the word PASS or MISS, and rewrites its own
section of ``results/pdf2txt.json`` and ``results/pdf2txt.md``, with the date, the versions, the machine and its load.
Parts whose data or peer is not to be had are skipped with the reason. The benchmark PDFs are looked for in
``--shared``, ``LONGFOLIO_SHARED``, or ``shared`` beside the checkout. Exit code 1 if a target is missed.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # This file has the library's name: what is imported as pdf2txt must be looked for in the checkout, not here.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from benchmarks.pdf2txt_bench.main import main

    sys.exit(main(__doc__))
