"""What evaluation shows, on the smallest real model there is.

    python benchmarks/evaluation.py [--only perplexity,gate,...] [--shared DIR] [--work DIR] [--out DIR] [--list]

Every part prints a table of its figures, each beside its target and the word PASS or MISS, and rewrites its own
section of ``results/evaluation.json`` and ``results/evaluation.md``, with the date, the versions, the machine and its
load. Parts whose data is not to be had are skipped with the reason. Exit code 1 if a target is missed.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from benchmarks.evaluation_bench.main import main

    sys.exit(main(__doc__))
