"""Runs that failed: the record of why, below the results."""

from __future__ import annotations

import glob
import json
from pathlib import Path
from typing import Any

from simprompt.errors import SimpromptError
from simprompt.experiments.result_file import (
    FAILED,
    FORMAT,
    BadResultError,
    current_time,
    read_contents,
    reason_of,
    warn,
)
from simprompt.experiments.run_key import RunKey
from simprompt.utils.files import remote
from simprompt.utils.files.atomic import (
    WriteError,
    write_json,
)
from simprompt.utils.files.parsing import json_value
from simprompt.utils.files.regular import read_text


def record_failure(out: str | Path, run: RunKey, error: str, trace: str = "") -> None:
    """Keep why a run failed beside the runs; where that cannot be written, a warning says so."""
    config = run.config
    record = {
        "format": FORMAT,
        "key": run.key,
        "run": f"{config.dataset} {config.label} seed {config.seed}",
        "error": error,
        "traceback": trace,
        "when": current_time(),
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
        warn(f"{out}/{name} cannot be written ({reason_of(broken)}): {record['run']}: {error}")


def _failure_name(run: RunKey) -> str:
    return f"{FAILED}/{run.folder.replace('/', '-')}.json"


def failure(out: str | Path, run: RunKey) -> dict[str, Any] | None:
    """What `record_failure` kept of this run, if it has failed; a record that cannot be read is
    none, and a warning names it."""
    name = _failure_name(run)
    try:
        contents = read_contents(f"{remote.url_of(out) or out}/{name}")
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
    warn(f"{out}/{name}: {reason}; the run is tried again.")
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
        warn(f"{out}/{name} cannot be deleted ({reason_of(error)}).")


def _settings_in(record: Path) -> Any:
    try:
        return json_value(read_text(record))["config"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
