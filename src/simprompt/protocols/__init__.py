"""How methods are measured: one file a protocol, each with `run(config, out)`.

Every result has `base`, accuracy on what was learned from, `new`, accuracy on what was not, and
`h`, their harmonic mean; `MEANING` says what these are in each protocol.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from simprompt.config import RunConfig

# what a table calls a protocol's columns; None: there is no such number
MEANING: dict[str, dict[str, str | None]] = {
    "base-to-new": {"base": "Base", "new": "New", "h": "H"},
    "generalised": {"base": "Base among all", "new": "New among all", "h": "H"},
    "few-shot": {"base": "Accuracy", "new": None, "h": None},
    "cross-dataset": {"base": "Source", "new": "Mean target", "h": None},
    "domain-shift": {"base": "Source", "new": "Mean target", "h": None},
}


def run(config: RunConfig, out: str | Path) -> dict[str, Any]:
    """Make one run by the protocol its settings name; returns its result."""
    module = import_module(f"{__name__}.{config.protocol.replace('-', '_')}")
    result: dict[str, Any] = module.run(config, out)
    return result
