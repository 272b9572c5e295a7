"""How methods are measured: one file a protocol, each with `protocol(config)`.

Every result has `base`, accuracy on what was learned from, `new`, accuracy on what was not, and
`h`, their harmonic mean; `MEANING` says what these are in each protocol.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simprompt.config import RunConfig
from simprompt.errors import SimpromptError

if TYPE_CHECKING:
    from simprompt.data.dataset import Dataset
    from simprompt.experiments.protocols.common import PreparedRun, Protocol
    from simprompt.experiments.run_key import RunKey

# what a table calls a protocol's columns; None: there is no such number
MEANING: dict[str, dict[str, str | None]] = {
    "base-to-new": {"base": "Base", "new": "New", "h": "H"},
    "generalised": {"base": "Base among all", "new": "New among all", "h": "H"},
    "few-shot": {"base": "Accuracy", "new": None, "h": None},
    "cross-dataset": {"base": "Source", "new": "Mean target", "h": None},
    "domain-shift": {"base": "Source", "new": "Mean target", "h": None},
}


def run(config: RunConfig, out: str | Path, data: Dataset | None = None) -> dict[str, Any]:
    """Make one run by the protocol its settings name and write it below `out`.

    Args:
        data: the dataset, if it is not one of the catalogue's.

    Returns:
        Its result.
    """
    from simprompt.experiments.protocols import common

    return common.run(config, out, find(config), data)


def prepare(config: RunConfig) -> PreparedRun:
    """A run that is ready to be trained; see `common`."""
    from simprompt.experiments.protocols import common

    return common.prepare(config, find(config))


def identify(config: RunConfig, data: Dataset | None = None) -> RunKey:
    """What a run is, by content; see `common.identify`."""
    from simprompt.experiments.protocols import common

    protocol = None
    with suppress(SimpromptError):  # the run says what is wrong
        protocol = find(config)
    return common.identify(config, protocol, data)


def find(config: RunConfig) -> Protocol:
    """The protocol that a run's settings name."""
    module = import_module(f"{__name__}.{config.protocol.replace('-', '_')}")
    protocol: Protocol = module.protocol(config)
    return protocol
