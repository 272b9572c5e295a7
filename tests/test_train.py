"""The schedule is the field's; training is reproducible, and SAR does not disturb the batches."""

from __future__ import annotations

import math

import pytest
import torch

from simprompt.config import SAR, Training
from simprompt.methods.coop import CoOp, CoOpConfig
from simprompt.methods.teacher import teacher_features
from simprompt.sar import Regulariser
from simprompt.training.divergence import DivergedError
from simprompt.training.joint import TrainingJob
from simprompt.training.loop import train, train_together
from simprompt.training.schedule import epochs_and_steps, learning_rate, set_rates
from simprompt.utils.optimizers import SGD

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
    groups = [{"params": ones[:1]}, {"params": ones[1:], "lr_multiplier": 6.5}]
    optimiser = SGD(groups, lr=1.0)
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


def test_a_step_limit_takes_whole_epochs_and_holds_within_the_first():
    assert epochs_and_steps(640, Training(epochs=50, max_steps=300)) == (15, 20)
    assert epochs_and_steps(64000, Training(epochs=50, max_steps=300)) == (1, 300)


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
    sar = SAR(classes_per_step=5)
    first, _ = learn(tiny_clip, sar)
    again, _ = learn(tiny_clip, sar)
    other, _ = learn(tiny_clip, sar, seed=2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_sar_of_weight_zero_is_plain_coop(tiny_clip):
    """Encoding novel classes beside the base ones changes nothing by itself."""
    plain, _ = learn(tiny_clip)
    with_zero, _ = learn(tiny_clip, SAR(weight=0, classes_per_step=5))
    assert (plain - with_zero).abs().max() < 1e-5


def test_training_lowers_the_loss_and_sar_lowers_its_own(tiny_clip):
    _, plain = learn(tiny_clip, epochs=20)
    assert plain.loss[-1] < plain.loss[0]
    _, weak = learn(tiny_clip, SAR(weight=0, classes_per_step=9), epochs=20)
    _, strong = learn(tiny_clip, SAR(weight=5, classes_per_step=9), epochs=20)
    assert strong.sar[-1] < weak.sar[-1]
    assert len(strong.loss) == len(strong.sar) == len(strong.lr) == 20
    assert strong.steps == 40


def test_nothing_of_the_clip_changes(tiny_clip):
    before = {k: v.clone() for k, v in tiny_clip.state_dict().items()}
    learn(tiny_clip, SAR(classes_per_step=5))
    assert all(torch.equal(before[k], v) for k, v in tiny_clip.state_dict().items())


# --- what is not a number -------------------------------------------------------------------------


def shots(clip, bad: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Features [16, 1, E] and labels [16], sorted by class; image number `bad` is NaN."""
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(16, 1, 24, generator=generator), dim=-1)
    if bad is not None:
        images[bad] = torch.nan
    return images, torch.arange(16) // 4


class Breaks(CoOp):
    """Its loss is NaN at one step, counted over the whole training; keeps the end of each epoch."""

    breaks_at = 0

    def __init__(self, clip) -> None:
        super().__init__(clip, NAMES, "a photo of a {}.", CoOpConfig(), seed=0)
        self.steps_seen, self.ends = 0, [self.ctx.detach().clone()]

    def loss(self, batch, text=None):
        self.steps_seen += 1
        value = super().loss(batch, text)
        return value * torch.nan if self.steps_seen - 1 == self.breaks_at else value

    def after_epoch(self, done, epochs):
        self.ends.append(self.ctx.detach().clone())


@pytest.mark.parametrize(
    ("at", "kept", "where"),
    [
        (1, 0, "step 2 of 2 in epoch 1 of 4"),
        (2, 0, "step 1 of 2 in epoch 2 of 4"),  # the prompt after epoch 1 never gave a finite loss
        (3, 1, "step 2 of 2 in epoch 2 of 4"),
        (7, 3, "step 2 of 2 in epoch 4 of 4"),
    ],
)
def test_a_loss_that_is_no_number_stops_and_the_last_good_prompt_is_back(
    tiny_clip, at, kept, where
):
    learner = Breaks(tiny_clip)
    learner.breaks_at = at
    settings = Training(lr=0.1, epochs=4, batch_size=8)
    with pytest.raises(DivergedError) as caught:
        train(learner, *shots(tiny_clip), settings, 1)
    assert where in str(caught.value)
    assert "the loss is nan" in str(caught.value)
    assert "below 0.1" in str(caught.value)
    assert torch.equal(learner.ctx, learner.ends[kept])
    assert caught.value.restored


def test_an_image_that_is_no_number_is_found_by_its_class(tiny_clip):
    """Class by class, so that the message has to name the one class that is in the batch."""
    for label, name in enumerate(NAMES):
        learner = CoOp(tiny_clip, NAMES, "a photo of a {}.", CoOpConfig(), seed=0)
        images, labels = shots(tiny_clip, bad=4 * label)
        start = learner.ctx.detach().clone()
        mine = slice(4 * label, 4 * label + 4)
        what = rf"Nothing was learned.*images of {name}\."
        with pytest.raises(DivergedError, match=what) as error:
            train(learner, images[mine], labels[mine], Training(epochs=2, batch_size=4), 1)
        assert not error.value.restored
        assert torch.equal(learner.ctx, start)


def test_a_rate_or_weight_that_is_too_large_diverges_and_says_so(tiny_clip):
    """Alone and together; the prompt that is put back gives finite features."""
    for sar in (None, SAR(weight=1e30, classes_per_step=5)):
        learner = CoOp(tiny_clip, NAMES, "a photo of a {}.", CoOpConfig(), seed=0)
        pair = None
        if sar:
            teacher = teacher_features(tiny_clip, ["a photo of a {}."], NAMES + NOVEL)
            pair = Regulariser(sar, teacher, 4, 1), learner.prompts(NAMES + NOVEL)
        settings = Training(lr=0.1 if sar else 1e30, epochs=6, batch_size=8)
        run = TrainingJob(learner, *shots(tiny_clip), 1, pair)
        for go in (
            lambda run=run, s=settings: train(run.learner, run.images, run.labels, s, 1, run.sar),
            lambda run=run, s=settings: train_together([run, run_beside(tiny_clip)], s),
        ):
            # which of them is first to overflow, the loss or the prompt, is for the draws to say
            with pytest.raises(DivergedError, match=r"diverged: .*(loss is|ctx holds).* epoch"):
                go()
            assert learner.text_features(learner.base).isfinite().all()


def run_beside(clip) -> TrainingJob:
    learner = CoOp(clip, NAMES, "a photo of a {}.", CoOpConfig(), seed=3)
    return TrainingJob(learner, *shots(clip), 3)


class Overflows(CoOp):
    """What it learns for new classes overflows in one epoch; the loss does not look at it."""

    epoch = 2

    def __init__(self, clip) -> None:
        super().__init__(clip, NAMES, "a photo of a {}.", CoOpConfig(), seed=0)
        self.unseen = torch.nn.Parameter(torch.zeros(3))

    def after_epoch(self, done, epochs):
        if done == self.epoch:
            self.unseen.data[1] = torch.inf


@pytest.mark.parametrize("epoch", [2, 3])  # the last one as well
def test_a_learned_value_that_is_no_number_stops_at_the_end_of_its_epoch(tiny_clip, epoch):
    learner = Overflows(tiny_clip)
    learner.epoch = epoch
    what = rf"unseen holds NaN or infinity after epoch {epoch} of 3"
    with pytest.raises(DivergedError, match=what):
        train(learner, *shots(tiny_clip), Training(lr=0.1, epochs=3, batch_size=8), 1)
    assert learner.unseen.isfinite().all()


def test_a_last_step_that_overflows_is_no_success(tiny_clip):
    """All losses are finite: only what comes after the last step is not."""
    learner = CoOp(tiny_clip, NAMES, "a photo of a {}.", CoOpConfig(), seed=0)
    settings = Training(warmup_lr=1e37, epochs=1, batch_size=16)
    what = "outcome's probabilities|holds NaN or infinity"
    with pytest.raises(DivergedError, match=what) as error:
        train(learner, *shots(tiny_clip), settings, 1)
    assert error.value.restored
    assert learner.ctx.abs().max() < 1
