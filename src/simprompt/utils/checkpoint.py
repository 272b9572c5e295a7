"""What a training holds, kept on disk while it goes on, so that a kill costs a minute of it.

A checkpoint is one file, written whole and renamed into place: tensors as safetensors, and all else
as JSON in its header. It says what it is of, by keys that stand for content (see `identity`), and
carries a checksum; one of something else, or damaged, is no checkpoint, and the training begins
anew. Who holds a state gives it, as plain values and tensors in dictionaries; here nobody knows
what they mean.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from simprompt.utils.environ import seconds
from simprompt.utils.files import remote
from simprompt.utils.files.atomic import checksum, replacing
from simprompt.utils.files.parsing import json_value
from simprompt.utils.files.regular import WEIGHTS, read_bytes

if TYPE_CHECKING:
    from torch import Tensor

# torch is imported where a state is read or written: who only looks for checkpoints, as tables of
# runs do, does not wait for it

EVERY = 60.0
"""Seconds between two checkpoints; the variable SIMPROMPT_CHECKPOINT_EVERY says another number."""

FORMAT = 2
State = dict[str, Any]
"""Tensors, numbers, texts, None, and lists and dictionaries of them."""


def interval() -> float:
    """Seconds of work that a kill may cost.

    Raises:
        SimpromptError: the variable says no number of seconds.
    """
    return seconds("SIMPROMPT_CHECKPOINT_EVERY", EVERY)


class Checkpoint:
    """The file that a training is kept in.

    Args:
        place: its path, or a URL.
        keys: of what is trained, in order; several where runs are trained together.
    """

    def __init__(self, place: str | Path, keys: Sequence[str]) -> None:
        self.place, self.keys = str(place), list(keys)
        self.every = interval()
        self._last = time.monotonic()
        self._works = True

    def due(self) -> bool:
        """Whether the last one is so long ago that another is to be written."""
        return time.monotonic() - self._last >= self.every

    def write(self, state: State) -> bool:
        """Keep this state in place of the last one; whether that could be done.

        Where it cannot be written a warning says so once: the training goes on without.
        """
        from safetensors.torch import save

        self._last = time.monotonic()
        tensors: dict[str, Tensor] = {}
        plain = json.dumps(_flattened(state, tensors))
        about = {"format": FORMAT, "keys": self.keys, "sum": _sum(plain, tensors)}
        contents = save(tensors, {"about": json.dumps(about), "state": plain})
        try:
            if remote.url_of(self.place):
                remote.write(self.place, contents)
            else:
                with replacing(self.place) as partial:
                    partial.write_bytes(contents)
        except Exception as error:  # of the disk, or of whatever stands behind a URL
            if self._works:
                warnings.warn(
                    f"The training cannot be kept in {self.place} "
                    f"({getattr(error, 'strerror', None) or error}): if it is stopped, it begins "
                    "anew.",
                    stacklevel=2,
                )
            self._works = False
            return False
        self._works = True
        return True

    def read(self) -> State | None:
        """The state that was kept of these very keys; None where there is none that is whole."""
        from safetensors.torch import load

        contents = _contents(self.place)
        if contents is None or _about(contents).get("keys") != self.keys:
            return None
        try:
            tensors = load(contents)
            kept = _header(contents)["state"]
            intact = _about(contents)["sum"] == _sum(kept, tensors)
            state: State = _restored(json_value(kept), tensors)
        except (SafetensorError, ValueError, KeyError, TypeError, IndexError):
            intact = False
        if not intact:
            warnings.warn(f"{self.place} is damaged: the training begins anew.", stacklevel=2)
            return None
        return state

    def remove(self) -> None:
        """Delete it, and its folder if nothing else is in it."""
        with suppress(Exception):  # of the disk, or of whatever stands behind a URL
            if remote.url_of(self.place):
                remote.remove(self.place)
                return
            Path(self.place).unlink(missing_ok=True)
            Path(self.place).parent.rmdir()


def keys_in(place: str | Path) -> list[str]:
    """What a checkpoint is of; nothing where there is none."""
    contents = _contents(str(place))
    return [] if contents is None else [str(key) for key in _about(contents).get("keys", ())]


def _contents(place: str) -> bytes | None:
    try:
        return remote.read(place) if remote.url_of(place) else read_bytes(place, WEIGHTS)
    except Exception:  # of the disk, or of whatever stands behind a URL
        return None


def _header(contents: bytes) -> dict[str, str]:
    """The texts in the header of a safetensors file; empty for what is none."""
    try:
        size = int.from_bytes(contents[:8], "little")
        texts = json_value(contents[8 : 8 + size])["__metadata__"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return texts if isinstance(texts, dict) else {}


def _about(contents: bytes) -> dict[str, Any]:
    try:
        about = json_value(_header(contents).get("about", "{}"))
    except (ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) and about.get("format") == FORMAT else {}


def _sum(plain: str, tensors: dict[str, Tensor]) -> str:
    from safetensors.torch import save

    ordered = save({name: tensors[name] for name in sorted(tensors)})
    return checksum(plain.encode(errors="surrogatepass") + ordered)


def _flattened(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The value with a number in the place of each tensor, which is put among `tensors`."""
    from torch import Tensor

    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"items": [[key, _flattened(inner, tensors)] for key, inner in value.items()]}
    if isinstance(value, list | tuple):
        return [_flattened(inner, tensors) for inner in value]
    return value


def _restored(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _restored(inner, tensors) for key, inner in value["items"]}
    if isinstance(value, list):
        return [_restored(inner, tensors) for inner in value]
    return value
