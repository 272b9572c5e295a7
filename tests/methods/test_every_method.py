"""What holds for every method there is, found by its file like the package finds it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from simprompt import methods, recipes
from simprompt.clip.efficientnet import EfficientNetConfig
from simprompt.clip.model import CLIP
from simprompt.clip.resnet import ResNetConfig
from simprompt.config import SAR, Training
from simprompt.errors import SimpromptError
from simprompt.methods.base import Batch, PromptLearner
from simprompt.sar import Regulariser
from simprompt.training.loop import train

NAMES = ["cat", "red fox", "zebra", "old_house"]
NOVEL = ["dog", "blue whale", "oak", "apple pear"]
TEMPLATE = "a photo of a {}."
TRAINED = [name for name in methods.names() if name != "zero-shot"]
MOVING = [name for name in TRAINED if methods.find(name).text_moves]


def make(clip: CLIP, name: str, **options: object) -> PromptLearner:
    kind = methods.find(name)
    return kind(clip, NAMES, TEMPLATE, kind.Config(**options), seed=1)


def shots(learner: PromptLearner) -> tuple[Tensor, Tensor]:
    """Eight images of four classes: features of two views, or pixels for a live tower."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(8) % 4
    if learner.image_input == "pixels":
        return torch.randn(8, 3, 16, 16, generator=random), labels
    return F.normalize(torch.randn(8, 2, 24, generator=random), dim=-1), labels


def fit(learner: PromptLearner, sar: SAR | None = None, epochs: int = 3):
    images, labels = shots(learner)
    plug = None
    if sar:
        teacher = learner.teacher([*NAMES, *NOVEL])
        plug = Regulariser(sar, teacher, 4, seed=1), learner.prompts([*NAMES, *NOVEL])
    settings = Training(lr=learner.schedule.lr, epochs=epochs, batch_size=4)
    return train(learner, images, labels, settings, 1, plug)


def views_of(learner: PromptLearner) -> Tensor:
    images, _ = shots(learner)
    return images if learner.image_input == "pixels" else images[:, 0]


@pytest.mark.parametrize("name", TRAINED)
def test_trains_saves_loads_and_predicts_the_same(name: str, tiny_clip: CLIP) -> None:
    frozen = {k: v.clone() for k, v in tiny_clip.state_dict().items()}
    outside = torch.random.get_rng_state()
    learner = make(tiny_clip, name)
    before = {k: v.detach().clone() for k, v in learner.named_parameters()}
    curves = fit(learner)
    assert torch.equal(outside, torch.random.get_rng_state())  # nobody else's numbers are drawn
    assert all(torch.equal(v, frozen[k]) for k, v in tiny_clip.state_dict().items())
    assert all(torch.isfinite(torch.tensor(curves.loss)))
    after = dict(learner.named_parameters())
    moved = [k for k, v in after.items() if v.shape != before[k].shape or (v != before[k]).any()]
    assert moved == list(after)

    images = views_of(learner)
    told = learner.predict(images, NAMES)
    assert told.shape == (8, 4)
    assert (told.sum(1) - 1).abs().max() < 1e-5
    again = make(tiny_clip, name)
    again.load_state_dict(learner.state_dict())
    assert torch.equal(again.predict(images, NAMES), told)
    assert not any("clip" in key for key in learner.state_dict())
    assert (learner.predict(images, NAMES, chunk=3) - told).abs().max() < 1e-5

    if learner.new_classes:
        new = learner.predict(images, NOVEL[:3])
        assert new.shape == (8, 3)
        swapped = learner.predict(images, NOVEL[2::-1])
        assert (swapped.flip(1) - new).abs().max() < 1e-5  # the order of classes means nothing
    else:
        with pytest.raises(SimpromptError, match="trained on"):
            learner.predict(images, NOVEL)


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.filterwarnings("ignore:SAR sees")
def test_same_seed_same_bits(name: str, tiny_clip: CLIP) -> None:
    first, second = make(tiny_clip, name), make(tiny_clip, name)
    sar = SAR(classes_per_step=5) if name in MOVING else None
    fit(first, sar, epochs=2)
    fit(second, sar, epochs=2)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", MOVING)
@pytest.mark.filterwarnings("ignore:SAR sees")
def test_sar_reaches_what_is_learned_of_the_text(name: str, tiny_clip: CLIP) -> None:
    """SAR by itself has a gradient, and following it brings the relations back to the teacher."""
    learner = make(tiny_clip, name)
    everyone = [*NAMES, *NOVEL]
    # KgCoOp and the like start at the teacher's own words: move them first
    with torch.no_grad():
        for value in learner.parameters():
            value += 0.02 * torch.randn(value.shape, generator=torch.Generator().manual_seed(3))
    prompts = learner.prompts(everyone)
    sar = Regulariser(
        SAR(classes_per_step=99, temperature=0.05), learner.teacher(everyone), 4, seed=1
    )
    drawn = sar.draw()
    loss = sar.loss(learner.text_features(prompts), drawn, drawn)
    values = [v for v in learner.parameters() if v.requires_grad]
    grads = torch.autograd.grad(loss, values, allow_unused=True)
    size = sum((g * g).sum() for g in grads if g is not None)
    assert size > 0
    with torch.no_grad():
        for value, g in zip(values, grads, strict=True):
            if g is not None:
                value -= 0.01 * loss * g / size
    assert sar.loss(learner.text_features(prompts), drawn, drawn) < loss


@pytest.mark.parametrize("name", [n for n in TRAINED if n not in MOVING])
def test_sar_is_refused_where_it_has_no_gradient(name: str, tiny_clip: CLIP) -> None:
    with pytest.raises(SimpromptError, match="SAR would have no gradient"):
        fit(make(tiny_clip, name), SAR())


def test_dept_takes_its_flags_and_terms_from_its_host(tiny_clip: CLIP) -> None:
    learner = make(tiny_clip, "dept", host="vpt")
    assert learner.image_input == "pixels"
    with pytest.raises(SimpromptError, match="no gradient"):
        fit(learner, SAR())
    for host in ("cocoop", "maple", "tcp", "promptsrc"):
        fit(make(tiny_clip, "dept", host=host, host_options={}), epochs=1)
    for host in ("prograd", "linear-probe", "class-means"):
        with pytest.raises(SimpromptError, match="host"):
            make(tiny_clip, "dept", host=host)
    with pytest.raises(SimpromptError, match="n_ctx"):
        make(tiny_clip, "dept", host="coop", host_options={"ctx": 4})


def test_dept_tells_base_classes_by_both_heads_and_others_by_one(tiny_clip: CLIP) -> None:
    learner = make(tiny_clip, "dept")
    fit(learner)
    unnormalized = views_of(learner) * torch.linspace(3, 9, 8)[:, None]
    images = F.normalize(unnormalized, dim=-1)
    text = learner.text_features(learner.prompts(NAMES))
    both = 0.3 * learner.logits(images, text) + 0.7 * learner.linear(unnormalized)
    assert (learner.predict(unnormalized, NAMES) - both.softmax(1)).abs().max() < 1e-6
    mixed = [*NAMES[:2], *NOVEL[:1]]
    one = learner.logits(images, learner.text_features(learner.prompts(mixed)))
    assert (learner.predict(unnormalized, mixed) - one.softmax(1)).abs().max() < 1e-6


@pytest.mark.parametrize("host", ["coop", "cocoop", "maple", "tcp", "promptsrc"])
@pytest.mark.filterwarnings("ignore:SAR sees")
def test_depts_host_sees_unit_features(host: str, tiny_clip: CLIP) -> None:
    """Without its own head's share DePT is its host, however long the image features are."""
    random = torch.Generator().manual_seed(0)
    plain = make(tiny_clip, host)
    wrapped = make(tiny_clip, "dept", host=host, host_options={}, weight=0.0)
    images = torch.randn(
        4, *((3, 16, 16) if plain.image_input == "pixels" else (24,)), generator=random
    )
    unit = images if plain.image_input == "pixels" else F.normalize(images, dim=-1)
    labels = torch.arange(4)
    one, other = Batch(unit, labels), Batch(images, labels)
    assert (plain.loss(one) - wrapped.loss(other)).abs() < 1e-4
    assert (plain.predict(unit, NOVEL) - wrapped.predict(images, NOVEL)).abs().max() < 1e-5
    a, b = plain.regularised_text(plain.base, one), wrapped.regularised_text(wrapped.base, other)
    assert (a - F.normalize(b, dim=-1)).abs().max() < 1e-5


@pytest.mark.parametrize(
    "vision",
    [ResNetConfig(32, (1, 1, 1, 1), 8, 2, 24), EfficientNetConfig(32, 24)],
    ids=["ResNet", "EfficientNet"],
)
def test_visual_prompts_need_a_vit(tiny_clip: CLIP, vision) -> None:
    tiny_clip.config = replace(tiny_clip.config, vision=vision)
    for name in ("vpt", "vpt+text", "ivlp", "maple", "promptsrc"):
        with pytest.raises(SimpromptError, match="is convolutional"):
            make(tiny_clip, name)


def test_recipes_name_their_source_and_fit_their_method() -> None:
    assert len(recipes.names()) >= 20
    for name in recipes.names():
        values = recipes.load(name)
        assert len(values["source"]) > 10, name
        config = recipes.build(values, "sar" in values, dataset="icons/animals")
        assert config.method in methods.names()
        kind = name.partition("@")[0].removesuffix("+sar")
        assert kind in (config.method, "low-memory", "sar+") or name == "sar@light"


def test_the_papers_settings_are_recipes() -> None:
    paper = recipes.build(recipes.load("coop+sar@paper"), True, dataset="icons/animals")
    assert (paper.training.epochs, paper.training.shots) == (100, 16)
    assert (paper.sar.classes_per_step, paper.sar.novel_count) == (64, 200)
    small = recipes.build(recipes.load("low-memory"), True, dataset="icons/animals")
    assert (small.sar.classes_per_step, small.sar.novel_count) == (16, 50)
    squared = recipes.build(recipes.load("kgcoop@paper"), False, dataset="icons/animals")
    assert squared.training.schedule == "squared cosine"
