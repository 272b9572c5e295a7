"""From a training checkpoint to the files that ship: weights, config, tokenizer, card, notice."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pretrain import card, collect, evaluate
from pretrain.model import MEAN, STD, NormedStem, Pretraining, Sizes
from pretrain.train import Corpus, Settings, contrastive, make_batch
from simprompt.clip.hub import load
from simprompt.clip.model import CLIP, CLIPConfig

EMBEDDED = Path(__file__).parents[1] / "src" / "simprompt" / "clip" / "embedded" / "icons"
SETTLE_BATCHES, SCALE_BATCHES = 16, 4
# Of 0, 0.5, 1 and 3 the least that gains on names that no training picture has (validation pack,
# 120 names) without making the text tower blind to its template, as 3 does.
BLEND = 1.0


@torch.no_grad()
def settle_norms(model: Pretraining, corpus: Corpus, settings: Settings) -> None:
    """Batch-norm statistics of the averaged weights themselves, over fresh batches."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    model.train()
    for step in range(SETTLE_BATCHES):
        model.encode_image(make_batch(corpus, settings, 10_000_000 + step).pictures)
    model.eval()


@torch.no_grad()
def blend(model: Pretraining, weight: float) -> None:
    """Add the teacher head's similarity to the joint space's, in both projections.

    For the head W, scaled to a mean squared singular value of 1, f' M g with M = I + weight W'W is
    the joint similarity plus `weight` times the similarity of W f and W g. With M = L L' that is
    the plain similarity of f L and g L: two changed projections, at no cost.
    """
    head = model.head.weight
    gram = head.T @ head
    gram = gram / gram.trace() * len(gram)
    root = torch.linalg.cholesky(torch.eye(len(gram)) + weight * gram)
    for tower in (model.text, model.visual):
        tower.projection.copy_(tower.projection @ root)


@torch.no_grad()
def settle_scale(model: Pretraining, corpus: Corpus, settings: Settings) -> None:
    """The logit scale with the least contrastive loss (teacher's share left out)."""
    steps = [20_000_000 + i for i in range(SCALE_BATCHES)]
    batches = [make_batch(corpus, settings, step) for step in steps]
    features = [
        (model.encode_image(b.pictures), model.encode_text(corpus.tokens(b.texts))) for b in batches
    ]

    def loss(scale: float) -> float:
        s = torch.tensor(scale)
        return sum(
            contrastive(i, t, s, b, torch.zeros(b.true.shape), 0.0).item()
            for (i, t), b in zip(features, batches, strict=True)
        )

    best = min((10 * 1.05**k for k in range(48)), key=loss)
    model.logit_scale.fill_(math.log(best))


def weights(model: Pretraining) -> dict[str, Tensor]:
    """The package's state: the stem's norms folded, no teacher head, float32."""
    stem = model.visual.patch
    assert isinstance(stem, NormedStem)
    state = {
        name: value.detach()
        for name, value in model.state_dict().items()
        if name.startswith(("text.", "visual.")) and not name.startswith("visual.patch.")
    }
    state |= {f"visual.patch.{name}": value for name, value in stem.folded().items()}
    state["logit_scale"] = model.logit_scale.detach().clamp(max=math.log(100))
    return {name: value.float().contiguous() for name, value in state.items()}


def figures(
    clip: CLIP, cache: Path
) -> tuple[dict[str, dict[str, float]], dict[str, tuple[float, int, int]]]:
    """Of the shipped files: zero-shot top-1 by task and template, and `metrics.statements`."""

    def encode(pictures: Tensor) -> Tensor:
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
        return clip.encode_pixels((pictures - mean) / std)

    found = {
        task.name: {
            "n": len(task.labels),
            "classes": len(task.classes),
            **{
                template: round(evaluate.accuracy(task, encode, clip.encode_texts, template), 1)
                for template in evaluate.TEMPLATES
            },
        }
        for task in evaluate.tasks(cache)
    }
    return found, evaluate.statements(cache, encode, clip.encode_texts)


def export(cache: Path, run: Path, folder: Path = EMBEDDED) -> card.Facts:
    """Write `model.safetensors`, `model.json`, `tokenizer.json`, `MODEL_CARD.md`, `NOTICE.md`.

    Takes the finished run's `average.pt`, else the latest checkpoint; the card says which.
    """
    finished = (run / "average.pt").exists()
    path = run / ("average.pt" if finished else "checkpoint.pt")
    state = torch.load(path, weights_only=False)
    settings, sizes = Settings(**state["settings"]), Sizes(**state["sizes"])
    corpus = Corpus(cache)
    model = Pretraining(sizes, corpus.tokenizer.get_vocab_size(), corpus.sot, corpus.eot)
    model.load_state_dict(state["average"])
    settle_norms(model, corpus, settings)
    blend(model, BLEND)
    settle_scale(model, corpus, replace(settings, phrases=0))
    folder.mkdir(parents=True, exist_ok=True)
    kept = weights(model)
    config = CLIPConfig(
        model.text.config, model.visual.config, MEAN, STD, float(kept["logit_scale"])
    )
    temporary = folder / "model.part"
    save_file({name: value.half() for name, value in kept.items()}, str(temporary))
    os.replace(temporary, folder / "model.safetensors")
    (folder / "model.json").write_text(
        json.dumps(asdict(config), indent=2) + "\n", encoding="utf-8"
    )
    tokenizer = json.loads((cache / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "tokenizer.json").write_text(
        json.dumps(tokenizer, ensure_ascii=True, separators=(",", ":")) + "\n", encoding="utf-8"
    )
    found, read = figures(load(folder, name="icons"), cache)
    used = Counter(record.pack for record in corpus.records)
    facts = card.Facts(
        finished=finished,
        step=state["step"],
        joint=state["joint"],
        seconds=state["seconds"],
        settings=settings.__dict__,
        sizes=sizes.__dict__,
        nouns=len(corpus.nouns),
        phrases=len(corpus.phrases),
        images=dict(used),
        colour_images=sum(record.colour for record in corpus.records),
        parameters={"text": _count(model.text), "image": _count(model.visual)},
        megabytes=sum(p.stat().st_size for p in folder.glob("*.safetensors")) / 1e6
        + (folder / "tokenizer.json").stat().st_size / 1e6,
        blend=BLEND,
        scale=float(kept["logit_scale"].exp()),
        figures=found,
        statements=read,
        validation=sorted(collect.VALIDATION_PACKS),
        remark=(run / "remark.txt").read_text(encoding="utf-8")
        if (run / "remark.txt").exists()
        else "",
    )
    (folder / "MODEL_CARD.md").write_text(card.model_card(facts, cache), encoding="utf-8")
    (folder / "NOTICE.md").write_text(card.notice(used, cache), encoding="utf-8")
    return facts


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
