"""A chain that is real in every part but small: three text documents, a two-layer model, two steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

PARAGRAPHS = {
    "lakes.txt": (
        "Notes on Cold Lakes\n\n"
        "Abstract\n\n"
        "Cold lakes turn over twice a year. We measured the oxygen content (OC) of twelve lakes in 1987 and "
        "found that depth explains most of the difference between them.\n\n"
        "1 Introduction\n\n"
        "A lake that freezes in winter has its densest water at four degrees. The warm layer (WL) lies above "
        "the cold one all summer long, and little oxygen reaches the bottom until the autumn storms.\n\n"
    ),
    "mills.txt": (
        "The Water Mills of the Upper Valley\n\n"
        "Abstract\n\n"
        "Between 1740 and 1860 the valley had thirty-one mills. Their decline began with the railway and not, "
        "as is often said, with steam.\n\n"
        "1 Sources\n\n"
        "The tax register (TR) of 1802 lists each mill with its wheels. Nine mills had two wheels, and one, at "
        "the confluence, had four of them.\n\n"
    ),
    "bees.txt": (
        "Keeping Bees on Roofs\n\n"
        "Abstract\n\n"
        "Roof hives gave 18 kilograms of honey a year on average. The flowering season (FS) in the city is "
        "six weeks longer than in the fields around it.\n\n"
        "1 Method\n\n"
        "Forty hives were weighed every Sunday from March to October. Two were lost to a storm in May, and "
        "their weights were left out of the averages.\n\n"
    ),
}  # fmt: skip
FILLER = (
    "Paragraph {n} of this document records one more observation about {topic}. On day {n} the value was "
    "{value}, which is {more} than the day before, and nobody had expected that outcome.\n\n"
)


def write_documents(folder: Path) -> Path:
    """Three text documents of about 60 lines."""
    folder.mkdir()
    for name, text in PARAGRAPHS.items():
        filler = "".join(
            FILLER.format(n=n, topic=name[:-4], value=n * 7 % 31, more="more" if n % 2 else "less")
            for n in range(2, 30)
        )
        (folder / name).write_text(text + filler)
    return folder


def small_tree(documents: Path, model: Path) -> dict[str, Any]:
    """The settings of the small chain."""
    return {
        "pdfs": [str(documents)],
        "model": {"path": str(model)},
        "pdf2txt": {"workers": 1},
        "dataset": {"max_tokens": 384, "validation_share": 0.3, "min_validation_rows": 1},
        "train": {"max_steps": 2, "global_batch_size": 2},
        "evaluate": {
            "perplexity": {"window": 128, "max_windows": 4},
            "passkey": {"lengths": [128], "depths": [0.5], "trials": 2},
        },
    }


def make_place(folder: Path, model: Path) -> Path:
    """A directory with documents and a run file, small.yaml; ./store is its store."""
    tree = small_tree(write_documents(folder / "documents"), model)
    (folder / "small.yaml").write_text(yaml.safe_dump(tree))
    return folder
