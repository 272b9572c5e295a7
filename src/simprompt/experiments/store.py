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
import glob
import json
import math
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from simprompt.data.dataset import html_table
from simprompt.errors import SimpromptError
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
from simprompt.utils.files.parsing import first_complaint, json_value
from simprompt.utils.files.regular import PROMPT, NotRegularError, is_folder, read_bytes, read_text

RunResult = dict[str, Any]
RESULT = "result.json"
FORMAT = 2
"""Of a result and the files beside it; raise it when a reader of the old one would misread it."""
FAILED, UNFINISHED = "failed", "unfinished"

_KEPT = re.compile(r"seed-?\d+-[0-9a-f]+")  # the folder of a finished run


def run_folder(out: str | Path, run: RunKey) -> Path:
    """The folder of this run's files, for a results directory on a file system."""
    return Path(out) / run.folder


def finished(out: str | Path, run: RunKey) -> RunResult | None:
    """The result of this very run if it is already there, whole and undamaged.

    Below a URL the files beside the result are not looked at.
    """
    url = remote.url_of(out)
    place = f"{url}/{run.folder}" if url else str(run_folder(out, run))
    result = _whole(place)
    if result is not None and result.get("key") not in (None, run.key):
        _warn(f"{place} holds the run {result['key']}: it is made again.")
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
        contents = _read(f"{place}/{RESULT}")
        if contents is None:
            return None
        result = parse_result(contents)
        if not remote.url_of(place):
            _check_files(Path(place), result)
    except BadResultError as error:
        _warn(f"{place}: {error}; it is made again.")
        return None
    return result


class BadResultError(SimpromptError):
    """A result that cannot be used, and why."""


def _read(place: str) -> bytes | None:
    """A file's contents, from disk or a URL; None where there is no such file.

    Raises:
        BadResultError: it is there and cannot be read.
    """
    try:
        if remote.url_of(place):
            return remote.read(place)
        return read_bytes(place, PROMPT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except NotRegularError as error:
        raise BadResultError(f"{_name(place)} cannot be read ({_reason(error)})") from None
    except SimpromptError:
        raise
    except Exception as error:  # of the disk, or of whatever stands behind a URL
        raise BadResultError(f"{_name(place)} cannot be read ({_reason(error)})") from None


def _name(place: str) -> str:
    return place.rpartition("/")[2]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _percentage(value: float) -> float:
    if not (0 <= value <= 100 or math.isnan(value)):  # NaN: New of a classifier of base classes
        raise ValueError("a percentage is from 0 to 100")
    return value


Percent = Annotated[float, AfterValidator(_percentage)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=0, lt=1 << 63)]


class _Part(BaseModel):
    """Of a result: what is read again; the rest is for readers."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Training(_Part):
    shots: Whole
    epochs: Whole
    max_steps: Whole | None


class _Config(_Part):
    model: str
    protocol: str = "base-to-new"
    template: str | None = None
    max_test_per_class: Whole | None = None
    training: _Training


class _Curves(_Part):
    loss: list[float] = []
    sar: list[float] = []
    lr: list[float] = []


class _Identity(_Part):
    code: Whole = 1


class _Novel(_Part):
    source: str
    count: Whole
    overlap: list[str]


class _Kept(_Part):
    """A result as it is written."""

    protocol: str
    dataset: str
    method: str
    seed: Annotated[int, Field(gt=-(1 << 63), lt=1 << 63)]
    base: Percent
    new: Percent
    h: Percent
    ece_base: float | None = None
    ece_new: float | None = None
    parameters: Whole
    steps: Whole
    train_seconds: Amount
    seconds: Amount
    peak_mb: Amount | None
    mechanism: dict[str, dict[str, float | None]] | None = None
    curves: _Curves
    novel: _Novel | None = None
    targets: dict[str, Percent] = {}
    warnings: list[str] = []
    classes: dict[str, list[str]]
    config: _Config
    environment: dict[str, Any]
    key: str | None = None
    identity: _Identity | None = None
    when: str | None = None
    files: dict[str, str] = {}


def parse_result(contents: str | bytes) -> RunResult:
    """A result from the bytes of its file.

    Raises:
        BadResultError: not JSON, half of it, or of a format that this release does not know.
    """
    try:
        result = json_value(contents)
    except ValueError:  # UnicodeDecodeError is one
        raise BadResultError(f"{RESULT} is damaged or half written") from None
    if not isinstance(result, dict):
        raise BadResultError(f"{RESULT} holds no result")
    format = result.get("format", 1)
    if not isinstance(format, int) or format > FORMAT:
        raise BadResultError(
            f"{RESULT} is of format {format}, and this release of simprompt reads up to {FORMAT}"
        )
    try:
        _Kept(**result)
    except TypeError:  # a name that is half a character
        raise BadResultError(f"{RESULT} holds names that are no text") from None
    except ValidationError as error:
        raise BadResultError(f"{RESULT} {first_complaint(error)}") from None
    return result


def _check_files(folder: Path, result: RunResult) -> None:
    """Raise BadResultError for a file of the result that is missing or not what was written."""
    for name, wanted in result.get("files", {}).items():
        try:
            contents = read_bytes(folder / name, PROMPT)
        except OSError as error:
            raise BadResultError(f"{name} cannot be read ({_reason(error)})") from None
        if checksum(contents) != wanted:
            raise BadResultError(f"{name} is not what was written, it is damaged")


def file_of(result: RunResult, name: str) -> bytes | None:
    """A file beside a result of `read_runs`; None where there is none, or (with a warning) where
    it is damaged."""
    folder = result.get("folder")
    if not folder:
        return None
    try:
        contents = _read(f"{folder}/{name}")
    except BadResultError as error:
        _warn(f"{folder}: {error}; it is left out.")
        return None
    wanted = result.get("files", {}).get(name)
    if contents is not None and wanted and checksum(contents) != wanted:
        _warn(f"{folder}: {name} is not what was written, it is damaged; it is left out.")
        return None
    return contents


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)


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
            f"No runs can be kept in {out}: {_reason(error)}. Give another folder with --out, or "
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
            place = f"{url}/{_folder_of(run, result)}"
            if twin := _whole(place):
                return twin
            remote.upload(Path(elsewhere), place, last=RESULT)
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
    for place, inside, _ in os.walk(out):
        removed += remove_abandoned(place)
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
        for place, contents in _result_files(folder):
            try:
                result = parse_result(contents)
            except BadResultError as error:
                _warn(f"{place}: {error}; it is left out.")
                continue
            result["folder"] = place
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
        _warn(
            f"{older} results below these folders were made by an older version of simprompt, "
            "whose numbers do not compare with the others: they are left out."
        )
    groups: dict[str, dict[Any, list[RunResult]]] = {}
    for r in current:
        groups.setdefault(_settings(r), {}).setdefault(r.get("key"), []).append(r)
    kept, copies, superseded = [], [], []
    changed: set[str] = set()
    for by_key in groups.values():
        last = max(by_key.values(), key=lambda runs: _when(runs[0]))
        kept.append(max(last, key=_when))
        copies += [r for r in last if r is not kept[-1]]
        for runs in by_key.values():
            if runs is not last:
                superseded += [(r, last[0]) for r in runs]
                old, new = (r[0].get("identity", {}) for r in (runs, last))
                changed |= {part for part in new if old.get(part) != new[part]}
    if superseded:
        old, new = superseded[0]
        what = f" ({', '.join(sorted(changed))})" if changed else ""
        _warn(
            f"{len(superseded)} results were made later again with the same settings and other "
            f"content{what}: the older ones are left out, such as {old['folder']} for "
            f"{new['folder']}."
        )
    if copies:
        _warn(
            f"{len(copies)} results are there more than once, of the same settings and seed, such "
            f"as {copies[0]['folder']}: each counts once."
        )
    return kept


def _settings(result: RunResult) -> str:
    """The same for results that a table could not tell apart.

    The digest of a run's settings leaves out those that change no number, so that two releases of
    which one has a setting more agree on it.
    """
    settings: Any = result.get("config") or {}
    counted = (result.get("identity") or {}).get("settings")
    if counted is not None:
        named = {name: settings.get(name) for name in NAMED if settings.get(name) is not None}
        settings = [named, (settings.get("sar") or {}).get("novel"), counted]
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
                result["when"] = _now()
                try:
                    write_json(folder / RESULT, result)
                except OSError as error:
                    _warn(f"{folder}: {RESULT} cannot be written ({_reason(error)}).")


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
                _warn(f"{place}: {RESULT} cannot be read ({_reason(contents)}); it is left out.")
        return
    if not is_folder(folder):
        raise SimpromptError(f"There is no directory {folder}; give one that holds runs.")

    def closed(error: OSError) -> None:
        _warn(f"{error.filename} cannot be read ({_reason(error)}); it is left out.")

    for place, inside, files in os.walk(folder, onerror=closed):
        # a folder that begins with a dot is what a killed process left half written
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        if RESULT in files or RESULT in inside:
            try:
                text = _read(f"{place}/{RESULT}")
            except BadResultError as error:
                _warn(f"{place}: {error}; it is left out.")
                continue
            if text is not None:
                yield place, text


def record_failure(out: str | Path, run: RunKey, error: str, trace: str = "") -> None:
    """Keep why a run failed beside the runs; where that cannot be written, a warning says so."""
    config = run.config
    record = {
        "format": FORMAT,
        "key": run.key,
        "run": f"{config.dataset} {config.label} seed {config.seed}",
        "error": error,
        "traceback": trace,
        "when": _now(),
        "identity": run.parts,
        "config": config.model_dump(mode="json"),
    }
    name, url = _failure_name(run), remote.url_of(out)
    try:
        if url:
            remote.write(f"{url}/{name}", json.dumps(record, indent=1).encode())
        else:
            write_json(Path(out) / name, record)
    except Exception as broken:  # of the disk, or of whatever stands behind a URL
        if isinstance(broken, SimpromptError) and not isinstance(broken, WriteError):
            raise
        _warn(f"{out}/{name} cannot be written ({_reason(broken)}): {record['run']}: {error}")


def _failure_name(run: RunKey) -> str:
    return f"{FAILED}/{run.folder.replace('/', '-')}.json"


def checkpoint_place(out: str | Path, run: RunKey) -> str:
    """The path or URL of the file that a training is kept in; of several runs together, that of
    the first."""
    return f"{remote.url_of(out) or out}/{UNFINISHED}/{run.folder.replace('/', '-')}.safetensors"


def forget_trainings(out: str | Path, runs: Iterable[RunKey]) -> None:
    """Delete the checkpoints of trainings all of whose runs are among these, which are finished."""
    runs = list(runs)
    done = {run.key for run in runs}
    for run in runs:
        place = checkpoint_place(out, run)
        keys = keys_in(place)
        if keys and done.issuperset(keys):
            Checkpoint(place, keys).remove()


def failure(out: str | Path, run: RunKey) -> dict[str, Any] | None:
    """What `record_failure` kept of this run, if it has failed; a record that cannot be read is
    none, and a warning names it."""
    name = _failure_name(run)
    try:
        contents = _read(f"{remote.url_of(out) or out}/{name}")
        if contents is None:
            return None
        record: dict[str, Any] = json_value(contents)
        if record["error"] and record.get("format", 1) <= FORMAT:
            return record
        reason = "is of a newer format"
    except BadResultError as error:
        reason = str(error)
    except (ValueError, KeyError, TypeError):
        reason = "is damaged or half written"
    _warn(f"{out}/{name}: {reason}; the run is tried again.")
    return None


def forget_failure(out: str | Path, run: RunKey) -> None:
    """Delete the records of a run's failures, because it is made again or is there now.

    On a file system also those of the same settings with other content.
    """
    name, url = _failure_name(run), remote.url_of(out)
    try:
        if url:
            remote.remove(f"{url}/{name}")
            return
        record = Path(out) / name
        for path in record.parent.glob(f"{glob.escape(record.stem[: -len(run.key)])}*.json"):
            if path == record or _settings_in(path) == run.config.model_dump(mode="json"):
                path.unlink(missing_ok=True)
    except SimpromptError:
        raise
    except Exception as error:  # of the disk, or of whatever stands behind a URL
        _warn(f"{out}/{name} cannot be deleted ({_reason(error)}).")


def _settings_in(record: Path) -> Any:
    try:
        return json_value(read_text(record))["config"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stamped(run: RunKey) -> dict[str, Any]:
    """What a result says of the run it is of, besides its settings; `when` it was made, or asked
    for again after another content had been tried."""
    return {"key": run.key, "identity": run.parts, "when": _now()}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def method_order(label: str) -> tuple[bool, str]:
    """Zero-shot first, then by name, so that a method stands beside its +sar."""
    return (label != "zero-shot", label)
