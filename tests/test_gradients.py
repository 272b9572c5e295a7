"""Training works in whatever mode of autograd its caller is in, to the same bits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from typer.testing import CliRunner

import simprompt
from simprompt import methods
from simprompt.cli.main import app
from simprompt.clip.hub import load_clip
from simprompt.clip.model import CLIP
from simprompt.clip.suffixes import Suffixes
from simprompt.config import SAR, Training
from simprompt.data.split import Split
from simprompt.methods.teacher import Teacher
from simprompt.prompt.learn import prepare, train_many
from simprompt.prompt.loading import load_prompt
from simprompt.prompt.sklearn import PromptClassifier
from simprompt.training.loop import train

pytestmark = pytest.mark.integration

NAMES = ["cat", "dog", "red fox"]
TRAINING = Training(epochs=2, batch_size=3)


@contextmanager
def switched_off() -> Iterator[None]:
    """As in a notebook whose first cell switches gradients off."""
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    try:
        yield
    finally:
        torch.set_grad_enabled(before)


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "set_grad_enabled": switched_off,
}


def picture(item: str) -> Image.Image:
    random = np.random.default_rng(int(item))
    return Image.fromarray(random.integers(0, 256, (20, 20, 3), dtype=np.uint8))


@pytest.fixture
def shots() -> Split:
    items = tuple(str(number) for number in range(6))
    return Split(items, (0, 1, 2) * 2, tuple(NAMES), picture)


def bits(learner: torch.nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in learner.state_dict().items()}


def by_learn(clip: CLIP, shots: Split, method: str) -> dict[str, bytes]:
    sar = SAR(classes_per_step=4) if methods.find(method).text_moves else None
    options = {"templates": ("a {}.", "the {}.")} if method == "promptsrc" else None
    prompt = simprompt.learn(
        clip, shots, method, sar, options=options, training=TRAINING, novel=["owl", "tree"]
        if sar else None, progress=False,
    )  # fmt: skip
    return bits(prompt.learner)


def by_fit(clip: CLIP, shots: Split, method: str) -> dict[str, bytes]:
    images = [picture(item) for item in shots.items]
    classifier = PromptClassifier(clip, method, sar=False, training={"max_steps": 2})
    return bits(classifier.fit(images, [NAMES[label] for label in shots.labels]).prompt_.learner)


def by_train_many(clip: CLIP, shots: Split, method: str) -> dict[str, bytes]:
    ready = [prepare(clip, shots, method, training=TRAINING, seed=seed) for seed in (1, 2)]
    return bits(train_many(ready)[1].learner)


def by_train(clip: CLIP, shots: Split, method: str) -> dict[str, bytes]:
    kind = methods.find(method)
    learner = kind(clip, NAMES, "a photo of a {}.", kind.Config(), 1)
    images = torch.stack([clip.preprocess(picture(item)) for item in shots.items])
    if learner.image_input != "pixels":
        images = F.normalize(clip.encode_pixels(images), dim=-1)[:, None]
    train(learner, images, torch.tensor(shots.labels), TRAINING, 1)
    return bits(learner)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("learned", "method"),
    [
        *((by_learn, name) for name in methods.names() if name != "zero-shot"),
        (by_fit, "coop"), (by_train_many, "coop"), (by_train, "tcp"), (by_train, "maple"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:SAR sees")
def test_training_is_the_same_in_every_mode(
    mode: str, learned: Callable, method: str, make_clip: Callable[..., CLIP], shots: Split
) -> None:
    usual = learned(make_clip(), shots, method)
    clip = make_clip()
    with MODES[mode]():
        assert learned(clip, shots, method) == usual
        assert torch.is_grad_enabled() is False
    assert torch.is_grad_enabled()


def test_a_clip_made_in_inference_mode_can_be_learned_on(
    make_clip: Callable[..., CLIP], shots: Split
) -> None:
    usual = by_learn(make_clip(), shots, "tcp")
    with torch.inference_mode():
        clip, copied = make_clip(), copy.deepcopy(make_clip())
    assert clip.logit_scale.is_inference()
    assert by_learn(clip, shots, "tcp") == usual
    with torch.inference_mode():
        assert by_learn(copied, shots, "tcp") == usual


def test_what_is_loaded_in_inference_mode_can_be_trained(tmp_path, shots: Split) -> None:
    clip = load_clip("icons")
    for method in ("coop", "tip-adapter"):
        simprompt.learn(clip, shots, method, training=TRAINING, progress=False).save(
            tmp_path / method
        )
    with torch.inference_mode():
        loaded = load_clip("icons")
        prompts = [load_prompt(tmp_path / name, loaded) for name in ("coop", "tip-adapter")]
        prompts[0].predict([picture("1")])
    parameters = [*loaded.parameters(), *(p for x in prompts for p in x.learner.parameters())]
    assert not any(parameter.is_inference() for parameter in parameters)
    images = F.normalize(torch.randn(6, 1, loaded.embed_dim), dim=-1)
    train(prompts[0].learner, images, torch.tensor(shots.labels), TRAINING, 1)


def test_what_is_kept_of_a_prediction_in_inference_mode_can_be_trained_with(
    tiny_clip: CLIP,
) -> None:
    teacher = Teacher(tiny_clip, ["a {}."], names=NAMES)
    with torch.inference_mode():
        teacher(NAMES)
        packed = Suffixes(("cat",), tiny_clip.suffixes(["cat"]).ids).packed
    weight = torch.ones(3, tiny_clip.embed_dim, requires_grad=True)
    (weight * teacher(NAMES)).sum().backward()
    assert weight.grad is not None
    assert not packed.tokens.is_inference()


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode"])
def test_the_command_line_learns_in_every_mode(mode: str, tmp_path) -> None:
    for number in range(8):
        folder = tmp_path / "photos" / NAMES[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(str(number)).save(folder / f"{number}.png")
    options = ["--model", "icons", "--sar", "off", "--set", "training.max_steps=2"]
    with MODES[mode]():
        result = CliRunner().invoke(
            app, ["learn", str(tmp_path / "photos"), *options, "--out", str(tmp_path / "out")]
        )
    assert result.exit_code == 0, result.output
    assert load_prompt(tmp_path / "out" / "prompt").classes == ("cat", "dog")
