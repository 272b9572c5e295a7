"""Training and frozen features work the same in every mode of autograd that a caller may be in.

`torch.no_grad`, `torch.set_grad_enabled(False)` and `torch.inference_mode` are states of a thread.
Training switches them off for its own duration. Tensors made in inference mode can never take part
in training, so what outlives a call (weights, parameters, kept features) is made outside of it.
Each mode is for a block (`with training_mode():`) or a function (`@training_mode()`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def training_mode() -> Iterator[None]:
    """Gradients are computed in here, whatever the caller has switched off."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def frozen_mode() -> Iterator[None]:
    """No gradients in here, and tensors that training may use later."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def usable(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of one that was made in inference mode."""
    with frozen_mode():
        return tensor.clone() if tensor.is_inference() else tensor


def make_usable(module: nn.Module) -> None:
    """Replace the parameters and buffers of a module that were made in inference mode by copies."""
    with frozen_mode():
        for module_part in module.modules():
            for name, parameter in module_part._parameters.items():
                if parameter is not None and parameter.is_inference():
                    copy = nn.Parameter(parameter.clone(), parameter.requires_grad)
                    module_part._parameters[name] = copy
            for name, buffer in module_part._buffers.items():
                if buffer is not None and buffer.is_inference():
                    module_part._buffers[name] = buffer.clone()
