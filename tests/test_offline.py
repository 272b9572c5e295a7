"""`tests/offline`: what it runs reaches this machine and no other."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

TRY = """
import socket, sys
for place in (("192.0.2.1", 80), ("example.org", 80)):
    try:
        socket.create_connection(place, timeout=5)
    except OSError as error:
        print(type(error).__name__, error.errno)
server = socket.create_server(("127.0.0.1", 0))
with socket.create_connection(server.getsockname(), timeout=5):
    print("here")
"""
OFFLINE = (sys.executable, str(Path(__file__).parent / "offline"))


@pytest.mark.parametrize("how", [(), ("--patched",)], ids=["as can be", "patched"])
def test_a_command_reaches_this_machine_alone(how):
    ended = subprocess.run(
        [*OFFLINE, *how, sys.executable, "-c", TRY],
        capture_output=True, encoding="utf-8", timeout=60, check=True,
    )  # fmt: skip
    assert ended.stdout.split("\n") == ["OSError 101", f"gaierror {socket.EAI_AGAIN}", "here", ""]


def test_a_command_keeps_its_exit_code():
    ended = subprocess.run([*OFFLINE, sys.executable, "-c", "raise SystemExit(7)"], check=False)
    assert ended.returncode == 7


def test_children_are_without_network_too():
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {TRY!r}], check=True)"
    ended = subprocess.run(
        [*OFFLINE, "--patched", sys.executable, "-c", child],
        capture_output=True, encoding="utf-8", timeout=60, check=True,
    )  # fmt: skip
    assert ended.stdout.splitlines()[-1] == "here"
    assert len(ended.stdout.splitlines()) == 3
