"""Where a name ought to lie: the backbone's ImageNet classes, carried to other names.

A row of the ImageNet classifier, less the mean of all rows, points to where photographs of its
class lie among the backbone's centred features. What is true of 1,000 names is carried to any
other by a Gaussian process: its covariance of two names is a product of similarities of their
sentence embeddings (of a gloss, where there is one, and of the names), plus a WordNet similarity,
so that a name WordNet lacks still has a place. The weights below gave the most accurate vectors
for classes held out in five folds (`held_out`), no photograph being looked at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain import words as sentences
from pretrain.photos.words import Relations, Text, WordNet
from simprompt.clip import efficientnet

OF_GLOSS, OF_NAME = 1.6, 0.5
OF_WORDNET, REACH = 0.3, 0.5
NOISE = 0.2


@dataclass
class Embeddings:
    """Of N texts: of gloss and name [N, 384], and their WordNet relations [N, 1000]."""

    gloss: Tensor
    name: Tensor
    relation: Tensor


def imagenet() -> tuple[list[str], list[str]]:
    """(WordNet's offsets, CLIP's names) of the 1,000 classes in the classifier's order."""
    file = resources.files("simprompt.data") / "classnames" / "imagenet.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    return [wnid[1:] for wnid in values["wnids"]], values["names"]


def class_vectors() -> Tensor:
    """Unit rows [1000, 1280], float64: the classifier's, less their mean."""
    rows = efficientnet.published()["_fc.weight"].double()
    return F.normalize(rows - rows.mean(0), dim=-1)


class Teacher:
    """Class vectors of any text, unit length, float64 [N, 1280].

    Args:
        relations: to ImageNet's senses, in the classifier's order.
        leave_out: classes that it is not shown, by number.
    """

    def __init__(self, relations: Relations, leave_out: Sequence[int] = ()) -> None:
        senses, names = imagenet()
        wordnet = relations.wordnet
        self.relations = relations
        texts = [
            Text(name.lower(), sense, f"{name}: {wordnet.senses[sense].gloss}")
            for name, sense in zip(names, senses, strict=True)
        ]
        self.classes = texts
        own = self.embed(texts)
        self.centre = own.gloss.mean(0), own.name.mean(0)
        self.rows = class_vectors()
        self.kept = torch.tensor([i for i in range(len(texts)) if i not in set(leave_out)])
        self.own = self._centred(own)
        covariance = self._covariance(self.own)[self.kept][:, self.kept]
        covariance += NOISE * torch.eye(len(self.kept), dtype=torch.double)
        self.weights = torch.linalg.solve(covariance, self.rows[self.kept])

    def embed(self, texts: Sequence[Text]) -> Embeddings:
        """What the covariance is made of."""
        gloss, name = (
            torch.from_numpy(sentences.embed(lines)).double()
            for lines in ([t.gloss for t in texts], [t.name for t in texts])
        )
        relation = np.zeros((len(texts), len(self.relations.known)))
        for i, text in enumerate(texts):
            if text.sense:
                relation[i] = self.relations.to(text.sense)
        return Embeddings(gloss, name, torch.from_numpy(relation))

    def _centred(self, given: Embeddings) -> Embeddings:
        gloss, name = (
            F.normalize(x - centre, dim=-1)
            for x, centre in zip((given.gloss, given.name), self.centre, strict=True)
        )
        return Embeddings(gloss, name, given.relation)

    def _covariance(self, of: Embeddings) -> Tensor:
        """[N, 1000] of centred embeddings with the ImageNet classes'."""
        text = torch.exp(
            OF_GLOSS * (of.gloss @ self.own.gloss.T - 1) + OF_NAME * (of.name @ self.own.name.T - 1)
        )
        return text + OF_WORDNET * torch.exp((of.relation - 1) / REACH)

    def __call__(self, texts: Sequence[Text], chunk: int = 4096) -> Tensor:
        """Where `texts` ought to lie [N, 1280]. Over an ImageNet class's own sense or one that is
        more general it is the mean of the classes below, which needs no guess."""
        made = []
        for start in range(0, len(texts), chunk):
            part = texts[start : start + chunk]
            guess = self._covariance(self._centred(self.embed(part)))[:, self.kept] @ self.weights
            made.append(F.normalize(guess, dim=-1))
        result = torch.cat(made)
        kept = set(self.kept.tolist())
        for i, text in enumerate(texts):
            below = self.relations.below.get(text.sense or "")
            inside = [n for n in below.tolist() if n in kept] if below is not None else []
            if inside:
                result[i] = F.normalize(self.rows[inside].mean(0), dim=0)
        return result


def held_out(wordnet: WordNet, folds: int = 5) -> float:
    """Accuracy of vectors of classes that the teacher was not shown, each among the others of its
    fold, for the classifier's rows as images."""
    senses, _ = imagenet()
    relations = Relations(wordnet, senses)
    order = torch.randperm(len(senses), generator=torch.Generator().manual_seed(0))
    right = 0
    for part in order.chunk(folds):
        teacher = Teacher(relations, part.tolist())
        # the sense of a left-out class has no class below, so that it is guessed
        vectors = teacher([teacher.classes[i] for i in part.tolist()])
        found = (teacher.rows[part] @ vectors.T).argmax(1)
        right += int((found == torch.arange(len(part))).sum())
    return right / len(senses)
