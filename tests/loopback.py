"""A small model hub on loopback that answers as the real one's resolve endpoint does.

`tests/test_hub_client.py` holds it, and our client, to what the official client takes.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves repositories; large files answer with a redirect to storage on another host, which
    knows Range and refuses every request with a token, as signed addresses do.

    Args:
        large: files of at least this many bytes are "LFS": named by SHA-256, redirected.
    """

    def __init__(self, large: int = 1000) -> None:
        self.repos: dict[str, dict[str, bytes | Path]] = {}
        self.commits: dict[str, str] = {}  # repository -> where its branch main is, else COMMIT
        self.renamed: dict[str, str] = {}
        self.private: dict[str, str] = {}  # repository -> the token that opens it
        self.tokens: list[tuple[str, str | None]] = []  # path, Authorization
        self.lie_about: dict[str, str] = {}  # path -> hash stated for it
        self.large = large
        self.log: list[tuple[str, str, str | None]] = []  # method, path, Range
        self.drop_after: int | None = None  # bytes after which storage breaks one connection
        self.fail_next = 0  # requests to answer with 503
        self.slow = 0.0  # seconds to wait before every 64 KiB of storage
        self.hold = False  # whether storage sends 64 KiB and then waits until `go` is set
        self.go = threading.Event()
        self.know_range = True
        self._hashes: dict[tuple[str, str], str] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

        self.servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
        for server in self.servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self.url, self.storage_url = (
            f"http://127.0.0.1:{server.server_address[1]}" for server in self.servers
        )

    def close(self) -> None:
        self.go.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def push(self, repo: str, files: dict[str, bytes]) -> str:
        """A new commit of a repository; returns its name. Only the newest can be had."""
        commit = hashlib.sha1(repr([repo, self.commits.get(repo), files]).encode()).hexdigest()
        self.repos[repo], self.commits[repo] = {**files}, commit
        self._hashes = {key: value for key, value in self._hashes.items() if key[0] != repo}
        return commit

    def content(self, repo: str, path: str) -> bytes:
        value = self.repos[repo][path]
        return value.read_bytes() if isinstance(value, Path) else value

    def hash(self, repo: str, path: str) -> str:
        key = (repo, path)
        if key not in self._hashes:
            data = self.content(repo, path)
            if len(data) >= self.large:
                self._hashes[key] = hashlib.sha256(data).hexdigest()
            else:
                self._hashes[key] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return self._hashes[key]

    def answer(self, http: BaseHTTPRequestHandler, body: bool) -> None:
        self.log.append((http.command, http.path, http.headers.get("Range")))
        if self.fail_next:
            self.fail_next -= 1
            return self.send(http, 503, {"Retry-After": "0.01"}, b"")
        self.tokens.append((http.path, http.headers.get("Authorization")))
        parts = http.path.removeprefix("/datasets").strip("/").split("/")
        if parts[0] == "storage":
            if http.headers.get("Authorization"):
                return self.send(http, 400, {}, b"")
            return self.storage(http, "/".join(parts[1:3]), "/".join(parts[3:]), body)
        if parts[:2] == ["api", "resolve-cache"]:
            repo, path = "/".join(parts[3:5]), "/".join(parts[6:])
            if not self.opens(http, repo):
                return self.send(http, 401, {"X-Error-Code": "RepoNotFound"}, b"")
            headers = {
                "X-Repo-Commit": self.commits.get(repo, COMMIT),
                "ETag": f'"{self.hash(repo, path)}"',
            }
            return self.send(http, 200, headers, self.content(repo, path), body)
        repo, path = "/".join(parts[:2]), "/".join(parts[4:])
        if repo in self.renamed:
            new = http.path.replace(repo, self.renamed[repo], 1)
            return self.send(http, 307, {"Location": new}, b"")
        if repo not in self.repos or not self.opens(http, repo):
            return self.send(http, 401, {"X-Error-Code": "RepoNotFound"}, b"")
        known = parts[3] == "main" or len(parts[3]) == 40  # every commit is this one
        if not known or path not in self.repos[repo]:
            return self.send(http, 404, {"X-Error-Code": "EntryNotFound"}, b"")
        data, stated = self.content(repo, path), self.hash(repo, path)
        headers = {"X-Repo-Commit": self.commits.get(repo, COMMIT)}
        if len(data) < self.large:
            there = {
                "Location": f"/api/resolve-cache/models/{repo}/{headers['X-Repo-Commit']}/{path}"
            }
            return self.send(http, 307, headers | there, b"Temporary redirect", body)
        headers |= {
            "X-Linked-Etag": f'"{self.lie_about.get(path, stated)}"',
            "X-Linked-Size": str(len(data)),
            "Location": f"{self.storage_url}/storage/{repo}/{path}",
        }
        self.send(http, 302, headers, b"")

    def opens(self, http: BaseHTTPRequestHandler, repo: str) -> bool:
        """Whether a request may see a repository; one with a wrong token may see none."""
        shown, wanted = http.headers.get("Authorization"), self.private.get(repo)
        if shown == "Bearer hf_expired":
            return False
        return wanted is None or shown == f"Bearer {wanted}"

    def storage(self, http: BaseHTTPRequestHandler, repo: str, path: str, body: bool) -> None:
        data, wanted = self.content(repo, path), http.headers.get("Range")
        status, headers = 200, {}
        if wanted and self.know_range:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, status = data[start:], 206
        self.send(http, status, headers, data, body)

    def send(
        self,
        http: BaseHTTPRequestHandler,
        status: int,
        headers: dict,
        data: bytes,
        body: bool = True,
    ) -> None:
        http.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(data))}).items():
            http.send_header(key, value)
        http.end_headers()
        if not body:
            return
        if self.drop_after is not None and len(data) > self.drop_after:
            http.wfile.write(data[: self.drop_after])
            self.drop_after = None
            http.close_connection = True
            return
        with contextlib.suppress(ConnectionError):  # the other side was killed, as some tests do
            for start in range(0, len(data), 1 << 16):
                time.sleep(self.slow)
                if start and self.hold:
                    self.go.wait()
                http.wfile.write(data[start : start + (1 << 16)])
