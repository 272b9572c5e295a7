"""The icon CLIP knows what drawings look like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import simprompt
from simprompt.clip import domain
from simprompt.clip.hub import load_clip


@pytest.fixture(scope="module")
def clip():
    return load_clip("icons")


def test_the_distance_is_mahalanobis_over_the_dimensions():
    rng = torch.Generator().manual_seed(0)
    values = torch.randn(500, 6, generator=rng, dtype=torch.float64) @ torch.diag(
        torch.tensor([1.0, 2, 3, 4, 5, 6], dtype=torch.float64)
    )
    mean, covariance = values.mean(0), values.T.cov()
    known = domain.Domain(mean, torch.linalg.inv(torch.linalg.cholesky(covariance)), 1.0)
    x = values[:20] + 3
    expected = ((x - mean) @ torch.linalg.inv(covariance) * (x - mean)).sum(-1) / 6
    torch.testing.assert_close(known.distance(x), expected)


def test_drawings_are_near_and_noise_is_far(clip):
    test = simprompt.load_dataset("icons/food").all.test
    drawings = torch.stack([clip.preprocess(test.load(i)) for i in range(0, len(test), 10)])
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(20)]
    known = domain.of_icons()
    assert known.far(clip, drawings) < domain.MANY
    assert known.far(clip, torch.stack([clip.preprocess(image) for image in noise])) == 1.0
    assert known.far(clip, drawings[:0]) == 0.0
    alone = domain.statistics(clip, drawings[:3])
    torch.testing.assert_close(domain.statistics(clip, drawings)[:3], alone, atol=1e-4, rtol=1e-4)
