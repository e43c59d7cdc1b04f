"""Run files: every mistake gets one message with the key, and the nearest valid one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flows.config import flatten, load
from flows.digest import digested
from flows.errors import UsageError
from flows.resources import packaged_configs


@pytest.mark.parametrize("name", list(packaged_configs()))
def test_packaged_recipes_are_valid_and_introduce_themselves(name: str) -> None:
    load(name)
    assert packaged_configs()[name].read_text().startswith("# ")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_step=4", "unknown key 'train.max_step', did you mean 'train.max_steps'?"),
        ("datset.seed=4", "unknown key 'datset', did you mean 'dataset'?"),
        ("train.max_steps=many", "train.max_steps: "),
        ("pdf2txt.layout=magic", "pdf2txt.layout: "),
        ("train.max_steps", "is not KEY=VALUE"),
        ("model.size=3", "unknown key 'model.size'"),
    ],
)
def test_bad_override_is_explained(override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load("demo", overrides=[override])
    assert message in str(caught.value) and caught.value.remedy


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        load("dmo")
    assert "'demo'" in caught.value.remedy


def test_paths_are_relative_to_where_they_are_written(
    small_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = small_run(pdfs=["documents"])
    assert load(str(path)).pdfs == (path.parent / "documents",)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load(str(path), pdfs=[Path("other")]).pdfs == (elsewhere / "other",)
    assert load(str(path), overrides=["evaluate.texts=[a.txt]"]).evaluate.texts == (elsewhere / "a.txt",)


def test_model_can_be_replaced_by_name_or_path(small_run: Callable[..., Path], tmp_path: Path) -> None:
    path = small_run()
    assert load(str(path), overrides=["model=smollm2-135m-q4"]).model.name == "smollm2-135m-q4"
    assert load("demo", overrides=[f"model.path={tmp_path}"]).model.path == tmp_path


def test_digest_leaves_out_paths_and_speed(small_run: Callable[..., Path]) -> None:
    path = small_run()
    a = load(str(path), overrides=["pdf2txt.workers=1"])
    b = load(str(path), overrides=["pdf2txt.workers=7"])
    assert digested(a.pdf2txt) == digested(b.pdf2txt)
    assert "texts" not in digested(a.evaluate)
    changed = load(str(path), overrides=["dataset.seed=9"])
    assert digested(a.dataset) != digested(changed.dataset)


def test_flatten_names_every_leaf() -> None:
    assert dict(flatten({"a": {"b": 1, "c": [1]}, "d": {}})) == {"a.b": 1, "a.c": [1], "d": {}}


def test_settings_reference_is_current() -> None:
    from flows.reference import render

    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text() == render(), "run make docs"
