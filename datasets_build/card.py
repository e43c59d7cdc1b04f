"""The dataset card: what Hugging Face reads (YAML) and what a person reads."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from datasets_build.gates.base import GATES
from datasets_build.publish import Sizes, Written, features
from datasets_build.recipes import RECIPES
from datasets_build.rows import FROM_DOCUMENT, FROM_IMPORT, PLANTED
from datasets_build.select import SPLITS, Entry
from datasets_build.settings import DatasetSettings
from datasets_build.teacher.recipes import TEACHER_RECIPES
from datasets_build.teacher.report import card_lines

PLOT = "lengths.png"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_card(
    folder: Path,
    settings: DatasetSettings,
    stats: dict[str, Any],
    written: Written,
    names: dict[str, str],
    languages: list[str],
) -> None:
    """Write ``README.md``.

    Args:
        names: doc_id or import id -> file.
        languages: ISO 639-1 codes of the documents.
    """
    import yaml

    filled = [split for split in SPLITS if stats["rows_by_split"][split]]
    licenses = sorted({name for counts in written.licenses.values() for name in counts})
    head = _head(folder, stats, licenses, written.sizes, languages)
    chosen = settings.chosen_recipes() | settings.chosen_teacher_recipes()
    known: dict[str, Any] = {**RECIPES, **TEACHER_RECIPES}
    tasks: Counter[str] = Counter()
    for counts in stats["tasks_by_split"].values():
        tasks.update(counts)
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).strip(),
        "---",
        "# Instruction data built by Longfolio",
        "",
        f"{stats['rows']} rows, {stats['tokens']} tokens. No document is in both splits.",
        "",
        *_answers(stats),
        _table(("split", "rows"), [(s, stats["rows_by_split"][s]) for s in filled]),
        "",
        "## Tasks",
        "",
        _table(
            ("task", "recipe version", *filled),
            [
                (
                    t,
                    known[t].version if t in known else "-",
                    *(stats["tasks_by_split"][s].get(t, 0) for s in filled),
                )
                for t in sorted({*chosen, *tasks})
            ],
        ),
        "",
        *_mix(stats),
        *card_lines(stats),
        "## Lengths",
        "",
        f"Tokens of prompt and answer, template `{settings.template}`; the window is {settings.max_tokens}.",
        "",
        _table(("quantile", "tokens"), list(stats["token_quantiles"].items())),
        "",
        f"![Histogram of row lengths]({PLOT})",
        "",
        "## Gates",
        "",
        "What rows had to pass. `error` would have stopped the build, `drop` left rows out, `mask` replaced what it "
        "found, `warn` kept it.",
        "",
        _table(
            ("gate", "level", "found", "passes if"),
            [(g["gate"], g["level"], g["found"], GATES[g["gate"]].about) for g in stats["gates"]],
        ),
        "",
        *_looked_for(stats),
        *_kept_findings(stats["gates"]),
        "## Left out",
        "",
        "Details in `rejects.parquet`."
        + (f" {stats['not_sampled']} more rows were not drawn for the mix." if stats["not_sampled"] else ""),
        "",
        _table(("reason", "count"), list(stats["rejects"].items())),
        "",
        "## Sources",
        "",
        _table(
            ("source", "file", "licence", "rows"),
            [
                (source, names.get(source, ""), license, n)
                for source, counts in sorted(written.licenses.items())
                for license, n in sorted(counts.items())
            ],
        ),
        "",
        "## Settings",
        "",
        "The section `dataset` of the run file, every default filled in:",
        "",
        "```yaml",
        yaml.safe_dump(stats["settings"], sort_keys=False, allow_unicode=True).strip(),
        "```",
        "",
        f"Row digest `{stats['row_digest']}`: the same rows have the same digest, whatever their order.",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _head(
    folder: Path, stats: dict[str, Any], licenses: list[str], sizes: Sizes, languages: list[str]
) -> dict[str, Any]:
    """The YAML of the card, in the order in which the hub shows it."""
    head: dict[str, Any] = {}
    if languages:
        head["language"] = languages
    if licenses != ["unknown"]:
        head["license"] = licenses[0] if len(licenses) == 1 else licenses
    return {
        **head,
        "task_categories": ["question-answering", "text-generation"],
        "size_categories": [next((name for limit, name in _SIZES if stats["rows"] < limit), "n>1M")],
        "tags": ["longfolio", "long-context", "instruction-tuning"],
        "dataset_info": {
            "features": features()._to_yaml_list(),
            "splits": [{"name": split, **size} for split, size in sizes.items()],
            "download_size": sum(file.stat().st_size for file in (folder / "data").iterdir()),
            "dataset_size": sum(size["num_bytes"] for size in sizes.values()),
        },
        # Without this list `load_dataset` would take rejects.parquet and stats.json for data.
        "configs": [
            {
                "config_name": "default",
                # `datasets` keys its cache by this card and the folder's name, not by the files:
                # without the digest a rebuilt dataset would load as the one that was there before.
                "description": f"Longfolio rows {stats['row_digest']}",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in sizes],
            }
        ],
    }


def _answers(stats: dict[str, Any]) -> list[str]:
    """Where the answers come from, by what the column `answer_source` says."""
    boxes = stats["rows_without_boxes"]
    unplaced = f" ({boxes} of these rows are of documents without layout: no box)" if boxes else ""
    told = {
        FROM_DOCUMENT: "the answer stands in the document that `evidence` names, on the page and in the box given "
        f"there (PDF points from the top left){unplaced}",
        PLANTED: "the answer stands in a sentence that was put into the context; there is no evidence",
        FROM_IMPORT: "as the imported file has it",
    }
    lines = [
        f"- `{source}`, {n} rows: {told.get(source, 'written by this model; `evidence` is what it quoted')}."
        for source, n in stats["answer_sources"].items()
    ]
    return [*lines, ""]


def _mix(stats: dict[str, Any]) -> list[str]:
    """What the mix wanted and could not have."""
    lacking = [
        f"`mix.{kind}` wanted {n['wanted']} rows; there were {n['got']}."
        for kind, n in stats.get("mix", {}).items()
        if n["got"] < n["wanted"]
    ]
    return [*lacking, ""] if lacking else []


def _looked_for(stats: dict[str, Any]) -> list[str]:
    """What of the evaluation files decontamination could look for."""
    known = stats.get("decontamination")
    if not known:
        return []
    return [
        f"Decontamination looked for {known['texts'] - known['too_short']} of the {known['texts']} texts of the "
        f"evaluation files; the others have fewer than {known['min_words']} words.",
        "",
    ]


def _kept_findings(gates: list[dict[str, Any]]) -> list[str]:
    """Examples of what a gate found and kept."""
    kept = [f"- {g['gate']}: {example}" for g in gates if g["level"] == "warn" for example in g["examples"]]
    return ["Kept, for instance:", "", *kept, ""] if kept else []


def _table(head: tuple[str, ...], rows: list[tuple]) -> str:
    if not rows:
        return "(none)"
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows])


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def plot_lengths(path: Path, entries: list[Entry], splits: dict[str, str], max_tokens: int) -> None:
    """Histogram of row lengths: a panel for each split, tasks stacked."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    filled = [split for split in SPLITS if any(splits[e.group] == split for e in entries)]
    tasks = sorted({e.task for e in entries})
    colours = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    figure = Figure(figsize=(7.5, 1 + 2.4 * len(filled)), layout="constrained")
    panels = figure.subplots(len(filled), squeeze=False)[:, 0]
    for split, axes in zip(filled, panels, strict=True):
        lengths = [[e.n_tokens for e in entries if e.task == t and splits[e.group] == split] for t in tasks]
        axes.hist(
            lengths, bins=40, range=(0, max_tokens), histtype="stepfilled", stacked=True, label=tasks,
            color=[colours[i % len(colours)] for i in range(len(tasks))],
        )  # fmt: skip
        axes.set_title(f"{split}: {sum(map(len, lengths))} rows", loc="left", fontsize="medium")
        axes.set_ylabel("rows")
        axes.margins(x=0)
    panels[-1].set_xlabel("tokens (prompt and answer)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small", frameon=False)
    figure.savefig(path, dpi=120, metadata={"Software": None})
