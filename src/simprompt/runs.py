"""A run directory, written whole or not at all; many runs -> one summary.

    OUT/<dataset>/<method>/seed<k>-<key>/result.json      settings, accuracies, curves, mechanism
                                         prompt.*         the learned prompt and its card
                                         text.safetensors text features, for heatmaps
                                         predictions.safetensors

    OUT/failed/<key>.json                why a run failed

`key` is a hash of the settings, so a finished run is recognised and never made again. OUT is a
folder, or the URL of one (see `simprompt.remote`).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from simprompt import remote
from simprompt.clip.catalogue import embedded_digest
from simprompt.config import RunConfig
from simprompt.errors import SimpromptError
from simprompt.evaluate import harmonic_mean, interval, mean
from simprompt.files import write_json

Result = dict[str, Any]
RESULT = "result.json"
FAILED = "failed"

# the temporary folder of a run: `.seed<k>-<key>-<process>@<place>-<random>`
PARTIAL = ".seed"
_MAKER = re.compile(r"-(\d+)@([0-9a-f]+)-[^-]+$")
TOO_OLD = 7 * 24 * 3600  # seconds; no run takes that long


def run_name(config: RunConfig) -> str:
    """Where this run's files stand below its results directory."""
    return f"{config.dataset}/{config.label}/seed{config.seed}-{config.key}"


def run_folder(out: str | Path, config: RunConfig) -> Path:
    """The folder of this run's files, for a results directory on a file system."""
    return Path(out) / run_name(config)


def finished(out: str | Path, config: RunConfig) -> Result | None:
    """The result of this very run if it is already there.

    A run that was made with other weights of the embedded model, by another release, is none.
    """
    url = remote.url_of(out)
    if url:
        text = remote.read(f"{url}/{run_name(config)}/{RESULT}")
    else:
        path = run_folder(out, config) / RESULT
        text = path.read_bytes() if path.is_file() else None
    result: Result | None = json.loads(text) if text else None
    if result is None or result.get("weights") in (None, embedded_digest(config.model)):
        return result
    return None


def write_run(out: str | Path, config: RunConfig, fill: Callable[[Path], Result]) -> Result:
    """Let `fill` write a run's files into a temporary folder, then move it into place at once.

    Where the results directory is a URL the files are copied, `result.json` last.
    """
    url = remote.url_of(out)
    if url:
        with tempfile.TemporaryDirectory() as temporary:
            result = fill(Path(temporary))
            write_json(Path(temporary) / RESULT, result)
            remote.upload(Path(temporary), f"{url}/{run_name(config)}", last=RESULT)
        return result
    folder = run_folder(out, config)
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = f".{folder.name}-{os.getpid()}@{_place()}-"
    partial = Path(tempfile.mkdtemp(prefix=mark, dir=folder.parent))
    try:
        result = fill(partial)
        write_json(partial / RESULT, result)
        os.chmod(partial, 0o755)
        if folder.exists():  # another process finished the same run first, or left a broken one
            shutil.rmtree(folder)
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return result


def remove_remains(out: str | Path) -> int:
    """Delete the temporary folders that killed processes left below a results directory.

    Those of processes that live stay. Of processes elsewhere (another machine on a shared file
    system, another container, before a reboot) nothing is known here: their folders stay for a
    week.

    Returns:
        How many folders were deleted; 0 for a URL, where no run is written in place.
    """
    removed = 0
    if remote.url_of(out):
        return removed
    for place, inside, _ in os.walk(out):
        for name in [name for name in inside if name.startswith(PARTIAL)]:
            if _abandoned(Path(place, name)):
                shutil.rmtree(Path(place, name), ignore_errors=True)
                removed += 1
        inside[:] = [name for name in inside if not name.startswith((PARTIAL, PARTIAL[1:]))]
    return removed


def _abandoned(partial: Path) -> bool:
    maker = _MAKER.search(partial.name)
    if maker and maker[2] == _place() and os.name == "posix":  # elsewhere signal 0 is no question
        try:
            os.kill(int(maker[1]), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False  # it lives, as another user's
        return False
    try:
        return time.time() - partial.stat().st_mtime > TOO_OLD
    except FileNotFoundError:
        return False  # its run was finished at this moment


@cache
def _place() -> str:
    """Where a process id means one process: this boot of this machine, this container of it.

    Not the host's name, which machines on one file system may share.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")
        where = f"{boot}{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux
        where = f"{platform.node()}{uuid.getnode()}"
    return hashlib.sha256(where.encode()).hexdigest()[:8]


def read_runs(folders: Iterable[str | Path]) -> list[Result]:
    """All results below these folders, ordered by dataset, method, seed; each with its `folder`.

    Raises:
        SimpromptError: a folder that is not there, or no result in any of them.
    """
    results = []
    folders = list(folders)
    for folder in folders:
        for place, text in _result_files(folder):
            result = json.loads(text)
            result["folder"] = place
            results.append(result)
    if not results:
        raise SimpromptError(
            f"No finished run below {', '.join(map(str, folders))}. "
            "`simprompt run ... --out DIR` makes some."
        )
    return sorted(results, key=lambda r: (r["dataset"], method_order(r["method"]), r["seed"]))


def _result_files(folder: str | Path) -> Iterator[tuple[str, str | bytes]]:
    """(folder of a run, contents of its result), in the order of the folders' names."""
    url = remote.url_of(folder)
    if url:
        yield from remote.read_all(url, RESULT).items()
        return
    if not Path(folder).is_dir():
        raise SimpromptError(f"There is no directory {folder}; give one that holds runs.")
    for place, inside, files in os.walk(folder):
        # a folder that begins with a dot is what a killed process left half written
        inside[:] = sorted(name for name in inside if not name.startswith(PARTIAL))
        if RESULT in files:
            yield place, (Path(place) / RESULT).read_bytes()


def record_failure(out: str | Path, config: RunConfig, error: str, trace: str = "") -> None:
    """Keep why a run failed beside the runs, in `failed/<key>.json`."""
    record = {
        "key": config.key,
        "run": f"{config.dataset} {config.label} seed {config.seed}",
        "error": error,
        "traceback": trace,
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "config": config.model_dump(mode="json"),
    }
    name, url = f"{FAILED}/{config.key}.json", remote.url_of(out)
    if url:
        remote.write(f"{url}/{name}", json.dumps(record, indent=1).encode())
        return
    write_json(Path(out) / name, record)


def failure(out: str | Path, config: RunConfig) -> dict[str, Any] | None:
    """What `record_failure` kept of this run, if it has failed."""
    name, url = f"{FAILED}/{config.key}.json", remote.url_of(out)
    if url:
        text = remote.read(f"{url}/{name}")
        return json.loads(text) if text else None
    path = Path(out) / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def forget_failure(out: str | Path, config: RunConfig) -> None:
    """Delete the record of a failure, because the run is made again or is there now."""
    name, url = f"{FAILED}/{config.key}.json", remote.url_of(out)
    if url:
        remote.remove(f"{url}/{name}")
    else:
        (Path(out) / name).unlink(missing_ok=True)


def method_order(label: str) -> tuple[bool, str]:
    """Zero-shot first, then by name, so that a method stands beside its +sar."""
    return (label != "zero-shot", label)


def _by_dataset(results: Sequence[Result], method: str) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in results:
        if result["method"] == method:
            found.setdefault(result["dataset"], []).append(result)
    return found


def averages(results: Sequence[Result]) -> dict[str, float]:
    """Means over seeds, then over datasets, of some results of one method.

    `h_of_means` is H(mean base, mean new), as published tables average; `mean_h` is the mean of
    each dataset's own H, which is lower.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result["dataset"], []).append(result)
    base = mean([mean([r["base"] for r in g]) for g in groups.values()])
    new = mean([mean([r["new"] for r in g]) for g in groups.values()])
    hs = [
        harmonic_mean(mean([r["base"] for r in g]), mean([r["new"] for r in g]))
        for g in groups.values()
    ]
    return {"base": base, "new": new, "h_of_means": harmonic_mean(base, new), "mean_h": mean(hs)}


def paired(results: Sequence[Result], method: str, reference: str) -> dict[str, Any]:
    """Differences method - reference on the same dataset and seed, averaged over seeds first.

    Returns:
        For base, new and h: {"diff": mean over datasets, "ci95": [low, high] by Student's t over
        the datasets' means, "per_dataset": {...}}.
    """
    ours, theirs = _by_dataset(results, method), _by_dataset(results, reference)
    out: dict[str, Any] = {}
    for measure in ("base", "new", "h"):
        per_dataset = {}
        for dataset in ours.keys() & theirs.keys():
            other = {r["seed"]: r[measure] for r in theirs[dataset]}
            differences = [
                r[measure] - other[r["seed"]] for r in ours[dataset] if r["seed"] in other
            ]
            if differences:
                per_dataset[dataset] = mean(differences)
        values = [per_dataset[d] for d in sorted(per_dataset)]
        low, high = interval(values) if values else (float("nan"),) * 2
        finite = len(values) > 1
        out[measure] = {
            "diff": mean(values),
            "ci95": [low, high] if finite else None,
            "per_dataset": dict(sorted(per_dataset.items())),
        }
    return out


def summarise(results: Sequence[Result]) -> dict[str, Any]:
    """One JSON document of many runs: averages, paired differences, the runs themselves."""
    labels = sorted({r["method"] for r in results}, key=method_order)
    with_sar = [label for label in labels if label.endswith("+sar")]
    pairs = {s: s.removesuffix("+sar") for s in with_sar if s.removesuffix("+sar") in labels}
    document: dict[str, Any] = {
        "methods": {m: averages([r for r in results if r["method"] == m]) for m in labels},
        "paired": {},
        "to_zero_shot": {},
        "runs": [
            {
                key: r[key]
                for key in (
                    "dataset", "method", "seed", "base", "new", "h",
                    "seconds", "peak_mb", "parameters",
                )
            }
            for r in results
        ],
    }  # fmt: skip
    if len(pairs) == 1:
        document["paired"] = paired(results, *next(iter(pairs.items())))
    else:
        document["paired"] = {host: paired(results, s, host) for s, host in pairs.items()}
    if "zero-shot" in labels:
        document["to_zero_shot"] = {
            m: paired(results, m, "zero-shot") for m in labels if m != "zero-shot"
        }
    return document


def finite(value: Any) -> Any:
    """A document as JSON can hold it: NaN (the New of a classifier of base classes) and infinity
    become null."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
