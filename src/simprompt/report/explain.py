"""What a learned prompt has changed, as one self-contained HTML page.

Similarities of class names before (the hand-crafted prompt) and after, which names moved most,
which pairs came nearer, the words nearest to each context vector, and, with labelled images, how
often it is right when it is sure, with examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup
from torch import Tensor

from simprompt.clip.same_text import class_names, match_names
from simprompt.data.split import Split
from simprompt.errors import SimpromptError
from simprompt.metrics import accuracy, at_temperature, calibration_error, reliability
from simprompt.prompt.prompt import Prompt
from simprompt.prompt.storage import Calibration
from simprompt.report import plots
from simprompt.report.evidence import thumbnail
from simprompt.report.html import environment
from simprompt.sar import relations
from simprompt.utils.files.atomic import write_text

MOST_SHOWN = 12  # rows of a table, images of a kind
NEAREST = 5  # words beside a context vector


@dataclass(frozen=True)
class Explanation:
    """What the page shows, as numbers.

    Attributes:
        before, after: cosines of the names' text features [C, C].
        moved: (name, cosine between its features before and after), the farthest first.
        nearer: (name, name, cosine before, cosine after), the largest rise first.
        words: for each context vector its nearest tokens and their Euclidean distances.
        scale: mean distance between a token and its nearest other one, to judge those by.
        relations: `mechanism.relations` of all names.
    """

    names: tuple[str, ...]
    before: Tensor
    after: Tensor
    moved: list[tuple[str, float]]
    nearer: list[tuple[str, str, float, float]]
    words: list[list[tuple[str, float]]]
    scale: float
    relations: dict[str, float]


@torch.no_grad()
def explanation(prompt: Prompt, names: Sequence[str]) -> Explanation:
    """Compare a prompt with the hand-crafted one of its card.

    Raises:
        SimpromptError: fewer than two names, or a classifier that has no text of its own.
    """
    learner = prompt.learner
    if not learner.new_classes:
        raise SimpromptError(
            f"{prompt.card['method']} is a classifier of images and has no text to explain."
        )
    names = class_names(names, "names")
    if len(names) < 2:
        raise SimpromptError("explain compares class names; give at least two.")
    teacher = learner.teacher(names).float().cpu()
    learned_features = prompt.text_features(names).float().cpu()
    before, after = teacher @ teacher.T, learned_features @ learned_features.T
    cosines = (teacher * learned_features).sum(-1).tolist()
    movement = sorted(zip(names, cosines, strict=True), key=lambda row: row[1])
    pairs = [
        (names[i], names[j], before[i, j].item(), after[i, j].item())
        for i in range(len(names))
        for j in range(i + 1, len(names))
    ]
    nearer = sorted(pairs, key=lambda pair: pair[2] - pair[3])
    words, scale = _words(prompt)
    return Explanation(
        tuple(names),
        before,
        after,
        movement,
        nearer,
        words,
        scale,
        relations(learned_features, teacher),
    )


def _words(prompt: Prompt) -> tuple[list[list[tuple[str, float]]], float]:
    """The tokens nearest to each vector of the context, where classes share one."""
    shared = prompt.learner.shared_prompt()
    if shared is None:
        return [], 0.0
    clip = prompt.clip
    table = clip.text.token_embedding.weight.float()
    vectors = shared[0].float()[1:]  # without SOT
    distances = torch.cdist(vectors, table)
    near = distances.topk(NEAREST, largest=False)
    rows = [
        [(clip.tokenizer.decode([i]), d) for i, d in zip(ids, values, strict=True)]
        for ids, values in zip(near.indices.tolist(), near.values.tolist(), strict=True)
    ]
    sample = table[torch.linspace(0, len(table) - 1, min(200, len(table))).long()]
    nearest_other = torch.cdist(sample, table).topk(2, largest=False).values[:, 1]
    return rows, nearest_other.mean().item()


def write(
    prompt: Prompt, names: Sequence[str], path: str | Path, images: Split | None = None
) -> Explanation:
    """Write the page.

    Args:
        images: labelled images that were not learned from; their class names are `names`.
    """
    explained = explanation(prompt, names)
    off = ~torch.eye(len(names), dtype=torch.bool)
    both = torch.cat([explained.before[off], explained.after[off]])
    limits = (both.min().item(), both.max().item())
    is_new = [index is None for index in match_names(names, prompt.learner.classnames)]
    known_count = is_new.count(False)
    order = sorted(range(len(names)), key=is_new.__getitem__)
    heat = [
        plots.heatmap(matrix[order][:, order].numpy(), known_count, limits, f"heat{i}", title)
        for i, (matrix, title) in enumerate(
            ((explained.before, "hand-crafted"), (explained.after, "learned"))
        )
    ]
    fitted = prompt.card.get("calibration")
    page = environment().get_template("explain.html")
    text = page.render(
        card=prompt.card,
        made=explained,
        most=MOST_SHOWN,
        heat=[Markup(svg) for svg in heat],
        images=None if images is None else _measured(prompt, images),
        calibrated=Calibration.model_validate(fitted).effect if fitted else "",
    )
    write_text(path, text)
    return explained


def _measured(prompt: Prompt, images: Split) -> dict[str, Any]:
    """Accuracy, reliability and examples on labelled images."""
    probabilities = prompt.probabilities(images).float().cpu()
    labels = torch.tensor(images.labels)
    temperature = prompt.learner.temperature
    plain = at_temperature(probabilities, 1 / temperature)
    diagrams = [
        (
            title,
            calibration_error(p, labels),
            Markup(plots.reliability(reliability(p, labels), f"bins{i}", title)),
        )
        for i, (title, p) in enumerate(
            [("as learned", plain)]
            + ([(f"at temperature {temperature:.2f}", probabilities)] if temperature != 1 else [])
        )
    ]
    confidence, answers = probabilities.max(-1)
    order = confidence.argsort(descending=True).tolist()

    def shown(right: bool) -> list[dict[str, Any]]:
        rows = [i for i in order if (answers[i] == labels[i]).item() is right][:MOST_SHOWN]
        return [
            {
                "picture": thumbnail(images.load(i)),
                "item": images.items[i],
                "truth": images.classnames[images.labels[i]],
                "answer": images.classnames[int(answers[i])],
                "probability": confidence[i].item(),
            }
            for i in rows
        ]

    return {
        "count": len(labels),
        "accuracy": accuracy(probabilities, labels),
        "diagrams": diagrams,
        "wrong": shown(False),
        "right": shown(True),
    }
