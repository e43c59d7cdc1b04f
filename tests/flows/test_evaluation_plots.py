"""The plots of an evaluation: what is drawn follows from what was measured, in the report and as files."""

from __future__ import annotations

import re
from typing import Any

from flows.evaluation_plots import inline, plots_of, save
from flows.plots import COLOURS


def number(value: float, n: int = 6) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": n}


PERPLEXITY = {
    "task": "perplexity", "metric": "perplexity", "scale": "perplexity", "better": "lower", "base": number(12),
    "by": {"length": [{"length": n, "n": 4, "base": number(20 - i), "merged": number(19 - i)}
                      for i, n in enumerate((1024, 2048, 8192))]},
    "by_position": [{"from": i * 512, "to": i * 512 + 512, "tokens": 9, "base": 20 - i, "merged": 19 - i}
                    for i in range(8)],
}  # fmt: skip
NEEDLE = {
    "task": "needle", "metric": "accuracy", "scale": "proportion", "better": "higher", "base": number(0.5),
    "by": {"length": [{"length": n, "n": 4, "base": number(0.5)} for n in (1000, 3000)],
           "length,depth": [{"length": n, "depth": d, "n": 1, "base": number(0.25 + d / 2)}
                            for n in (1000, 3000) for d in (0, 0.5, 1)]},
}  # fmt: skip
ONE_LENGTH = {**NEEDLE, "task": "passkey", "by": {"length": [{"length": 512, "n": 4, "base": number(0.5)}]}}
SKIPPED = {"task": "answers", "metric": "nll_per_token", "better": "lower", "version": 1, "skipped": "no rows"}
NIGHT = {"date": "2026-01-01T02:00", "value": 0.5, "low": None, "high": None, "data_digest": "a", "task": "needle",
         "metric": "accuracy"}  # fmt: skip


def test_what_is_drawn_follows_from_the_figures() -> None:
    assert list(plots_of([SKIPPED, PERPLEXITY, ONE_LENGTH, NEEDLE])) == [
        "perplexity-by-length", "perplexity-by-position", "needle-by-length", "needle-grid",
    ]  # fmt: skip
    assert list(plots_of([SKIPPED], [NIGHT])) == []
    assert list(plots_of([SKIPPED], [NIGHT, {**NIGHT, "low": 0.4, "high": 0.6, "data_digest": "b"}])) == ["history"]


def test_in_the_report_and_as_files(tmp_path) -> None:
    plots = plots_of([PERPLEXITY, NEEDLE], [NIGHT, NIGHT])
    for svg in inline(plots):
        assert svg.startswith("<svg") and "var(--" in svg
        assert not any(colour in svg for colour in COLOURS.values())  # the page's style chooses
    grid = inline(plots_of([NEEDLE]))[1]
    assert {f"{share}%" for share in (25, 50, 75)} <= set(re.findall(r"\d+%", grid))
    files = save(plots, tmp_path / "plots")
    assert sorted(p.name for p in files) == sorted(f"{name}.{kind}" for name in plots for kind in ("svg", "png"))
    first = {p.name: p.read_bytes() for p in files}
    for name, data in first.items():
        assert data.startswith(b"\x89PNG") if name.endswith("png") else b"<svg" in data and b"#010101" not in data
    save(plots, tmp_path / "again")
    assert all((tmp_path / "again" / n).read_bytes() == d for n, d in first.items() if n.endswith("svg"))
