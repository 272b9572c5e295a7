"""A dataset of the Hugging Face hub, ``hf:NAME``, or a folder that `save_to_disk` wrote."""

from __future__ import annotations

from pathlib import Path

from simprompt.data.own_images import hf
from simprompt.data.own_images.columns import Columns
from simprompt.data.own_images.rows import Reading

ORDER = 10


def recognises(source: str, wanted: Columns) -> bool:
    """Whether it is named by ``hf:``, or holds the files of `save_to_disk`."""
    return source.startswith("hf:") or hf.is_saved(Path(source))


def read(source: str, wanted: Columns) -> Reading:
    """Its splits, through the library `datasets`."""
    return hf.read(source.removeprefix("hf:"), wanted)
