"""The dataset card: what Hugging Face reads (YAML) and what a person reads."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from datasets_build.recipes import RECIPES
from datasets_build.select import SPLITS, Entry
from datasets_build.settings import DatasetSettings
from datasets_build.teacher.recipes import TEACHER_RECIPES
from datasets_build.teacher.report import card_lines

PLOT = "lengths.png"


def write_card(
    folder: Path, settings: DatasetSettings, stats: dict[str, Any], sources: dict[str, tuple[str, int]]
) -> None:
    """Write ``README.md``. ``sources``: doc_id or import id -> (licence, rows)."""
    import yaml

    filled = [split for split in SPLITS if stats["rows_by_split"][split]]
    licenses = sorted({name for name, _ in sources.values()})
    head: dict[str, Any] = {
        # Without this list `load_dataset` would take rejects.parquet and stats.json for data.
        "configs": [
            {
                "config_name": "default",
                # `datasets` keys its cache by this card and the folder's name, not by the files:
                # without the digest a rebuilt dataset would load as the one that was there before.
                "description": f"Longfolio rows {stats['row_digest']}",
                "data_files": [{"split": s, "path": f"data/{s}-*.parquet"} for s in filled],
            }
        ],
        "tags": ["longfolio", "long-context", "instruction-tuning"],
    }
    if licenses != ["unknown"]:
        head["license"] = licenses[0] if len(licenses) == 1 else licenses
    chosen = settings.chosen_recipes() | settings.chosen_teacher_recipes()
    known: dict[str, Any] = {**RECIPES, **TEACHER_RECIPES}
    tasks: Counter[str] = Counter()
    for counts in stats["tasks_by_split"].values():
        tasks.update(counts)
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).strip(),
        "---",
        "# Instruction data built by Longfolio",
        "",
        f"{stats['rows']} rows, {stats['tokens']} tokens. Each answer stands in the document that `evidence` "
        "names, on the page and in the box (PDF points from the top left) given there; rows of task `import` "
        "come from files as they are. No document is in both splits.",
        "",
        _table(("split", "rows"), [(s, stats["rows_by_split"][s]) for s in filled]),
        "",
        "## Tasks",
        "",
        _table(
            ("task", "recipe version", "rows"),
            [(t, known[t].version if t in known else "-", tasks.get(t, 0)) for t in sorted({*chosen, *tasks})],
        ),
        "",
        *card_lines(stats),
        "## Lengths",
        "",
        f"Tokens of prompt and answer, template `{settings.template}`; the window is {settings.max_tokens}.",
        "",
        _table(("quantile", "tokens"), list(stats["token_quantiles"].items())),
        "",
        f"![Histogram of row lengths]({PLOT})",
        "",
        "## Left out",
        "",
        "Details in `rejects.parquet`."
        + (f" {stats['not_sampled']} more rows were not drawn for the mix." if stats["not_sampled"] else ""),
        "",
        _table(("reason", "count"), list(stats["rejects"].items())),
        "",
        "## Sources",
        "",
        _table(("source", "licence", "rows"), [(s, lic, n) for s, (lic, n) in sorted(sources.items())]),
        "",
        f"Settings: seed {settings.seed}, rows per recipe and document {settings.per_document}, "
        f"validation share {settings.validation_share:g}. Row digest `{stats['row_digest']}`.",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _table(head: tuple[str, ...], rows: list[tuple]) -> str:
    if not rows:
        return "(none)"
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def plot_lengths(path: Path, entries: list[Entry], max_tokens: int) -> None:
    """Histogram of row lengths, documents and imports apart."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    kinds = {kind: [e.n_tokens for e in entries if e.kind == kind] for kind in ("long", "short")}
    shown = {kind: lengths for kind, lengths in kinds.items() if lengths}
    axes.hist(list(shown.values()), bins=40, range=(0, max_tokens), stacked=True, label=list(shown))
    axes.set_xlabel("tokens (prompt and answer)")
    axes.set_ylabel("rows")
    axes.legend()
    figure.savefig(path, dpi=120, metadata={"Software": None})
