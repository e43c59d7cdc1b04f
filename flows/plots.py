"""The plots of a report: inline SVG, drawn by matplotlib, coloured by the page's style."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from datasets_build.select import SPLITS
from flows.figures import curve, verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE_POINTS = 400
# Drawn in these colours, which the page's style replaces: for light and for dark.
COLOURS = {"ink": "#010101", "line": "#020202", "first": "#030303", "second": "#040404", "good": "#050505",
           "bad": "#060606"}  # fmt: skip


def plot(name: str, height: float, draw: Callable[[Figure], None]) -> str:
    """An inline SVG, the same bytes for the same numbers."""
    import matplotlib
    from matplotlib.figure import Figure

    ink, line = COLOURS["ink"], COLOURS["line"]
    look: dict[Any, Any] = {
        "svg.hashsalt": name, "svg.fonttype": "none", "font.size": 10, "text.color": ink, "axes.labelcolor": ink,
        "axes.edgecolor": line, "xtick.color": ink, "ytick.color": ink, "axes.grid": True, "grid.color": line,
        "axes.axisbelow": True, "text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    text = io.StringIO()
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(9, height), layout="constrained")
        draw(figure)
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=metadata)
    svg = text.getvalue()
    for key, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{key})")
    # Nothing refers to the names of parts, and a page with several plots would have them twice.
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg[svg.index("<svg") :])
    return svg.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)


def draw_evaluation(items: dict[str, dict[str, Any]], figure: Figure) -> None:
    colours = {"better": COLOURS["good"], "worse": COLOURS["bad"], "": COLOURS["ink"]}
    for axes, (name, item) in zip(figure.subplots(len(items), squeeze=False)[:, 0], items.items(), strict=True):
        value, low, high = item["difference"], item["low"], item["high"]
        axes.axvline(0, color=COLOURS["ink"], linewidth=0.8)
        axes.errorbar(
            [value], [0], xerr=[[value - low], [high - value]], fmt="o", capsize=4, color=colours[verdict(item)]
        )
        limit = 1.2 * max(abs(low), abs(high)) or 1
        axes.set_xlim(*((limit, -limit) if item["better"] == "lower" else (-limit, limit)))
        axes.set_yticks([0], [name])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)


def draw_training(lines: list[dict[str, Any]], figure: Figure) -> None:
    from matplotlib.ticker import MaxNLocator

    parts = {"loss": "loss", "learning_rate": "learning rate", "tokens_per_second": "tokens/s"}
    axes = figure.subplot_mosaic([["loss", "loss"], ["learning_rate", "tokens_per_second"]], height_ratios=[2, 1])
    for key, name in parts.items():
        steps, values = curve(lines, key, CURVE_POINTS)
        axes[key].plot(steps, values, color=COLOURS["first"], linewidth=1.4, marker="." if len(steps) < 50 else "")
        axes[key].set_ylabel(name)
        axes[key].set_xlabel("step")
        axes[key].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes["tokens_per_second"].set_ylim(0, 1.15 * axes["tokens_per_second"].get_ylim()[1])


def draw_dataset(
    lengths: dict[str, list[int]], tasks: dict[str, dict[str, int]], names: list[str], figure: Figure
) -> None:
    left, right = figure.subplots(1, 2)
    colours = [COLOURS["first"], COLOURS["second"]]
    left.hist([lengths[split] for split in SPLITS], bins=30, stacked=True, color=colours, label=SPLITS)
    left.set_xlabel("tokens of prompt and answer")
    left.set_ylabel("rows")
    left.legend(frameon=False)
    start = [0] * len(names)
    for split, colour in zip(SPLITS, colours, strict=True):
        counts = [tasks.get(split, {}).get(name, 0) for name in names]
        right.barh(names, counts, left=start, color=colour)
        start = [a + b for a, b in zip(start, counts, strict=True)]
    right.set_xlabel("rows per task")
    right.grid(False, axis="y")
