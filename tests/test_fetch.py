"""Downloads: resumed, checked, offline; archives that try to do harm."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from loopback import COMMIT
from simprompt import fetch
from simprompt.fetch import FetchError, hub_file, unpack

BIG = bytes(range(256)) * 2000  # 512,000 bytes


@pytest.fixture
def repo(hub):
    hub.repos["org/thing"] = {"config.json": b"{}", "sub/weights.bin": BIG}
    return hub


def test_a_file_comes_once_and_lies_where_other_tools_look(repo, tmp_path):
    seen: list[int] = []
    path = hub_file("org/thing", "sub/weights.bin", progress=lambda n, d, t: seen.append(d))
    assert path.read_bytes() == BIG
    assert seen[-1] == len(BIG)
    folder = tmp_path / "hf" / "hub" / "models--org--thing"
    assert path == folder / "snapshots" / COMMIT / "sub" / "weights.bin"
    assert (folder / "refs" / "main").read_text(encoding="utf-8") == COMMIT
    assert fetch.stated_hash(path) == hashlib.sha256(BIG).hexdigest()
    asked = len(repo.log)
    assert hub_file("org/thing", "sub/weights.bin") == path
    assert hub_file("org/thing", "sub/weights.bin", COMMIT) == path
    assert fetch.on_disk("org/thing", "sub/weights.bin") == path
    assert len(repo.log) == asked
    # Small files are named by git's hash; further files come from the commit recorded first.
    small = hub_file("org/thing", "config.json")
    assert len(small.resolve().name) == 40
    assert f"/org/thing/resolve/{COMMIT}/config.json" in [path for _, path, _ in repo.log]


def test_offline_uses_the_disk_and_nothing_else(repo, monkeypatch):
    hub_file("org/thing", "config.json")
    asked = len(repo.log)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub_file("org/thing", "config.json").read_bytes() == b"{}"
    with pytest.raises(FetchError, match="HF_HUB_OFFLINE forbids"):
        hub_file("org/thing", "sub/weights.bin")
    assert len(repo.log) == asked


def test_a_broken_connection_is_taken_up_where_it_broke(repo, monkeypatch):
    monkeypatch.setattr(fetch.time, "sleep", lambda s: None)
    repo.drop_after = 200_000
    assert hub_file("org/thing", "sub/weights.bin", progress=None).read_bytes() == BIG
    ranges = [r for method, path, r in repo.log if "storage" in path]
    assert ranges == [None, "bytes=200000-"]


def test_a_server_without_range_begins_again(repo, monkeypatch):
    monkeypatch.setattr(fetch.time, "sleep", lambda s: None)
    repo.drop_after, repo.know_range = 200_000, False
    assert hub_file("org/thing", "sub/weights.bin", progress=None).read_bytes() == BIG


def test_a_killed_download_goes_on(repo, tmp_path):
    repo.slow = 0.15
    code = "from simprompt.fetch import hub_file; hub_file('org/thing', 'sub/weights.bin')"
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    blobs = tmp_path / "hf" / "hub" / "models--org--thing" / "blobs"
    part = blobs / (hashlib.sha256(BIG).hexdigest() + ".part")
    for _ in range(400):
        if part.is_file() and part.stat().st_size:
            break
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    have = part.stat().st_size
    assert 0 < have < len(BIG)
    repo.slow = 0
    repo.log.clear()
    assert hub_file("org/thing", "sub/weights.bin", progress=None).read_bytes() == BIG
    assert [r for _, path, r in repo.log if "storage" in path] == [f"bytes={have}-"]


def test_wrong_bytes_and_wrong_hashes_are_refused(repo, tmp_path):
    repo.lie_about["sub/weights.bin"] = "ab" * 32
    with pytest.raises(FetchError, match="hash to"):
        hub_file("org/thing", "sub/weights.bin", progress=None)
    assert not list((tmp_path / "hf").rglob("weights.bin"))
    assert not list((tmp_path / "hf").rglob("*.part"))
    with pytest.raises(FetchError, match="expected SHA-256"):
        hub_file("org/thing", "sub/weights.bin", sha256="cd" * 32)


def test_passing_failures_are_waited_out_and_lasting_ones_explained(repo, monkeypatch):
    repo.fail_next = 2
    assert hub_file("org/thing", "config.json").read_bytes() == b"{}"
    with pytest.raises(FetchError, match="no such repository, revision or file"):
        hub_file("org/thing", "missing.json")
    with pytest.raises(FetchError, match="private or gated"):
        hub_file("org/other", "config.json")
    repo.renamed["old/name"] = "org/thing"
    assert hub_file("old/name", "config.json").read_bytes() == b"{}"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FetchError, match="no connection"):
        hub_file("org/thing", "sub/weights.bin")


def test_a_full_disk_is_not_a_broken_connection(repo, tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    started = time.monotonic()
    with pytest.raises(OSError, match="No space left"):
        fetch._receive(f"{repo.url}/storage/org/thing/sub/weights.bin", Full(), None, "it", None)
    assert time.monotonic() - started < 1  # not tried again
    (tmp_path / "file").touch()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file"))
    with pytest.raises(FetchError, match=r"cannot be kept in .*file.*HF_HOME"):
        hub_file("org/thing", "sub/weights.bin")


def test_a_page_instead_of_a_hub_is_told(monkeypatch):
    class Page(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.delenv("http_proxy", raising=False)
        with pytest.raises(FetchError, match="does not answer as a model hub does"):
            hub_file("org/thing", "config.json", "other")
        server.shutdown()


def zip_of(path, members: dict[str, bytes], mode: int = 0o100644):
    with zipfile.ZipFile(path, "w") as zipped:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            zipped.writestr(info, data)
    return path


def test_unpacking_merges_into_what_is_there(tmp_path):
    archive = zip_of(
        tmp_path / "a.zip", {"set/a/1.txt": b"one", "__MACOSX/set/._1": b"", "set/.DS_Store": b""}
    )
    target = tmp_path / "data"
    (target / "set" / "b").mkdir(parents=True)
    (target / "set" / "b" / "2.txt").write_text("two", encoding="utf-8")
    assert unpack(archive, target) == ["set"]
    files = sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file())
    assert files == ["set/a/1.txt", "set/b/2.txt"]


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out", "C:/out", "a\\..\\out"])
def test_members_outside_the_target_are_refused(tmp_path, name):
    archive = zip_of(tmp_path / "a.zip", {"fine": b"1", name: b"2"})
    with pytest.raises(FetchError, match="outside the target"):
        unpack(archive, tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())
    assert not (tmp_path / "out").exists()


def test_links_bombs_and_lies_are_refused(tmp_path):
    data = tmp_path / "data"
    with pytest.raises(FetchError, match="is a link"):
        unpack(zip_of(tmp_path / "l.zip", {"l": b"/etc/passwd"}, 0o120777), data)
    with pytest.raises(FetchError, match="the limit is 100 bytes"):
        unpack(zip_of(tmp_path / "b.zip", {"b": bytes(101)}), data, max_bytes=100)
    with pytest.raises(FetchError, match="and 1 files"):
        unpack(zip_of(tmp_path / "n.zip", {"a": b"", "b": b""}), data, max_files=1)
    tar = tmp_path / "t.tar.gz"
    for kind, match in (
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device"),
    ):
        with tarfile.open(tar, "w:gz") as tarred:
            good = tarfile.TarInfo("good")
            good.size = 3
            tarred.addfile(good, io.BytesIO(b"abc"))
            bad = tarfile.TarInfo("bad")
            bad.type, bad.linkname = kind, "good"
            tarred.addfile(bad)
        with pytest.raises(FetchError, match=match):
            unpack(tar, data)
    with tarfile.open(tar, "w:gz") as tarred:
        tarred.addfile(good, io.BytesIO(b"abc"))
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(tar.read_bytes()[:-20])
    with pytest.raises(FetchError, match=r"cannot be unpacked|neither"):
        unpack(cut, data)
    assert not list(data.iterdir())
    assert unpack(tar, data) == ["good"]
    (tmp_path / "text").write_text("hello", encoding="utf-8")
    with pytest.raises(FetchError, match="neither a zip nor a tar"):
        unpack(tmp_path / "text", data)
