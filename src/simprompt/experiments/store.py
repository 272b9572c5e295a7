"""A run directory, written whole or not at all; what cannot be trusted is not read.

    OUT/<dataset>/<method>/seed<k>-<key>/result.json      settings, accuracies, curves, mechanism
                                         prompt.*         the learned prompt and its card
                                         text.safetensors text features, for heatmaps
                                         predictions.safetensors

    OUT/failed/<dataset>-<method>-seed<k>-<key>.json      why a run failed
    OUT/unfinished/<dataset>-...-<key>.safetensors        a training that goes on, or was stopped

`key` stands for all that a run depends on (see `identity`), so a finished run is recognised and
never made again. OUT is a folder, or the URL of one (see `simprompt.utils.files.remote`).

A result says which format it has, and the checksums of the files beside it. One that cannot be
read, is half there, or is of a newer format is named in a warning and taken for no result.
"""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from simprompt.errors import SimpromptError
from simprompt.experiments.result_file import (
    FORMAT,
    RESULT,
    UNFINISHED,
    BadResultError,
    RunResult,
    check_files,
    current_time,
    parse_result,
    read_contents,
    reason_of,
    warn,
)
from simprompt.experiments.run_key import NAMED, RunKey, folder_name
from simprompt.utils.checkpoint import Checkpoint, keys_in
from simprompt.utils.files import remote
from simprompt.utils.files.atomic import (
    WriteError,
    cannot_write,
    check_folder,
    checksum,
    remove,
    remove_abandoned,
    temporary,
    write_json,
)
from simprompt.utils.files.locks import lock_folder
from simprompt.utils.files.regular import is_folder, read_bytes
from simprompt.utils.notebook import html_table

_KEPT = re.compile(r"seed-?\d+-[0-9a-f]+")  # the folder of a finished run


def run_folder(out: str | Path, run: RunKey) -> Path:
    """The folder of this run's files, for a results directory on a file system."""
    return Path(out) / run.folder


def finished(out: str | Path, run: RunKey) -> RunResult | None:
    """The result of this very run if it is already there, whole and undamaged.

    Below a URL the files beside the result are not looked at.
    """
    url = remote.url_of(out)
    location = f"{url}/{run.folder}" if url else str(run_folder(out, run))
    result = _whole(location)
    if result is not None and result.get("key") not in (None, run.key):
        warn(f"{location} holds the run {result['key']}: it is made again.")
        return None
    return result


def discard(out: str | Path, run: RunKey) -> None:
    """Delete the result of a run that is to be made in another way. Below a URL its other files
    stay until they are overwritten."""
    url = remote.url_of(out)
    if url:
        remote.remove(f"{url}/{run.folder}/{RESULT}")
    else:
        remove(run_folder(out, run))


def _whole(place: str) -> RunResult | None:
    """The result in a run's folder; None where there is none, or (with a warning) a bad one."""
    try:
        contents = read_contents(f"{place}/{RESULT}")
        if contents is None:
            return None
        result = parse_result(contents)
        if not remote.url_of(place):
            check_files(Path(place), result)
    except BadResultError as error:
        warn(f"{place}: {error}; it is made again.")
        return None
    return result


def check_out(out: str | Path) -> None:
    """Make a results directory, before the work of hours that is to be kept in it.

    Raises:
        SimpromptError: it cannot be made or written to. Of a URL nothing is known before.
    """
    if remote.url_of(out):
        return
    try:
        check_folder(out)
    except WriteError as error:
        raise SimpromptError(
            f"No runs can be kept in {out}: {reason_of(error)}. Give another folder with --out, or "
            "make this one writable."
        ) from None


def write_run(out: str | Path, run: RunKey, fill: Callable[[Path], RunResult]) -> RunResult:
    """Let `fill` write a run's files into a temporary folder, then move it into place at once.

    Where another process finished the same run first, that one's result is taken. Where the
    results directory is a URL the files are copied, `result.json` last.

    Args:
        fill: takes the temporary folder, gives the result. If the result has a `key`, it is kept
            under that: what a run depends on may become known only while it is made.

    Returns:
        The result as it is kept, with its `format` and the checksums of its `files`.
    """
    url = remote.url_of(out)
    if url:
        with tempfile.TemporaryDirectory() as elsewhere:
            result = _filled(Path(elsewhere), fill)
            location = f"{url}/{_folder_of(run, result)}"
            if twin := _whole(location):
                return twin
            remote.upload(Path(elsewhere), location, last=RESULT)
        return result
    partial = temporary(run_folder(out, run))
    try:
        partial.mkdir(parents=True)
        result = _filled(partial, fill)
        return _move_into_place(partial, Path(out) / _folder_of(run, result), result)
    except OSError as error:
        if isinstance(error, SimpromptError):
            raise
        raise cannot_write(run_folder(out, run), error) from error
    finally:
        remove(partial)


def _folder_of(run: RunKey, result: RunResult) -> str:
    config = run.config
    return folder_name(config.dataset, config.label, config.seed, result.get("key") or run.key)


def _filled(partial: Path, fill: Callable[[Path], RunResult]) -> RunResult:
    result = fill(partial)
    files = {p.name: checksum(p.read_bytes()) for p in sorted(partial.iterdir()) if p.is_file()}
    result = {"format": FORMAT, **result, "files": files}
    write_json(partial / RESULT, result)
    return result


_IN_THE_WAY = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)


def _move_into_place(partial: Path, folder: Path, result: RunResult) -> RunResult:
    """Rename a filled folder. An intact result at its place is a twin's and is returned; a damaged
    one is replaced, and files with other names, such as a user's notes, move into the new one."""
    with lock_folder(folder.parent):
        while True:
            try:
                os.rename(partial, folder)  # replaces an empty folder at most
            except OSError as error:
                if error.errno not in _IN_THE_WAY:
                    raise
            else:
                return result
            if twin := _whole(str(folder)):
                return twin
            aside = partial.with_name(f"{partial.name}-aside")
            with suppress(FileNotFoundError):  # whoever knows no lock was first
                os.rename(folder, aside)
            for path in aside.iterdir() if aside.is_dir() else ():
                if not (partial / path.name).exists():
                    os.rename(path, partial / path.name)
            remove(aside)


def remove_remains(out: str | Path) -> int:
    """Delete what killed processes left half made below a results directory, as
    `whole.remove_abandoned` says; how much there was. Below a URL nothing is written in place."""
    if remote.url_of(out):
        return 0
    removed = 0
    for folder, inside, _ in os.walk(out):
        removed += remove_abandoned(folder)
        inside[:] = [n for n in inside if not (n.startswith(".") or _KEPT.fullmatch(n))]
    return removed


class Results(list[RunResult]):
    """Results of runs: a list that is printed in one line."""

    def __repr__(self) -> str:
        methods = {r["method"] for r in self}
        datasets = {r["dataset"] for r in self}
        return f"<Results: {len(self)} runs of {len(methods)} methods on {len(datasets)} datasets>"

    def _repr_html_(self) -> str:
        """A row a run, for notebooks."""
        names = ("dataset", "method", "seed", "base", "new", "h")

        def shown(value: Any) -> Any:
            return f"{value:.1f}" if isinstance(value, float) else value

        rows = [[shown(r.get(name, "")) for name in names] for r in self]
        return html_table(repr(self), names, rows)


def read_runs(folders: Iterable[str | Path]) -> Results:
    """All results below these folders, ordered by dataset, method, seed; each with its `folder`.

    Left out with a warning: a result that cannot be used; one of an older `digests.CODE` than
    others here; one whose settings were run again later, when what they name had other content;
    a copy of another one.

    Raises:
        SimpromptError: a folder that is not there, or no result in any of them.
    """
    results = []
    folders = list(folders)
    for folder in folders:
        for location, contents in _result_files(folder):
            try:
                result = parse_result(contents)
            except BadResultError as error:
                warn(f"{location}: {error}; it is left out.")
                continue
            result["folder"] = location
            results.append(result)
    if not results:
        raise SimpromptError(
            f"No finished run below {', '.join(map(str, folders))}. "
            "`simprompt run ... --out DIR` makes some."
        )
    results = _latest(results)
    order = sorted(results, key=lambda r: (r["dataset"], method_order(r["method"]), r["seed"]))
    return Results(order)


def _latest(results: Sequence[RunResult]) -> list[RunResult]:
    """Results of the newest version of the code; of those with the same settings and other
    content, the ones that were made last."""
    newest = max(map(_code, results))
    current = [r for r in results if _code(r) == newest]
    if older := len(results) - len(current):
        warn(
            f"{older} results below these folders were made by an older version of simprompt, "
            "whose numbers do not compare with the others: they are left out."
        )
    groups: dict[str, dict[Any, list[RunResult]]] = {}
    for r in current:
        groups.setdefault(_settings(r), {}).setdefault(r.get("key"), []).append(r)
    latest, copies, superseded = [], [], []
    changed: set[str] = set()
    for by_key in groups.values():
        last = max(by_key.values(), key=lambda runs: _when(runs[0]))
        latest.append(max(last, key=_when))
        copies += [r for r in last if r is not latest[-1]]
        for runs in by_key.values():
            if runs is not last:
                superseded += [(r, last[0]) for r in runs]
                old, newer = (r[0].get("identity", {}) for r in (runs, last))
                changed |= {part for part in newer if old.get(part) != newer[part]}
    if superseded:
        old, newer = superseded[0]
        causes = f" ({', '.join(sorted(changed))})" if changed else ""
        warn(
            f"{len(superseded)} results were made later again with the same settings and other "
            f"content{causes}: the older ones are left out, such as {old['folder']} for "
            f"{newer['folder']}."
        )
    if copies:
        warn(
            f"{len(copies)} results are there more than once, of the same settings and seed, such "
            f"as {copies[0]['folder']}: each counts once."
        )
    return latest


def _settings(result: RunResult) -> str:
    """The same for results that a table could not tell apart.

    The digest of a run's settings leaves out those that change no number, so that two releases of
    which one has a setting more agree on it.
    """
    settings: Any = result.get("config") or {}
    counted = (result.get("identity") or {}).get("settings")
    if counted is not None:
        named_settings = {
            name: settings.get(name) for name in NAMED if settings.get(name) is not None
        }
        settings = [named_settings, (settings.get("sar") or {}).get("novel"), counted]
    values = [result["dataset"], result["method"], result["seed"], settings]
    return json.dumps(values, sort_keys=True)


def _when(result: RunResult) -> str:
    return str(result.get("when", ""))


def make_current(out: str | Path, asked: Iterable[tuple[RunKey, RunResult]]) -> None:
    """Date results anew that were read back after another content had been tried, so that tables
    show what was asked for last.

    Below a URL nothing is done: there a table shows what was made last.
    """
    if remote.url_of(out):
        return
    groups: dict[Path, list[tuple[Path, RunResult]]] = {}
    for run, result in asked:
        folder = run_folder(out, run)
        groups.setdefault(folder.parent, []).append((folder, result))
    for parent, ours in groups.items():
        names = {folder.name for folder, _ in ours}
        latest: dict[str, str] = {}
        for name in _listed(parent):
            if name in names or not _KEPT.fullmatch(name):
                continue
            with suppress(OSError, BadResultError):
                r = parse_result(read_bytes(parent / name / RESULT))
                latest[_settings(r)] = max(latest.get(_settings(r), ""), _when(r))
        for folder, result in ours:
            if _when(result) < latest.get(_settings(result), ""):
                result["when"] = current_time()
                try:
                    write_json(folder / RESULT, result)
                except OSError as error:
                    warn(f"{folder}: {RESULT} cannot be written ({reason_of(error)}).")


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _code(result: RunResult) -> int:
    return int(result.get("identity", {}).get("code", 1))


def _result_files(folder: str | Path) -> Iterator[tuple[str, bytes]]:
    """(folder of a run, contents of its result), in the order of the folders' names."""
    url = remote.url_of(folder)
    if url:
        for place, contents in remote.read_all(url, RESULT).items():
            if isinstance(contents, bytes):
                yield place, contents
            else:
                warn(f"{place}: {RESULT} cannot be read ({reason_of(contents)}); it is left out.")
        return
    if not is_folder(folder):
        raise SimpromptError(f"There is no directory {folder}; give one that holds runs.")

    def closed(error: OSError) -> None:
        warn(f"{error.filename} cannot be read ({reason_of(error)}); it is left out.")

    for place, inside, files in os.walk(folder, onerror=closed):
        # a folder that begins with a dot is what a killed process left half written
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        if RESULT in files or RESULT in inside:
            try:
                text = read_contents(f"{place}/{RESULT}")
            except BadResultError as error:
                warn(f"{place}: {error}; it is left out.")
                continue
            if text is not None:
                yield place, text


def checkpoint_place(out: str | Path, run: RunKey) -> str:
    """The path or URL of the file that a training is kept in; of several runs together, that of
    the first."""
    return f"{remote.url_of(out) or out}/{UNFINISHED}/{run.folder.replace('/', '-')}.safetensors"


def forget_trainings(out: str | Path, runs: Iterable[RunKey]) -> None:
    """Delete the checkpoints of trainings all of whose runs are among these, which are finished."""
    runs = list(runs)
    done = {run.key for run in runs}
    for run in runs:
        location = checkpoint_place(out, run)
        keys = keys_in(location)
        if keys and done.issuperset(keys):
            Checkpoint(location, keys).remove()


def stamped(run: RunKey) -> dict[str, Any]:
    """What a result says of the run it is of, besides its settings; `when` it was made, or asked
    for again after another content had been tried."""
    return {"key": run.key, "identity": run.parts, "when": current_time()}


def method_order(label: str) -> tuple[bool, str]:
    """Zero-shot first, then by name, so that a method stands beside its +sar."""
    return (label != "zero-shot", label)
