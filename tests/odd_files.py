"""Every reader of `readers`, with each of its files in turn replaced by something that is no file.

`python tests/odd_files.py FOLDER` prints a line of JSON for each: reader, file, kind of odd file,
what came of it, seconds, and megabytes by which the process grew. It ends itself where a reader
hangs. It is a program because a pipe that is waited for cannot be interrupted from within.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import shutil
import socket
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from readers import READERS, Reader
from simprompt.errors import SimpromptError

HANGS = 20  # seconds; the slowest answer is some hundred times quicker
HUGE = 200 * 10**9


def a_socket(path: Path) -> None:
    with suppress(OSError), socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # of whole paths there are too many letters


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(HUGE)


ODD: dict[str, Callable[[Path], object]] = {
    "pipe": lambda path: os.mkfifo(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "huge": sparse,
    "link to itself": lambda path: path.symlink_to(path.name),
    "socket": a_socket,
    "folder": lambda path: path.mkdir(),
}


def megabytes() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def outcome(reader: Reader, folder: Path) -> str:
    """How reading ends: "read", "refused: ..." or the fault."""
    try:
        reader.read(folder)
    except SimpromptError as error:
        return f"refused: {error}"
    except OSError as error:  # what `main` makes a sentence of
        return f"refused: {error}"
    except BaseException as error:  # what the tests are about
        return f"{type(error).__name__}: {error}"
    return "read"


NOT_FILES = ("answers of language models",)  # which the tests read, and hand on as text


def main(place: Path) -> None:
    warnings.simplefilter("ignore")
    os.chdir(place)
    for reader in READERS:
        if reader.name in ("requests", "hostile pickles", "pickles that torch reads"):
            continue  # the first has no file, the others are files of another reader
        if reader.name in NOT_FILES:
            continue
        seeds = reader.seeds()
        done: set[tuple[str, str]] = set()
        for files in seeds:
            for name in sorted(files):
                key = (name.rpartition("/")[2], str(sorted(files))[:200])
                if name == "text" or name.endswith("README.md") or key in done or len(done) > 4:
                    continue
                done.add(key)
                for kind, make in ODD.items():
                    folder = place / "input"
                    shutil.rmtree(folder, ignore_errors=True)
                    for other, content in files.items():
                        (folder / other).parent.mkdir(parents=True, exist_ok=True)
                        (folder / other).write_bytes(content)
                    (folder / name).unlink()
                    make(folder / name)
                    before, start = megabytes(), time.perf_counter()
                    print(json.dumps([reader.name, name, kind]), file=sys.stderr, flush=True)
                    faulthandler.dump_traceback_later(HANGS, exit=True)
                    found = outcome(reader, folder)
                    faulthandler.cancel_dump_traceback_later()
                    seconds, grown = time.perf_counter() - start, megabytes() - before
                    line = [reader.name, name, kind, found, round(seconds, 2), round(grown)]
                    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
