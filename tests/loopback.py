"""A small model hub on loopback: what the real one answers to who downloads or uploads files.

`tests/test_hub_client.py` holds it to what the official client takes. Two servers stand for the
hub and for the storage of its large files, on a host of their own as the real ones are.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
EXPIRED = "hf_expired"
BLOCK = 1 << 16

Files = dict[str, bytes | Path]


class Refusal(Exception):  # noqa: N818
    """An answer with a status of 400 or more, and the headers by which clients tell what it is."""

    def __init__(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message} | headers
        self.headers = {key: value for key, value in self.headers.items() if value}


class Hub:
    """Serves repositories and takes uploads. Its storage knows Range, and refuses every request
    with a token, as signed addresses do.

    Args:
        large: files of at least this many bytes are "LFS": named by SHA-256, in the storage.
    """

    def __init__(self, large: int = 1000) -> None:
        self.repos: dict[str, Files] = {}  # the files of a repository's newest commit
        self.commits: dict[str, str] = {}  # repository -> its newest commit, else COMMIT
        self.earlier: dict[tuple[str, str], Files] = {}  # (repository, commit) -> files
        self.tags: dict[tuple[str, str], str] = {}  # (repository, tag or branch) -> commit
        self.is_mirror = True  # whether a commit that it never heard of is the newest
        self.renamed: dict[str, str] = {}
        self.private: dict[str, str] = {}  # repository -> the token that opens it
        self.gated: dict[str, str] = {}  # the same, of one that everybody sees
        self.uploaded: dict[str, bytes] = {}  # SHA-256 -> what the storage was sent
        self.created: list[dict[str, Any]] = []  # what was said of each new repository
        self.tokens: list[tuple[str, str | None]] = []  # path, Authorization
        self.lie_about: dict[str, str] = {}  # path -> hash stated for it
        self.large = large
        self.log: list[tuple[str, str, str | None]] = []  # method, path, Range
        self.drop_after: int | None = None  # bytes after which storage breaks one connection
        self.fail_next = 0  # requests to answer with 503
        self.slow = 0.0  # seconds to wait before every 64 KiB of a body
        self.hold = False  # whether a body is 64 KiB and then nothing until `go` is set
        self.go = threading.Event()
        self.know_range = True
        self.servers = [_serve(self, routes) for routes in (HUB_ROUTES, STORAGE_ROUTES)]
        self.url, self.storage_url = (
            f"http://127.0.0.1:{server.server_address[1]}" for server in self.servers
        )

    def close(self) -> None:
        self.go.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    # ---- repositories

    def push(self, repo: str, files: Files) -> str:
        """A new commit of a repository; returns its name. Those before it can still be had."""
        before = self.commits.get(repo)
        if repo in self.repos:
            self.earlier[repo, before or COMMIT] = self.repos[repo]
        commit = hashlib.sha1(repr([repo, before, files]).encode()).hexdigest()
        self.repos[repo], self.commits[repo] = {**files}, commit
        return commit

    def content(self, repo: str, path: str) -> bytes:
        return _bytes(self.repos[repo][path])

    def hash(self, repo: str, path: str) -> str:
        """The hash of a file by which the hub names it."""
        return self.name(self.repos[repo][path])

    def name(self, data: bytes | Path) -> str:
        return _digest(data, self.is_large(data))

    def is_large(self, data: bytes | Path) -> bool:
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        return size >= self.large

    def at(self, repo: str, revision: str) -> tuple[str, Files]:
        """The commit that a revision is, and its files."""
        newest = self.commits.get(repo, COMMIT)
        commit = newest if revision == "main" else self.tags.get((repo, revision), revision)
        if (repo, commit) in self.earlier:
            return commit, self.earlier[repo, commit]
        if commit == newest or (self.is_mirror and re.fullmatch("[0-9a-f]{40}", commit)):
            return newest, self.repos[repo]
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def check_visible(self, call: Call, repo: str) -> None:
        """Refuse who may not know of a repository; one with a token that is none sees nothing."""
        if call.token == EXPIRED:
            raise Refusal(401, "", "Invalid credentials in Authorization header")
        wanted = self.private.get(repo)
        if repo in self.repos and wanted in (None, call.token):
            return
        if call.token is None:
            raise Refusal(401, "RepoNotFound", "Invalid username or password.")
        raise Refusal(404, "RepoNotFound", "Repository not found")

    def file_at(self, call: Call, repo: str, revision: str, path: str) -> tuple[str, bytes | Path]:
        """The commit that a revision is, and a file of it, if the request may have it."""
        self.check_visible(call, repo)
        if repo in self.gated and call.token != self.gated[repo]:
            status = 401 if call.token is None else 403
            raise Refusal(status, "GatedRepo", f"Access to model {repo} is restricted.")
        commit, files = self.at(repo, revision)
        if path not in files:
            raise Refusal(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit})
        return commit, files[path]

    # ---- downloads

    def resolve(self, call: Call, kind: str | None, repo: str, revision: str, path: str) -> None:
        """Where a file is: in the storage, or, where it is small, in the hub's own cache."""
        if repo in self.renamed:
            place = call.http.path.replace(repo, self.renamed[repo], 1)
            return call.send(307, {"Location": place}, b"Temporary Redirect")
        commit, data = self.file_at(call, repo, revision, path)
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not self.is_large(data):
            place = f"/api/resolve-cache/{(kind or 'models/')}{repo}/{commit}/{quote(path)}"
            etag = quote(f'"{self.name(data)}"')
            headers["Location"] = f"{place}?etag={etag}"
            return call.send(307, headers, b"Temporary Redirect")
        headers |= {
            "ETag": '"not the hash of the file"',
            "X-Linked-Etag": f'"{self.lie_about.get(path, self.name(data))}"',
            "X-Linked-Size": str(len(_bytes(data))),
            "Location": f"{self.storage_url}/storage/{repo}/{commit}/{quote(path)}?Signature=x",
        }
        call.send(302, headers, b"Found")

    def cached(self, call: Call, _: str, repo: str, commit: str, path: str) -> None:
        commit, data = self.file_at(call, repo, commit, path)
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{self.lie_about.get(path, self.name(data))}"',
            "Content-Disposition": f'inline; filename="{path.rpartition("/")[2]}"',
        }
        call.send(200, headers, _bytes(data))

    def stored(self, call: Call, repo: str, commit: str, path: str) -> None:
        """A file of the storage, or the part of it that is asked for."""
        data = _bytes(self.at(repo, commit)[1][path])
        wanted = call.http.headers.get("Range") if self.know_range else None
        if not wanted:
            return call.send(200, {"Accept-Ranges": "bytes", "ETag": '"of the storage"'}, data)
        first, last = _range(wanted, len(data))
        headers = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        call.send(206, headers, data[first : last + 1])

    def info(self, call: Call, kind: str, repo: str, revision: str | None) -> None:
        """What is known of a repository."""
        self.check_visible(call, repo)
        commit, files = self.at(repo, revision or "main")
        call.send_json({
            "id": repo, "sha": commit, "private": repo in self.private,
            "gated": "manual" if repo in self.gated else False,
            "siblings": [{"rfilename": path} for path in files],
        })  # fmt: skip

    def tree(self, call: Call, kind: str, repo: str, revision: str) -> None:
        """All files of a repository, as the list of a folder and those below it."""
        self.check_visible(call, repo)
        entries = []
        for path, data in self.at(repo, revision)[1].items():
            size, name = len(_bytes(data)), self.name(data)
            entry = {"type": "file", "path": path, "size": size, "oid": _digest(data, False)}
            if self.is_large(data):
                entry["lfs"] = {"oid": name, "size": size, "pointerSize": 130}
            entries.append(entry)
        call.send_json(entries)

    # ---- uploads

    def create(self, call: Call) -> None:
        wanted = call.json()
        repo = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
        call.check_token()
        url = {"url": f"{self.url}/{repo}", "id": repo}
        if repo in self.repos:
            return call.send_json(url | {"error": "You already created this model repo"}, 409)
        self.created.append(wanted)
        self.repos[repo] = {}
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.private[repo] = call.check_token()
        call.send_json(url)

    def validate(self, call: Call) -> None:
        call.send_json({"errors": [], "warnings": []})

    def preupload(self, call: Call, kind: str, repo: str, revision: str) -> None:
        """Which files of an upload go to the storage."""
        call.check_token()
        self.check_visible(call, repo)
        call.send_json({"files": [
            {
                "path": file["path"], "shouldIgnore": False,
                "uploadMode": "lfs" if file["size"] >= self.large else "regular",
            }
            for file in call.json()["files"]
        ]})  # fmt: skip

    def batch(self, call: Call, repo: str) -> None:
        """Where large files are to be sent, as Git LFS has it."""
        call.check_token()
        objects = [
            {"oid": wanted["oid"], "size": wanted["size"], "actions": {
                "upload": {"href": f"{self.storage_url}/uploads/{wanted['oid']}?Signature=x"},
                "verify": {"href": f"{self.url}/{repo}.git/info/lfs/verify"},
            }}
            for wanted in call.json()["objects"]
        ]  # fmt: skip
        call.send_json({"transfer": "basic", "objects": objects})

    def receive(self, call: Call, oid: str) -> None:
        """A large file on its way into the storage."""
        if hashlib.sha256(call.body).hexdigest() != oid:
            raise Refusal(400)
        self.uploaded[oid] = call.body
        call.send(200, {"ETag": f'"{oid}"'}, b"")

    def verify(self, call: Call, repo: str) -> None:
        if call.json()["oid"] not in self.uploaded:
            raise Refusal(404)
        call.send_json({})

    def commit(self, call: Call, kind: str, repo: str, revision: str) -> None:
        """The files of an upload become a new commit."""
        call.check_token()
        self.check_visible(call, repo)
        files = {**self.repos[repo]}
        for line in map(json.loads, call.body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.uploaded[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = self.push(repo, files)
        url = f"{self.url}/{repo}/commit/{commit}"
        call.send_json({"commitUrl": url, "commitOid": commit, "pullRequestUrl": None})


class Call:
    """A request, and what is needed to answer it."""

    def __init__(self, hub: Hub, http: BaseHTTPRequestHandler) -> None:
        self.hub, self.http = hub, http
        self.body = http.rfile.read(int(http.headers.get("Content-Length") or 0))
        shown = http.headers.get("Authorization")
        self.token = shown.removeprefix("Bearer ") if shown else None

    def json(self) -> Any:
        return json.loads(self.body)

    def check_token(self) -> str:
        if self.token in (None, EXPIRED):
            raise Refusal(401, "", "Invalid username or password.")
        return self.token

    def answer(self, routes: Routes) -> None:
        hub, http = self.hub, self.http
        hub.log.append((http.command, http.path, http.headers.get("Range")))
        if hub.fail_next:
            hub.fail_next -= 1
            return self.send(503, {"Retry-After": "0.01"}, b"")
        hub.tokens.append((http.path, http.headers.get("Authorization")))
        try:
            if routes is STORAGE_ROUTES and self.token:
                raise Refusal(400)
            for methods, pattern, name in routes:
                match = re.fullmatch(pattern, urlsplit(http.path).path)
                if match and http.command in methods.split():
                    values = (value and unquote(value) for value in match.groups())
                    return getattr(hub, name)(self, *values)
            raise Refusal(404, "", f"{http.command} {http.path} is nothing that is answered")
        except Refusal as refusal:
            self.send_json({"error": "refused"}, refusal.status, **refusal.headers)

    def send_json(self, value: Any, status: int = 200, **headers: str) -> None:
        headers = {"Content-Type": "application/json"} | headers
        self.send(status, headers, json.dumps(value).encode())

    def send(self, status: int, headers: dict[str, str], data: bytes) -> None:
        hub, http = self.hub, self.http
        http.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(data))}).items():
            http.send_header(key, value)
        http.end_headers()
        if http.command == "HEAD":
            return
        if hub.drop_after is not None and len(data) > hub.drop_after:
            http.wfile.write(data[: hub.drop_after])
            hub.drop_after = None
            http.close_connection = True
            return
        with contextlib.suppress(ConnectionError):  # the other side was killed, as some tests do
            for block in self._blocks(data):
                http.wfile.write(block)

    def _blocks(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), BLOCK):
            time.sleep(self.hub.slow)
            if start and self.hub.hold:
                self.hub.go.wait()
            yield data[start : start + BLOCK]


Routes = tuple[tuple[str, str, str], ...]

_REPO = "([^/]+/[^/]+)"
_KIND = "(models/|datasets/)"
HUB_ROUTES: Routes = (
    ("GET HEAD", f"/(datasets/)?{_REPO}/resolve/([^/]+)/(.+)", "resolve"),
    ("GET HEAD", f"/api/resolve-cache/{_KIND}{_REPO}/([^/]+)/(.+)", "cached"),
    ("GET", f"/api/{_KIND}{_REPO}(?:/revision/([^/]+))?", "info"),
    ("GET", f"/api/{_KIND}{_REPO}/tree/([^/]+)", "tree"),
    ("POST", "/api/repos/create", "create"),
    ("POST", "/api/validate-yaml", "validate"),
    ("POST", f"/api/{_KIND}{_REPO}/preupload/([^/]+)", "preupload"),
    ("POST", f"/api/{_KIND}{_REPO}/commit/([^/]+)", "commit"),
    ("POST", rf"/(?:datasets/)?{_REPO}\.git/info/lfs/objects/batch", "batch"),
    ("POST", rf"/(?:datasets/)?{_REPO}\.git/info/lfs/verify", "verify"),
)
STORAGE_ROUTES: Routes = (
    ("GET HEAD", f"/storage/{_REPO}/([^/]+)/(.+)", "stored"),
    ("PUT", "/uploads/([0-9a-f]{64})", "receive"),
)


def _serve(hub: Hub, routes: Routes) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            Call(hub, self).answer(routes)

        do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


def _bytes(data: bytes | Path) -> bytes:
    return data.read_bytes() if isinstance(data, Path) else data


@lru_cache(maxsize=2000)
def _digest(data: bytes | Path, is_large: bool) -> str:
    """SHA-256, or SHA-1 the way git names a blob."""
    data = _bytes(data)
    if is_large:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _range(wanted: str, size: int) -> tuple[int, int]:
    """The first and the last byte that a header asks for: "bytes=2-5", "bytes=2-", "bytes=-4"."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted)
    first, last = match.groups() if match else ("", "")
    start = int(first) if first else max(0, size - int(last or 0))
    end = min(int(last), size - 1) if first and last else size - 1
    if start > end:
        raise Refusal(416, **{"Content-Range": f"bytes */{size}"})
    return start, end
