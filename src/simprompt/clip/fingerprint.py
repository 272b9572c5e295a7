"""The digest of a CLIP: weights, sizes, tokenizer, preprocessing, and type of its numbers.

A digest is computed once, some two seconds a gigabyte, and then kept with what tells that the
model in memory is still the one that it was computed of:

- every tensor's identity, address, type and count of changes, which cost nothing to look at. They
  show another parameter, `load_state_dict`, and a change in place.
- a CRC-32 of all bytes, at some three gigabytes a second. It also shows what PyTorch does not
  count: changes through `.data`, through a NumPy array, or of a tensor of inference mode.

`glance` looks at the first only.
"""

from __future__ import annotations

import hashlib
import json
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from simprompt.clip.model import CLIP


@dataclass(frozen=True)
class _Known:
    """A digest, and what the model looked like."""

    glanced: object
    details: str
    crc: int
    digest: str


@dataclass(frozen=True)
class _Rounding:
    """A weight -> the same in another type."""

    dtype: torch.dtype | None = None
    scale: bool = False

    def __call__(self, name: str, value: Tensor) -> Tensor:
        value = value.detach()
        if self.dtype is None or not value.is_floating_point():
            return value
        return value.to(self.dtype) if self.scale or name != "logit_scale" else value


_lock = threading.RLock()
_known: weakref.WeakKeyDictionary[CLIP, dict[str, _Known]] = weakref.WeakKeyDictionary()
_origins: weakref.WeakKeyDictionary[CLIP, tuple[int, str]] = weakref.WeakKeyDictionary()


def of_clip(
    clip: CLIP,
    dtype: torch.dtype | None = None,
    *,
    rounded_scale: bool = False,
    glance: bool = False,
) -> str:
    """The digest of a CLIP.

    Args:
        dtype: as if the towers had this type; None: the one that they have.
        rounded_scale: as if the logit scale had that type as well, which `load_clip` leaves as it
            is and `clip.half()` does not.
        glance: trust what PyTorch counts; see the module's docstring.
    """

    def more() -> dict[str, Any]:
        tokenizer = getattr(clip.tokenizer, "fast", None)
        return {"text": asdict(clip.config.text), "tokenizer": tokenizer and tokenizer.to_str()}

    rounded = _Rounding(dtype, rounded_scale)
    return of_tensors(clip, "", more, rounded, glance=glance)


def remember_origin(clip: CLIP, digest: str) -> None:
    """Note the digest that a model of half precision had in float32, before it was rounded."""
    with _lock:
        _origins[clip] = (_crc(clip, ""), digest)


def of_origin(clip: CLIP) -> str | None:
    """The digest that a model has, or had before it was rounded, in float32; None where nobody
    knows."""
    if _types(clip, _Rounding()) == ["torch.float32"]:
        return of_clip(clip)
    with _lock:
        crc, digest = _origins.get(clip, (None, None))
        return digest if crc == _crc(clip, "") else None


def of_tensors(
    clip: CLIP,
    prefix: str,
    more: Callable[[], dict[str, Any]],
    rounding: _Rounding | None = None,
    *,
    glance: bool = False,
) -> str:
    """The digest of the weights whose names begin with `prefix`, of what makes their pixels, and
    of `more`, plain JSON values; `glance` as in `of_clip`."""
    rounding = rounding or _Rounding()
    at = json.dumps([prefix, _types(clip, rounding), asdict(clip.preprocess)])
    with _lock:
        digests = _known.setdefault(clip, {})
        # looked at before the bytes are read: a change in between shows at the next look
        cached, glanced = digests.get(at), _glanced(clip, prefix)
        if cached and glance and glanced is not None and cached.glanced == glanced:
            return cached.digest
        details = _digest([asdict(clip.config.vision), more()])
        crc = _crc(clip, prefix)
        if cached and (cached.details, cached.crc) == (details, crc):
            digest = cached.digest
        else:
            digest = _computed(clip, prefix, at, details, rounding)
        digests[at] = _Known(glanced, details, crc, digest)
        return digest


def _computed(clip: CLIP, prefix: str, at: str, details: str, rounding: _Rounding) -> str:
    sha = hashlib.sha256(at.encode())
    sha.update(details.encode())
    for name, value in _tensors(clip, prefix):
        cast = rounding(name, value)
        # with its shape: bytes alone would not tell [2, 3] from [3, 2]
        sha.update(json.dumps([name, str(cast.dtype), [*cast.shape]]).encode())
        sha.update(_bytes(cast).data)
    return sha.hexdigest()


def _tensors(clip: CLIP, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in sorted(clip.state_dict(keep_vars=True).items()):
        if name.startswith(prefix):
            yield name, value


def _types(clip: CLIP, rounding: _Rounding) -> list[str]:
    return sorted({str(rounding(n, p.new_empty(0)).dtype) for n, p in clip.named_parameters()})


def _bytes(value: Tensor) -> npt.NDArray[np.uint8]:
    flat = value.detach().cpu().contiguous().reshape(-1)
    # as bytes, for NumPy has no bfloat16
    array: npt.NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return array


def _crc(clip: CLIP, prefix: str) -> int:
    crc = 0
    for name, value in _tensors(clip, prefix):
        crc = zlib.crc32(_bytes(value).data, zlib.crc32(name.encode(), crc))
    return crc


def _glanced(clip: CLIP, prefix: str) -> object:
    """What changes when a tensor is replaced or changed in a way that PyTorch counts; None where
    it counts nothing, in inference mode."""
    tensors = [*_tensors(clip, prefix)]
    if any(value.is_inference() for _, value in tensors):
        return None
    stamps = [
        (name, id(value), value.data_ptr(), value._version, value.dtype, value.shape)
        for name, value in tensors
    ]
    return stamps, id(clip.tokenizer), clip.config


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
