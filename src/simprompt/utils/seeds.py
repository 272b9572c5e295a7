"""One seed, many streams of random numbers: each purpose has its own.

A run draws the order of its images, SAR's classes and its initial tokens. Were they drawn from
generators with the same state, the draws would be tied to each other; were they drawn from one
generator, a method that draws once more would change all that comes after.
"""

from __future__ import annotations

import hashlib

import torch


def stream(seed: int, purpose: str) -> torch.Generator:
    """A generator on the CPU for one purpose of a run, such as `images` or `sar`.

    Its state comes from a hash of seed and purpose, so streams of near seeds have nothing in
    common either.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
