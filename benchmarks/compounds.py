"""Builds ``pdf2txt/data/compounds-en.txt.gz``: English words with a hyphen, from two lexicons.

    python benchmarks/compounds.py BRILL_LEXICON WORDNET_DIR

The lexicon of Brill's tagger (words of the Brown corpus and the Penn Treebank) is ``textblob/en/en-lexicon.txt``
in the wheel of textblob 0.20.1; WordNet 3.0 is ``/usr/share/wordnet`` of Debian's package wordnet-base. Their
licences stand beside the list, in ``pdf2txt/data/NOTICE``.
"""

from __future__ import annotations

import gzip
import re
import sys
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "pdf2txt" / "data" / "compounds-en.txt.gz"
COMPOUND = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)+")


def entries(brill: Path, wordnet: Path) -> set[str]:
    """The first field of every line, casefolded, where it is a word with a hyphen."""
    paths = [brill, *(wordnet / f"index.{part}" for part in ("adj", "adv", "noun", "verb"))]
    firsts = (line.split(None, 1)[0].casefold() for p in paths for line in p.open(encoding="utf-8") if line.strip())
    return {word for word in firsts if COMPOUND.fullmatch(word)}


def main() -> None:
    words = sorted(entries(Path(sys.argv[1]), Path(sys.argv[2])))
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_bytes(gzip.compress("\n".join(words).encode(), mtime=0))
    print(f"{len(words)} words, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
