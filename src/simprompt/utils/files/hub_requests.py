"""Requests to the model hub: where it is, whose token is shown to whom, what it answers.

Environment: ``HF_ENDPOINT`` (a mirror), ``HF_HUB_OFFLINE=1`` (never connect), ``HF_TOKEN`` or
``HF_TOKEN_PATH`` (for private repositories).
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from typing import Any

from simprompt.errors import SimpromptError
from simprompt.utils.files.cache_folders import hub_home
from simprompt.utils.files.regular import read_text

TRIES = 5
TIMEOUT = 30.0


class FetchError(SimpromptError):
    """A file could not be had, or is not what it should be."""


class MissingError(FetchError):
    """The hub has no such file, revision or repository."""


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
        file = os.environ.get("HF_TOKEN_PATH") or str(hub_home() / "token")
        source = os.path.expandvars(os.path.expanduser(file))
        try:
            value = read_text(source)
        except (OSError, ValueError):
            return None
    value = value.replace("\r", "").replace("\n", "").strip()
    if value and not re.fullmatch(r"[\x21-\x7e]+", value):
        raise FetchError(f"{source} is not a token of the hub. Log in again with `hf auth login`.")
    return value or None


def offline() -> bool:
    """Whether ``$HF_HUB_OFFLINE`` forbids connections."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit, and no branch or tag."""
    return re.fullmatch("[0-9a-f]{40}", revision) is not None


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


def stat_url(
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
        headers = open_url(opener, new_request(url, method="HEAD"), where, tries, timeout)[1]
        commit = headers.get("X-Repo-Commit") or commit
        location = headers.get("Location")
        if not location or urllib.parse.urlsplit(location).netloc:
            break
        url = urllib.parse.urljoin(url, location)
    if not commit or not is_commit(commit):
        raise FetchError(
            f"{where}: {url} does not answer as a model hub does (no X-Repo-Commit header). "
            "Check HF_ENDPOINT."
        )
    tag = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
    size = headers.get("X-Linked-Size") or (None if location else headers.get("Content-Length"))
    is_hash = re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", tag)
    return commit, tag if is_hash else None, int(size) if size else None


def following_opener() -> urllib.request.OpenerDirector:
    """What opens an address wherever it leads; the token stays at the hub."""
    return urllib.request.build_opener(_TokenStays)


def new_request(url: str, method: str = "GET") -> urllib.request.Request:
    """A request, with the user's token if it goes to the hub."""
    request = urllib.request.Request(url, method=method, headers={"User-Agent": "simprompt"})
    _authorize(request)
    return request


def open_url(
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
                # the answer to a token says more than that to none
                raise _refused(refusal or error, request, where) from error
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            if attempt + 1 == tries or _is_hopeless(error):
                raise FetchError(
                    f"{where}: no connection to {request.full_url} ({error}). Check the network, "
                    "name a mirror with HF_ENDPOINT, or give a local path instead of a name."
                ) from error
        time.sleep(wait)
        wait = min(8.0, wait * 2)
    raise AssertionError("unreachable")


def _refused(
    error: urllib.error.HTTPError, request: urllib.request.Request, where: str
) -> FetchError:
    """What is said of an answer that will not change."""
    why = (error.headers.get("X-Error-Message") or error.reason).rstrip(".")
    hint = {
        401: " The repository does not exist, or it is private or gated and your "
        "token does not open it: log in with `hf auth login`, or set HF_TOKEN.",
        403: " Your token does not open it, or it needs an agreement: accept that on "
        "the repository's page, or download it by hand and give its path.",
        404: " There is no such repository, revision or file.",
    }.get(error.code, "")
    kind = MissingError if error.code == 404 else FetchError
    return kind(f"{where}: {request.full_url} answers {error.code}, {why}.{hint}")


def _without_token(request: urllib.request.Request) -> bool:
    """Take the token off a request; whether it had one."""
    had_token = request.has_header("Authorization")
    request.remove_header("Authorization")
    return had_token


def _is_hopeless(error: Exception) -> bool:
    """Whether trying again cannot help: nobody listens, or there is no such host."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return isinstance(reason, (ConnectionRefusedError, socket.gaierror))
