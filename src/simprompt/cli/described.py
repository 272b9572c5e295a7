"""What each method learns, for `simprompt list methods` and the documentation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simprompt.clip.model import CLIP
    from simprompt.methods.base import PromptLearner

STORED = Path(__file__).parent.parent / "methods" / "described.json"
"""What `describe` says, made by `make methods`; a test compares them."""

CLASSES, SHOTS = 50, 16  # for the methods that learn something per class or per image


def described() -> list[dict[str, Any]]:
    """What `describe` says, from a file, so that only methods that are not in it have to be loaded;
    the recipes are those that are there."""
    from simprompt import methods

    names = methods.names()
    stored: list[dict[str, Any]] = json.loads(STORED.read_text(encoding="utf-8"))
    rows = [row for row in stored if row["method"] in names]
    if new := [name for name in names if name not in {row["method"] for row in rows}]:
        rows += describe(new)
    of_method = _recipes()
    return [{**row, "recipes": of_method.get(row["method"], [])} for row in rows]


def _recipes() -> dict[str, list[str]]:
    from simprompt import recipes

    of_method: dict[str, list[str]] = {}
    for name in recipes.names():
        of_method.setdefault(recipes.load(name).get("method", "coop"), []).append(name)
    return of_method


def describe(names: Sequence[str]) -> list[dict[str, Any]]:
    """One row a method; `sar` says whether SAR has a gradient there."""
    from simprompt import methods
    from simprompt.errors import SimpromptError

    clip = vit_b16()
    rows = []
    for name in names:
        kind = methods.find(name)
        try:
            count = parameters(kind, clip, CLASSES)
            per_class = count != parameters(kind, clip, CLASSES + 1)
        except SimpromptError:  # a wrapper whose host was taken away
            count, per_class = None, False
        rows.append(
            {
                "method": name,
                "learned": kind.summary,
                "parameters": count,
                "per_class": per_class,
                "sar": kind.text_moves,
                "new_classes": kind.new_classes,
                "image_tower": "live" if kind.image_input == "pixels" else "cached features",
                "source": kind.source,
            }
        )
    return rows


def parameters(kind: type[PromptLearner[Any]], clip: CLIP, classes: int, **options: Any) -> int:
    """Learnable numbers of a method with its default settings (or `options`), sizes only."""
    import torch

    from simprompt.config import DEFAULT_TEMPLATE

    names = [f"class {i}" for i in range(classes)]
    learner = kind(clip, names, DEFAULT_TEMPLATE, kind.Config(**options))
    if learner.image_input != "pixels":  # a cache of images is part of what is learned
        shape = (classes * SHOTS, 1, clip.embed_dim)
        learner.prepare(
            torch.empty(shape, device="meta"), torch.arange(classes).repeat_interleave(SHOTS)
        )
    return learner.parameter_count()


def vit_b16() -> CLIP:
    """OpenAI's ViT-B/16 without weights: every tensor has a size and nothing else."""
    import torch

    from simprompt.clip.model import CLIP, CLIPConfig
    from simprompt.clip.text import TextConfig
    from simprompt.clip.vision import VisionConfig

    text = TextConfig(
        vocab_size=49408,
        context_length=77,
        width=512,
        layers=12,
        heads=8,
        embed_dim=512,
        sot=49406,
        eot=49407,
    )
    vision = VisionConfig(
        image_size=224, patch_size=16, width=768, layers=12, heads=12, embed_dim=512
    )
    with torch.device("meta"):
        return CLIP(CLIPConfig(text, vision), _NoTokens(), name="ViT-B/16")  # type: ignore[arg-type]


class _NoTokens:
    """Stands where a tokenizer should be; sizes do not depend on words."""

    sot, eot = 49406, 49407

    def encode(self, text: str) -> list[int]:
        return [0] * len(text.split())


PAGE = Path(__file__).parents[3] / "docs" / "methods.md"
BEGIN, END = "<!-- `make methods` writes this table -->\n\n", "\n\n<!-- end of the table -->"


def with_table(page: str, rows: Sequence[dict[str, Any]]) -> str:
    """docs/methods.md with the table of these rows between its marks."""
    head = ("method", "what is learned", "numbers on ViT-B/16", "SAR", "image tower")
    lines = [f"| {' | '.join(head)} |", "|---|---|---|---|---|"]
    for row in rows:
        count = f"{row['parameters']:,}{'*' if row['per_class'] else ''}"
        tower = "live" if row["image_tower"] == "live" else "cached"
        sar = "yes" if row["sar"] else "no"
        lines.append(f"| `{row['method']}` | {row['learned']} | {count} | {sar} | {tower} |")
    before, _, tail = page.partition(BEGIN)
    _, _, after = tail.partition(END)
    return before + BEGIN + "\n".join(lines) + END + after


if __name__ == "__main__":
    from simprompt import methods

    everything = describe(methods.names())
    STORED.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), everything), encoding="utf-8")
