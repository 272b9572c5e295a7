"""How methods are measured: one file a protocol, each with `protocol(config)`.

Every result has `base`, accuracy on what was learned from, `new`, accuracy on what was not, and
`h`, their harmonic mean; `MEANING` says what these are in each protocol.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from simprompt.config import RunConfig

if TYPE_CHECKING:
    from simprompt.experiments.protocols.common import Protocol

# what a table calls a protocol's columns; None: there is no such number
MEANING: dict[str, dict[str, str | None]] = {
    "base-to-new": {"base": "Base", "new": "New", "h": "H"},
    "generalised": {"base": "Base among all", "new": "New among all", "h": "H"},
    "few-shot": {"base": "Accuracy", "new": None, "h": None},
    "cross-dataset": {"base": "Source", "new": "Mean target", "h": None},
    "domain-shift": {"base": "Source", "new": "Mean target", "h": None},
}


def find(config: RunConfig) -> Protocol:
    """The protocol that a run's settings name."""
    module = import_module(f"{__name__}.{config.protocol.replace('-', '_')}")
    protocol: Protocol = module.protocol(config)
    return protocol
