"""A picture of base classes, novel names and real new classes in the teacher's text space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from simprompt.errors import SimpromptError
from simprompt.utils.files.atomic import replacing

if TYPE_CHECKING:
    from torch import Tensor

# Colour-blind safe (Okabe and Ito), and different marks, so that it reads in grey as well.
STYLE = {
    "base": ("#0072B2", "o"),
    "novel": ("#E69F00", "x"),
    "new": ("#009E73", "^"),
}


FORMATS = ("svg", "png", "pdf")


def image_format(path: Path) -> str:
    """The format that a picture's suffix asks for.

    Raises:
        SimpromptError: none of `FORMATS`.
    """
    kind = path.suffix[1:].lower()
    if kind not in FORMATS:
        raise SimpromptError(
            f"A map is drawn as {', '.join(FORMATS)}, by the suffix of its name; "
            f"{path.name!r} has none of these."
        )
    return kind


def plane(groups: dict[str, Tensor]) -> dict[str, Tensor]:
    """Coordinates `[n, 2]` of each group `[n, E]` on the two main axes of all of them together."""
    import torch

    everything = torch.cat(list(groups.values())).float()
    mean = everything.mean(dim=0)
    axes = torch.linalg.svd(everything - mean, full_matrices=False).Vh[:2]  # [2, E]
    # The sign of an axis means nothing; fix it, so that the same list gives the same picture.
    axes = axes * axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    return {name: (features.float() - mean) @ axes.T for name, features in groups.items()}


def draw_map(
    path: Path,
    groups: dict[str, Tensor],
    names: dict[str, Sequence[str]],
    title: str = "",
    labels: int = 40,
) -> None:
    """Write the map as an image; the suffix says the format (svg, png, pdf).

    Args:
        path: where to.
        groups: `base`, `novel` and perhaps `new`: L2-normalised text embeddings `[n, E]`.
        names: the names of each group.
        title: above the picture.
        labels: at most this many points of a group are written out, evenly over the list.
    """
    from matplotlib.figure import Figure

    kind = image_format(path)
    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.add_subplot()
    for group, points in plane(groups).items():
        colour, mark = STYLE[group]
        xs, ys = points[:, 0].tolist(), points[:, 1].tolist()
        axes.scatter(xs, ys, c=colour, marker=mark, s=26, label=f"{group} ({len(xs)})", alpha=0.8)
        step = -(-len(xs) // labels)
        for x, y, name in list(zip(xs, ys, names[group], strict=True))[::step]:
            # A dollar sign would start a formula.
            shown = name.replace("_", " ").replace("$", r"\$")
            axes.annotate(
                shown, (x, y), (3, 3), textcoords="offset points",
                fontsize=6, color=colour, alpha=0.9,
            )  # fmt: skip
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("first main axis of the text embeddings")
    axes.set_ylabel("second main axis")
    axes.legend(loc="best", fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial, format=kind, dpi=130)
