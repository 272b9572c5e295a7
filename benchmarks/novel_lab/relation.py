"""How a list of novel names relates to the base classes, as the teacher's text tower sees it.

SAR learns from the similarities between classes, so what counts about a list is which similarities
it brings. All similarities here are cosines of L2-normalised text embeddings of the hand-crafted
prompt. They are measured against the base classes' own: cosines of a text tower crowd in a narrow
band that differs from model to model, so that no fixed number means `close`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from simprompt.novel.names import overlap
from simprompt.novel.vocabulary import closest_pair

if TYPE_CHECKING:
    from torch import Tensor

    Encode = Callable[[Sequence[str]], Tensor]

BINS = 20


@dataclass(frozen=True)
class Offender:
    """A name that stands out badly: what it is too close to, or how far off it lies."""

    name: str
    problem: str
    other: str
    cosine: float


@dataclass(frozen=True)
class Relation:
    """What `relate` measures. Cosines lie in [-1, 1], shares and overlaps in [0, 1].

    Attributes:
        count: names in the list.
        nearest: mean cosine of a name to its nearest base class; `nearest_low` and `nearest_high`
            are the 10% and 90% quantiles.
        base_nearest: the same mean for the base classes among themselves, to compare with.
        offset: `nearest` minus `base_nearest`: above 0 the list lies closer to the base classes
            than they do to each other, far below 0 it is about something else.
        spread: effective number of different names divided by their count: the exponential of the
            entropy of the eigenvalues of the similarity matrix / count (the Vendi score of
            Friedman and Dieng, 2023), on centred embeddings. 1 if all are orthogonal.
        synonyms: share of names closer to a base class than base classes lie to each other.
        repeats: share of names that lie that close to a name before them: much the same twice.
        reached: share of base classes that have a name as near as base classes have each other
            (within their median).
        coverage: overlap of the distributions of base-novel and base-base similarities, the sum
            over 20 bins of the smaller share; 1 if novel names look to the base classes just as
            base classes do.
        exact_overlap: names that are real new classes, where those are known; else None.
        new_reached: mean over the real new classes of the cosine to the nearest name; else None.
        new_coverage: overlap of the distributions of base-novel and base-new similarities.
        offenders: the worst names, at most 10 of a kind.
    """

    count: int
    nearest: float
    nearest_low: float
    nearest_high: float
    base_nearest: float
    offset: float
    spread: float
    synonyms: float
    repeats: float
    reached: float
    coverage: float
    exact_overlap: int | None
    new_reached: float | None
    new_coverage: float | None
    offenders: tuple[Offender, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def relate(
    names: Sequence[str],
    base: Sequence[str],
    encode: Encode,
    new: Sequence[str] | None = None,
) -> Relation:
    """Measure a list against the base classes.

    Args:
        names: the novel names, at least one.
        base: the base classes, at least two.
        encode: names to L2-normalised text embeddings `[n, E]`.
        new: the real new classes, where they are known; only the last three figures use them.
    """
    import torch

    n = encode(names).float()  # [N, E]
    b = encode(base).float()  # [C, E]
    to_base = n @ b.T  # [N, C]
    between_base = without_diagonal(b @ b.T)
    near, where = to_base.max(dim=1)
    base_near = between_base.amax(dim=1)
    ceiling = closest_pair(b)
    among = n @ n.T
    earlier = torch.tril(among, diagonal=-1) + torch.triu(torch.full_like(among, -2.0))
    repeat, of = earlier.max(dim=1)
    edges = bin_edges(between_base)
    new_reached = new_coverage = None
    if new:
        w = encode(new).float()  # [W, E]
        new_reached = float((w @ n.T).amax(dim=1).mean())
        new_coverage = distribution_overlap(to_base, w @ b.T, edges)
    return Relation(
        count=len(names),
        nearest=float(near.mean()),
        nearest_low=float(near.quantile(0.1)),
        nearest_high=float(near.quantile(0.9)),
        base_nearest=float(base_near.mean()),
        offset=float(near.mean() - base_near.mean()),
        spread=spread(n),
        synonyms=float((near > ceiling).float().mean()),
        repeats=float((repeat > ceiling).float().mean()),
        reached=float((to_base.amax(dim=0) >= base_near.median()).float().mean()),
        coverage=distribution_overlap(to_base, between_base, edges),
        exact_overlap=None if new is None else len(overlap(names, new)),
        new_reached=new_reached,
        new_coverage=new_coverage,
        offenders=(
            *_worst(names, near, [base[i] for i in where], "close to a base class", ceiling),
            *_worst(names, repeat, [names[i] for i in of], "close to another name", ceiling),
            *_farthest(names, near, [base[i] for i in where], float(base_near.min())),
        ),
    )


def without_diagonal(square: Tensor) -> Tensor:
    """The off-diagonal elements of `[C, C]` as `[C, C - 1]`."""
    size = len(square)
    return square.flatten()[1:].view(size - 1, size + 1)[:, :-1].reshape(size, size - 1)


def bin_edges(similarities: Tensor, bins: int = BINS) -> Tensor:
    """Edges `[bins - 1]` that cut these similarities into equal shares."""
    import torch

    cuts = torch.linspace(0, 1, bins + 1)[1:-1].to(similarities)
    return similarities.flatten().quantile(cuts)


def histogram(similarities: Tensor, edges: Tensor) -> Tensor:
    """Share of the similarities in each bin, along the last dimension: `[..., bins]`."""
    import torch
    import torch.nn.functional as F

    placed = torch.bucketize(similarities.contiguous(), edges)
    counts = F.one_hot(placed, len(edges) + 1).to(similarities.dtype).sum(dim=-2)
    return counts / similarities.shape[-1]


def distribution_overlap(a: Tensor, b: Tensor, edges: Tensor) -> float:
    """Sum over bins of the smaller of two shares: 1 minus the total variation distance."""
    first, second = histogram(a.flatten(), edges), histogram(b.flatten(), edges)
    return float(first.minimum(second).sum())


def spread(features: Tensor) -> float:
    """The Vendi score of centred, normalised embeddings divided by their number; in (0, 1]."""
    import torch.nn.functional as F

    if len(features) < 2:
        return 1.0
    centred = F.normalize(features - features.mean(dim=0), dim=1)
    values = centred.svd(compute_uv=False).S.square() / len(features)
    values = values[values > 1e-9]
    return float((-(values * values.log()).sum()).exp() / len(features))


def _worst(
    names: Sequence[str], cosine: Tensor, others: Sequence[str], problem: str, ceiling: float
) -> list[Offender]:
    ranked = sorted(zip(cosine.tolist(), names, others, strict=True), reverse=True)[:10]
    return [Offender(n, problem, other, value) for value, n, other in ranked if value > ceiling]


def _farthest(
    names: Sequence[str], near: Tensor, others: Sequence[str], floor: float
) -> list[Offender]:
    """Names farther from every base class than the loneliest base class is from the others."""
    ranked = sorted(zip(near.tolist(), names, others, strict=True))[:10]
    return [
        Offender(n, "far from all of them", other, value)
        for value, n, other in ranked
        if value < floor
    ]
