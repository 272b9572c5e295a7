"""Names without a language model: the nouns that CLIP's own text tower puts near the base classes.

The nearest of all are other words for a base class, and a class that means the same teaches nothing
about classes that differ. So a noun that lies closer to a base class than base classes lie to each
other is passed over, and so is one that lies that close to a noun taken before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simprompt.novel.names import NovelNameError, name_key
from simprompt.novel.nouns import noun_list
from simprompt.novel.sources import Offer, Request

if TYPE_CHECKING:
    from torch import Tensor


def vocabulary(request: Request) -> Offer:
    """The bundled nouns nearest to the base classes in the text space, all base classes in turn.

    Settings: `pool`, `common` (default; nouns that WordNet's tagged corpora use) or `all`;
    `synonyms`, `skip` (default) or `keep`.
    """
    if request.encode is None:
        raise NovelNameError(
            "The source vocabulary needs a CLIP to measure with, and none was given. Name one "
            "with --model, or use wordnet or bundled, which need none."
        )
    pool = request.setting("pool", "common")
    synonyms = request.setting("synonyms", "skip")
    if pool not in ("common", "all") or synonyms not in ("skip", "keep"):
        raise NovelNameError(
            f"vocabulary cannot use pool={pool}, synonyms={synonyms}. Use pool=common or pool=all, "
            "synonyms=skip or synonyms=keep."
        )
    avoid = {name_key(name) for name in request.avoid}
    nouns = [n for n in noun_list(1 if pool == "common" else 0) if name_key(n) not in avoid]
    base = request.encode(request.base).float()
    features = request.encode(nouns).float()
    ceiling = closest_pair(base) if synonyms == "skip" else float("inf")
    # More than asked for: some may turn out to be real new classes, which are left out.
    chosen = _in_turn(base, features, request.n + request.n // 2, ceiling)
    names = [nouns[i] for i in chosen]
    provenance = {
        "vocabulary": "nouns of WordNet 3.0",
        "pool": pool,
        "size": len(nouns),
        "synonyms": synonyms,
        "ceiling": None if synonyms == "keep" else round(ceiling, 4),
    }
    return Offer(names, provenance)


def closest_pair(features: Tensor) -> float:
    """How close classes of this topic lie to their nearest neighbour, in cosine.

    The 90% quantile over classes, not the very largest: two classes of a real data set are
    sometimes the same thing. 1 for a single class.

    Args:
        features: L2-normalised text embeddings `[n, E]`.
    """
    if len(features) < 2:
        return 1.0
    similarity = features @ features.T
    similarity.fill_diagonal_(-2.0)
    return float(similarity.amax(dim=1).quantile(0.9))


def _in_turn(base: Tensor, features: Tensor, n: int, ceiling: float) -> list[int]:
    """Positions of up to `n` nouns: each base class in turn takes its nearest one that is left."""
    import torch

    similarity = features @ base.T  # [nouns, base]
    free = similarity.amax(dim=1) <= ceiling
    order = similarity.argsort(dim=0, descending=True, stable=True).T.tolist()
    next_of = [0] * len(order)
    chosen: list[int] = []
    kept = torch.empty(0, features.shape[1], device=features.device, dtype=features.dtype)
    progressing = True
    while progressing and len(chosen) < n:
        progressing = False
        for b, ranking in enumerate(order):
            while next_of[b] < len(ranking) and len(chosen) < n:
                candidate = ranking[next_of[b]]
                next_of[b] += 1
                if not free[candidate]:
                    continue
                free[candidate] = False
                if len(kept) and float((kept @ features[candidate]).max()) > ceiling:
                    continue
                kept = torch.cat([kept, features[candidate][None]])
                chosen.append(candidate)
                progressing = True
                break
    return chosen
