"""The server on a real socket, met by clients that do not behave, and the options of `serve`."""

from __future__ import annotations

import select
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

import uvicorn
from typer.testing import CliRunner

import simprompt
from simprompt.cli.main import app as command_line
from simprompt.clip.hub import load_clip
from simprompt.deploy.access import Access, access_to
from simprompt.deploy.connection import connection_class
from simprompt.deploy.engine import Engine
from simprompt.deploy.server import Limits, app
from simprompt.errors import SimpromptError
from simprompt.prompt.prompt import Prompt

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def engine() -> Engine:
    kind = simprompt.methods.find("zero-shot")
    learner = kind(load_clip("icons"), ("cat", "dog"), "a photo of a {}.", kind.Config())
    return Engine([Prompt(learner, {"method": "zero-shot"})])


@contextmanager
def serving(engine: Engine, limits: Limits) -> Iterator[tuple[str, int]]:
    """The address of a server in this process."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        protocol = connection_class(limits.connections, limits.idle_seconds)
        config = uvicorn.Config(
            app(engine, limits), log_level="error", ws="none", http=protocol,
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[:2]
        finally:
            server.should_exit = True
            thread.join()


def connected(address: tuple[str, int], start: bytes) -> socket.socket:
    """A connection on which this was sent."""
    connection = socket.create_connection(address, timeout=20)
    connection.sendall(start)
    return connection


def closed_within(connection: socket.socket, seconds: float) -> bytes:
    """What comes before the other side closes, which it does in this time."""
    connection.settimeout(seconds)
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionError:
        pass
    connection.close()
    return received


def health(address: tuple[str, int]) -> float:
    """Seconds until /healthz has answered."""
    started = time.perf_counter()
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/healthz", timeout=20) as answer:
        assert answer.status == 200
    return time.perf_counter() - started


HEAD = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"GET /hea",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /he",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 99000000\r\n\r\nabc",
    ],
)
def test_half_a_request_is_closed_in_time_however_it_drips(engine, start):
    with serving(engine, Limits(idle_seconds=0.5)) as address:
        still = connected(address, start)
        dripping = connected(address, start)
        ended = threading.Event()

        def drip() -> None:
            while not ended.wait(0.1):
                try:
                    dripping.sendall(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        closed_within(still, 10)
        closed_within(dripping, 10)
        ended.set()
        thread.join()
        assert health(address) < 5


def test_a_slow_body_is_told_so_and_closed(engine):
    with serving(engine, Limits(idle_seconds=0.5)) as address:
        answer = closed_within(connected(address, HEAD + b"x"), 10)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"did not come in time" in answer


def test_open_connections_make_room_for_a_whole_request(engine):
    limits = Limits(idle_seconds=30, connections=4, in_flight=2)
    with serving(engine, limits) as address:
        connections = [connected(address, start) for start in (b"GET /", HEAD) for _ in range(8)]
        assert health(address) < 10
        # which ones were idle longest depends on when the server read them
        deadline, closed = time.monotonic() + 10, set()
        while len(closed) < 12 and time.monotonic() < deadline:
            readable, _, _ = select.select([c for c in connections if c not in closed], [], [], 1)
            for connection in readable:
                assert not closed_within(connection, 1)
            closed |= {*readable}
        assert len(closed) >= 12
        for connection in connections:
            connection.close()


def test_an_answer_that_nobody_reads_is_dropped(engine):
    """The names are long, so that the answer is larger than what the sockets hold."""
    with serving(engine, Limits(idle_seconds=0.5)) as address:
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        small.connect(address)
        page = b"GET /page.js HTTP/1.1\r\nHost: a\r\n\r\n"
        small.sendall(page * 1000)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                small.sendall(page)
            except OSError:  # closed by the server
                break
            time.sleep(0.05)
        else:
            pytest.fail("the connection is still open")
        small.close()


def test_a_body_that_is_too_long_is_answered_and_the_client_can_read_it(engine):
    """A connection that is closed while a client still sends would lose the answer."""
    with serving(engine, Limits(bytes=1000)) as address:
        start = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n"
        connection = connected(address, start + b"x" * 300_000)
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
        connection.close()


@pytest.mark.parametrize(
    ("host", "address", "answered", "refused"),
    [
        (
            "127.0.0.1",
            "127.0.0.1",
            ["localhost:80", "127.0.0.1", "[::1]"],
            ["evil.org", "10.0.0.1"],
        ),
        ("127.0.0.2", "127.0.0.2", ["localhost", "127.0.0.2:9"], ["evil.org", "10.0.0.1"]),
        ("::1", "::1", ["[::1]:80", "localhost"], ["evil.org", "[fe80::1]"]),
        (
            "",
            "0.0.0.0",
            ["10.0.0.1:80", "[fe80::1]", "localhost", "127.0.0.1"],
            ["evil.org", "a.b"],
        ),
        ("0.0.0.0", "0.0.0.0", ["10.0.0.1", "0.0.0.0"], ["evil.org", "127.0.0.1.org"]),
        ("::", "::", ["[fe80::1]:8000", "192.168.0.2"], ["evil.org"]),
        ("my.pc", "192.168.0.2", ["my.pc", "192.168.0.2"], ["evil.org"]),
    ],
)
def test_a_name_that_somebody_else_may_own_is_not_answered(host, address, answered, refused):
    access = access_to(address, host)
    assert [access.answers_host(name) for name in answered] == [True] * len(answered)
    assert [access.answers_host(name) for name in refused] == [False] * len(refused)
    assert access.answers_host(None)  # no browser
    more = access_to(address, host, ["Evil.org"])
    assert more.answers_host("evil.org:81")
    assert access_to(address, host, ["*"]).answers_host("evil.org")


def test_origins_are_compared_as_browsers_send_them():
    access = access_to("127.0.0.1", "127.0.0.1", ["my.site.org"], ["HTTPS://Other.org:443/"])
    assert access.answers_origin("https://other.org", "localhost")
    assert access.answers_origin("https://my.site.org:8443", "127.0.0.1:8000")
    assert access.answers_origin("http://localhost:8000", "localhost:8000")
    assert access.answers_origin("https://x.org", "x.org:443")
    for foreign in ("http://localhost:3000", "https://other.org.evil", "null", "http://other.org"):
        assert not access.answers_origin(foreign, "localhost:8000")
    assert Access().answers_origin(None, "a")


@pytest.mark.parametrize("site", ["https://a.org", "a.org:80", "a.org/x", "", "a b"])
def test_an_allow_host_that_no_browser_sends_is_refused(site):
    with pytest.raises(SimpromptError, match="--allow-host takes a host name"):
        access_to("127.0.0.1", "127.0.0.1", [site])


@pytest.mark.parametrize(
    "origin", ["a.org", "https://", "https://a.org/x", "ftp://a.org", "*", "http://a:x"]
)
def test_an_allow_origin_that_no_browser_sends_is_refused(origin):
    with pytest.raises(SimpromptError, match="--allow-origin takes the site"):
        access_to("127.0.0.1", "127.0.0.1", (), [origin])


@pytest.fixture
def started(monkeypatch, engine):
    """What `serve` would have served, and how."""
    seen: dict = {}
    monkeypatch.setattr("simprompt.deploy.engine.load_prompts",
                        lambda paths, model, tokenizer: seen.update(paths=paths, model=model)
                        or [engine.contenders[0].prompt])  # fmt: skip
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: seen.update(sockets=sockets))
    return seen


@pytest.mark.parametrize("prompt", ["hf://user/name", "hf://user/name@v1", "learned/prompt"])
def test_a_prompt_on_the_hub_can_be_served(started, prompt):
    done = CliRunner().invoke(command_line, ["serve", prompt, "--port", "0"])
    assert done.exit_code == 0, done.output
    assert [str(path) for path in started["paths"]] == [prompt]
    assert not done.stderr


def test_the_model_of_a_prompt_can_be_named(started):
    done = CliRunner().invoke(command_line, ["serve", "p", "--port", "0", "--model", "icons"])
    assert done.exit_code == 0, done.output
    assert started["model"] == "icons"


@pytest.mark.parametrize("host", ["0.0.0.0", "", "127.0.0.2", "127.0.0.1"])
def test_listening_for_other_computers_is_said(started, host):
    done = CliRunner().invoke(command_line, ["serve", "p", "--port", "0", "--host", host])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"http://{host if host.startswith('127') else '127.0.0.1'}:")
    if host.startswith("127"):
        assert not done.stderr
    else:
        assert "Other computers can reach this server" in done.stderr
        more = ["serve", "p", "--port", "0", "--host", host, "--allow-host", "my.site.org"]
        assert "my.site.org" in CliRunner().invoke(command_line, more).stderr


def test_the_command_line_says_what_is_wrong_with_a_host(started, tmp_path: Path):
    done = CliRunner().invoke(command_line, ["serve", "p", "--allow-host", "https://a.org"])
    assert isinstance(done.exception, SimpromptError)
    done = CliRunner().invoke(command_line, ["serve", "p", "--host", "a..b"])
    assert isinstance(done.exception, SimpromptError)
