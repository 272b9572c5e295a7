"""Optimisers give torch's bits, and load none of its compiler."""

from __future__ import annotations

import pytest
import torch

from shell import printed
from simprompt.utils import optimizers

SETTINGS = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    "Adam": {"lr": 0.1, "weight_decay": 0.01},
    "AdamW": {"lr": 0.1, "eps": 1e-4},
    "LBFGS": {"max_iter": 3, "line_search_fn": "strong_wolfe"},
}


def learned(module: object, name: str) -> list[torch.Tensor]:
    """What is learned in six steps, after three of which the optimiser is made anew."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 7, generator=generator)
    ours = [torch.nn.Parameter(torch.randn(7, n, generator=generator)) for n in (1, 5)]

    def made() -> torch.optim.Optimizer:
        optimiser = getattr(module, name)(ours[:1], **SETTINGS[name])
        if name != "LBFGS":  # it takes one group
            optimiser.add_param_group({"params": ours[1:]})
        return optimiser

    optimiser = made()
    for step in range(6):

        def loss() -> torch.Tensor:
            optimiser.zero_grad()  # noqa: B023
            value = sum((x @ one).tanh().pow(2).sum() for one in ours)
            value.backward()
            return value

        optimiser.step(loss)
        if step == 2:
            state = optimiser.state_dict()
            optimiser = made()
            optimiser.load_state_dict(state)
    return [one.detach() for one in ours]


@pytest.mark.parametrize("name", SETTINGS)
def test_they_give_the_bits_of_torch(name):
    for ours, theirs in zip(learned(optimizers, name), learned(torch.optim, name), strict=True):
        assert torch.equal(ours, theirs)


def test_they_do_not_load_the_compiler():
    code = (
        "import sys, torch; from simprompt.utils import optimizers as o\n"
        "for kind in (o.SGD, o.Adam, o.AdamW, o.LBFGS):\n"
        "    p = torch.nn.Parameter(torch.ones(2))\n"
        "    made = kind([p], lr=0.1)\n"
        "    def loss(): made.zero_grad(); (s := p.sum()).backward(); return s\n"
        "    made.step(loss)\n"
        "    made.load_state_dict(made.state_dict())\n"
        "print('torch._dynamo' in sys.modules)"
    )
    assert printed(code) == "False"
