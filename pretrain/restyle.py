"""Seeded restylings of drawings, with attributes that captions may state truthfully.

Everything is vectorised over a batch. An attribute is an integer per image; -1 means "not
certain", and then no caption about it counts as true or false.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGE_SIZE = 48
STYLES = ("outline", "filled", "duotone", "colourful")
COLOURS = {
    "black": (15, 15, 18), "white": (250, 250, 250), "gray": (128, 128, 132),
    "red": (214, 40, 40), "orange": (245, 130, 30), "yellow": (250, 208, 40),
    "green": (45, 150, 65), "teal": (20, 150, 150), "blue": (40, 95, 215),
    "purple": (125, 60, 175), "pink": (238, 110, 170), "brown": (125, 80, 45),
}  # fmt: skip
COLOUR_NAMES = tuple(COLOURS)
_PALETTE = torch.tensor(list(COLOURS.values()), dtype=torch.float32) / 255
_BLACK, _WHITE, _GRAY = 0, 1, 2

# attribute -> its values, in the order of their integers
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "style": STYLES,
    "ink": COLOUR_NAMES,
    "background": COLOUR_NAMES,
    "tone": ("light", "dark"),
    "tilt": ("upright", "rotated"),
    "lean": ("left", "right"),
    "size": ("small", "large"),
    "finish": ("clean", "blurry", "noisy"),
}
SLOT = {name: i for i, name in enumerate(ATTRIBUTES)}


def luminance(rgb: Tensor) -> Tensor:
    """Rec. 601 luma of [..., 3] in 0..1."""
    return rgb @ rgb.new_tensor([0.299, 0.587, 0.114])


def _pick(probabilities: Tensor, n: int, g: torch.Generator) -> Tensor:
    return torch.multinomial(probabilities, n, replacement=True, generator=g)


def restyle(
    rgba: Tensor, style: Tensor, colour: Tensor, handed: Tensor, g: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw each icon anew.

    Args:
        rgba: uint8 [B, 4, S, S], not premultiplied; one-colour icons need only their coverage.
        style: int64 [B], index into `STYLES` or -1.
        colour: bool [B], icons with their own palette.
        handed: bool [B], icons that a mirror would make untrue (an arrow left).
        g: the source of randomness; the same state gives the same pictures.

    Returns:
        Pictures float32 [B, 3, 48, 48] in 0..1, and attributes int64 [B, len(ATTRIBUTES)].
    """
    n = len(rgba)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=g) * (high - low) + low

    def chance(p: float) -> Tensor:
        return torch.rand(n, generator=g) < p

    attributes = torch.full((n, len(ATTRIBUTES)), -1)
    ink, paper, ink_rgb, paper_rgb = _colours(n, g, uniform)

    # Colour icons keep their palette; some turn gray.
    grayed = colour & chance(0.12)
    pixels = rgba.float() / 255
    alpha = pixels[:, 3:]
    rgb = torch.where(colour[:, None, None, None], pixels[:, :3], ink_rgb[:, :, None, None])
    gray = luminance(rgb.movedim(1, -1))[:, None].expand_as(rgb)
    rgb = torch.where(grayed[:, None, None, None], gray, rgb)

    # Geometry, on premultiplied colours so that edges do not darken.
    degrees = torch.where(chance(0.5), uniform(-2, 2), uniform(-22, 22))
    scale = torch.where(chance(0.45), uniform(0.88, 1.04), uniform(0.55, 1.12))
    shift = (
        torch.stack([uniform(-1, 1), uniform(-1, 1)], 1) * (0.04 + (1 - scale).clamp(0))[:, None]
    )
    mirror = torch.where(chance(0.15) & ~handed, -1.0, 1.0)
    moved = _affine(torch.cat([rgb * alpha, alpha], 1), degrees, scale, shift * 0.8, mirror)
    moved = _thicken(moved, chance(0.22) & ~colour, uniform(0.12, 0.5))

    blurry, noisy = chance(0.12), chance(0.12)
    blurry &= ~noisy
    out = moved[:, :3] + (1 - moved[:, 3:]) * paper_rgb[:, :, None, None]
    if blurry.any():
        soft = F.avg_pool2d(F.pad(out[blurry], (1, 1, 1, 1), mode="replicate"), 3, 1)
        out[blurry] = F.avg_pool2d(F.pad(soft, (1, 1, 1, 1), mode="replicate"), 3, 1)
    if noisy.any():
        level = uniform(0.06, 0.16)[noisy][:, None, None, None]
        noise = torch.randn(out[noisy].shape, generator=g)
        out[noisy] = (out[noisy] + noise * level).clamp(0, 1)

    attributes[:, SLOT["style"]] = torch.where(grayed, -1, style)
    attributes[:, SLOT["ink"]] = torch.where(colour, torch.where(grayed, _GRAY, -1), ink)
    attributes[:, SLOT["background"]] = paper
    attributes[:, SLOT["tone"]] = _certain(1 - luminance(paper_rgb), 0.4, 0.6)
    tilted = _certain(degrees.abs(), 3, 8)
    attributes[:, SLOT["tilt"]] = tilted
    attributes[:, SLOT["lean"]] = torch.where(tilted == 1, (degrees > 0).long(), -1)
    attributes[:, SLOT["size"]] = _certain(scale, 0.7, 0.85)
    attributes[:, SLOT["finish"]] = blurry.long() + 2 * noisy.long()
    return out, attributes


def _certain(value: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, -1 between."""
    return (value > high).long() - ((value >= low) & (value <= high)).long()


def _colours(n: int, g: torch.Generator, uniform) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # type: ignore[no-untyped-def]
    """Ink and paper, names [n] and values [n, 3]; ink stands out from the paper."""
    count = len(COLOUR_NAMES)
    paper_weight = torch.full((count,), 0.35 / (count - 2))
    paper_weight[_WHITE], paper_weight[_BLACK] = 0.5, 0.15
    paper = _pick(paper_weight, n, g)
    jitter = (torch.rand(n, 2, 3, generator=g) - 0.5) * 0.12
    # Pale papers are commoner than saturated ones; they keep the name of their hue.
    pale = torch.where(torch.rand(n, generator=g) < 0.5, uniform(0.35, 0.7), torch.zeros(n))
    pale[(paper == _WHITE) | (paper == _BLACK) | (paper == _GRAY)] = 0
    paper_rgb = _PALETTE[paper] * (1 - pale[:, None]) + pale[:, None]
    paper_rgb = (paper_rgb + jitter[:, 0]).clamp(0, 1)
    plain = torch.rand(n, generator=g) < 0.4  # mostly black on white stays black on white
    paper_rgb[plain & (paper == _WHITE)] = 1.0
    contrast = (luminance(paper_rgb)[:, None] - luminance(_PALETTE)[None]).abs()  # [n, count]
    ink_weight = torch.ones(n, count) * (contrast > 0.28)
    ink_weight[:, _BLACK] *= 9
    ink_weight[:, _WHITE] *= 5
    ink = torch.multinomial(ink_weight, 1, generator=g)[:, 0]
    ink_rgb = (_PALETTE[ink] + jitter[:, 1]).clamp(0, 1)
    return ink, paper, ink_rgb, paper_rgb


def _affine(x: Tensor, degrees: Tensor, scale: Tensor, shift: Tensor, mirror: Tensor) -> Tensor:
    """Rotate (positive is clockwise), scale, shift (in half-widths), mirror: [B, C, 48, 48]."""
    radians = degrees * (math.pi / 180)
    cos, sin = radians.cos() / scale, radians.sin() / scale
    back = torch.stack(
        [
            torch.stack([cos * mirror, sin * mirror, torch.zeros_like(cos)], 1),
            torch.stack([-sin, cos, torch.zeros_like(cos)], 1),
        ],
        1,
    )  # output coordinates -> input coordinates
    back[:, :, 2] = -(back[:, :, :2] @ shift[:, :, None])[:, :, 0]
    grid = F.affine_grid(back, [len(x), x.shape[1], IMAGE_SIZE, IMAGE_SIZE], align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _thicken(x: Tensor, which: Tensor, level: Tensor) -> Tensor:
    """Thicker (low level) or thinner (high level) lines: threshold the blurred coverage."""
    if not which.any():
        return x
    part = x[which]
    alpha = part[:, 3:]
    soft = F.avg_pool2d(alpha, 3, 1, 1)
    new = ((soft - level[which][:, None, None, None]) * 5 + 0.5).clamp(0, 1)
    peak = alpha.amax(dim=(1, 2, 3), keepdim=True)
    new = torch.where(new.mean((1, 2, 3), keepdim=True) > 0.02, new * peak, alpha)
    colour = part[:, :3].sum((2, 3), keepdim=True) / alpha.sum((2, 3), keepdim=True).clamp_min(1e-4)
    x[which] = torch.cat([colour * new, new], 1)
    return x
