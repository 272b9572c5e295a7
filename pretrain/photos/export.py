"""From the trained text tower to the files that ship: weights, configuration, tokenizer, card."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from pretrain import words as sentences
from pretrain.photos import card, looks, train, words
from pretrain.photos.teacher import Teacher, imagenet
from pretrain.photos.train import Corpus
from simprompt.clip import efficientnet
from simprompt.clip.efficientnet import EfficientNetConfig
from simprompt.clip.model import CLIPConfig
from simprompt.clip.text import TextTower
from simprompt.clip.tokenizer import Tokenizer

EMBEDDED = Path(__file__).parents[2] / "src" / "simprompt" / "clip" / "embedded" / "photos"
MANTISSA = 5
"""Bits that are kept of a float16 weight's ten: a compressed package is a third smaller, and
features turn by about a degree."""
TOP1 = 0.751
"""Of EfficientNet-lite0 on ImageNet's validation images, as TensorFlow's page of the lite models
has it."""
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3


def export(cache: Path, tower: TextTower, folder: Path = EMBEDDED) -> dict[str, float]:
    """Write `model.safetensors` (float16, without the backbone), `model.json`, `tokenizer.json`,
    `MODEL_CARD.md`, `NOTICE.md`.

    Returns:
        What was measured on the way, for the model card.
    """
    corpus, tokenizer = train.load(cache)
    found = held_out(cache, corpus.basis)
    mean = efficientnet.mean_feature(efficientnet.published())
    state = {f"text.{key}": value for key, value in tower.state_dict().items()}
    state["visual.projection.weight"] = corpus.basis.T
    state["visual.projection.bias"] = -(mean @ corpus.basis)
    state["logit_scale"] = torch.tensor(math.log(found["scale"]))
    half = {key: rounded(value.contiguous()) for key, value in state.items()}
    tower.load_state_dict({key: half[f"text.{key}"].float() for key in tower.state_dict()})
    config = CLIPConfig(
        tower.config, EfficientNetConfig(224, tower.config.embed_dim), MEAN, STD,
        math.log(found["scale"]),
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    save_file(half, str(folder / "model.part"))
    (folder / "model.part").chmod(0o644)  # safetensors keeps its files to their owner
    os.replace(folder / "model.part", folder / "model.safetensors")
    text = json.dumps(asdict(config), indent=2) + "\n"
    (folder / "model.json").write_text(text, encoding="utf-8")
    shutil.copyfile(cache / "tokenizer.json", folder / "tokenizer.json")
    state_of = torch.load(cache / "checkpoint.pt", weights_only=True)
    facts = {
        **found, **train.report(tower, corpus, tokenizer),
        "parameters": sum(p.numel() for p in tower.parameters()) / 1e6,
        "vocabulary": tower.config.vocab_size, "minutes": state_of["seconds"] / 60,
    }  # fmt: skip
    size = sum((folder / name).stat().st_size for name in ("model.safetensors", "tokenizer.json"))
    moves = list(looks.shifts(corpus.basis)[1].items())
    told = zip(moves, said(tower, corpus, tokenizer), strict=True)
    rows = [f"| {look} | {a:.2f} | {b:.2f} | {c} |" for (look, (a, b)), c in told]
    page = card.model_card(
        facts, "\n".join(rows), corpus, train.Settings(**state_of["settings"]), size
    )
    (folder / "MODEL_CARD.md").write_text(page, encoding="utf-8")
    (folder / "NOTICE.md").write_text(card.NOTICE, encoding="utf-8")
    return facts


@torch.no_grad()
def said(tower: TextTower, corpus: Corpus, tokenizer: Tokenizer) -> list[str]:
    """By look, the cosine of its shift with how ImageNet's names move on the average when the
    prompt says so; a dash where there is no shift."""

    def mean(prompt: tuple[str, str]) -> Tensor:
        return train.encode(tower, tokenizer, prompt, corpus.ids[: len(corpus.rows)]).mean(0)

    plain, made = mean(("a photo of a", ".")), []
    for i, (_, texts) in enumerate(looks.LOOKS.values()):
        moved = torch.stack([mean(train.around(text)) for text in texts]).mean(0) - plain
        cosine = F.cosine_similarity(moved, corpus.looks[i], dim=0).item()
        made.append(f"{cosine:.2f}" if corpus.looks[i].any() else "-")
    return made


def rounded(x: Tensor, bits: int = MANTISSA) -> Tensor:
    """float16 with `bits` bits of mantissa, to the nearest; half a step goes away from zero."""
    rest = 10 - bits
    whole = x.half().view(torch.int16).int() + ((1 << rest) >> 1)
    # a carry out of the mantissa is the next power of two, as it should be
    return (whole >> rest << rest).to(torch.int16).view(torch.float16)


def held_out(cache: Path, basis: Tensor, folds: int = 5) -> dict[str, float]:
    """How right the teacher is about ImageNet classes that it was not shown, and at which scale
    its probabilities of them are calibrated.

    An image of a class is its class vector with normal noise, so strong that of all 1,000 vectors
    the class's own is the nearest as often as the published model is right. A fold's classes are
    told apart by the vectors of a teacher that saw the others. The scale is that of the least
    cross-entropy.
    """
    senses, _ = imagenet()
    relations = words.Relations(words.WordNet(sentences.dictionary(cache)), senses)
    order = torch.randperm(len(senses), generator=torch.Generator().manual_seed(0))
    cosines, own, exact = [], [], 0
    for part in order.chunk(folds):
        teacher = Teacher(relations, part.tolist())
        vectors = _joint(teacher([teacher.classes[i] for i in part.tolist()]), basis)
        rows = _joint(teacher.rows, basis)
        exact += int(((rows[part] @ vectors.T).argmax(1) == torch.arange(len(part))).sum())
        images = _images(rows, part)
        cosines.append(images @ vectors.T)
        own.append(torch.arange(len(part)).repeat(len(images) // len(part)))
    scales = torch.logspace(0.5, 2, 200, dtype=torch.double)
    losses = [
        sum(F.cross_entropy(scale * c, y).item() for c, y in zip(cosines, own, strict=True))
        for scale in scales
    ]
    right = [(c.argmax(1) == y).double().mean() for c, y in zip(cosines, own, strict=True)]
    return {
        "scale": float(scales[losses.index(min(losses))]),
        "held_out_classes": round(exact / len(senses), 3),
        "held_out_images": round(float(torch.stack(right).mean()), 3),
    }


def _joint(vectors: Tensor, basis: Tensor) -> Tensor:
    return F.normalize(vectors @ basis.double(), dim=-1)


def _images(rows: Tensor, part: Tensor, each: int = 10) -> Tensor:
    """Unit vectors [each * len(part), E] around the class vectors at `part`; see `held_out`."""
    low, high = 0.0, 8.0
    noise = torch.randn(each * len(rows), rows.shape[1], dtype=torch.double,
                        generator=torch.Generator().manual_seed(1))  # fmt: skip
    noise = F.normalize(noise, dim=-1)
    truth = torch.arange(len(rows)).repeat(each)
    for _ in range(20):
        level = (low + high) / 2
        images = F.normalize(rows.repeat(each, 1) + level * noise, dim=-1)
        right = ((images @ rows.T).argmax(1) == truth).double().mean()
        low, high = (level, high) if right > TOP1 else (low, level)
    return images.view(each, len(rows), -1)[:, part].flatten(0, 1)
