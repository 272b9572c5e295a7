"""A share of the hand-crafted prompt in a learned one: in its context, or in its text features."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from methods.test_every_method import NAMES, NOVEL, TRAINED, fit, make, views_of
from simprompt import methods
from simprompt.clip.model import CLIP
from simprompt.methods.base import PromptLearner
from simprompt.methods.context_prompt import ContextPrompt
from simprompt.training.joint import shared_prompt

CONTEXTS = [name for name in TRAINED if issubclass(methods.find(name), ContextPrompt)]
ALONE = {"coop", "kgcoop", "means+text"}  # of four tokens, as the template, and nothing else
NAMES_OF_ALL = [*NAMES, *NOVEL]


def text_of(learner: PromptLearner, name: str) -> torch.Tensor:
    """Text features [C, E], or [2, C, E] for two images of a conditional learner."""
    prompts = learner.prompts(NAMES_OF_ALL)
    with torch.no_grad():
        if learner.conditional:
            return learner.conditional_text(prompts, F.normalize(views_of(learner)[:2], dim=-1))
        return learner.text_features(prompts)


def blends(learner: PromptLearner) -> bool:
    assert isinstance(learner, ContextPrompt)
    return learner.blends_context


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_context_is_blended_where_the_prompt_starts_as_the_hand_crafted_one(
    name: str, tiny_clip: CLIP
) -> None:
    learner = make(tiny_clip, name)
    assert blends(learner) == (name in ALONE)
    if blends(learner):
        crafted = learner.teacher(NAMES_OF_ALL)
        assert (text_of(learner, name) - crafted).abs().max() < 1e-5
    assert not blends(make(tiny_clip, name, init="random"))
    assert not blends(make(tiny_clip, name, init="art of the"))


@pytest.mark.parametrize("options", [{"position": "front"}, {"n_ctx": 3}, {"n_ctx": 6}])
def test_another_prompt_than_the_hand_crafted_one_is_no_start_to_go_back_to(options, tiny_clip):
    assert not blends(make(tiny_clip, "coop", **options))


@pytest.mark.parametrize("name", CONTEXTS)
def test_half_way(name: str, tiny_clip: CLIP) -> None:
    """The training is that of the plain prompt, to the bit; what comes after it is the mean."""
    start, plain, half = (make(tiny_clip, name, blend=b) for b in (0, 0, 0.25))
    for learner in (plain, half):
        fit(learner)
    if blends(half):
        wanted = start.ctx.lerp(plain.ctx, 0.75)
        assert (half.ctx - wanted).abs().max() < 1e-6
        assert half.state_dict().keys() == plain.state_dict().keys()
    else:
        learned = dict(half.named_parameters())
        assert all(torch.equal(learned[k], v) for k, v in plain.named_parameters())
        crafted = plain.teacher(NAMES_OF_ALL)
        wanted = F.normalize(0.75 * text_of(plain, name) + 0.25 * crafted, dim=-1)
        assert (text_of(half, name) - wanted).abs().max() < 1e-5
        assert isinstance(half.text_form(), str)
    again = make(tiny_clip, name, blend=0.25)
    again.load_state_dict(half.state_dict())
    assert torch.equal(text_of(again, name), text_of(half, name))
    images = views_of(half)
    assert torch.equal(again.predict(images, NAMES), half.predict(images, NAMES))


@pytest.mark.parametrize("name", CONTEXTS)
def test_the_whole_way_is_the_hand_crafted_text(name: str, tiny_clip: CLIP) -> None:
    learner = make(tiny_clip, name, blend=1.0)
    fit(learner)
    assert (text_of(learner, name) - learner.teacher(NAMES_OF_ALL)).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["coop", "tcp"])
def test_a_wrapper_has_its_host_s_blend(name: str, tiny_clip: CLIP) -> None:
    alone = make(tiny_clip, name, blend=0.5)
    mapped = make(tiny_clip, "image-map", host=name, host_options={"blend": 0.5})
    for learner in (alone, mapped):
        fit(learner)
    assert torch.equal(text_of(alone, name), text_of(mapped, name))


@pytest.mark.parametrize("name", CONTEXTS)
def test_an_average_is_over_the_last_epochs(name: str, tiny_clip: CLIP) -> None:
    plain, mean, last = (make(tiny_clip, name, average=a) for a in (0.0, 0.5, 0.25))
    learned: list[dict[str, torch.Tensor]] = []
    after_epoch = plain.after_epoch

    def watched(done: int, epochs: int) -> None:
        learned.append({k: v.detach().clone() for k, v in plain.named_parameters()})
        after_epoch(done, epochs)

    plain.after_epoch = watched  # type: ignore[method-assign]
    for learner in (plain, mean, last):
        fit(learner, epochs=4)
    for key, value in mean.named_parameters():
        assert (value - (learned[-1][key] + learned[-2][key]) / 2).abs().max() < 1e-6
    assert all(torch.equal(v, learned[-1][k]) for k, v in last.named_parameters())


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_blend_in_training_is_there_from_its_first_step(name: str, tiny_clip: CLIP) -> None:
    options = {"init": "art of the", "blend": 0.4}
    plain = make(tiny_clip, name, init="art of the")
    mixed, afterwards = (make(tiny_clip, name, **options, blend_in_training=b) for b in (1, 0))
    fit(afterwards)
    for trained in (False, True):
        if trained:
            fit(mixed)
            plain.load_state_dict({k: v for k, v in mixed.state_dict().items() if "share" not in k})
        crafted = mixed.teacher(NAMES_OF_ALL)
        wanted = F.normalize(0.6 * text_of(plain, name) + 0.4 * crafted, dim=-1)
        assert (text_of(mixed, name) - wanted).abs().max() < 1e-5
    assert not torch.equal(mixed.ctx, afterwards.ctx)
    assert isinstance(mixed.text_form(), str)
    assert shared_prompt(mixed) is None  # no prompt that several runs are encoded behind
