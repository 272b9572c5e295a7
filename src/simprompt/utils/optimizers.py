"""torch's optimisers, by themselves.

torch's own load its compiler when they are made, to tell it to leave them alone. That takes longer
than many a training here, in every process that learns, and nothing here is compiled.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar, cast

import torch

Kind = TypeVar("Kind", bound=type[torch.optim.Optimizer])

TOLD = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def without_dynamo(kind: Kind) -> Kind:
    """A subclass without what tells the compiler; what else torch does is the same."""
    bare: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in TOLD}
    bare["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    bare["__doc__"] = f"`torch.optim.{kind.__name__}`, by itself."
    return cast(Kind, type(kind.__name__, (kind,), bare))


SGD = without_dynamo(torch.optim.SGD)
Adam = without_dynamo(torch.optim.Adam)
AdamW = without_dynamo(torch.optim.AdamW)
LBFGS = without_dynamo(torch.optim.LBFGS)
