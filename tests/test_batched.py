"""Runs trained together equal the same runs trained one after another."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from simprompt import methods, regularisers
from simprompt.config import SARPlus, Training
from simprompt.errors import SimpromptError
from simprompt.training import joint, state
from simprompt.training import loop as train_module
from simprompt.training.joint import TrainingJob, fit_together, pays, takes
from simprompt.training.loop import train, train_together

NAMES = ("cat", "dog", "red car", "old house")
NOVEL = ("bird", "wolf", "big ship", "apple", "cake", "small green pear")
SETTINGS = Training(lr=0.05, epochs=3, batch_size=8)


def run_of(
    clip,
    method: str,
    seed: int,
    weight: float | None,
    shots: int = 4,
    columns: str = "sample",
    **options,
) -> TrainingJob:
    kind = methods.find(method)
    learner = kind(clip, NAMES, "a photo of a {}.", kind.Config(**options), seed)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(4 * shots, 2, clip.embed_dim, generator=generator, dtype=torch.float64)
    images = torch.nn.functional.normalize(images, dim=-1)
    plug = None
    if weight is not None:
        everyone = [*NAMES, *NOVEL]
        plug = (
            regularisers.build(
                SARPlus(weight=weight, classes_per_step=6, compare_with=columns),
                learner,
                everyone,
                seed=seed,
            ),
            learner.prompts(everyone),
        )
    return TrainingJob(learner, images, torch.arange(4 * shots) % 4, seed, plug)


@pytest.mark.parametrize("method", ["coop", "kgcoop", "language", "means+text"])
def test_together_equals_one_by_one(make_clip, method):
    """Other seeds, with and without SAR, other weights: all in one batch."""
    clip = make_clip().double()
    wanted = [(1, None), (2, None), (1, 0.5), (3, 2.0)]
    together = [run_of(clip, method, *w) for w in wanted]
    found = train_together(together, SETTINGS)
    for run, curves, w in zip(together, found, wanted, strict=True):
        alone = run_of(clip, method, *w)
        expected = train(alone.learner, alone.images, alone.labels, SETTINGS, alone.seed, alone.sar)
        for (name, a), b in zip(
            run.learner.named_parameters(), alone.learner.parameters(), strict=True
        ):
            assert (a - b).abs().max() < 1e-9, name
        assert curves.loss == pytest.approx(expected.loss, rel=1e-9)
        assert curves.sar == pytest.approx(expected.sar, rel=1e-6)
        assert (curves.lr, curves.steps) == (expected.lr, expected.steps)


def test_runs_that_do_not_fit_are_refused(tiny_clip, make_clip):
    one = run_of(tiny_clip, "coop", 1, None)
    assert fit_together([one, run_of(tiny_clip, "coop", 2, 1.0)], SETTINGS)
    others = [
        run_of(tiny_clip, "kgcoop", 1, None),
        run_of(tiny_clip, "coop", 1, None, n_ctx=7),
        run_of(tiny_clip, "coop", 1, None, shots=8),
        run_of(tiny_clip, "coop", 1, None, position="middle"),
        run_of(make_clip(seed=1), "coop", 1, None),
    ]
    for other in others:
        assert not fit_together([one, other], SETTINGS)
        with pytest.raises(SimpromptError, match="one by one"):
            train_together([one, other], SETTINGS)


def test_no_runs_are_no_work():
    assert train_together([], SETTINGS) == []


def test_methods_that_are_taken():
    assert {name for name in methods.names() if takes(methods.find(name))} == {
        "coop", "kgcoop", "language", "means+text",
    }  # fmt: skip


@pytest.mark.parametrize("columns", ["sample", "all"])
def test_a_batch_is_bounded_by_the_tokens_of_its_steps(tiny_clip, monkeypatch, columns):
    """The bound counts what a step encodes: exactly, or in the mean over SAR's draws."""
    plain = run_of(tiny_clip, "coop", 1, None)
    prefix = len(plain.learner.shared_prompt()[0])
    names = sum(len(ids) for ids in plain.learner.base.ids)
    monkeypatch.setattr(joint, "TOKENS", 3 * (prefix + names))
    assert pays([plain] * 3)
    assert not pays([plain] * 4)
    regularised = run_of(tiny_clip, "coop", 1, 0.5, columns=columns)
    drawn = [sum(map(len, train_module.classes_of(regularised).prompts.ids)) for _ in range(2000)]
    mean = prefix + sum(drawn) / len(drawn)
    monkeypatch.setattr(joint, "TOKENS", 1.02 * mean)
    assert pays([regularised])
    monkeypatch.setattr(joint, "TOKENS", 0.98 * mean)
    assert not pays([regularised])


def test_shares_of_the_time_add_up(make_clip, monkeypatch):
    clip = make_clip().double()
    runs = [run_of(clip, "coop", 1, None), run_of(clip, "coop", 2, 0.5)]
    monkeypatch.setattr(state, "time", SimpleNamespace(perf_counter=iter([10.0, 14.0]).__next__))
    plain, regularised = train_together(runs, SETTINGS)
    assert 0 < plain.seconds < regularised.seconds, "SAR has more tokens"
    assert plain.seconds + regularised.seconds == pytest.approx(4)
