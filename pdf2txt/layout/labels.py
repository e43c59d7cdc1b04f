"""What a layout model calls its classes, and which of ``schema.KINDS`` they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pdf2txt.errors import UserError
from pdf2txt.schema import KINDS

# Classes in the order in which models trained on these data sets number them, from 0.
MAPS: dict[str, dict[str, str]] = {
    # Zhong, Tang and Jimeno Yepes, PubLayNet, ICDAR 2019; a "title" there is the title of a section as well
    "publaynet": {"text": "text", "title": "heading", "list": "list", "table": "table", "figure": "figure"},
    # Pfitzmann et al., DocLayNet, KDD 2022, table 1
    "doclaynet": {
        "Caption": "caption", "Footnote": "footnote", "Formula": "equation", "List-item": "list",
        "Page-footer": "footer", "Page-header": "header", "Picture": "figure", "Section-header": "heading",
        "Table": "table", "Text": "text", "Title": "title",
    },
    # CDLA, a data set of Chinese scientific papers (github.com/buptlihang/CDLA)
    "cdla": {
        "Text": "text", "Title": "heading", "Figure": "figure", "Figure caption": "caption", "Table": "table",
        "Table caption": "caption", "Header": "header", "Footer": "footer", "Reference": "reference",
        "Equation": "equation",
    },
}  # fmt: skip


def kinds_of(labels: str | Mapping[str, str], names: Sequence[str], count: int, model: str) -> tuple[str, ...]:
    """Kinds of a model's classes by their numbers.

    A model that names its classes has them looked up by name: in ``labels`` where that is a mapping, else (and
    for what the mapping leaves out) in the map that it names, else in the built-in map that knows most of them.

    Args:
        labels: "" to go by the model's own names, a key of ``MAPS``, or name or number of a class -> kind.
        names: the model's own, () if it has none.
        count: of the model's classes.
        model: for messages.

    Raises:
        UserError: lists the classes whose kind is unknown, or the labels that are no class of the model.
    """
    own = {} if isinstance(labels, str) else {_key(name): kind for name, kind in labels.items()}
    known = {_key(name) for name in names} | {str(n) for n in range(count)}
    if wrong := [name for name in ([] if isinstance(labels, str) else labels) if _key(name) not in known]:
        raise UserError(
            f"pdf2txt.layout_labels: {_list(wrong)}: no class of {model}, whose classes are "
            + (_list(names) if names else f"the numbers 0 to {count - 1}"),
            "correct the labels",
        )
    if not names:
        return _by_number(labels, own, count, model)
    found = MAPS[labels] if isinstance(labels, str) and labels else _nearest(names)
    kinds = {_key(name): kind for name, kind in found.items()}
    out = [own.get(_key(name)) or own.get(str(n)) or kinds.get(_key(name), "") for n, name in enumerate(names)]
    if unknown := [name for name, kind in zip(names, out, strict=True) if not kind]:
        raise UserError(
            f"{model} has classes of unknown kind: {_list(unknown)}",
            "give each a kind, pdf2txt.layout_labels: {" + f"{unknown[0]}: text, ...}}; kinds: {', '.join(KINDS)}",
        )
    return tuple(out)


def _by_number(labels: str | Mapping[str, str], own: dict[str, str], count: int, model: str) -> tuple[str, ...]:
    if isinstance(labels, str) and labels:
        kinds = tuple(MAPS[labels].values())
        if len(kinds) != count:
            raise UserError(
                f"{model} has {count} classes, the labels of {labels} are {len(kinds)}",
                "set pdf2txt.layout_labels to the labels that the model was trained with",
            )
        return kinds
    if missing := [str(n) for n in range(count) if str(n) not in own]:
        raise UserError(
            f"{model} does not name its {count} classes, and pdf2txt.layout_labels gives no kind for {_list(missing)}",
            f"set pdf2txt.layout_labels to one of {', '.join(MAPS)}, or to a mapping {{0: text, 1: heading, ...}}",
        )
    return tuple(own[str(n)] for n in range(count))


def _nearest(names: Sequence[str]) -> dict[str, str]:
    """The map that holds most of ``names``, the smallest of those."""
    wanted = {_key(name) for name in names}
    return max(MAPS.values(), key=lambda m: (len(wanted & {_key(name) for name in m}), -len(m)))


def _key(name: str) -> str:
    """Names are compared without case, spaces and hyphens: "figure_caption" is "Figure caption"."""
    return re.sub(r"[\W_]+", "", name.casefold())


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
