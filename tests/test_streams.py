"""One seed, many streams: equal for the same purpose, with nothing in common for another."""

from __future__ import annotations

import torch

from simprompt import methods
from simprompt.config import SAR
from simprompt.sar import Regulariser
from simprompt.streams import stream


def test_a_stream_is_its_seed_and_purpose():
    draw = {
        (seed, purpose): tuple(torch.rand(8, generator=stream(seed, purpose)).tolist())
        for seed in (0, 1, 2, 1001)
        for purpose in ("images", "sar", "context")
    }
    assert len(set(draw.values())) == len(draw)
    assert draw[1, "sar"] == tuple(torch.rand(8, generator=stream(1, "sar")).tolist())


def test_purposes_of_a_run_are_not_tied_to_each_other():
    """Batches, SAR's draw and initial tokens of one seed: no two are the same permutation."""
    n, seed = 200, 1
    images = torch.randperm(n, generator=stream(seed, "images"))
    regulariser = Regulariser(SAR(sample=n), torch.zeros(n, 2), 10, seed)
    sar = torch.randperm(n, generator=regulariser.generator)
    plain = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for a, b in ((images, sar), (images, plain), (sar, plain)):
        assert (a == b).sum() < 10  # one on average


def test_initial_values_of_a_method_differ_from_each_other(tiny_clip):
    """MaPLe draws a context and maps; with one stream for both, they would share their bits."""
    kind = methods.find("maple")
    learner = kind(tiny_clip, ("cat", "dog"), "a {}.", kind.Config(init="random"), 1)
    context, maps = learner.ctx.flatten(), learner.coupling[0].weight.flatten()[: 2 * 32]
    with torch.random.fork_rng():
        torch.manual_seed(torch.Generator().manual_seed(1).initial_seed())
        tied = torch.randn(64) * 0.02
    assert not torch.allclose(context, tied)
    assert abs(torch.corrcoef(torch.stack([context, maps]))[0, 1]) < 0.5
