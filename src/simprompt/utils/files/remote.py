"""Results directories elsewhere: any fsspec URL, such as `s3://bucket/runs` (with `s3fs`)."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from simprompt.errors import SimpromptError
from simprompt.utils.files.atomic import replacing

# "s3:/bucket" too: that is what is left of a URL which a command line has made a Path of
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)")


def url_of(place: str | Path) -> str | None:
    """The URL that a results directory is given by, without a slash at its end; None for a path.

    >>> url_of(Path("s3://bucket/runs/")), url_of("file:///runs"), url_of("runs")
    ('s3://bucket/runs', 'file:///runs', None)
    """
    match = _URL.fullmatch(str(place))
    if match is None:
        return None
    scheme, remainder = match[1], match[2].rstrip("/")
    return f"{scheme}:///{remainder}" if scheme in ("file", "local") else f"{scheme}://{remainder}"


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
        SimpromptError: a scheme that nothing installed here can read.
    """
    import fsspec

    try:
        opened: tuple[Any, str] = fsspec.core.url_to_fs(url)
        return opened
    except (ImportError, ValueError) as error:
        raise SimpromptError(
            f"The results directory {url} cannot be opened: {error}. s3:// needs the package "
            "s3fs, gs:// gcsfs, az:// adlfs."
        ) from None


def read(url: str) -> bytes | None:
    """A file's contents; None where there is no such file."""
    fs, path = filesystem(url)
    try:
        contents: bytes = fs.cat_file(path)
        return contents
    except FileNotFoundError:
        return None


def write(url: str, contents: bytes) -> None:
    """Write a file, which a reader sees whole or not at all, as object stores have it."""
    fs, path = filesystem(url)
    if "file" in fs.protocol:
        with replacing(path) as partial:
            partial.write_bytes(contents)
        return
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    fs.pipe_file(path, contents)


def remove(url: str) -> None:
    """Delete a file if it is there."""
    fs, path = filesystem(url)
    with suppress(FileNotFoundError):
        fs.rm_file(path)


def upload(folder: Path, url: str, last: str) -> None:
    """Copy a folder's files; `last` is copied when all others are there, so that its presence
    means that the folder is whole."""
    files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.name == last)
    for path in files:
        write(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def read_all(url: str, name: str) -> dict[str, bytes | Exception]:
    """Every file called `name` below a URL, by its folder's URL; fetched many at a time.

    In the place of a file that cannot be read stands the reason."""
    fs, root = filesystem(url)
    if not fs.exists(root):
        raise SimpromptError(f"There is no directory {url}; give one that holds runs.")
    try:
        paths = sorted(p for p in fs.find(root) if p.rpartition("/")[2] == name)
    except Exception as error:  # each file system has its own
        raise SimpromptError(
            f"The directory {url} cannot be listed: {error}. Check its address, and whether you "
            "may read it."
        ) from None
    answers: dict[str, Any] = {}
    if len(paths) == 1:  # of which fsspec gives back the bytes alone, or raises
        try:
            answers = {paths[0]: fs.cat_file(paths[0])}
        except Exception as error:
            answers = {paths[0]: error}
    elif paths:
        answers = fs.cat(paths, on_error="return")
    base = root.rstrip("/")
    return {
        url + path[path.index(base) + len(base) : -len(name) - 1]: answer
        for path, answer in answers.items()
        if not isinstance(answer, FileNotFoundError)  # removed since it was listed
    }
