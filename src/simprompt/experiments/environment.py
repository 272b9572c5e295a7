"""What a result says of the machine and the versions that it was computed with."""

from __future__ import annotations

import platform

import torch

from simprompt._version import __version__
from simprompt.utils.devices import describe_device


def environment(device: torch.device) -> dict[str, str]:
    """Versions that a result depends on, and what it was computed by."""
    return {
        "simprompt": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": describe_device(device),
    }
