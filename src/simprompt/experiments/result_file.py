"""A run's result.json: read from a disk or a URL, and checked before anything believes it."""

from __future__ import annotations

import math
import warnings
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from simprompt.errors import SimpromptError
from simprompt.utils.files import remote
from simprompt.utils.files.atomic import (
    checksum,
)
from simprompt.utils.files.parsing import first_complaint, json_value
from simprompt.utils.files.regular import PROMPT, NotRegularError, read_bytes

RunResult = dict[str, Any]


RESULT = "result.json"


FORMAT = 2
"""Of a result and the files beside it; raise it when a reader of the old one would misread it."""


class BadResultError(SimpromptError):
    """A result that cannot be used, and why."""


def read_contents(place: str) -> bytes | None:
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
        raise BadResultError(f"{_name(place)} cannot be read ({reason_of(error)})") from None
    except SimpromptError:
        raise
    except Exception as error:  # of the disk, or of whatever stands behind a URL
        raise BadResultError(f"{_name(place)} cannot be read ({reason_of(error)})") from None


def _name(place: str) -> str:
    return place.rpartition("/")[2]


def reason_of(error: Exception) -> str:
    """Why something failed, in the words of the library that says so."""
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


def check_files(folder: Path, result: RunResult) -> None:
    """Raise BadResultError for a file of the result that is missing or not what was written."""
    for name, checksum_wanted in result.get("files", {}).items():
        try:
            contents = read_bytes(folder / name, PROMPT)
        except OSError as error:
            raise BadResultError(f"{name} cannot be read ({reason_of(error)})") from None
        if checksum(contents) != checksum_wanted:
            raise BadResultError(f"{name} is not what was written, it is damaged")


def file_of(result: RunResult, name: str) -> bytes | None:
    """A file beside a result of `read_runs`; None where there is none, or (with a warning) where
    it is damaged."""
    folder = result.get("folder")
    if not folder:
        return None
    try:
        contents = read_contents(f"{folder}/{name}")
    except BadResultError as error:
        warn(f"{folder}: {error}; it is left out.")
        return None
    checksum_wanted = result.get("files", {}).get(name)
    if contents is not None and checksum_wanted and checksum(contents) != checksum_wanted:
        warn(f"{folder}: {name} is not what was written, it is damaged; it is left out.")
        return None
    return contents


def warn(text: str) -> None:
    """Warn of a file of results."""
    warnings.warn(text, stacklevel=3)


FAILED, UNFINISHED = "failed", "unfinished"


def current_time() -> str:
    """The moment in UTC, as results carry it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
