"""Choosing a few names from many, without knowing the new classes.

A good list stands in for classes nobody has seen. Two guesses at what makes it good, and the draw
they have to beat:

`coverage`  the similarities that the chosen names bring should be distributed as those among the
            base classes: new classes come from where the base classes come from.
`k-centre`  within the band of distances at which base classes lie from each other, the chosen names
            should leave no place far from all of them.
`random`    a uniform draw.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from benchmarks.novel_lab.relation import bin_edges, histogram, without_diagonal

from simprompt.novel.names import NovelNameError
from simprompt.novel.vocabulary import closest_pair

if TYPE_CHECKING:
    from torch import Tensor


def select(
    names: Sequence[str],
    base: Sequence[str],
    encode: Callable[[Sequence[str]], Tensor],
    n: int,
    criterion: str = "coverage",
    seed: int = 0,
) -> list[str]:
    """`n` of the names, in the order in which they were chosen.

    Args:
        names: the names to choose from.
        base: the base classes, at least three.
        encode: names to L2-normalised text embeddings `[n, E]`.
        n: how many; all of the names if there are no more.
        criterion: `coverage`, `k-centre` or `random`.
        seed: for `random`.

    Raises:
        NovelNameError: an unknown criterion, too few base classes, or `n` below 1.
    """
    if criterion not in CRITERIA:
        raise NovelNameError(
            f"There is no criterion {criterion!r} for choosing names. Use one of "
            f"{', '.join(CRITERIA)}."
        )
    if n < 1 or len(base) < 3:
        raise NovelNameError(
            f"{n} of {len(names)} names cannot be chosen beside {len(base)} base classes. Choose "
            "at least 1, beside at least 3 base classes."
        )
    if n >= len(names):
        return list(names)
    if criterion == "random":
        return random.Random(seed).sample(list(names), n)
    features, base_features = encode(names).float(), encode(base).float()
    chosen = BY_FEATURES[criterion](features, base_features, n)
    return [names[i] for i in chosen]


def by_coverage(features: Tensor, base: Tensor, n: int) -> list[int]:
    """Greedy: each step takes the name after which the similarities fit the base classes' best.

    The fit is the total variation distance between two histograms over bins that hold equal
    shares of the similarities among base classes: that of base-novel similarities, and that of
    base-base ones, together with the same for novel-novel similarities.

    Args:
        features: `[N, E]` of the names.
        base: `[C, E]` of the base classes.
        n: how many, less than N.

    Returns:
        Positions in the order of choice.
    """
    import torch

    between_base = without_diagonal(base @ base.T)
    edges = bin_edges(between_base)
    target = histogram(between_base.flatten(), edges)  # [bins]
    to_base = histogram(features @ base.T, edges)  # [N, bins]
    among = torch.bucketize(features @ features.T, edges)  # [N, N]
    total = torch.zeros_like(target)
    pairs = torch.zeros_like(to_base)  # of each name: its similarities to the chosen, counted
    pair_total = torch.zeros_like(target)
    free = torch.ones(len(features), dtype=torch.bool, device=features.device)
    chosen: list[int] = []
    for step in range(n):
        misfit = ((total + to_base) / (step + 1) - target).abs().sum(dim=1)
        if step:
            n_pairs = step * (step + 1) / 2
            misfit = misfit + ((pair_total + pairs) / n_pairs - target).abs().sum(dim=1)
        best = int(misfit.masked_fill(~free, float("inf")).argmin())
        chosen.append(best)
        free[best] = False
        total += to_base[best]
        pair_total += pairs[best]
        pairs.scatter_add_(1, among[:, best : best + 1], torch.ones_like(pairs[:, :1]))
    return chosen


def by_k_centre(features: Tensor, base: Tensor, n: int) -> list[int]:
    """Farthest-first traversal (Gonzalez, 1985) inside a band around the base classes.

    The band holds the names whose nearest base class is no nearer than base classes lie to each
    other, and no farther than the loneliest base class from its neighbour; where it holds fewer
    than `n` names, those next to it are taken in. Base classes count as centres from the start.

    Args and returns: as `by_coverage`.
    """
    import torch

    near = (features @ base.T).amax(dim=1)
    ceiling = closest_pair(base)
    floor = float(without_diagonal(base @ base.T).amax(dim=1).min())
    outside = (near - ceiling).clamp_min(0) + (floor - near).clamp_min(0)
    band = outside == 0
    if int(band.sum()) < n:
        band = torch.zeros_like(band)
        band[outside.argsort(stable=True)[:n]] = True
    closest = near.clone()  # of each name: the cosine to the nearest centre
    free = band.clone()
    chosen: list[int] = []
    for _ in range(n):
        best = int(closest.masked_fill(~free, float("inf")).argmin())
        chosen.append(best)
        free[best] = False
        closest = closest.maximum(features @ features[best])
    return chosen


BY_FEATURES: dict[str, Callable[[Tensor, Tensor, int], list[int]]] = {
    "coverage": by_coverage,
    "k-centre": by_k_centre,
}
CRITERIA = (*BY_FEATURES, "random")
