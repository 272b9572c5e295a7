"""COCO-like annotations -> records: one label an image.

``{"images": [{"id", "file_name"}], "annotations": [{"image_id", "category_id"}], "categories":
[{"id", "name"}]}``. An image whose annotations are all of one category has this label; one with
several categories, or none, has not one label and is not used.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from simprompt.data.split import DatasetError


def is_coco(value: Any) -> bool:
    """Whether this JSON value holds such annotations."""
    return isinstance(value, dict) and {"images", "annotations", "categories"} <= value.keys()


def listed(path: Path, value: dict[str, Any], root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """(objects of ``path`` and ``label``, the latter a list; what was understood).

    Args:
        path: of the file, for messages, and the folder that its images are in.
        root: the folder that the paths are to be relative to.

    Raises:
        DatasetError: something that annotations need is missing.
    """
    inside = os.path.relpath(path.parent, root).replace(os.sep, "/")
    try:
        names = {annotation["id"]: str(annotation["name"]) for annotation in value["categories"]}
        labels: dict[Any, list[str]] = {annotation["id"]: [] for annotation in value["images"]}
        for annotation in value["annotations"]:
            labels[annotation["image_id"]].append(names[annotation["category_id"]])
        rows = [
            {
                "path": annotation["file_name"]
                if inside == "."
                else f"{inside}/{annotation['file_name']}",
                "label": list(dict.fromkeys(labels[annotation["id"]])),
            }
            for annotation in value["images"]
        ]
    except (KeyError, TypeError) as error:
        raise DatasetError(
            f"{path} is not COCO's format: {error!r} is missing. Each image needs id and "
            "file_name, each annotation image_id and category_id of images and categories that "
            "are there, each category id and name."
        ) from None
    boxes = len(value["annotations"])
    return rows, [f"{path.name}: {len(rows)} images, {boxes} annotations, {len(names)} categories."]
