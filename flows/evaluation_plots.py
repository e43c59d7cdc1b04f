"""The plots of an evaluation, from its metrics.json: curves by length and position, and the needle's heat map.

`plots_of` names what there is to draw; each is drawn inline into the report and, by `save`, as SVG and PNG files.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.plots import COLOURS, plot
from pdf2txt.units import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    # File name -> height in inches, and how to draw it.
    Plots = Mapping[str, tuple[float, Callable[["Colours", Figure], None]]]

Item = dict[str, Any]
Colours = dict[str, str]
PRINTED = {"ink": "#1f2328", "line": "#d8dee4", "first": "#2f6fde", "second": "#e08a1e", "good": "#1a7f37"}
MODELS = {"base": "second", "merged": "first"}  # name in metrics.json -> colour


def plots_of(
    items: Sequence[Item], nights: Sequence[Item] = ()
) -> dict[str, tuple[float, Callable[[Colours, Figure], None]]]:
    """``{file name: (height in inches, how to draw it)}`` of all that there are figures for.

    Args:
        items: of metrics.json.
        nights: one task's rows of the history, oldest first.
    """
    found: dict[str, tuple[float, Callable[[Colours, Figure], None]]] = {}
    for item in items:
        by, name = item.get("by", {}), item["task"]
        lengths = by.get("length", [])
        if len(lengths) > 1:
            found[f"{name}-by-length"] = (3.2, partial(_by_length, item, lengths))
        if item.get("by_position"):
            found[f"{name}-by-position"] = (3.2, partial(_by_position, item))
        grid = by.get("length,depth", [])
        if len({cell["length"] for cell in grid}) > 1 and len({cell["depth"] for cell in grid}) > 1:
            found[f"{name}-grid"] = (3.4, partial(_grid, item, grid))
    if len(nights) > 1:
        found["history"] = (2.6, partial(_history, nights))
    return found


def inline(plots: Plots) -> list[str]:
    """All of them as inline SVG."""
    return [plot(name, height, partial(draw, COLOURS)) for name, (height, draw) in plots.items()]


def save(plots: Plots, folder: Path) -> list[Path]:
    """Write each as ``<name>.svg`` and ``<name>.png``; returns the paths."""
    import matplotlib
    from matplotlib.figure import Figure

    written = []
    for name, (height, draw) in plots.items():
        look: dict[Any, Any] = {
            "svg.hashsalt": name, "axes.grid": True, "grid.color": PRINTED["line"], "axes.axisbelow": True,
            "axes.spines.top": False, "axes.spines.right": False,
        }  # fmt: skip
        with matplotlib.rc_context(look):
            figure = Figure(figsize=(9, height), layout="constrained")
            draw(PRINTED, figure)
            folder.mkdir(parents=True, exist_ok=True)
            for kind, metadata in (("svg", {"Date": None}), ("png", {})):
                data = io.BytesIO()
                figure.savefig(data, format=kind, dpi=120, metadata=metadata)
                write_atomic(folder / f"{name}.{kind}", data.getvalue())
                written.append(folder / f"{name}.{kind}")
    return written


def _models(rows: Sequence[Item]) -> list[str]:
    return [name for name in MODELS if any(name in row for row in rows)]


def _by_length(item: Item, rows: Sequence[Item], colours: Colours, figure: Figure) -> None:
    axes = figure.subplots()
    lengths = [row["length"] for row in rows]
    for name in _models(rows):
        cells = [row[name] for row in rows]
        values = [cell["value"] for cell in cells]
        spread = [
            [v - c["low"] if c["low"] is not None else 0 for v, c in zip(values, cells, strict=True)],
            [c["high"] - v if c["high"] is not None else 0 for v, c in zip(values, cells, strict=True)],
        ]
        axes.errorbar(
            lengths, values, yerr=spread, marker="o", capsize=4, linewidth=1.4, color=colours[MODELS[name]], label=name
        )
    _length_axis(axes, lengths)
    axes.set_ylabel(_label(item))
    if item["scale"] != "perplexity":
        axes.set_ylim(-0.03, 1.03)
    axes.legend(frameon=False)


def _length_axis(axes: Axes, lengths: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [f"{n:,}" for n in lengths])
    axes.minorticks_off()
    axes.set_xlabel("context, tokens")


def _by_position(item: Item, colours: Colours, figure: Figure) -> None:
    axes = figure.subplots()
    rows = item["by_position"]
    edges = [rows[0]["from"], *(row["to"] for row in rows)]
    for name in _models(rows):
        values = [row[name] for row in rows]
        axes.stairs(values, edges, baseline=None, linewidth=1.6, color=colours[MODELS[name]], label=name)
    axes.set_xlabel("position in the window, tokens")
    axes.set_ylabel(_label(item))
    axes.set_xlim(edges[0], edges[-1])
    axes.legend(frameon=False)


def _grid(item: Item, cells: Sequence[Item], colours: Colours, figure: Figure) -> None:
    """A heat map for each model: length across, depth down, the share of right answers as number and shade."""
    names = _models(cells)
    lengths, depths = (sorted({cell[key] for cell in cells}) for key in ("length", "depth"))
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for cell in cells:
            x, y, value = lengths.index(cell["length"]), depths.index(cell["depth"]), cell[name]["value"]
            # One colour in steps of opacity, so that the page's style can choose it.
            shade = {"color": colours["good"], "alpha": 0.08 + 0.77 * value, "linewidth": 0}
            axes.fill_between([x - 0.5, x + 0.5], y - 0.5, y + 0.5, **shade)
            axes.text(x, y, f"{value:.0%}", ha="center", va="center", fontsize=9, color=colours["ink"])
        axes.grid(False)
        axes.set_xlim(-0.5, len(lengths) - 0.5)
        axes.set_ylim(len(depths) - 0.5, -0.5)
        axes.set_xticks(range(len(lengths)), [f"{n:,}" for n in lengths])
        axes.set_yticks(range(len(depths)), [f"{d:.0%}" for d in depths])
        axes.set_xlabel("context, tokens")
        axes.set_ylabel(f"{item['task']}: depth")
        axes.set_title(name, fontsize=10, color=colours["ink"])


def _history(nights: Sequence[Item], colours: Colours, figure: Figure) -> None:
    """The metric night by night, with its interval; a new colour of mark where it is of other data."""
    axes = figure.subplots()
    places, values = range(len(nights)), [row["value"] for row in nights]
    axes.plot(places, values, color=colours["line"], linewidth=1)
    for i, row in enumerate(nights):
        known = row["low"] is not None and row["high"] is not None
        spread = [[row["value"] - row["low"]], [row["high"] - row["value"]]] if known else None
        first = row["data_digest"] == nights[-1]["data_digest"]
        axes.errorbar(
            [i], [row["value"]], yerr=spread, fmt="o", capsize=3, color=colours["first" if first else "second"]
        )
    step = max(1, len(nights) // 7)
    axes.set_xticks(places[::step], [row["date"][:10] for row in nights][::step])
    axes.set_ylabel(_label(nights[-1]))


def _label(item: Item) -> str:
    task, metric = item["task"], item["metric"]
    return task.replace("_", " ") if task.endswith(metric) else f"{task}: {metric}"
