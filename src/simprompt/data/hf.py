"""A dataset of the Hugging Face hub -> rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from simprompt.data.dataset import DatasetError
from simprompt.data.images import read_image
from simprompt.data.rows import PARTS, Reading, Row


class _HubLoader:
    """Items are ``split/row`` of a `datasets.DatasetDict` whose images are left encoded.

    Its images are read as files are, upright.
    """

    def __init__(self, name: str, splits: Mapping[str, Any], column: str) -> None:
        self.name, self.splits, self.column = name, splits, column

    def __call__(self, item: str) -> Image.Image:
        split, _, row = item.rpartition("/")
        encoded = self.splits[split][int(row)][self.column] or {}
        source = encoded.get("bytes") or encoded.get("path") or b""
        return read_image(source, upright=True, name=f"{self.name}, image {item}")


def read(name: str) -> Reading:
    """The rows of a hub dataset, ``org/name`` or a folder of its files.

    Raises:
        DatasetError: the library is missing, or the dataset cannot be used.
    """
    try:
        import datasets
    except ImportError:
        raise DatasetError(
            f"hf:{name} needs the datasets library: `pip install simprompt[datasets]`."
        ) from None
    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:  # its errors are many
        raise DatasetError(f"hf:{name} could not be loaded: {error}.") from error
    features = next(iter(loaded.values())).features
    images = [c for c, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [c for c, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    if len(images) != 1 or len(labels) != 1:
        raise DatasetError(
            f"hf:{name} needs one image column and one class label column; it has {len(images)} "
            f"and {len(labels)} among {', '.join(features)}."
        )
    names = features[labels[0]].names
    parts: dict[str, list[Row]] = {part: [] for part in PARTS}
    for key, table in loaded.items():
        part = "val" if key.startswith("val") else key
        if part in parts:
            parts[part] = [
                Row(f"{key}/{row}", names[label]) for row, label in enumerate(table[labels[0]])
            ]
    prints = ",".join(f"{key}:{table._fingerprint}" for key, table in sorted(loaded.items()))
    encoded = {
        key: table.cast_column(images[0], datasets.Image(decode=False))
        for key, table in loaded.items()
    }
    loader = _HubLoader(f"hf:{name}", encoded, images[0])
    return Reading(f"hf:{name}@{prints}", loader, parts)
