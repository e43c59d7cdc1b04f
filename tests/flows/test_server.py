"""The server of a store: there while somebody needs it, and not a moment longer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.errors import UsageError
from flows.orchestration.server import Home, healthy, joined

USER = """
import sys, time
from pathlib import Path
from flows.orchestration.server import joined
with joined(Path(sys.argv[1])) as url:
    print(url, flush=True)
    time.sleep(600)
"""


def gone(home: Home, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if home.running() is None:
            return True
        time.sleep(0.1)
    return False


def test_users_of_a_store_share_its_server_and_the_last_one_takes_it_down(tmp_path: Path) -> None:
    home = Home.of(tmp_path)
    with joined(tmp_path) as url:
        other = subprocess.Popen([sys.executable, "-c", USER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None and other.stdout.readline().strip() == url
        note = home.running()
        assert note is not None and note["url"] == url and healthy(url)
    time.sleep(1.5)
    assert home.running() == note  # the other one still needs it
    other.send_signal(signal.SIGKILL)  # a user that is killed does not keep it either
    other.wait()
    assert gone(home) and not healthy(url, 1)
    # Killed itself, it is started again for the next user, on the same database.
    with joined(tmp_path):
        killed = home.running()
        assert killed is not None
        os.kill(killed["pid"], signal.SIGKILL)
        with joined(tmp_path) as again:
            started = home.running()
            assert healthy(again) and started is not None and started["pid"] != killed["pid"]


def test_users_that_come_at_the_same_moment_get_one_server(tmp_path: Path) -> None:
    users = [
        subprocess.Popen([sys.executable, "-c", USER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    home = Home.of(tmp_path)
    try:
        assert len({user.stdout.readline() for user in users if user.stdout}) == 1
        servers = [p.pid for p in psutil.process_iter(["cmdline"]) if str(home.path) in (p.info["cmdline"] or [])]
        assert len(servers) == 1
    finally:
        for user in users:
            user.kill()
            user.wait()
    assert gone(home)


def test_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="in use"), joined(tmp_path, port=taken.getsockname()[1]):
            pass
