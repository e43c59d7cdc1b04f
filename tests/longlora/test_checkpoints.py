"""Checkpoints are whole or absent, and one that cannot be used never costs another."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from flows.errors import may_pass
from longlora.errors import UserError
from longlora.train import checkpoints, finished
from longlora.train.checkpoints import Checkpoint, Layout


def write(root: Path, step: int, fingerprint: str = "run", **more) -> Path:
    with checkpoints.writing(root, step, fingerprint, **more) as folder:
        (folder / "weights").write_text(f"weights of {step}")
        (folder / "global_step").mkdir()
        (folder / "global_step" / "part").write_text(f"part of {step}")
    return root / f"step-{step:08d}"


def names(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir())


def test_the_newest_two_stay(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path, step)
    assert names(tmp_path) == ["step-00000002", "step-00000003"]
    assert checkpoints.newest(tmp_path, "run", pytest.fail) == Checkpoint(tmp_path / "step-00000003", 3)


def test_an_error_leaves_nothing(tmp_path):
    write(tmp_path, 1)
    with pytest.raises(OSError), checkpoints.writing(tmp_path, 2, "run") as folder:
        (folder / "weights").write_text("half")
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == ["step-00000001"]


@pytest.mark.parametrize("file", ["weights", "global_step/part"])
@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_a_damaged_file_anywhere_is_seen(tmp_path, file, harm):
    write(tmp_path, 1)
    damaged = write(tmp_path, 2) / file
    damaged.write_text("x") if harm == "changed" else damaged.unlink()
    warnings: list[str] = []
    found = checkpoints.newest(tmp_path, "run", warnings.append)
    assert found is not None and found.step == 1
    assert len(warnings) == 1 and "step-00000002" in warnings[0]
    assert names(tmp_path) == ["damaged-00000002", "step-00000001"]


@pytest.mark.parametrize("manifest", [None, "", "[]", "{}", '{"files": {}, "step": 3}', '{"files": 1}'])
def test_an_unreadable_checkpoint_does_not_push_out_the_good_one(tmp_path, manifest):
    write(tmp_path, 1)
    damaged = write(tmp_path, 2)
    path = damaged / "manifest.json"
    path.unlink() if manifest is None else path.write_text(manifest)
    shutil.copytree(damaged, tmp_path / "step-00000003")
    warnings: list[str] = []
    found = checkpoints.newest(tmp_path, "run", warnings.append)
    assert found is not None and found.step == 1 and len(warnings) == 2
    write(tmp_path, 2)
    assert names(tmp_path) == ["damaged-00000003", "step-00000001", "step-00000002"]  # of damaged ones the newest


PARTS = {"settings": {"seed": 0, "lora": {"r": 8}}, "base": {"model.safetensors": "a" * 64}}


def test_another_run_is_put_aside_and_what_differs_is_told(tmp_path):
    write(tmp_path, 1, "before", parts=PARTS)
    write(tmp_path, 2, "before", parts=PARTS)
    now = {**PARTS, "settings": {"seed": 1, "lora": None}}
    warnings: list[str] = []
    assert checkpoints.newest(tmp_path, "run", warnings.append, now) is None
    assert names(tmp_path) == ["other-before-00000002"]  # of another run the newest
    assert len(warnings) == 1 and "other settings" in warnings[0] and "step-00000002" in warnings[0]
    assert "settings.seed 0, now 1" in warnings[0] and "settings.lora.r 8, now null" in warnings[0]
    assert "base" not in warnings[0]
    assert checkpoints.newest(tmp_path, "run", pytest.fail) is None  # told once


def test_settings_that_are_back_continue_their_own(tmp_path):
    """The other run has checkpoints of the same step; neither costs the other."""
    write(tmp_path, 2, "a")
    assert checkpoints.newest(tmp_path, "b", lambda message: None) is None
    for step in (1, 2, 3):
        write(tmp_path, step, "b")
    assert names(tmp_path) == ["other-a-00000002", "step-00000002", "step-00000003"]  # not among those that count
    found = checkpoints.newest(tmp_path, "a", lambda message: None)
    assert found == Checkpoint(tmp_path / "step-00000002", 2)
    assert json.loads((found.path / "manifest.json").read_text())["fingerprint"] == "a"
    assert names(tmp_path) == ["other-b-00000003", "step-00000002"]
    found = checkpoints.newest(tmp_path, "b", lambda message: None)
    assert found == Checkpoint(tmp_path / "step-00000003", 3)
    warnings: list[str] = []
    assert checkpoints.newest(tmp_path, "c", warnings.append) is None
    assert names(tmp_path) == ["other-b-00000003"] and any("deleted" in message for message in warnings)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("name", ["weights", "manifest.json"])
def test_a_read_error_costs_no_checkpoint(tmp_path, monkeypatch, number, name):
    write(tmp_path, 1)
    write(tmp_path, 2)
    with monkeypatch.context() as patch:
        refuse(patch, number, name)
        with pytest.raises(UserError, match="cannot be read") as caught:
            checkpoints.newest(tmp_path, "run", pytest.fail)
    assert "try again" in caught.value.remedy
    assert may_pass(caught.value) == (number != errno.EACCES)
    assert checkpoints.newest(tmp_path, "run", pytest.fail) == Checkpoint(tmp_path / "step-00000002", 2)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def refuse(patch: pytest.MonkeyPatch, number: int, name: str) -> None:
    """Have files of this name fail when they are opened."""
    opened = Path.open

    def failing(self: Path, *args, **kwargs):
        if self.name == name:
            raise OSError(number, os.strerror(number), str(self))
        return opened(self, *args, **kwargs)

    patch.setattr(Path, "open", failing)
    patch.setattr(Path, "read_text", lambda self, *args: failing(self).read())


@pytest.mark.parametrize(
    ("before", "now", "fits"),
    [
        (Layout(1), Layout(2), True),
        (Layout(2), Layout(1), True),
        (Layout(2, "zero2"), Layout(2, "zero2"), True),
        (Layout(2, "zero2"), Layout(4, "zero2"), False),
        (Layout(2, "zero3"), Layout(2, "zero2"), False),
        (Layout(2, "zero3"), Layout(2), False),
        (Layout(1), Layout(2, "zero3"), False),
    ],
)
def test_layouts_that_go_together(tmp_path, before, now, fits):
    write(tmp_path, 1, layout=before)
    found = checkpoints.newest(tmp_path, "run", pytest.fail)
    assert found is not None and found.layout == before
    if fits:
        checkpoints.check_layout(found, now)
    else:
        with pytest.raises(UserError, match=f"{before.world} process.*{now.world} process") as caught:
            checkpoints.check_layout(found, now)
        assert f"train.devices to {before.world}" in caught.value.remedy


# ------------------------------------------------------------------ finished output, digests of the base


def output_of(folder: Path) -> tuple[Path, Path]:
    output, result = folder / "output", folder / "result.json"
    (output / "adapter").mkdir(parents=True)
    (output / "adapter/weights").write_text("weights")
    finished.write(result, output, "run", {"loss": 1.0})
    return output, result


def test_finished_output_is_taken_only_whole(tmp_path):
    output, result = output_of(tmp_path)
    told: list[str] = []

    def report(event, **fields):
        told.append(fields["message"])

    assert finished.metrics_of(output, result, "run", report) == {"loss": 1.0} and not told
    assert finished.metrics_of(output, result, "another", report) is None
    (output / "adapter/weights").write_text("weighty")
    assert finished.metrics_of(output, result, "run", report) is None
    result.write_text("{")
    assert finished.metrics_of(output, result, "run", report) is None
    assert ["trained anew" in told[0], "damaged" in told[1], "cannot be read" in told[2]] == [True] * 3


def test_digests_are_kept_until_a_file_changes(tmp_path, monkeypatch):
    base, work = tmp_path / "base", tmp_path / "work"
    base.mkdir(), work.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"a" * 100)
    first = finished.model_digests(base, work, print)
    assert first["model.safetensors"] == checkpoints.file_sha256(base / "model.safetensors")
    kept = json.loads((work / "base_digests.json").read_text())
    kept["model.safetensors"][1] = "kept"  # so that we see where the answer comes from
    (work / "base_digests.json").write_text(json.dumps(kept))
    assert finished.model_digests(base, work, print)["model.safetensors"] == "kept"
    (base / "model.safetensors").write_bytes(b"b" * 100)  # as long as before
    changed = finished.model_digests(base, work, print)
    assert changed["model.safetensors"] == checkpoints.file_sha256(base / "model.safetensors")
    assert changed["config.json"] == first["config.json"]


def test_slow_digests_tell_of_their_progress(tmp_path, monkeypatch):
    monkeypatch.setattr(finished, "QUIET_SECONDS", -1)
    (tmp_path / "config.json").write_text("{}")
    events: list[dict] = []
    finished.model_digests(tmp_path, tmp_path, lambda event, **fields: events.append(fields))
    assert events and events[-1]["done"] == events[-1]["total"]
