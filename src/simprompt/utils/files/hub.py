"""Files of the model hub, in the cache that the hub's other tools use.

Its layout is theirs (``$HF_HOME/hub/models--org--name/{blobs,refs,snapshots}``), so what other
tools downloaded is found here and the other way round. A blob is named by the hash that the hub
states for it: SHA-256 for large files, git's SHA-1 for small ones. Every downloaded byte is checked
against that hash before the file gets its name, so the name is also the record. The official client
does not check, and begins anew after it was killed, so it does not download for us.
"""

from __future__ import annotations

import contextlib
import os
import re
import urllib.parse
import warnings
from pathlib import Path

from simprompt.utils.files.atomic import write_text
from simprompt.utils.files.cache_folders import hub_cache
from simprompt.utils.files.download import download
from simprompt.utils.files.hub_requests import (
    FetchError,
    endpoint,
    is_commit,
    offline,
    stat_url,
)
from simprompt.utils.files.locks import lock_file
from simprompt.utils.files.regular import NotRegularError, is_file, read_text


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
    if is_commit(revision) or offline():
        return commit_known
    url, label = _url(repo, path, revision, kind), f"{path} of {repo}"
    if on_disk(repo, path, commit_known, kind) is None:
        return stat_url(url, label)[0]
    try:
        return stat_url(url, label, 1, ASK_TIMEOUT)[0]
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
    if is_commit(revision) or _known_commit(repo_folder(repo, kind), revision) == commit:
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
    progress: bool = True,
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
        progress: whether the download is shown on stderr where nobody listens to it.

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
    commit, stated, size = stat_url(url, label)
    if sha256 and stated != sha256:
        raise FetchError(
            f"{label}: expected SHA-256 {sha256}, but {endpoint()} states {stated or 'none'} for "
            "it. The repository has changed or the mirror is wrong; nothing was downloaded."
        )
    blob = folder / "blobs" / (stated or f"{commit}-{path.replace('/', '_')}")
    if is_commit(revision):
        commit = revision  # also where a mirror calls its copy by another commit
    file = folder / "snapshots" / commit / path
    try:
        with lock_file(blob.with_name(f".{blob.name}.lock")):
            if file.is_file():  # who held the lock has finished it
                return file
            if not blob.is_file():
                download(url, blob, size, stated, label, progress)
            recorded = commit if is_commit(revision) else _record(folder, revision, commit)
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


def stated_hash(path: Path) -> str | None:
    """The SHA-256 under which the hub's cache keeps this file, if it does."""
    name = path.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}", name) else None


def _known_commit(folder: Path, revision: str) -> str:
    """The commit that a branch was resolved to earlier; the revision itself if it never was."""
    ref = folder / "refs" / revision
    if is_commit(revision) or not ref.is_file():
        return revision
    return read_text(ref).strip()
