"""The HTML report: whole for a run in any state, the same for the same run, and text from outside stays text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from flows.report import write_report
from flows.runs import RunRecord, environment
from flows.stages import NAMES
from flows.store import Store

HOSTILE = "</pre></table><script>alert('1')</script> & \"x\" $a^2$.pdf"
VOID = {"meta", "br"}
METRICS: dict[str, dict[str, Any]] = {
    "pdf2txt": {"documents": 2, "converted": 1, "pages": 9, "pages_ocr": 2, "characters": 1234,
                "rejected_files": [{"source": HOSTILE, "status": "corrupt", "why": "cannot be opened"}]},
    "datasets_build": {"rows": 5, "rows_train": 4, "rows_validation": 1, "tokens": 99, "tasks": {"quote": 5},
                       "rejects": {"no-title": 3}},
    "train": {"steps": 3, "tokens": 30, "loss_start": 4.0, "loss_end": 3.0, "tokens_per_second": 10.0},
    "merge": {"context_length": 8192, "parameters": 10**6, "logits_max_difference": 1e-6},
    "evaluate": {
        "perplexity": {"metric": "perplexity", "better": "lower", "n": 9, "base": 40.0, "merged": 30.0,
                       "difference": -10.0, "low": -12.0, "high": -8.0},
        "answers": {"metric": "f1", "better": "higher", "n": 9, "base": 0.5, "merged": 0.4,
                    "difference": -0.1, "low": -0.2, "high": -0.05},
        "passkey": {"metric": "accuracy", "skipped": "no room", "n": 0},
    },
}  # fmt: skip


class Page(HTMLParser):
    """The tags that are open at the end, or closed in the wrong order; and the words that are shown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.words += data


def sections(html: str) -> dict[str, str]:
    return dict(re.findall(r"<section><h2>(.*?)</h2>(.*?)</section>", html, re.DOTALL))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with the outputs of one finished run that the report reads."""
    store = Store(tmp_path / "store")
    dataset = store.finished("datasets_build", digest("datasets_build"))
    (dataset / "data").mkdir(parents=True)
    for split, lengths in (("train", [10, 20, 30, 90]), ("validation", [40])):
        pq.write_table(pa.table({"n_tokens": lengths}), dataset / "data" / f"{split}-00000-of-00001.parquet")
    tasks = {"train": {"quote": 4}, "validation": {"quote": 1}}
    (dataset / "stats.json").write_text(json.dumps({"tasks_by_split": tasks}))
    write_metrics(store.finished("train", digest("train")))
    return store


def digest(stage: str) -> str:
    return f"{NAMES.index(stage)}" * 64


def write_metrics(folder: Path) -> None:
    folder.mkdir(parents=True)
    lines = [{"step": i, "loss": 5.0 - i, "learning_rate": 1e-4 * i, "tokens_per_second": 50.0, "memory_bytes": 2e9}
             for i in (1, 2, 3)]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def record(store: Store, status: str = "done", **rows: dict[str, Any]) -> RunRecord:
    stages = []
    for name in NAMES:
        row = {"stage": name, "action": "ran", "why": "never run", "digest": digest(name), "seconds": 2.0,
               "path": str(store.finished(name, digest(name))), "metrics": METRICS[name]}  # fmt: skip
        stages.append(row | rows.get(name, {}))
    data = {
        "run_id": "20260101-000000-abcd", "status": status, "started": "2026-01-01T10:00:00.000Z",
        "finished": "2026-01-01T10:00:10.000Z", "config_name": "demo",
        "config": {"model": {"name": "m"}, "pdfs": [HOSTILE]},
        "documents": {"a" * 64: [f"/in/{HOSTILE}"], "b" * 64: ["/in/good.pdf"]}, "environment": environment(),
        "stages": stages, "pid": 1, "process_started": 0.0,
    }  # fmt: skip
    return RunRecord(store.runs / f"{data['run_id']}.json", data)


def not_run(*names: str) -> dict[str, dict[str, Any]]:
    return {name: {"action": "skipped", "why": "--until", "metrics": {}, "seconds": 0.0} for name in names}


def report(store: Store, made: RunRecord) -> str:
    path = write_report(made, store)
    assert path == store.runs / made.run_id / "report.html"
    html = path.read_text()
    page = Page(html)
    assert not page.open and not page.wrong
    return html


def test_report_of_a_finished_run(store: Store) -> None:
    html = report(store, record(store))
    found = sections(html)
    assert list(found) == [
        "Stages", "Evaluation", "Training", "Dataset", "Documents", "Settings and environment",
    ]  # fmt: skip
    assert "Cannot be shown" not in html
    assert {title for title, body in found.items() if "<svg" in body} == {"Evaluation", "Training", "Dataset"}
    assert "3 steps, 30 tokens" in found["Stages"]
    assert "skipped: no room" in found["Evaluation"]
    assert "no-title" in found["Dataset"]
    assert "good.pdf" in found["Documents"] and "cannot be opened" in found["Documents"]
    assert f"torch {environment()['versions']['torch']}" in found["Settings and environment"]
    assert "longfolio resume" not in html


def test_report_needs_nothing_else(store: Store) -> None:
    html = report(store, record(store))
    assert not {"script", "link", "img", "iframe", "image"} & set(Page(html).tags)
    assert not re.search(r"@import|src=", html)
    assert set(re.findall(r"https?://[^\"/]+", html)) <= {"http://www.w3.org"}  # names of XML, not fetched
    assert all(target.startswith("#") for target in re.findall(r'(?:href="|url\()([^")]*)', html))


def test_text_from_outside_stays_text(store: Store) -> None:
    failed = {"action": "failed", "error": HOSTILE, "why": HOSTILE, "metrics": {}}
    html = report(store, record(store, "failed", train=failed))
    assert "<script" not in html
    assert Page(html).words.count("<script>alert('1')</script>") >= 4  # error twice, rejected, document
    settings = re.search(r"<summary>Settings</summary><pre>(.*?)</pre>", html, re.DOTALL)
    assert settings and yaml.safe_load(unescape(settings[1])) == {"model": {"name": "m"}, "pdfs": [HOSTILE]}


def test_same_run_same_bytes(store: Store) -> None:
    first = write_report(record(store), store).read_bytes()
    assert write_report(record(store), store).read_bytes() == first


def test_colours_say_better_and_worse(store: Store) -> None:
    html = report(store, record(store))
    table, plot = sections(html)["Evaluation"].split("<svg", 1)
    assert '"good">better<' in table and '"bad">worse<' in table
    assert "var(--good)" in plot and "var(--bad)" in plot
    assert not re.search(r"#0[1-6]0[1-6]0[1-6]", html)  # each was replaced by the page's
    assert {task for task in METRICS["evaluate"] if f">{task}<" in plot} == {"perplexity", "answers"}


def test_failed_run_shows_the_error_the_curve_so_far_and_how_to_go_on(store: Store) -> None:
    store.finished("train", digest("train")).rename(store.root / "gone")
    write_metrics(store.attempt("train", digest("train")))
    rows = not_run("merge", "evaluate") | {"train": {"action": "failed", "error": "loss is nan", "metrics": {}}}
    html = report(store, record(store, "failed", **rows))
    assert "loss is nan" in html
    assert f"longfolio resume 20260101-000000-abcd --store {store.root}" in unescape(html)
    assert "<svg" in sections(html)["Training"]
    assert "Evaluation" not in sections(html)


def test_run_that_stopped_at_the_dataset(store: Store) -> None:
    store.finished("train", digest("train")).rename(store.root / "gone")
    html = report(store, record(store, **not_run("train", "merge", "evaluate")))
    assert list(sections(html)) == ["Stages", "Dataset", "Documents", "Settings and environment"]


def test_killed_run_is_called_killed(store: Store) -> None:
    made = record(store, "running", **not_run(*NAMES))
    assert '<b class="killed">' in report(store, made)


def damage(path: str) -> Callable[[Store], None]:
    def write(store: Store) -> None:
        stage, name = path.split("/", 1)
        (store.finished(stage, digest(stage)) / name).write_bytes(b"[1, \xff")

    return write


def remove_all(store: Store) -> None:
    (store.root / "stages").rename(store.root / "lost")


@pytest.mark.parametrize(
    ("harm", "hurt"),
    [
        (damage("datasets_build/stats.json"), {"Dataset"}),
        (damage("datasets_build/data/train-00000-of-00001.parquet"), {"Dataset"}),
        (damage("train/metrics.jsonl"), {"Training"}),
        (remove_all, {"Dataset"}),
    ],
)
def test_damaged_outputs_cost_only_their_section(store: Store, harm: Callable[[Store], None], hurt: set[str]) -> None:
    harm(store)
    found = sections(report(store, record(store)))
    assert {title for title, body in found.items() if "Cannot be shown" in body} == hurt
    assert {"Stages", "Evaluation", "Documents"} <= found.keys()


def test_torn_line_of_metrics_is_left_out(store: Store) -> None:
    with (store.finished("train", digest("train")) / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert "step 3: loss 2" in sections(report(store, record(store)))["Training"]


@pytest.mark.parametrize("stage", NAMES)
def test_record_of_an_older_version(store: Store, stage: str) -> None:
    assert "Stages" in sections(report(store, record(store, **{stage: {"metrics": {"unknown": 1}}})))


def test_names_that_are_no_text(store: Store) -> None:
    made = record(store)
    made.data["documents"]["c" * 64] = [b"/in/caf\xe9.pdf".decode(errors="surrogateescape")]
    assert "caf?.pdf" in report(store, made)
