"""Downloads: resumed, checked, offline; archives that try to do harm."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import contenders as contend
from loopback import COMMIT
from shell import wait_for
from simprompt.utils.files import archive as archives
from simprompt.utils.files import download as downloads
from simprompt.utils.files import hub as fetch
from simprompt.utils.files.archive import unpack
from simprompt.utils.files.atomic import WriteError
from simprompt.utils.files.hub import hub_file
from simprompt.utils.files.hub_requests import FetchError
from simprompt.utils.files.locks import lock_file
from simprompt.utils.progress import listening

BIG = bytes(range(256)) * 2000  # 512,000 bytes


@pytest.fixture
def repo(hub):
    hub.repos["org/thing"] = {"config.json": b"{}", "sub/weights.bin": BIG}
    return hub


def test_a_file_comes_once_and_lies_where_other_tools_look(repo, tmp_path):
    shown: list[tuple[str, int, int]] = []
    with listening(lambda *line: shown.append(line)):
        path = hub_file("org/thing", "sub/weights.bin")
    assert path.read_bytes() == BIG
    assert shown == [("sub/weights.bin of org/thing (MB)", done, 1) for done in (0, 1)]
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
    monkeypatch.setattr(downloads.time, "sleep", lambda s: None)
    repo.drop_after = 200_000
    assert hub_file("org/thing", "sub/weights.bin", progress=False).read_bytes() == BIG
    ranges = [r for method, path, r in repo.log if "storage" in path]
    assert ranges == [None, "bytes=200000-"]


def test_a_server_without_range_begins_again(repo, monkeypatch):
    monkeypatch.setattr(downloads.time, "sleep", lambda s: None)
    repo.drop_after, repo.know_range = 200_000, False
    assert hub_file("org/thing", "sub/weights.bin", progress=False).read_bytes() == BIG


def test_a_killed_download_goes_on(repo, tmp_path):
    repo.hold = True
    code = (
        "from simprompt.utils.files.hub import hub_file; hub_file('org/thing', 'sub/weights.bin')"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    blobs = tmp_path / "hf" / "hub" / "models--org--thing" / "blobs"
    part = blobs / (hashlib.sha256(BIG).hexdigest() + ".part")
    wait_for(lambda: child.poll() is not None or (part.is_file() and part.stat().st_size))
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    have = part.stat().st_size
    assert 0 < have < len(BIG)
    repo.hold = False
    repo.log.clear()
    assert hub_file("org/thing", "sub/weights.bin", progress=False).read_bytes() == BIG
    assert [r for _, path, r in repo.log if "storage" in path] == [f"bytes={have}-"]


@pytest.mark.parametrize("contenders", [contend.threads, contend.processes])
@pytest.mark.parametrize("rounds", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_all_who_download_and_unpack_at_once_end_well(hub, tmp_path, contenders, rounds):
    """In each round three collide over one download, then over one archive."""
    hub.repos |= {f"org/thing-{i}": {"weights.bin": BIG[:5000]} for i in range(rounds)}
    members = {f"set/{part}/{i}.txt": b"x" * i for part in "ab" for i in range(3)}
    zip_of(tmp_path / "archive.zip", members)
    errors = contenders(3, rounds, tmp_path)
    failed = {error.partition(":")[0] for error in errors}
    print(f"\n{rounds - len(failed)} of {rounds} collisions ended well")
    assert not errors, errors[0]
    assert sum("storage" in path for _, path, _ in hub.log) == rounds, "each file came once"
    for i in range(rounds):
        found = {p.relative_to(tmp_path / str(i)).as_posix(): p for p in every(tmp_path / str(i))}
        assert {name: p.read_bytes() for name, p in found.items()} == members
    left = [p.name for p in every(tmp_path / "hf") if p.suffix in (".part", ".lock")]
    assert not left


def test_where_there_are_no_links_who_comes_second_finds_the_file(hub, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    hub.repos |= {f"org/thing-{i}": {"weights.bin": BIG[:5000]} for i in range(10)}
    zip_of(tmp_path / "archive.zip", {"a": b""})
    assert not contend.threads(3, 10, tmp_path)
    assert sum("storage" in path for _, path, _ in hub.log) == 10


def every(folder):
    return [p for p in folder.rglob("*") if p.is_file()]


def test_a_reader_sees_a_whole_file_or_none(repo):
    seen: list[bytes] = []

    def look() -> None:
        while (path := fetch.on_disk("org/thing", "sub/weights.bin")) is None:
            pass
        seen.append(path.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    repo.slow = 0.01
    hub_file("org/thing", "sub/weights.bin", progress=False)
    reader.join()
    assert seen == [BIG]


def test_who_waited_for_a_download_that_failed_tries_itself(repo, monkeypatch):
    """The hash is looked at and the bad bytes are removed before the next one begins."""
    repo.lie_about["sub/weights.bin"] = "ab" * 32
    start, errors = threading.Barrier(4), []

    def want() -> None:
        start.wait()
        with pytest.raises(FetchError, match="hash to") as caught:
            hub_file("org/thing", "sub/weights.bin", progress=False)
        errors.append(caught.value)

    running = [threading.Thread(target=want) for _ in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert len(errors) == 4


def test_all_files_of_a_branch_come_from_the_commit_that_was_recorded_first(repo, monkeypatch):
    """Another process resolves `main` while this one asks, and the branch moves in between."""
    theirs, real = "f" * 40, fetch.stat_url

    def moved(url, where):
        ref = fetch.repo_folder("org/thing") / "refs" / "main"
        if not ref.is_file():
            fetch.write_text(ref, theirs)
        return real(url, where)

    monkeypatch.setattr(fetch, "stat_url", moved)
    path = hub_file("org/thing", "config.json")
    assert path == fetch.repo_folder("org/thing") / "snapshots" / theirs / "config.json"
    assert path.read_bytes() == b"{}"


def test_a_lock_is_held_by_one_and_leaves_nothing(tmp_path):
    lock, inside, most = tmp_path / "lock", [], []

    def enter(_) -> None:
        with lock_file(lock):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(200)))
    assert set(most) == {1}
    assert not list(tmp_path.iterdir())


def test_wrong_bytes_and_wrong_hashes_are_refused(repo, tmp_path):
    repo.lie_about["sub/weights.bin"] = "ab" * 32
    with pytest.raises(FetchError, match="hash to"):
        hub_file("org/thing", "sub/weights.bin", progress=False)
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

    monkeypatch.setattr(downloads, "time", None)  # not waited for, so not tried again
    url = f"{repo.storage_url}/storage/org/thing/main/sub/weights.bin"
    with pytest.raises(OSError, match="No space left"):
        downloads._receive(url, Full(), None, "it")
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


def bits(path: Path, old: bytes, new: bytes) -> Path:
    """The file with every occurrence of some bytes replaced."""
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path


def hostile_archives(folder: Path) -> dict[str, Path]:
    """Archives that zipfile and tarfile answer with errors of every kind."""

    def zipped(name: str, method: int = zipfile.ZIP_DEFLATED) -> Path:
        with zipfile.ZipFile(folder / name, "w", method) as file:
            file.writestr("member", bytes(range(256)) * 40)
        return folder / name

    def tarred(name: str, mode: str, cut: int = 0, size: int = 4) -> Path:
        with tarfile.open(folder / name, mode) as file:
            info = tarfile.TarInfo("member")
            info.size = size
            file.addfile(info, io.BytesIO(os.urandom(size)))
        if cut:
            (folder / name).write_bytes((folder / name).read_bytes()[:-cut])
        return folder / name

    def broken(path: Path, at: int) -> Path:
        data = bytearray(path.read_bytes())
        data[at : at + 64] = b"\xff" * 64
        path.write_bytes(data)
        return path

    inside = 60  # past the member's header
    ok = zipped("whole.zip").read_bytes()
    cases = {
        "crc": broken(zipped("crc.zip", zipfile.ZIP_STORED), inside),
        "deflate": broken(zipped("deflate.zip"), inside),
        "bzip2": broken(zipped("bzip2.zip", zipfile.ZIP_BZIP2), inside),
        "lzma": broken(zipped("lzma.zip", zipfile.ZIP_LZMA), inside),
        "no member": bits(zipped("header.zip"), b"PK\x03\x04", b"PK\x09\x09"),
        "method": bits(zipped("method.zip"), b"\x00\x00\x08\x00", b"\x00\x00\x5d\x00"),
        "encrypted": bits(zipped("encrypted.zip"), b"\x00\x00\x08\x00", b"\x01\x00\x08\x00"),
        "patched": bits(zipped("patched.zip"), b"\x00\x00\x08\x00", b"\x20\x00\x08\x00"),
        "name": bits(zipped("name.zip"), b"member", b"m\x1b]0;b"),
        "utf-8": bits(
            bits(zipped("utf8.zip"), b"\x00\x00\x08\x00", b"\x00\x08\x08\x00"),
            b"member", b"m\xff\xff\xffer",
        ),
        "gz cut": tarred("cut.tar.gz", "w:gz", cut=3000, size=5000),
        "xz cut": tarred("cut.tar.xz", "w:xz", cut=3000, size=5000),
        "bz2 cut": tarred("cut.tar.bz2", "w:bz2", cut=3000, size=5000),
        "gz": broken(tarred("broken.tar.gz", "w:gz", size=2_000_000), 1_000_000),
        "xz": broken(tarred("broken.tar.xz", "w:xz", size=200_000), 100_000),
        "tar cut": tarred("cut.tar", "w:", cut=9000, size=5000),
    }  # fmt: skip
    end = ok.rindex(b"PK\x05\x06")
    (folder / "count.zip").write_bytes(ok[: end + 12] + b"\xff\xff\xff\x7f" + ok[end + 16 :])
    cases["directory"] = folder / "count.zip"
    with tarfile.open(folder / "name.tar", "w") as file:
        file.addfile(tarfile.TarInfo("line\nbreak"))
    cases["tar name"] = folder / "name.tar"
    (folder / "folder").mkdir()
    cases["folder"] = folder / "folder"
    cases["nothing"] = folder / "nothing"
    return cases


def test_whatever_is_wrong_with_an_archive_is_our_error_in_one_sentence(tmp_path):
    target = tmp_path / "target"
    for what, archive in hostile_archives(tmp_path).items():
        with pytest.raises(FetchError) as caught:
            unpack(archive, target)
        message = str(caught.value)
        assert str(archive) in message, what
        assert message.isprintable(), what
        assert not list(target.iterdir()), what
        with contextlib.suppress(FetchError):  # the names may be fine where the content is not
            archives.top_level(archive)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("encrypted", "is encrypted"),
        ("method", "compressed with method 93"),
        ("name", "a control character in its name"),
        ("tar name", "a control character in its name"),
    ],
)
def test_what_can_be_said_of_an_archive_is_said(tmp_path, what, words):
    with pytest.raises(FetchError, match=words):
        unpack(hostile_archives(tmp_path)[what], tmp_path / "target")


def test_the_headers_of_a_tar_file_take_no_memory_and_no_depth(tmp_path):
    def header(kind: bytes, size: int) -> bytes:
        info = tarfile.TarInfo("././@LongLink")
        info.type, info.size = kind, size
        return info.tobuf(tarfile.GNU_FORMAT)

    long = tmp_path / "long.tar"
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        long.write_bytes(header(kind, 1 << 33) + bytes(4096))
        with pytest.raises(FetchError):
            unpack(long, tmp_path / "target")
    one = header(tarfile.GNUTYPE_LONGNAME, 2) + b"a\0".ljust(512, b"\0")
    long.write_bytes(one * 3000 + bytes(1024))
    with pytest.raises(FetchError):
        unpack(long, tmp_path / "target")


def test_a_disk_that_is_full_while_an_archive_is_unpacked_is_told(tmp_path, monkeypatch):
    archive = zip_of(tmp_path / "a.zip", {"member": b"1"})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives, "_write", full)
    target = tmp_path / "target"
    with pytest.raises(WriteError, match=f"{target} cannot be written: No space.*Make room there"):
        unpack(archive, target)
    assert not list(target.iterdir())
