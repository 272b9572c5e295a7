"""Moment matching: the learned text has the mean and the covariance of the hand-crafted text.

    loss = |mean t - mean h|^2 / trace C_h + |C_t - C_h|^2 / |C_h|^2

over the drawn classes; C_t and C_h are the covariances of their text features, norms those of
Frobenius. Where SAR asks for the similarities of each pair, this asks that all names together lie
where they lay and spread as they spread: names may change places.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from simprompt.config import SAR
from simprompt.sar import Regulariser
from simprompt.utils.devices import to_device


class MomentsConfig(SAR):
    """The settings of moment matching."""

    weight: float = Field(1.0, ge=0, description="weight of the loss")


class Moments(Regulariser):
    """Squared differences of the first two moments over the drawn classes."""

    Config = MomentsConfig

    def loss(self, text: Tensor, numbers: Tensor, drawn: Tensor) -> Tensor:
        learned = text[to_device(torch.searchsorted(numbers, drawn), text.device)]
        crafted = self.teacher[to_device(drawn, self.teacher.device)].to(learned)
        return moment_distance(learned, crafted)


def moment_distance(learned: Tensor, crafted: Tensor) -> Tensor:
    """The loss above, a scalar, of text features [K, E] of the same classes; 0 for one class."""
    if len(learned) < 2:
        return learned.sum() * 0
    (mean, spread), (wanted_mean, wanted) = (_moments(text) for text in (learned, crafted))
    of_means = (mean - wanted_mean).square().sum() / wanted.diagonal().sum()
    return of_means + (spread - wanted).square().sum() / wanted.square().sum()


def _moments(text: Tensor) -> tuple[Tensor, Tensor]:
    mean = text.mean(0)
    centred = text - mean
    return mean, centred.T @ centred / len(text)


REGULARISER = Moments
