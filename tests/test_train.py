"""The schedule is the field's; training is reproducible, and SAR does not disturb the batches."""

from __future__ import annotations

import math

import pytest
import torch

from simprompt.config import SAR, Training
from simprompt.methods.coop import CoOp, CoOpConfig
from simprompt.methods.teacher import teacher_features
from simprompt.sar import Regulariser
from simprompt.train import epochs_and_steps, learning_rate, set_rates, train

NAMES = ["cat", "dog", "red car", "old house"]
NOVEL = ["bird", "wolf", "big ship", "apple", "cake"]


def test_learning_rates_are_dassls():
    """Epoch 0 at 1e-5, then lr (1 + cos(pi (e-1)/T)) / 2; KgCoOp's log at T = 100 ends above 0."""
    settings = Training(lr=0.002, epochs=100)
    assert learning_rate(0, settings, 100) == 1e-5
    assert learning_rate(1, settings, 100) == 0.002
    assert math.isclose(learning_rate(51, settings, 100), 0.001)
    # the published log of a doubled scheduler at epoch 100 shows 0.002 f^2 = 1.217413e-10
    f = (1 + math.cos(math.pi * 99 / 100)) / 2
    assert math.isclose(0.002 * f**2, 1.217413e-10, rel_tol=1e-6)
    assert math.isclose(learning_rate(100, settings, 100), 0.002 * f)


def test_the_warm_up_rate_is_every_groups():
    """Dassl's ConstantWarmupScheduler gives all groups one rate; after it each has its own."""
    ones = [torch.ones(1, requires_grad=True) for _ in range(2)]
    groups = [{"params": ones[:1]}, {"params": ones[1:], "times": 6.5}]
    optimiser = torch.optim.SGD(groups, lr=1.0)
    settings = Training(lr=0.002, epochs=10)
    rates = []
    for epoch in range(3):
        assert set_rates(optimiser, epoch, settings, 10) == learning_rate(epoch, settings, 10)
        rates.append([group["lr"] for group in optimiser.param_groups])
    second = 0.001 * (1 + math.cos(math.pi / 10))
    expected = [[1e-5, 1e-5], [0.002, 0.013], [second, 6.5 * second]]
    assert torch.allclose(torch.tensor(rates), torch.tensor(expected))


@pytest.mark.parametrize(
    ("images", "steps"),
    [(8000, 250), (304, 9), (1568, 49), (80, 2), (384, 12), (20, 1)],
)
def test_incomplete_batches_are_dropped(images, steps):
    assert epochs_and_steps(images, Training(batch_size=32, epochs=7)) == (7, steps)


def test_a_step_limit_shortens_whole_epochs():
    assert epochs_and_steps(640, Training(epochs=50, max_steps=300)) == (15, 20)
    assert epochs_and_steps(64000, Training(epochs=50, max_steps=300)) == (1, 2000)


def learn(clip, sar=None, seed=1, epochs=4):
    learner = CoOp(clip, NAMES, "a photo of a {}.", CoOpConfig(), seed=0)
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(16, 1, 24, generator=generator), dim=-1)
    labels = torch.arange(16) % 4
    pair = None
    if sar:
        teacher = teacher_features(clip, ["a photo of a {}."], NAMES + NOVEL)
        pair = Regulariser(sar, teacher, 4, seed), learner.prompts(NAMES + NOVEL)
    settings = Training(lr=0.1, epochs=epochs, batch_size=8)
    curves = train(learner, images, labels, settings, seed, pair)
    return learner.ctx.detach().clone(), curves


def test_same_seed_same_bits_other_seed_other_prompt(tiny_clip):
    sar = SAR(sample=5)
    first, _ = learn(tiny_clip, sar)
    again, _ = learn(tiny_clip, sar)
    other, _ = learn(tiny_clip, sar, seed=2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_sar_of_weight_zero_is_plain_coop(tiny_clip):
    """Encoding novel classes beside the base ones changes nothing by itself."""
    plain, _ = learn(tiny_clip)
    with_zero, _ = learn(tiny_clip, SAR(weight=0, sample=5))
    assert (plain - with_zero).abs().max() < 1e-5


def test_training_lowers_the_loss_and_sar_lowers_its_own(tiny_clip):
    _, plain = learn(tiny_clip, epochs=20)
    assert plain.loss[-1] < plain.loss[0]
    _, weak = learn(tiny_clip, SAR(weight=0, sample=9), epochs=20)
    _, strong = learn(tiny_clip, SAR(weight=5, sample=9), epochs=20)
    assert strong.sar[-1] < weak.sar[-1]
    assert len(strong.loss) == len(strong.sar) == len(strong.lr) == 20
    assert strong.steps == 40


def test_nothing_of_the_clip_changes(tiny_clip):
    before = {k: v.clone() for k, v in tiny_clip.state_dict().items()}
    learn(tiny_clip, SAR(sample=5))
    assert all(torch.equal(before[k], v) for k, v in tiny_clip.state_dict().items())
