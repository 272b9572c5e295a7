"""A folder of image features: shards that are written whole, checked once, and memory-mapped."""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from simprompt.utils.files.atomic import checksum, remove_abandoned, replacing
from simprompt.utils.files.locks import lock_folder
from simprompt.utils.files.marks import Mark, mark_of
from simprompt.utils.files.parsing import json_value
from simprompt.utils.files.regular import WEIGHTS, check_regular

UNREADABLE = (SafetensorError, OSError, ValueError)
"""What opening a damaged shard raises."""


def _checksum(features: Tensor) -> str:
    flat = features.contiguous().reshape(-1).view(torch.uint8)
    return checksum(flat.numpy().data)


MOST_CHECKED = 1 << 16
_checked: set[tuple[str, Mark]] = set()
"""Path and mark of the shards whose checksum this process has seen to be right; emptied where
there are too many, after which shards are checked once more."""


def _items(metadata: dict[str, str] | None) -> list[str]:
    """The keys of the items in a shard, by row; ValueError if they are not there."""
    try:
        keys = json_value((metadata or {})["items"])
    except KeyError:
        raise ValueError("it does not say which images it is of") from None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("it does not say which images it is of")
    return keys


class Store:
    """A folder of shards, each a safetensors file: features [n, views, E], not normalised, the n
    items' keys, and the checksum of the features."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._where: dict[str, tuple[Path, int]] = {}
        self._mapped: dict[Path, Tensor] = {}
        self._bad: set[Path] = set()
        self._look()

    def _look(self) -> None:
        """Learn of the shards that are there; what they hold is checked when it is asked for."""
        for path in sorted({*self.folder.glob("*.safetensors")} - self._bad):
            try:
                check_regular(path, WEIGHTS)
                with safe_open(str(path), "pt") as shard:
                    keys = _items(shard.metadata())
            except FileNotFoundError:  # another process found it damaged
                continue
            except UNREADABLE as error:
                self._drop(path, f"cannot be read ({error})")
                continue
            for row, key in enumerate(keys):
                self._where.setdefault(key, (path, row))

    @contextmanager
    def filling(self) -> Iterator[None]:
        """One at a time of all that extend this store; what others have added is known inside."""
        with lock_folder(self.folder):  # where nothing can be locked an image may be computed twice
            remove_abandoned(self.folder)
            self._look()
            yield

    def known(self, keys: Sequence[str]) -> set[str]:
        """Those of these keys whose features are there and undamaged."""
        while paths := {self._where[k][0] for k in keys if k in self._where} - {*self._mapped}:
            for path in paths:
                if damage := self._check(path):
                    self._drop(path, damage)
            if paths & self._bad:
                self._look()  # others may have what it had
        return {key for key in keys if key in self._where}

    def _check(self, path: Path) -> str | None:
        """Map a shard; what is wrong with it, if it is not what was written."""
        try:
            mark = mark_of(path)
            with safe_open(str(path), "pt") as shard:  # maps the file; copies what is indexed
                features = shard.get_tensor("features")
                written = shard.metadata()
                rows = len(_items(written))
        except UNREADABLE as error:
            return f"cannot be read ({error})"
        stamp = str(path), mark
        if stamp not in _checked:
            if features.dim() != 3 or len(features) != rows:
                return f"holds {len(features)} rows of features for {rows} images"
            if _checksum(features) != written.get("checksum"):
                return "is not what was written"
            if not torch.isfinite(features.sum()):
                return "holds features that are not finite numbers"
            if len(_checked) >= MOST_CHECKED:
                _checked.clear()
            _checked.add(stamp)
        self._mapped[path] = features
        return None

    def _drop(self, path: Path, damage: str) -> None:
        """Forget and delete a damaged shard."""
        warnings.warn(
            f"The image features in {path} are damaged: it {damage}. They are made again.",
            stacklevel=4,
        )
        self._bad.add(path)
        self._where = {key: at for key, at in self._where.items() if at[0] != path}
        with suppress(OSError):  # it stays where it cannot be deleted, and is never believed
            path.unlink()

    def add(self, features: dict[str, Tensor]) -> None:
        """Keep these features, each [views, E], as one shard."""
        keys, rows = list(features), torch.stack(list(features.values()))
        path = self.folder / f"{uuid.uuid4().hex}.safetensors"
        metadata = {"items": json.dumps(keys), "checksum": _checksum(rows)}
        with replacing(path) as partial:
            save_file({"features": rows}, str(partial), metadata=metadata)
        self._where.update({key: (path, row) for row, key in enumerate(keys)})

    def gather(self, keys: Sequence[str]) -> Tensor:
        """Features [N, views, E] of these keys, copied out of the memory-mapped shards.

        Raises:
            KeyError: one that is not `known`.
        """
        self.known(keys)
        rows_of_shard: dict[Path, list[tuple[int, int]]] = {}
        for row, key in enumerate(keys):
            path, at = self._where[key]
            rows_of_shard.setdefault(path, []).append((row, at))
        out: Tensor | None = None
        for path, pairs in rows_of_shard.items():
            to, at_rows = (torch.tensor(column) for column in zip(*pairs, strict=True))
            rows = self._mapped[path][at_rows]
            if out is None:
                out = rows.new_empty(len(keys), *rows.shape[1:])
            out[to] = rows
        if out is None:
            raise ValueError("no keys")
        return out
