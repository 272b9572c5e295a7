"""Class names that stand in for classes nobody has seen yet: sources, cleaning, choice."""

from simprompt.novel.names import NovelList, NovelNameError
from simprompt.novel.sources import bundled_datasets, novel_names

__all__ = ["NovelList", "NovelNameError", "bundled_datasets", "novel_names"]
