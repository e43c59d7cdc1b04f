"""Disks that are full or cannot be written: one message, the exit code, and nothing half done."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_cli import longfolio


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """``mount(options)``: a fresh in-memory file system; skips where mounting is not allowed."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"mounting a file system is not allowed here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def test_read_only_store_is_found_before_the_first_stage(
    small_run: Callable[..., Path], mount: Callable[[str], Path]
) -> None:
    done = longfolio("run", small_run(), "--store", mount("ro") / "store")
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr and "do:" in done.stderr and "Traceback" not in done.stderr


def test_full_disk_fails_the_stage_and_the_run_goes_on_after_space_is_made(
    small_run: Callable[..., Path], mount: Callable[[str], Path]
) -> None:
    disk = mount("size=16m")
    (disk / "ballast").write_bytes(b"x" * (16 * 2**20 - 150_000))
    command = ("run", small_run(), "--store", disk / "store", "--until", "datasets_build", "--no-prefect")
    done = longfolio(*command)
    assert done.returncode == 1, done.stderr
    assert "No space left" in done.stderr and "do:" in done.stderr and "then:" in done.stderr
    assert "Traceback" not in done.stderr
    (disk / "ballast").unlink()
    assert longfolio(*command).returncode == 0
    assert longfolio("verify", "--store", disk / "store").returncode == 0
