"""Seeded restyling of icon drawings: one drawing in, as many different images as asked for.

An image is a function of the drawing and of a *key* (a string), and of nothing else: all of its
random numbers are read from a SHAKE-256 stream of the key, and all arithmetic on pixels is done
on integers. The same key gives the same bytes on every machine, Python and NumPy.

What a restyling changes (``PLAIN``; ``STRONG`` in brackets):

- place: rotation up to 15 degrees [25], size 66-98% of the frame [50-100%], shift up to 4 pixels
  [6], mirrored half of the time [half];
- one-colour and two-tone drawings: two or three new colours, dark on light or light on dark; the
  line made thicker for half of the images;
- colour drawings: hue turned by up to 40 degrees, more or less vivid, a new background [all colours
  thrown away: the grey values are painted along a ramp between two or three new colours];
- everywhere: a background that fades towards one side [stripes], slight blur, slight noise [both
  stronger].

One strength for all tasks: see :mod:`simprompt.data.icons` for the rule that sets it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

SIZE: Final = 48
"""Side of the images, pixels."""

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Strength:
    """How far a restyling may go; see the module's docstring for the two that are used.

    Args:
        degrees: largest rotation either way.
        scale: smallest and largest size of the drawing's square, in 1/256 of the frame.
        shift: largest shift either way, pixels.
        hue: largest turn of hue either way, degrees (colour drawings).
        noise: largest noise amplitude, grey levels.
        blur: largest weight of the blurred image, in 1/256.
        stripes: striped instead of fading backgrounds.
        recolour: throw the colours of colour drawings away.
    """

    degrees: int
    scale: tuple[int, int]
    shift: int
    hue: int
    noise: int
    blur: int
    stripes: bool = False
    recolour: bool = False


PLAIN: Final = Strength(degrees=15, scale=(168, 250), shift=4, hue=40, noise=14, blur=160)
STRONG: Final = Strength(
    degrees=25,
    scale=(128, 256),
    shift=6,
    hue=180,
    noise=40,
    blur=256,
    stripes=True,
    recolour=True,
)
STRENGTHS: Final = {"plain": PLAIN, "strong": STRONG}


class _Stream:
    """Random numbers of N images, one column an image, read in order from each key's bytes."""

    def __init__(self, keys: Sequence[str]) -> None:
        raw = b"".join(hashlib.shake_256(k.encode()).digest(96) for k in keys)
        self._words = np.frombuffer(raw, "<u2").reshape(len(keys), 48).astype(np.int32)
        self._at = 0

    def integers(self, low: int, high: int) -> Ints:
        """``[N]`` integers from ``low`` to ``high``, both included."""
        word = self._words[:, self._at]
        self._at += 1
        return low + (word * (high - low + 1) >> 16)

    def chance(self, numerator: int, denominator: int) -> npt.NDArray[np.bool_]:
        """``[N]`` booleans, true with probability ``numerator / denominator``."""
        return self.integers(1, denominator) <= numerator


def restyle(
    drawings: npt.NDArray[np.uint8], keys: Sequence[str], strength: Strength = PLAIN
) -> npt.NDArray[np.uint8]:
    """Images of N drawings, restyled as their keys say.

    Args:
        drawings: ``[N, S, S]`` coverage 0..255 of one-colour drawings (in two-tone drawings the
            second tone has the coverage 51), or ``[N, S, S, 4]`` RGBA of colour drawings.
        keys: N strings.
        strength: how far to go.

    Returns:
        ``uint8`` RGB ``[N, SIZE, SIZE, 3]``.
    """
    stream = _Stream(keys)
    if drawings.ndim == 3:
        sampled = _sample(drawings[..., None], stream, strength)[..., 0]
        images = _paint_coverage(sampled, stream, strength)
    else:
        premultiplied = drawings.astype(np.int32)
        premultiplied[..., :3] = premultiplied[..., :3] * premultiplied[..., 3:] // 255
        sampled = _sample(premultiplied.astype(np.uint8), stream, strength)
        images = _paint_colour(sampled, stream, strength)
    images = _blur(images, stream.integers(0, strength.blur))
    images += _noise(keys, stream.integers(0, strength.noise))
    return np.clip(images, 0, 255).astype(np.uint8)


# --- place --------------------------------------------------------------------------------------

_STEPS = 1024  # angles are multiples of 1/1024 turn; sines are rounded, so that libm cannot matter
_SIN = np.array([round(65536 * math.sin(2 * math.pi * i / _STEPS)) for i in range(_STEPS)], "i8")


def _sample(cells: npt.NDArray[np.uint8], stream: _Stream, strength: Strength) -> Ints:
    """``[N, S, S, C]`` drawings, turned, scaled, shifted, mirrored: ``[N, SIZE, SIZE, C]``.

    Bilinear, in fixed point: positions in 1/65536 source pixels, weights in 1/256.
    """
    n, side = cells.shape[:2]
    turn = strength.degrees * _STEPS // 360
    angle = stream.integers(-turn, turn)
    scale = stream.integers(*strength.scale).astype(np.int64)
    dx, dy = (stream.integers(-16 * strength.shift, 16 * strength.shift) for _ in range(2))
    mirror = np.where(stream.chance(1, 2), -1, 1)

    # Output pixel centres relative to the frame's centre, in half pixels, minus the shift.
    at = (2 * np.arange(SIZE) + 1 - SIZE).astype(np.int64)
    x = at[None, :] * 8 - dx[:, None]  # 1/16 pixel, [N, SIZE]
    y = at[None, :] * 8 - dy[:, None]
    cos, sin = _SIN[(angle + _STEPS // 4) % _STEPS], _SIN[angle % _STEPS]
    # source = (side / SIZE) * (256 / scale) * rotation, with 1/65536 positions.
    cos = cos * (side * 16) // (SIZE * scale)
    sin = sin * (side * 16) // (SIZE * scale)
    middle = (side * 65536 - 65536) // 2
    u = (cos * mirror)[:, None, None] * x[:, None, :] + (sin * mirror)[:, None, None] * y[
        :, :, None
    ]
    v = -sin[:, None, None] * x[:, None, :] + cos[:, None, None] * y[:, :, None]
    u, v = u + middle, v + middle

    # One pixel of empty border around each drawing stands for all that lies outside.
    wide = side + 2
    padded = np.zeros((n, wide, wide, cells.shape[3]), np.uint8)
    padded[:, 1:-1, 1:-1] = cells
    u = np.clip(u + 65536, 0, (wide - 1) * 65536 - 1)
    v = np.clip(v + 65536, 0, (wide - 1) * 65536 - 1)
    x0, top = u >> 16, v >> 16
    wu, wv = (
        ((u >> 8) & 255).astype(np.int32)[..., None],
        ((v >> 8) & 255).astype(np.int32)[..., None],
    )
    flat = padded.reshape(-1, cells.shape[3])
    corner = np.arange(n)[:, None, None] * (wide * wide) + top * wide + x0

    def row(offset: int) -> Ints:
        a = np.take(flat, corner + offset, axis=0).astype(np.int32)
        b = np.take(flat, corner + offset + 1, axis=0).astype(np.int32)
        across: Ints = a * (256 - wu) + b * wu
        return across

    mixed: Ints = (row(0) * (256 - wv) + row(wide) * wv + 32768) >> 16
    return mixed


# --- colour -------------------------------------------------------------------------------------


def _rgb(hue: Ints, saturation: Ints, value: Ints) -> Ints:
    """HSV to RGB on integers: hue 0..1535 (256 a sextant), the others 0..255; ``[N, 3]``."""
    channels = []
    for offset in (0, 512, 1024):  # red peaks at 0, green a third later, blue two thirds later
        distance = np.abs((hue - offset + 768) % 1536 - 768)  # distance to the channel's peak
        pure = np.clip(512 - distance, 0, 256)
        channels.append(value * (255 * 256 - saturation * (256 - pure)) // (255 * 256))
    return np.stack(channels, axis=-1).astype(np.int32)


def _ink_and_paper(stream: _Stream) -> tuple[Ints, Ints, Ints]:
    """Three colours an image, ``[N, 3]`` each: ink, second tone, paper. Ink and paper differ by
    at least 90 in value, dark on light twice as often as light on dark."""
    hues = [stream.integers(0, 1535) for _ in range(3)]
    dark = _rgb(hues[0], stream.integers(0, 255), stream.integers(0, 110))
    light = _rgb(hues[1], stream.integers(0, 110), stream.integers(200, 255))
    second_colour = _rgb(hues[2], stream.integers(40, 200), stream.integers(120, 220))
    swap = stream.chance(1, 3)[:, None]
    return np.where(swap, light, dark), second_colour, np.where(swap, dark, light)


def _background(paper: Ints, stream: _Stream, strength: Strength) -> Ints:
    """``[N, SIZE, SIZE, 3]``: the paper, fading towards one side, or with stripes."""
    at = np.arange(SIZE, dtype=np.int32)
    gx, gy = (stream.integers(-2, 2)[:, None, None] for _ in range(2))
    ramp = gx * (at[None, None, :] - SIZE // 2) + gy * (at[None, :, None] - SIZE // 2)
    ramp = np.where((ramp >> 3) & 1 == 1, 36, 0) if strength.stripes else ramp // 3
    return paper[:, None, None, :] + ramp[..., None]


def _paint_coverage(coverage: Ints, stream: _Stream, strength: Strength) -> Ints:
    """One-colour and two-tone drawings, ``[N, SIZE, SIZE]`` coverage, in new colours."""
    thicken = stream.integers(0, 256) * stream.chance(1, 2)
    grown = coverage.copy()
    for axis in (1, 2):
        grown = np.maximum(
            grown, np.maximum(_shifted(coverage, 1, axis), _shifted(coverage, -1, axis))
        )
    # Only the main tone grows: in a two-tone drawing the second (51 of 255) is an area already.
    weight = thicken[:, None, None] * np.clip((grown - 51) * 5 // 4, 0, 255) // 255
    coverage = coverage + ((grown - coverage) * weight >> 8)
    ink, second_colour, paper = _ink_and_paper(stream)
    images = _background(paper, stream, strength)
    # 0..51: paper to second tone; 51..255: towards ink. One-colour drawings have no second tone.
    two_tone = (np.mean(np.abs(coverage - 51) < 3, axis=(1, 2)) > 0.02)[:, None, None]
    tone = np.where(two_tone, np.minimum(coverage, 51) * 5, 0)[..., None]
    main = np.where(two_tone, np.maximum(coverage - 51, 0) * 5 // 4, coverage)[..., None]
    images += (second_colour[:, None, None, :] - images) * tone // 255
    images += (ink[:, None, None, :] - images) * main // 255
    return images


def _paint_colour(rgba: Ints, stream: _Stream, strength: Strength) -> Ints:
    """Colour drawings, premultiplied ``[N, SIZE, SIZE, 4]``, on a new background."""
    rgb, alpha = rgba[..., :3], rgba[..., 3:]
    turn = strength.hue * _STEPS // 360
    angle = stream.integers(-turn, turn)
    vivid = stream.integers(150, 320)  # in 1/256: from two thirds to five quarters
    ink, second_colour, paper = _ink_and_paper(stream)
    if strength.recolour:
        grey = (rgb @ np.array([77, 150, 29], np.int32)) >> 8
        # Grey 0..alpha becomes ink .. second tone; all of it is multiplied by alpha already.
        rgb = (
            ink[:, None, None, :] * (alpha - grey[..., None])
            + second_colour[:, None, None, :] * grey[..., None]
        ) // 255
    else:
        rgb = _turn_hue(rgb, angle, vivid)
        rgb = np.minimum(np.maximum(rgb, 0), alpha)
    images = _background(paper, stream, strength)
    painted: Ints = rgb + images * (255 - alpha) // 255
    return painted


def _turn_hue(rgb: Ints, angle: Ints, vivid: Ints) -> Ints:
    """Rotation about the grey axis, colourfulness times ``vivid / 256``; grey values stay."""
    cos = _SIN[(angle + _STEPS // 4) % _STEPS] * vivid >> 16
    sin = _SIN[angle % _STEPS] * vivid >> 16
    sin = sin * 148 >> 8  # 1 / sqrt(3)
    mean = rgb.sum(axis=-1, dtype=np.int32)[..., None] // 3
    apart = rgb - mean
    # Perpendicular direction in the colour plane, times sqrt(3).
    across = np.stack(
        [
            apart[..., 2] - apart[..., 1],
            apart[..., 0] - apart[..., 2],
            apart[..., 1] - apart[..., 0],
        ],
        axis=-1,
    )
    cos, sin = (k.astype(np.int32)[:, None, None, None] for k in (cos, sin))
    turned: Ints = mean + (apart * cos + across * sin >> 8)
    return turned


# --- the whole image ----------------------------------------------------------------------------


def _shifted(images: Ints, by: int, axis: int) -> Ints:
    """Images moved by one pixel along an axis; the edge pixel is repeated."""
    shifted = np.roll(images, by, axis)
    edge = [slice(None)] * images.ndim
    edge[axis] = slice(0, 1) if by > 0 else slice(-1, None)
    shifted[tuple(edge)] = images[tuple(edge)]
    return shifted


def _blur(images: Ints, weight: Ints) -> Ints:
    """Mix with a 1-2-1 blur, ``weight / 256`` of it."""
    soft = images
    for axis in (1, 2):
        soft = (_shifted(soft, 1, axis) + 2 * soft + _shifted(soft, -1, axis) + 2) >> 2
    mixed: Ints = images + ((soft - images) * weight[:, None, None, None] >> 8)
    return mixed


def _noise(keys: Sequence[str], amplitude: Ints) -> Ints:
    """Grey noise, uniform in plus or minus ``amplitude``: ``[N, SIZE, SIZE, 1]``."""
    raw = b"".join(hashlib.shake_256(b"noise:" + k.encode()).digest(SIZE * SIZE) for k in keys)
    noise = np.frombuffer(raw, np.uint8).reshape(len(keys), SIZE, SIZE, 1).astype(np.int32) - 128
    return noise * amplitude[:, None, None, None] >> 7
