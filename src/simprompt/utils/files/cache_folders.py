"""Where downloads, features and other things that can be made again are kept: our cache and the
model hub's."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from simprompt.utils.files.regular import expanded


def cache_dir() -> Path:
    """Where features and downloaded datasets are kept: ``$SIMPROMPT_CACHE``, else
    ``~/.cache/simprompt``; `NOWHERE` for a user without a home folder."""
    if chosen := os.environ.get("SIMPROMPT_CACHE"):
        return expanded(chosen)
    return _home() / ".cache" / "simprompt"


NOWHERE = Path(os.devnull) / "no home folder"
"""Stands for the home folder of a user who has none: nothing exists in it, and nothing can."""


def is_nowhere(place: Path) -> bool:
    """Whether a cache would be in the home folder of a user who has none."""
    return NOWHERE in place.parents


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # neither HOME nor an entry for this user
        return NOWHERE


_warned_of_no_home = False


def not_kept(place: Path, error: OSError) -> None:
    """Warn that something is not kept in the cache, which costs time and nothing else."""
    global _warned_of_no_home
    if is_nowhere(place):
        if not _warned_of_no_home:
            _warned_of_no_home = True
            warnings.warn(
                "There is no home folder (HOME is not set), so there is no cache: what it would "
                "save is computed again each time. Set HOME, or let SIMPROMPT_CACHE name a folder.",
                stacklevel=3,
            )
        return
    warnings.warn(
        f"The cache cannot be written: {place}: {error.strerror or error}. The work goes on, and "
        "what it would have kept is made anew each time. SIMPROMPT_CACHE names another place.",
        stacklevel=3,
    )


def hub_cache() -> Path:
    """Where the hub's files are kept: ``$HF_HUB_CACHE``, else ``$HF_HOME/hub``."""
    if chosen := os.environ.get("HF_HUB_CACHE"):
        return expanded(chosen)
    return hub_home() / "hub"


def hub_home() -> Path:
    """Where the hub's tools keep their files: ``$HF_HOME``, else a folder of the user's cache."""
    if home := os.environ.get("HF_HOME"):
        return expanded(os.path.expandvars(home))
    base = os.environ.get("XDG_CACHE_HOME")
    return (expanded(base) if base else _home() / ".cache") / "huggingface"
