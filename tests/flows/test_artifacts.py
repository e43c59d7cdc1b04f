"""The Markdown for Prefect's UI: text from outside stays text, numbers are the record's, charts are valid."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from flows.artifacts import (
    CLIP,
    CURVE_POINTS,
    HISTORY_ROWS,
    MESSAGES,
    code,
    dataset_markdown,
    escape,
    evaluation_markdown,
    gate_markdown,
    history_markdown,
    nightly_markdown,
    plan_markdown,
    stage_markdown,
    summary_markdown,
    training_markdown,
)
from flows.figures import curve, verdict
from flows.plan import Plan, PlannedStage
from flows.stages import NAMES, External

HOSTILE = (
    "a|b `c` <script>alert(1)</script> **d** _e_ [f](http://g) &amp; ~~h~~ \\| ![i](j)\n```mermaid\ngraph\n```\n# k"
)
MARKUP = st.text(st.sampled_from("\\`*__[]()<>|&~#!-+=.:;'\"/{}^$@ \n\t\x00\u202e1aé"), max_size=40) | st.text(
    max_size=40
)


def parse(markdown: str) -> list[Token]:
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown)


def structure(markdown: str) -> list[str]:
    """Every block and every inline element that is not plain text."""
    return [kind for token in parse(markdown) for kind in (token.type, *(c.type for c in token.children or ()))
            if kind not in ("text", "text_special")]  # fmt: skip


def cells(markdown: str) -> list[list[str]]:
    """What the tables show, row by row."""
    rows: list[list[str]] = []
    for before, token in pairwise(parse(markdown)):
        if token.type == "tr_open":
            rows.append([])
        elif before.type in ("th_open", "td_open"):
            rows[-1].append("".join("\n" if c.type == "html_inline" else c.content for c in token.children or ()))
    return rows


def texts(markdown: str) -> str:
    return "\n".join("".join(c.content for c in token.children or ()) for token in parse(markdown))


def row(stage: str = "pdf2txt", action: str = "ran", **fields: Any) -> dict[str, Any]:
    return {"stage": stage, "action": action, "why": "never run", "digest": "d" * 64, "seconds": 1.5,
            "path": f"/data/store/stages/{stage}/{'d' * 64}", "metrics": {}, **fields}  # fmt: skip


PDF2TXT = {
    "documents": 3, "converted": 1, "pages": 9, "pages_ocr": 2, "characters": 1234, "rejected": {"corrupt": 2},
    "rejected_files": [{"source": HOSTILE, "status": "corrupt", "why": "no"}, {"source": "b", "status": "corrupt",
                       "why": HOSTILE}],
    "languages": {"en": 1}, "transient": [],
}  # fmt: skip


# ------------------------------------------------------------------- text from outside


@given(MARKUP)
def test_escaped_text_shows_itself_and_nothing_else(text: str) -> None:
    expected = " ".join("".join(c for c in text if c.isprintable() or c.isspace()).split())
    for frame in ("- {}", "a {} b", "**a {} b**", "{}", "| x | y |\n|---|---|\n| {} | z |\n| u | v |"):
        markdown = frame.format(escape(text))
        if expected:
            assert structure(markdown) == structure(frame.format("x"))
            assert texts(markdown).split() == texts(frame.replace("{}", "\ufffc")).replace("\ufffc", expected).split()


@given(MARKUP)
def test_code_is_one_span_with_the_text(text: str) -> None:
    expected = " ".join("".join(c for c in text if c.isprintable() or c.isspace()).split())
    spans = [c for token in parse(f"- said: {code(text)}") for c in token.children or () if c.type != "text"]
    assert [(c.type, c.content) for c in spans] == ([("code_inline", expected)] if expected else [])


@pytest.mark.parametrize("address", ["http://x/*a*", "https://x", "www.x.de", "WWW.x.de", "mailto:a@b.de"])
def test_addresses_are_broken_up(address: str) -> None:
    """GitHub's Markdown links bare addresses and takes the backslashes in them literally: ``<`` would be free."""
    assert not re.search(r"https?:/|www\.|[^\\]@", escape(address), re.IGNORECASE)


def test_hostile_names_and_messages_change_nothing_but_text() -> None:
    tame = json.loads(json.dumps(PDF2TXT).replace(json.dumps(HOSTILE), '"x"'))
    hostile = row(metrics=PDF2TXT, why=HOSTILE, warnings=[HOSTILE], transient=[HOSTILE], error=HOSTILE)
    markdown = stage_markdown(hostile)
    assert structure(markdown) == structure(
        stage_markdown(row(metrics=tame, why="x", warnings=["x"], transient=["x"], error="x"))
    )
    assert " ".join(HOSTILE.split()) in texts(markdown)


# ------------------------------------------------------------------- plan, stage, summary


def test_plan_says_what_runs_and_why() -> None:
    stages = [
        PlannedStage("pdf2txt", "cached", "unchanged since run r1", "a" * 64, {}, Path("/s"), "", ("code changed",)),
        PlannedStage("train", "run", "train.seed changed 1 -> 2", "b" * 64, {}, Path("/s")),
    ]
    markdown = plan_markdown(Plan(tuple(stages), External({}, {}, [{"sha256": "s", "path": "p"}], {})))
    assert cells(markdown)[1:] == [
        ["pdf2txt", "cached", "unchanged since run r1", "a" * 12],
        ["train", "run", "train.seed changed 1 -> 2", "b" * 12],
    ]
    assert "1 of 2 stages to run" in markdown
    assert "- code changed" in markdown


def test_stage_lists_rejected_files_and_first_messages() -> None:
    markdown = stage_markdown(row(metrics=PDF2TXT, transient=[f"page {i}" for i in range(MESSAGES + 3)]))
    assert ["corrupt", "2"] in cells(markdown)
    assert [" ".join(HOSTILE.split()), "corrupt", "no"] in cells(markdown)
    assert f"page {MESSAGES - 1}" in markdown and f"page {MESSAGES}" not in markdown
    assert "- and 3 more" in markdown
    assert "/data/store/stages/pdf2txt" in markdown


def test_failed_stage_names_its_error_and_no_output() -> None:
    markdown = stage_markdown(row("evaluate", "failed", error="UserError: no rows"))
    assert "**UserError: no rows**" in markdown
    assert "/data/store" not in markdown
    assert not cells(markdown)


def record(**fields: Any) -> dict[str, Any]:
    rows = [row(name, "skipped", why="train did not finish", seconds=0.0) for name in NAMES]
    rows[0] = row(metrics=PDF2TXT, seconds=10.25)
    rows[2] = row("train", "failed", error="LossNotFinite: nan", seconds=2.0)
    return {"run_id": "r-1", "status": "failed", "started": "2026-01-01T00:00:00Z", "config_name": "demo",
            "stages": rows, **fields}  # fmt: skip


def test_summary_adds_up_and_says_how_to_resume() -> None:
    table = cells(summary_markdown(record()))
    assert [line[0] for line in table] == ["stage", *NAMES, "all"]
    assert table[-1][3] == "12.2"
    assert table[3][1] == "failed" and "LossNotFinite: nan" in table[3][4]
    assert "`longfolio resume r-1 --store /data/store`" in summary_markdown(record())
    assert "resume" not in summary_markdown(record(status="done"))


def test_summary_of_an_older_record_lacks_only_its_numbers() -> None:
    data = record()
    data["stages"][0]["metrics"] = {"pages": 3}
    assert cells(summary_markdown(data))[1][:2] == ["pdf2txt", "ran"]


# ------------------------------------------------------------------- dataset


def write_dataset(folder: Path, rows: list[tuple[str, str, str, int]]) -> Path:
    (folder / "data").mkdir(parents=True)
    for split, mine in (("train", rows[1:]), ("validation", rows[:1])):
        table = pa.Table.from_pylist(
            [dict(zip(("task", "instruction", "output", "n_tokens"), r, strict=True)) for r in mine]
        )
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    tasks = {"train": {"quote": len(rows) - 1}, "validation": {"quote": 1}}
    (folder / "stats.json").write_text(json.dumps({"tasks_by_split": tasks}))
    return folder


def dataset_metrics(n: int) -> dict[str, Any]:
    return {"rows": n, "rows_train": n - 1, "rows_validation": 1, "tokens": 9, "tasks": {"quote": n},
            "rejects": {"no-title": 2, "few-headings": 5}}  # fmt: skip


def test_dataset_counts_rows_lengths_and_rejects(tmp_path: Path) -> None:
    lengths = [5, 30, 31, 700, 701, 1023]
    output = write_dataset(tmp_path / "d", [("quote", "i", "o", n) for n in lengths])
    table = cells(dataset_markdown(output, dataset_metrics(6)))
    assert ["quote", "5", "1", "6"] in table
    assert table.index(["few-headings", "5"]) < table.index(["no-title", "2"])
    bins = {int(r[0].replace(",", "")): int(r[1]) for r in table if len(r) == 3 and r[0] != "tokens from"}
    width = sorted(bins)[1]
    assert bins == {start: sum(start <= n < start + width for n in lengths) for start in bins}
    assert sum(bins.values()) == len(lengths)


def test_dataset_shows_three_rows_of_different_tasks_clipped(tmp_path: Path) -> None:
    rows = [("v", "i", "o", 1)] + [
        (f"t{i // 2}", f"BEGIN{i}" + "x" * CLIP + HOSTILE, HOSTILE + "y" * CLIP + f"END{i}", 9) for i in range(10)
    ]
    tame = [(task, "q" * CLIP * 2, "r" * CLIP * 2, n) for task, _, _, n in rows]
    markdown = dataset_markdown(write_dataset(tmp_path / "a", rows), dataset_metrics(11))
    assert structure(markdown) == structure(dataset_markdown(write_dataset(tmp_path / "b", tame), dataset_metrics(11)))
    assert re.findall(r"^\*\*(.*)\*\*", markdown, re.M) == ["t0", "t1", "t2"]
    assert "BEGIN" not in markdown and "END" not in markdown
    spans = [c.content for t in parse(markdown) for c in t.children or () if c.type == "code_inline"]
    assert len(spans) == 6 and all(len(span) <= CLIP + 1 for span in spans)


@pytest.mark.parametrize("damage", ["stats.json", "data/train-00000-of-00001.parquet"])
def test_damaged_dataset_is_named_not_raised(tmp_path: Path, damage: str) -> None:
    output = write_dataset(tmp_path / "d", [("quote", "i", "o", n) for n in (1, 2)])
    (output / damage).write_text("{")
    markdown = dataset_markdown(output, dataset_metrics(2))
    assert "cannot be read" in markdown
    assert ["no-title", "2"] in cells(markdown)


def test_dataset_without_rows(tmp_path: Path) -> None:
    (tmp_path / "stats.json").write_text('{"tasks_by_split": {}}')
    assert "cannot be read" not in dataset_markdown(tmp_path, dataset_metrics(1))


# ------------------------------------------------------------------- training


def line(step: int, loss: float) -> dict[str, Any]:
    return {"step": step, "loss": loss, "learning_rate": 3e-4, "grad_norm": 1.0, "tokens": 10, "seconds": 1.0,
            "tokens_per_second": 512.3, "memory_bytes": 2_500_000_000}  # fmt: skip


def test_training_before_and_after_the_first_step() -> None:
    assert "No step" in training_markdown([], 10)
    assert "step 1 of 10\n" in training_markdown([line(1, 4.5)], 10)
    assert "step 1\n" in training_markdown([line(1, 4.5)], 0)
    markdown = training_markdown([line(1, 4.5)], 10)
    assert "mermaid" not in markdown  # one point is no curve
    assert cells(markdown)[1] == ["1", "4.5", "0.0003", "1", "512.3", "2.50 GB"]


@given(st.lists(st.floats(width=32), min_size=2, max_size=300))
def test_chart_is_valid_whatever_the_losses(losses: list[float]) -> None:
    markdown = training_markdown([line(i + 1, loss) for i, loss in enumerate(losses)], 1000)
    finite = [loss for loss in losses if math.isfinite(loss)]
    assert ("```mermaid" in markdown) == (len(finite) > 1)
    assert ("Steps without a finite loss" in markdown) == (len(finite) < len(losses))
    if len(finite) > 1:
        number = r"-?\d+\.\d+"  # Mermaid knows no exponents, no nan, no inf
        found = re.search(rf'x-axis "step" ({number}) --> ({number})\ny-axis "loss" ({number}) --> ({number})\n'
                          rf"line \[({number}(?:, {number})*)\]\n```", markdown)  # fmt: skip
        assert found
        first, last, low, high = map(float, found.groups()[:4])
        values = [float(value) for value in found[5].split(", ")]
        assert first < last and low < high
        assert 2 <= len(values) <= CURVE_POINTS
        assert all(low <= value <= high for value in values)


def test_curve_is_the_mean_of_equal_groups() -> None:
    lines = [line(i + 1, float(i)) for i in range(2 * CURVE_POINTS)]
    steps, losses = curve(lines, "loss", CURVE_POINTS)
    assert steps == [2 * i + 1.5 for i in range(CURVE_POINTS)]
    assert losses == [2 * i + 0.5 for i in range(CURVE_POINTS)]


def test_uneven_steps_are_drawn_where_they_belong() -> None:
    markdown = training_markdown([line(1, 0.0), line(2, 1.0), line(101, 100.0)], 200)
    assert "line [0.0000, 50.0000, 100.0000]" in markdown  # Mermaid puts the second of three in the middle


# ------------------------------------------------------------------- evaluation


@pytest.mark.parametrize(
    ("better", "low", "high", "word"),
    [
        ("higher", 0.1, 0.2, "better"), ("higher", -0.2, -0.1, "worse"), ("lower", -0.2, -0.1, "better"),
        ("lower", 0.1, 0.2, "worse"), ("lower", -0.1, 0.1, ""), ("higher", 0.0, 0.2, ""), ("higher", None, None, ""),
    ],
)  # fmt: skip
def test_verdict_only_where_the_interval_excludes_zero(
    better: str, low: float | None, high: float | None, word: str
) -> None:
    item = {
        "metric": "m",
        "better": better,
        "n": 4,
        "base": 1.0,
        "merged": 1.5,
        "difference": 0.5,
        "low": low,
        "high": high,
    }
    assert verdict(item) == word
    assert cells(evaluation_markdown({"task": item}))[1][-1] == word


def test_evaluation_table() -> None:
    metrics = {
        "perplexity": {"metric": "perplexity", "better": "lower", "n": 1200, "base": 39.551, "merged": 20.5,
                       "difference": -19.05, "low": -20.0, "high": -18.0},
        "answers": {"metric": "nll", "better": "lower", "n": 2, "base": 1.25},
        "passkey": {"metric": "accuracy", "skipped": "too | short", "n": 0},
    }  # fmt: skip
    assert cells(evaluation_markdown(metrics))[1:] == [
        ["perplexity ↓", "39.55", "20.5", "-19.1", "[-20, -18]", "1,200", "better"],
        ["answers nll ↓", "1.25", "", "", "needs 2 or more", "2", ""],
        ["passkey accuracy", "", "", "", "skipped: too | short", "0", ""],
    ]


# ------------------------------------------------------------------- gate, night, history


def gate(text: str = "x", champion: bool = True) -> dict[str, Any]:
    task = {"task": text, "verdict": "fail", "reason": text, "metric": "accuracy", "better": "higher",
            "headline": True, "unit": "absolute", "candidate": 0.25, "champion": 0.75, "difference": -0.5,
            "low": -0.7, "high": -0.2, "worse_by": 0.5, "p": 0.001, "p_holm": None, "n": 1200, "detectable": 0.1,
            "made by a later version": 1}  # fmt: skip
    sample = {"task": text, "id": text, "candidate": 0.0, "champion": 1.0, "expected": [text], "output": text,
              "champion_output": text}  # fmt: skip
    return {
        "verdict": "fail", "reason": text, "headline": text, "tasks": [task], "worst": [sample] * 7,
        "candidate": {"run_id": "r", "model": "m" * 64, "evaluation": "e" * 64},
        "champion": {"run_id": "c", "model": "n" * 64, "evaluation": "f" * 64} if champion else None,
    }  # fmt: skip


def night(i: int, task: str = "x", **changes: Any) -> dict[str, Any]:
    return {
        "run_id": f"r{i}", "date": f"2026-01-{i + 1:02}T02:00:00.000Z", "role": "candidate", "model": "m" * 64,
        "task": task, "metric": "accuracy", "better": "higher", "value": 0.5 + i / 100, "low": 0.4, "high": None,
        "n": 9, "version": 1, "data_digest": "d", "suite": "default", "verdict": "pass", **changes,
    }  # fmt: skip


def test_gate_shows_every_task_and_five_samples_and_text_stays_text() -> None:
    markdown = gate_markdown(gate(HOSTILE))
    assert structure(markdown) == structure(gate_markdown(gate()))
    assert cells(gate_markdown(gate()))[1] == [
        "x (headline)", "accuracy ↑", "0.25", "0.75", "-0.5", "[-0.7, -0.2]", "1,200", "0.001", "fail",
    ]  # fmt: skip
    assert gate_markdown(gate()).count("- expected:") == 5
    assert not cells(gate_markdown(gate(champion=False)))


def test_night_has_the_chart_of_the_last_14_and_the_command() -> None:
    data = {"run_id": "r", "gate": gate(), "stages": [{"stage": "datasets_build", "digest": "d" * 64}]}
    rows = [night(i) for i in range(20)] + [night(19, role="champion"), night(19, "other")]
    markdown = nightly_markdown(data, rows, Path("/s"))
    drawn = re.search(r"line \[(.*)\]", markdown)
    assert drawn and drawn[1].split(", ") == [f"{0.5 + i / 100:.5f}" for i in range(6, 20)]
    axis = re.search(r"x-axis \[(.*)\]", markdown)
    assert axis and json.loads(f"[{axis[1]}]") == [f"01-{i + 1:02}" for i in range(6, 20)]
    assert "`longfolio eval r --store /s`" in markdown and "not comparable" not in markdown
    same_day = [night(1, date=f"2026-01-02T0{i}:00:00.000Z", data_digest=f"d{i // 3}") for i in range(4)]
    markdown = nightly_markdown(data, same_day, Path("/s"))
    axis = re.search(r"x-axis \[(.*)\]", markdown)
    assert axis and len(set(json.loads(f"[{axis[1]}]"))) == 4 and "3 of these nights measured other data" in markdown
    assert "mermaid" not in nightly_markdown(data, rows[:1], Path("/s"))  # one point is no line
    hostile = nightly_markdown({**data, "gate": gate(HOSTILE)}, [], Path("/s"))
    assert structure(hostile) == structure(nightly_markdown(data, [], Path("/s")))


def test_history_is_the_newest_rows_first() -> None:
    table = cells(history_markdown([night(i % 28, task=str(i)) for i in range(HISTORY_ROWS + 5)]))
    assert len(table) == HISTORY_ROWS + 1 and table[1][3] == str(HISTORY_ROWS + 4)
    assert table[-1] == ["2026-01-06 02:00", "candidate", "m" * 8, "5", "accuracy ↑", "0.55", "", "9", "pass"]
    assert structure(history_markdown([night(0, HOSTILE)])) == structure(history_markdown([night(0)]))


def test_neither_prefect_nor_matplotlib_is_imported() -> None:
    script = "import sys, flows.report; sys.exit(bool({'prefect', 'matplotlib', 'pyarrow'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
