"""Files from the model hub, and archives unpacked: resumed, checked, never half there.

The hub's own cache layout is used (``$HF_HOME/hub/models--org--name/{blobs,refs,snapshots}``), so
what other tools downloaded is found here and the other way round. A blob is named by the hash that
the hub states for it: SHA-256 for large files, git's SHA-1 for small ones. Every downloaded byte
is checked against that hash before the file gets its name, so the name is also the record.

Environment: ``HF_HOME`` or ``HF_HUB_CACHE`` (where), ``HF_ENDPOINT`` (a mirror),
``HF_HUB_OFFLINE=1`` (never connect), ``HF_TOKEN`` or ``HF_TOKEN_PATH`` (for private repositories).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import os
import re
import shutil
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import IO, Any

from simprompt.errors import SimpromptError
from simprompt.utils.files.atomic import write_text
from simprompt.utils.files.locks import lock_file
from simprompt.utils.files.regular import (
    NotRegularError,
    expanded,
    is_file,
    read_text,
)

Progress = Callable[[str, int, int], None]
"""Called with (file name, bytes so far, bytes in all)."""

CHUNK = 1 << 20
TRIES = 5
LARGEST = 300 * 10**9  # bytes of an archive; ImageNet's has half as many
TIMEOUT = 30.0


class FetchError(SimpromptError):
    """A file could not be had, or is not what it should be."""


class MissingError(FetchError):
    """The hub has no such file, revision or repository."""


def cache_dir() -> Path:
    """Where features and downloaded datasets are kept: ``$SIMPROMPT_CACHE``, else
    ``~/.cache/simprompt``; `NOWHERE` for a user without a home folder."""
    if chosen := os.environ.get("SIMPROMPT_CACHE"):
        return expanded(chosen)
    return _home() / ".cache" / "simprompt"


NOWHERE = Path(os.devnull) / "no home folder"
"""Stands for the home folder of a user who has none: nothing exists in it, and nothing can."""


def is_nowhere(place: Path) -> bool:
    """Whether a cache would be in the home folder of a user who has none."""
    return NOWHERE in place.parents


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # neither HOME nor an entry for this user
        return NOWHERE


_warned_of_no_home = False


def not_kept(place: Path, error: OSError) -> None:
    """Warn that something is not kept in the cache, which costs time and nothing else."""
    global _warned_of_no_home
    if is_nowhere(place):
        if not _warned_of_no_home:
            _warned_of_no_home = True
            warnings.warn(
                "There is no home folder (HOME is not set), so there is no cache: what it would "
                "save is computed again each time. Set HOME, or let SIMPROMPT_CACHE name a folder.",
                stacklevel=3,
            )
        return
    warnings.warn(
        f"The cache cannot be written: {place}: {error.strerror or error}. The work goes on, and "
        "what it would have kept is made anew each time. SIMPROMPT_CACHE names another place.",
        stacklevel=3,
    )


def hub_cache() -> Path:
    """Where the hub's files are kept: ``$HF_HUB_CACHE``, else ``$HF_HOME/hub``."""
    if chosen := os.environ.get("HF_HUB_CACHE"):
        return expanded(chosen)
    return _hub_home() / "hub"


def endpoint() -> str:
    """The hub, or the mirror that ``$HF_ENDPOINT`` names."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def token() -> str | None:
    """The user's token for private repositories, found where `huggingface_hub` finds it:
    ``$HF_TOKEN``, else the file ``$HF_TOKEN_PATH``, else what `hf auth login` wrote.

    Raises:
        FetchError: it holds characters that no token has; it is not shown.
    """
    if os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in ("1", "ON", "YES", "TRUE"):
        return None
    value = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or ""
    source = "HF_TOKEN"
    if not value.strip():
        file = os.environ.get("HF_TOKEN_PATH") or str(_hub_home() / "token")
        source = os.path.expandvars(os.path.expanduser(file))
        try:
            value = read_text(source)
        except (OSError, ValueError):
            return None
    value = value.replace("\r", "").replace("\n", "").strip()
    if value and not re.fullmatch(r"[\x21-\x7e]+", value):
        raise FetchError(f"{source} is not a token of the hub. Log in again with `hf auth login`.")
    return value or None


def _hub_home() -> Path:
    if home := os.environ.get("HF_HOME"):
        return expanded(os.path.expandvars(home))
    base = os.environ.get("XDG_CACHE_HOME")
    return (expanded(base) if base else _home() / ".cache") / "huggingface"


def offline() -> bool:
    """Whether ``$HF_HUB_OFFLINE`` forbids connections."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def report_download(name: str, done: int, total: int) -> None:
    """One rewritten line on a terminal; a line every tenth of the way elsewhere."""
    end = done >= total
    if sys.stderr.isatty():
        share = f"{done / total:4.0%}" if total else ""
        sys.stderr.write(f"\r{name}  {share}  {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")
        sys.stderr.write("\n" if end else "")
    elif end or (total and done * 10 // total != (done - CHUNK) * 10 // total):
        sys.stderr.write(f"{name}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB\n")
    sys.stderr.flush()


# ---------------------------------------------------------------------------- the hub


def repo_folder(repo: str, kind: str = "model") -> Path:
    """The cache folder of a repository."""
    return hub_cache() / "--".join([kind + "s", *repo.split("/")])


def on_disk(repo: str, path: str, revision: str = "main", kind: str = "model") -> Path | None:
    """A file of the hub that is already here, or None; never connects."""
    folder = repo_folder(repo, kind)
    commit = _known_commit(folder, revision)
    file = folder / "snapshots" / commit / path
    try:
        return file if is_file(file) else None
    except NotRegularError:  # a cache of another user
        return None


ASK_TIMEOUT = 5.0
"""Seconds to wait for a hub that is only asked whether a branch moved."""


def newest(repo: str, path: str, revision: str = "main", kind: str = "model") -> str:
    """The commit that a branch is at, asked of the hub; a commit is known without asking.

    What takes several files of a repository asks once, takes all of them of this commit, and then
    calls `record`. Where the hub cannot be asked it is the commit that was recorded, with a
    warning, but where ``HF_HUB_OFFLINE`` says not to ask.

    Args:
        path: a file that the repository has; the hub answers for files.

    Raises:
        FetchError: as `hub_file`, where the file was never downloaded.
    """
    commit_known = _known_commit(repo_folder(repo, kind), revision)
    if _is_commit(revision) or offline():
        return commit_known
    url, label = _url(repo, path, revision, kind), f"{path} of {repo}"
    if on_disk(repo, path, commit_known, kind) is None:
        return _stat(url, label)[0]
    try:
        return _stat(url, label, 1, ASK_TIMEOUT)[0]
    except FetchError as error:
        warnings.warn(
            f"The version {commit_known[:12]} of {repo} is used, which was downloaded before; "
            "whether "
            f"there is a newer one cannot be told: {error}",
            stacklevel=3,
        )
        return commit_known


def record(repo: str, revision: str, commit: str, kind: str = "model") -> None:
    """Note that a branch is at a commit, now that its files are here; where nothing can be
    written, it is asked for again."""
    ref = repo_folder(repo, kind) / "refs" / revision
    if _is_commit(revision) or _known_commit(repo_folder(repo, kind), revision) == commit:
        return
    with contextlib.suppress(OSError), lock_file(ref.with_name(f".{ref.name}.lock")):
        write_text(ref, commit)


def _url(repo: str, path: str, revision: str, kind: str) -> str:
    prefix = "" if kind == "model" else f"{kind}s/"
    url_path = "/".join(
        [endpoint(), prefix + repo, "resolve", urllib.parse.quote(revision, safe="")]
    )
    return f"{url_path}/{urllib.parse.quote(path)}"


def hub_file(
    repo: str,
    path: str,
    revision: str = "main",
    *,
    sha256: str | None = None,
    kind: str = "model",
    progress: Progress | None = report_download,
) -> Path:
    """A file of a hub repository, from disk where it is there, else downloaded and checked.

    A branch such as ``main`` is the commit that was recorded for it, if one was, so that one model
    is never put together from two versions; `newest` asks whether it moved.

    Args:
        repo: ``"org/name"``.
        path: inside the repository.
        revision: a commit (40 hex digits), or a branch or tag.
        sha256: what the file must hash to; default: what the hub states.
        kind: ``"model"`` or ``"dataset"``.
        progress: told about the download.

    Raises:
        FetchError: not on disk and offline, unknown repository or file, no connection, too little
            room, or a hash that does not match.
    """
    folder = repo_folder(repo, kind)
    commit = _known_commit(folder, revision)
    file = folder / "snapshots" / commit / path
    if is_file(file):
        return file
    label = f"{path} of {repo}"
    if offline():
        raise FetchError(
            f"{label} is not in {hub_cache()} and HF_HUB_OFFLINE forbids a download. Unset it, "
            "copy the repository's cache folder here, or give a local path instead of a name."
        )
    url = _url(repo, path, commit, kind)
    commit, stated, size = _stat(url, label)
    if sha256 and stated != sha256:
        raise FetchError(
            f"{label}: expected SHA-256 {sha256}, but {endpoint()} states {stated or 'none'} for "
            "it. The repository has changed or the mirror is wrong; nothing was downloaded."
        )
    blob = folder / "blobs" / (stated or f"{commit}-{path.replace('/', '_')}")
    if _is_commit(revision):
        commit = revision  # also where a mirror calls its copy by another commit
    file = folder / "snapshots" / commit / path
    try:
        with lock_file(blob.with_name(f".{blob.name}.lock")):
            if file.is_file():  # who held the lock has finished it
                return file
            if not blob.is_file():
                _download(url, blob, size, stated, label, progress)
            recorded = commit if _is_commit(revision) else _record(folder, revision, commit)
            if recorded == commit:
                return _place(blob, file)
    except OSError as error:
        raise FetchError(
            f"{label} cannot be kept in {hub_cache()}: {error.strerror or error}. Make room "
            "there, or name another place with HF_HOME; a part that was written is gone on with."
        ) from error
    # The branch moved while another process resolved it: its commit was recorded first.
    return hub_file(repo, path, recorded, sha256=sha256, kind=kind, progress=progress)


def _place(blob: Path, file: Path) -> Path:
    """Show a blob under its name in a snapshot."""
    file.parent.mkdir(parents=True, exist_ok=True)
    link = os.path.relpath(blob, file.parent)
    try:
        file.symlink_to(link)
    except FileExistsError:  # left by a blob that was removed and is here again
        pass
    except OSError:  # no links on this file system: the snapshot holds the file itself
        os.replace(blob, file)
    return file


def _record(folder: Path, revision: str, commit: str) -> str:
    """The commit that a branch is resolved to from here on: the first that anybody recorded."""
    ref = folder / "refs" / revision
    with lock_file(ref.with_name(f".{ref.name}.lock")):
        if not ref.is_file():
            write_text(ref, commit)
    return _known_commit(folder, revision)


def _is_commit(revision: str) -> bool:
    return re.fullmatch("[0-9a-f]{40}", revision) is not None


def stated_hash(path: Path) -> str | None:
    """The SHA-256 under which the hub's cache keeps this file, if it does."""
    name = path.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}", name) else None


def _known_commit(folder: Path, revision: str) -> str:
    """The commit that a branch was resolved to earlier; the revision itself if it never was."""
    ref = folder / "refs" / revision
    if _is_commit(revision) or not ref.is_file():
        return revision
    return read_text(ref).strip()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class _TokenStays(urllib.request.HTTPRedirectHandler):
    """A redirected request has the token where it goes to the hub, and nowhere else."""

    def redirect_request(self, *args: Any) -> urllib.request.Request | None:
        request = super().redirect_request(*args)
        if request is not None:
            request.remove_header("Authorization")
            if "Authorization" in args[0].unredirected_hdrs:
                _authorize(request)
        return request


def _authorize(request: urllib.request.Request) -> None:
    """Add the user's token to a request to the hub; requests to other hosts stay as they are."""
    if _origin(request.full_url) == _origin(endpoint()) and (secret := token()):
        request.add_unredirected_header("Authorization", f"Bearer {secret}")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    url_parts = urllib.parse.urlsplit(url)
    default = {"http": 80, "https": 443}.get(url_parts.scheme)
    return url_parts.scheme, url_parts.hostname, url_parts.port or default


def _stat(
    url: str, where: str, tries: int | None = None, timeout: float | None = None
) -> tuple[str, str | None, int | None]:
    """(commit, hash the hub states, size in bytes) of a file.

    The hub answers for a large file with a redirect to its storage; the file's hash and size
    stand in the headers of that answer, as ``X-Linked-...``. Redirects within the hub (a renamed
    repository, its cache of small files) are followed; an answer's own length is the file's only
    where it is no redirect.
    """
    opener = urllib.request.build_opener(_NoRedirect)
    commit = None
    for _ in range(5):
        headers = _open(opener, _request(url, method="HEAD"), where, tries, timeout)[1]
        commit = headers.get("X-Repo-Commit") or commit
        location = headers.get("Location")
        if not location or urllib.parse.urlsplit(location).netloc:
            break
        url = urllib.parse.urljoin(url, location)
    if not commit or not _is_commit(commit):
        raise FetchError(
            f"{where}: {url} does not answer as a model hub does (no X-Repo-Commit header). "
            "Check HF_ENDPOINT."
        )
    tag = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
    size = headers.get("X-Linked-Size") or (None if location else headers.get("Content-Length"))
    is_hash = re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", tag)
    return commit, tag if is_hash else None, int(size) if size else None


def _request(url: str, method: str = "GET") -> urllib.request.Request:
    request = urllib.request.Request(url, method=method, headers={"User-Agent": "simprompt"})
    _authorize(request)
    return request


def _open(
    opener: urllib.request.OpenerDirector,
    request: urllib.request.Request,
    where: str,
    tries: int | None = None,
    timeout: float | None = None,
) -> tuple[Any, Message]:
    """(response, headers); tries again what may pass, explains what will not."""
    wait, tries = 0.5, tries or TRIES
    refusal: urllib.error.HTTPError | None = None
    for attempt in range(tries):
        try:
            response = opener.open(request, timeout=timeout or TIMEOUT)
            return response, response.headers
        except urllib.error.HTTPError as error:
            if error.code in (301, 302, 303, 307, 308):
                return None, error.headers
            if error.code in (429, 500, 502, 503, 504) and attempt + 1 < tries:
                with contextlib.suppress(TypeError, ValueError):
                    wait = min(60.0, float(error.headers["Retry-After"]))
            elif error.code in (401, 403) and attempt + 1 < tries and _without_token(request):
                refusal = error
                continue  # the token may be expired, and a public file needs none
            else:
                error = refusal or error  # the answer to a token says more than that to none
                why = (error.headers.get("X-Error-Message") or error.reason).rstrip(".")
                hint = {
                    401: " The repository does not exist, or it is private or gated and your "
                    "token does not open it: log in with `hf auth login`, or set HF_TOKEN.",
                    403: " Your token does not open it, or it needs an agreement: accept that on "
                    "the repository's page, or download it by hand and give its path.",
                    404: " There is no such repository, revision or file.",
                }.get(error.code, "")
                kind = MissingError if error.code == 404 else FetchError
                raise kind(
                    f"{where}: {request.full_url} answers {error.code}, {why}.{hint}"
                ) from error
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            if attempt + 1 == tries or _is_hopeless(error):
                raise FetchError(
                    f"{where}: no connection to {request.full_url} ({error}). Check the network, "
                    "name a mirror with HF_ENDPOINT, or give a local path instead of a name."
                ) from error
        time.sleep(wait)
        wait = min(8.0, wait * 2)
    raise AssertionError("unreachable")


def _without_token(request: urllib.request.Request) -> bool:
    """Take the token off a request; whether it had one."""
    had_token = request.has_header("Authorization")
    request.remove_header("Authorization")
    return had_token


def _is_hopeless(error: Exception) -> bool:
    """Whether trying again cannot help: nobody listens, or there is no such host."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return isinstance(reason, (ConnectionRefusedError, socket.gaierror))


# ---------------------------------------------------------------------------- one file


def _download(
    url: str,
    target: Path,
    size: int | None,
    hash_of: str | None,
    name: str,
    progress: Progress | None,
) -> None:
    """Download a file, going on where an interrupted download of it stopped.

    The bytes go to ``<target>.part``; the file gets its name when it is whole and its hash is
    right. The caller holds the target's lock.

    Args:
        size: bytes expected, where known.
        hash_of: SHA-256 (64 hex digits) or git blob SHA-1 (40) that the file must have.

    Raises:
        FetchError: see `hub_file`.
        OSError: the bytes cannot be written.
    """
    partial_file = target.with_name(target.name + ".part")
    with partial_file.open("ab") as file:
        have = os.fstat(file.fileno()).st_size
        if size is not None and shutil.disk_usage(partial_file.parent).free < size - have:
            raise FetchError(
                f"{name} needs {(size - have) / 1e9:.1f} GB more than is free in "
                f"{partial_file.parent}. "
                "Make room, or name another place with HF_HOME."
            )
        _receive(url, file, size, name, progress)
    size_there = partial_file.stat().st_size
    if size is not None and size_there != size:
        partial_file.unlink()
        raise FetchError(f"{name}: got {size_there} bytes, expected {size}. Try again.")
    if hash_of and (got := _hash(partial_file, 64 if len(hash_of) == 64 else 40)) != hash_of:
        partial_file.unlink()
        raise FetchError(
            f"{name}: the downloaded bytes hash to {got}, the hub states {hash_of}. The file was "
            "removed; try again, and if it happens twice, do not trust the mirror."
        )
    os.replace(partial_file, target)


def _receive(
    url: str, file: IO[bytes], size: int | None, name: str, progress: Progress | None
) -> None:
    """Append to `file` what is missing of `url`; a dropped connection is taken up again."""
    opener = urllib.request.build_opener(_TokenStays)
    failures = 0
    while True:
        have = file.seek(0, os.SEEK_END)
        if size is not None and have >= size:
            return
        request = _request(url)
        if have:
            request.add_header("Range", f"bytes={have}-")
        response, headers = _open(opener, request, name)
        start = re.match(r"bytes (\d+)-", headers.get("Content-Range") or "")
        if have and not (response.status == 206 and start and int(start[1]) == have):
            file.truncate(0)  # the server sends the whole file: begin again
            have = file.seek(0)
        length = headers.get("Content-Length")
        total = size if size is not None else have + int(length or 0)
        try:
            with response:
                while block := response.read1(CHUNK):
                    file.write(block)
                    have += len(block)
                    failures = 0
                    if progress:
                        progress(name, have, max(total, have))
            file.flush()
            if have >= total:
                return
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # the disk, not the connection
            file.flush()
        failures += 1
        if failures == TRIES:
            raise FetchError(
                f"{name}: the connection broke {TRIES} times at {have} of {total} bytes. What is "
                "there is kept: run the command again to go on."
            )
        time.sleep(min(8.0, 0.5 * 2**failures))


def _hash(path: Path, digits: int) -> str:
    """SHA-256 (64 digits) of a file, or SHA-1 (40) the way git names a blob."""
    if digits == 64:
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


# ---------------------------------------------------------------------------- archives
