"""The packed image tower computes what the plain one does."""

from __future__ import annotations

import pytest
import torch

from simprompt.clip import packed as module
from simprompt.clip.packed import PackedTower, packed
from simprompt.clip.vision import VisionConfig, VisionTower


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("options", [{}, {"mlp": 40}, {"stem": ((8, 2), (24, 4))}])
def test_features_are_those_of_the_plain_tower(activation, options):
    torch.manual_seed(0)
    tower = VisionTower(VisionConfig(32, 8, 24, 3, 4, 10, activation, **options))
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    quick = packed(tower)
    with torch.no_grad():
        for n in (1, 5):
            pixels = torch.randn(n, 3, 32, 32)
            expected, found = tower(pixels), quick(pixels)
            assert found.shape == (n, 10)
            assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_towers_that_cannot_be_packed_are_left_alone():
    half = VisionTower(VisionConfig(32, 8, 24, 2, 4, 10)).to(torch.bfloat16)
    assert packed(half) is half


def test_packing_is_in_use_where_it_can_be():
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("another kind of processor")
    assert isinstance(packed(VisionTower(VisionConfig(32, 8, 24, 2, 4, 10))), PackedTower)


@pytest.mark.parametrize("error", [AttributeError, RuntimeError, TypeError])
def test_builds_without_the_operators_use_the_plain_tower(monkeypatch, error):
    def gone(*_):
        raise error("no such operator")

    module._works.cache_clear()
    monkeypatch.setattr(module.PackedLinear, "__init__", gone)
    tower = VisionTower(VisionConfig(32, 8, 24, 2, 4, 10))
    try:
        assert packed(tower) is tower
    finally:
        module._works.cache_clear()
