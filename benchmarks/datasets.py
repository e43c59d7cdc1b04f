"""What datasets_build shows, measured: yield and truth of its rows, lengths, scale.

    python benchmarks/datasets.py [--only papers,books,...] [--shared DIR] [--work DIR] [--out DIR] [--list]

Every part prints a table of its figures, each beside its target and the word PASS or MISS, and rewrites its own
section of ``results/datasets.json`` and ``results/datasets.md``, with the date, the versions, the machine and its load.
Parts whose data is not to be had are skipped with the reason. The papers and books are looked for in ``--shared``,
``LONGFOLIO_SHARED``, or ``shared`` beside the checkout. Exit code 1 if a target is missed.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # This file has the name of a library: what is imported as datasets must not be looked for beside it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from benchmarks.datasets_bench.main import main

    sys.exit(main(__doc__))
