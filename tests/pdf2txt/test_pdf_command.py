"""The command by both of its names: same options, same exit codes, JSON on stdout and nothing else there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pdf2txt.errors import UserError
from pdf2txt.overrides import with_overrides

ROOT = Path(__file__).parents[2]
COMMANDS = {"library": ["-m", "pdf2txt"], "product": ["-m", "flows.cli", "pdf2txt"]}


def start(command: list[str], *args: str | Path, **options) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *command, *map(str, args)], env=env, **pipes, **options)


def run(command: list[str], *args: str | Path) -> tuple[int, str, str]:
    process = start(command, *args)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "note.txt").write_text("A note about ships and cargo, long enough to be read as English.")
    (tmp_path / "in" / "broken.pdf").write_bytes(b"%PDF-1.4 and no more")
    return tmp_path / "in"


@pytest.mark.parametrize("name", COMMANDS)
def test_json_is_one_object_and_settings_are_taken(folder: Path, tmp_path: Path, name: str):
    out = tmp_path / "out"
    options = ("--out", out, "--set", "language=de", "--set", "pdf2txt.footnotes=drop", "--format", "markdown")
    code, stdout, _ = run(COMMANDS[name], folder, *options, "--workers", 1, "--json")
    assert code == 0
    documents = json.loads(stdout)["documents"]
    assert [(Path(d["source"]).name, d["status"]) for d in documents] == [("broken.pdf", "corrupt"), ("note.txt", "ok")]
    assert set(documents[0]) == {
        "source", "sha256", "status", "pages", "pages_ocr", "seconds", "warnings", "text"
    }  # fmt: skip
    assert documents[1]["text"] == str(out / "note.md")
    assert json.loads((out / "note.json").read_text())["language"] == "de"
    code, stdout, _ = run(COMMANDS[name], folder / "broken.pdf", "--out", out)
    assert code == 1 and stdout.startswith("corrupt") and "cannot be opened" in stdout


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "langauge=de"], "did you mean 'language'?"),
        (["--jsonl", "all.json"], "all.json does not end"),
        (["--format", "html"], "--format"),
    ],
)
def test_wrong_use_has_exit_code_2(folder: Path, tmp_path: Path, name: str, options: list[str], message: str):
    code, stdout, stderr = run(COMMANDS[name], folder, "--out", tmp_path / "out", *options)
    assert code == 2 and message in stderr and "Traceback" not in stderr and not stdout


def test_both_names_have_the_same_options():
    first, second = (run(command, "--help")[1].replace("longfolio", "") for command in COMMANDS.values())
    assert [line for line in first.splitlines() if "--" in line] == [
        line for line in second.splitlines() if "--" in line
    ]
    assert "--set" in first


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_says_how_to_go_on(typeset, tmp_path: Path, stop: signal.Signals):
    book = typeset("#for n in range(1000) [= Chapter #n\n #pagebreak()]", "book.pdf")
    process = start(COMMANDS["library"], book, "--out", tmp_path / "out", "--workers", 1)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out/.pdf2txt-*/units/reading/*/*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(stop)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "") and "the same command goes on" in err and "Traceback" not in err
    assert list(tmp_path.glob("out/.pdf2txt-*"))


def test_settings_from_the_command_line(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    chosen = with_overrides(
        ["dpi=300", "layout_labels={3: table}", "passwords=list", "layout_model=~/m"], format="markdown"
    )
    assert (chosen.dpi, chosen.layout_labels, chosen.format) == (300, {"3": "table"}, "markdown")
    assert chosen.passwords == tmp_path / "list" and chosen.layout_model == Path("/home/somebody/m")
    for item, message in (
        ("dpi", "is not KEY=VALUE"),
        ("dpi=[", "not YAML"),
        ("dpi=many", "dpi: input should be a valid integer"),
        ("train.max_steps=4", "unknown key"),
        ("passwords=~nobody-of-that-name/x", "passwords=~nobody"),
    ):
        with pytest.raises(UserError, match=message) as told:
            with_overrides([item])
        assert told.value.remedy


def test_passwords_that_are_not_utf8_are_told_before_any_work(folder: Path, tmp_path: Path):
    passwords = tmp_path / "passwords.txt"
    passwords.write_bytes("Hafenschlüssel\n".encode("latin-1"))
    code, out, err = run(COMMANDS["library"], folder, "--out", tmp_path / "out", "--set", f"passwords={passwords}")
    assert (code, out) == (2, "") and "not encoded as UTF-8" in err
    passwords.write_text("Hafenschlüssel\n", "utf-8-sig")
    assert run(COMMANDS["library"], folder, "--out", tmp_path / "out", "--set", f"passwords={passwords}")[0] == 0
