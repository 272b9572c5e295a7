"""The page of `simprompt learn`: what was right and wrong on the images that were held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simprompt.data.split import Split
from simprompt.errors import SimpromptError
from simprompt.report.evidence import thumbnail
from simprompt.report.html import environment
from simprompt.utils.files.atomic import write_text

MOST_IMAGES = 24


def write(result: dict[str, Any], test: Split, path: str | Path) -> None:
    """Write the page of a result of `learn`; pictures of the surest mistakes are in it."""
    rows = {item: i for i, item in enumerate(test.items)}
    pictures = []
    for row in result["wrong"][:MOST_IMAGES]:
        try:
            picture = thumbnail(test.load(rows[row["path"]]))
        except SimpromptError:  # it is gone since
            picture = ""
        pictures.append({**row, "picture": picture})
    text = environment().get_template("own.html").render(result=result, pictures=pictures)
    write_text(path, text)
