"""Images whose bytes stand in a table, not in files of their own."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from simprompt.data.image_files import ImageError
from simprompt.data.images import read_image
from simprompt.utils.files.regular import IMAGE, read_bytes


class EncodedLoader:
    """Items are ``table/row``; images are read as files are, upright.

    Args:
        name: of the source; stands for it in messages and in the cache.
        cells: by table, a row's number -> its image: bytes, base64 text, a path, or a dictionary
            of ``bytes`` and ``path``, as the `datasets` library writes it.
        root: what paths are relative to; None: a cell holds no path.
    """

    upright = True

    def __init__(
        self, name: str, cells: Mapping[str, Callable[[int], Any]], root: Path | None = None
    ) -> None:
        self.name, self.folder, self._cells = name, root, cells
        self._stamps: dict[str, str] = {}

    def content(self, item: str) -> bytes:
        """The bytes of an image file.

        Raises:
            ImageError: there are none.
        """
        table, _, row = item.rpartition("/")
        cell = self._cells[table](int(row))
        if isinstance(cell, Mapping):
            cell = cell.get("bytes") or cell.get("path") or b""
        if isinstance(cell, str):
            decoded = _decoded(cell)
            cell = self._read(cell) if decoded is None else decoded
        if isinstance(cell, bytes | bytearray | memoryview):
            return bytes(cell)
        raise ImageError(f"{self.called(item)}: no image but {cell!r:.80}.")

    def _read(self, path: str) -> bytes:
        try:
            return read_bytes((self.folder or Path()) / path, IMAGE)
        except (OSError, ValueError) as error:
            raise ImageError(f"{path[:200]}: cannot be opened, {error}.") from None

    def called(self, item: str) -> str:
        """What messages call an item."""
        return f"{self.name}, image {item}"

    def __call__(self, item: str) -> Image.Image:
        return read_image(self.content(item), upright=True, name=self.called(item))

    def stamp(self, item: str) -> str:
        """The SHA-256 of an image's bytes; empty where there are none."""
        if item not in self._stamps:
            try:
                self._stamps[item] = hashlib.sha256(self.content(item)).hexdigest()
            except ImageError:
                return ""
        return self._stamps[item]


def is_encoded(cell: Any) -> bool:
    """Whether a cell holds the bytes of an image, and not a path."""
    if isinstance(cell, Mapping):
        return is_encoded(cell.get("bytes"))
    if isinstance(cell, str):
        return _decoded(cell) is not None
    return isinstance(cell, bytes | bytearray | memoryview)


def _decoded(text: str) -> bytes | None:
    """The bytes of base64 text, be it a ``data:`` address; None for a path."""
    head, comma, payload = text.partition(",")
    if comma and head.startswith("data:") and head.endswith("base64"):
        text = payload
    elif len(text) < 64 or "." in text:
        return None
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
