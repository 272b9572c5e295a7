"""What a method says of itself: what it takes of an image, and why it cannot be exported."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from simprompt import methods
from simprompt.clip.model import CLIP
from simprompt.clip.same_text import prompt_text
from simprompt.deploy.export.head import head
from simprompt.deploy.export.text import TextSide
from simprompt.errors import SimpromptError
from simprompt.features.pixels import Images
from simprompt.methods.base import PromptLearner, TextForm

NAMES = ["cat", "red fox", "zebra", "old_house"]
OTHERS = ["dog", "blue whale", "oak"]
PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
IMAGE_MAPS = ["zero-shot", "coop", "language", "tcp"]


def make(clip: CLIP, name: str, template: str = "a photo of a {}.", **options: object):
    """A learner whose every number has moved from where it began."""
    kind = methods.find(name)
    learner = kind(clip, NAMES, template, kind.Config(**options), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in learner.parameters():
            value += 0.1 * torch.randn(value.shape, generator=generator)
    return learner


# --------------------------------------------------------------------------------- exports


def rows_of_page() -> dict[str, tuple[str, str]]:
    """What docs/deploy.md says of each method: other names, head."""
    table = PAGE.read_text(encoding="utf-8").split("### What exports as what")[1]
    cells = re.findall(r"^\| ([^|]+) \| yes \| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE)
    return {name: (text, head) for names, text, head in cells for name in names.split(", ")}


@pytest.mark.parametrize("name", methods.names())
def test_the_page_says_what_the_method_says(name: str, tiny_clip: CLIP):
    text, linear = rows_of_page()[name]
    learner = make(tiny_clip, name)
    form = learner.no_text_graph() or learner.text_form()
    assert isinstance(form, TextForm) is (text == "yes"), form
    names = OTHERS if linear == "for other names only" else NAMES
    assert (learner.no_linear_head(names) is not None) is linear.startswith("no")
    if linear == "for other names only":
        assert learner.no_linear_head(NAMES)


@pytest.mark.parametrize("name", methods.names())
def test_a_head_is_made_where_the_method_knows_no_reason(name: str, tiny_clip: CLIP):
    """And where it has one, the sentence is the error."""
    learner = make(tiny_clip, name)
    reason = learner.no_linear_head(NAMES)
    if reason is None:
        assert head(learner, NAMES).linear.weight.shape == (4, 24)
        return
    with pytest.raises(SimpromptError, match=rf"^This prompt is no linear head: {reason}\. Take"):
        head(learner, NAMES)


@pytest.mark.parametrize("name", methods.names())
def test_a_reason_is_a_sentence_for_its_place(name: str, tiny_clip: CLIP):
    learner = make(tiny_clip, name)
    form, linear = learner.no_text_graph() or learner.text_form(), learner.no_linear_head(NAMES)
    if isinstance(form, str):
        assert form.endswith(".")
    if linear:
        assert not linear.endswith(".")


def behind(side: TextSide, clip: CLIP, names: list[str]) -> Tensor:
    """Text features [C, E] of names whose ids are made by the rules of an exported text side."""
    inputs = []
    for rule in side.rules.values():
        texts = [rule.template.replace("{}", prompt_text(name)) for name in names]
        rows = [torch.tensor([*rule.before, *clip.tokenizer.encode(t), side.eot]) for t in texts]
        inputs.append(pad_sequence(rows, batch_first=True, padding_value=side.eot))
    return side(*inputs)


@pytest.mark.parametrize("template", ["a photo of a {}.", "{}", "a {}, an old thing."])
@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in methods.names()]
    + [("image-map", {"host": host}) for host in IMAGE_MAPS]
    + [("coop", {"student": "the {} over there"}), ("tcp", {"student": "one old big red warm {}!"}),
       ("vpt", {"text": None}), ("maple", {"n_ctx": 1, "depth": 1})],
    ids=str,
)  # fmt: skip
@torch.no_grad()
def test_a_form_gives_the_text_features(name: str, options: dict, template: str, tiny_clip: CLIP):
    learner = make(tiny_clip, name, template, **options)
    form = learner.text_form()
    if isinstance(form, str):
        assert learner.conditional
        return
    told = behind(TextSide(learner, form), tiny_clip, OTHERS)
    expected = learner.text_features(learner.prompts(OTHERS))
    torch.testing.assert_close(told, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"class_specific": True}, "each has a context of its own"),
        ({"class_specific": True, "position": "front"}, "each has a context of its own"),
        ({"position": "middle"}, "does not stand in front"),
        ({"position": "front"}, "does not stand in front"),
    ],
)
def test_coops_forms_have_reasons_of_their_own(options: dict, reason: str, tiny_clip: CLIP):
    for learner in (
        make(tiny_clip, "coop", **options),
        make(tiny_clip, "image-map", host="coop", host_options=options),
    ):
        assert learner.no_text_graph() is None
        assert reason in learner.text_form()


@pytest.mark.parametrize(
    ("host", "text", "linear"),
    [("cocoop", "a linear head", "every image"), ("maple", "a linear head", "tokens inside"),
     ("coop", "a linear head", "length of an image feature")],
)  # fmt: skip
def test_depts_reasons(host: str, text: str, linear: str, tiny_clip: CLIP):
    learner = make(tiny_clip, "dept", host=host, host_options={})
    assert text in learner.no_text_graph()
    assert linear in learner.no_linear_head(NAMES)
    if host == "coop":
        assert make(tiny_clip, "dept", weight=0.0).no_linear_head(NAMES) is None


class Plain(methods.find("zero-shot")):
    """A method that says nothing more than what it has to."""


class Judge(Plain):
    def class_logits(self, unnormalized, text, names):
        return 2 * super().class_logits(unnormalized, text, names)


class Spelled(Plain):
    text_moves = True

    def unnormalized_text(self, prompts):
        return self.teacher.unnormalized(prompts.names)


class Ensemble(Plain):
    @property
    def fixed_text(self):
        return methods.base.Teacher(self.clip, ["a {}.", "one {}."])


class Whole(Plain):
    image_input = "pixels"


@pytest.mark.parametrize(
    ("kind", "text", "linear"),
    [
        (Plain, None, None),
        (Judge, "another rule", None),
        (Spelled, "do not share their prompt", None),
        (Ensemble, "the mean of 2", None),
        (Whole, None, "part of what is learned"),
    ],
)
def test_a_method_that_gives_no_reason_has_one_by_what_it_says(kind, text, linear, tiny_clip):
    learner = kind(tiny_clip, NAMES, "a {}.", kind.Config())
    form = learner.no_text_graph() or learner.text_form()
    assert (text in form) if text else isinstance(form, TextForm)
    reason = learner.no_linear_head(NAMES)
    assert (linear in reason) if linear else reason is None


# ---------------------------------------------------------------------- words of earlier releases

FORMER = """
from simprompt.methods.base import PromptLearner
from simprompt.methods.parts import ContextConfig, behind_sot, deep_tokens, wording
from torch import nn


class Config(ContextConfig):
    n_tokens: int = 8
    depth: int = 12


class Former(PromptLearner[Config]):
    summary, source = "tokens", "ours"
    {word}

    def build(self, clip, config, seed):
        words = wording(clip, config, self.template, seed)
        self.ctx = nn.Parameter(words.start)
        self.rest, self.tail = words.rest, words.tail
        self.tokens = deep_tokens(clip, "image", config.n_tokens, clip.config.vision.layers, seed)
        {in_build}

    def shared_prompt(self):
        return behind_sot(self.clip, self.ctx, self.rest), ()

    def unnormalized_images(self, images):
        return self.clip.visual(images, list(self.tokens)) if images.dim() == 4 else images


LEARNER = Former
"""


@pytest.fixture
def former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a method as earlier releases had it, and finds it."""
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])

    def write(word: str = "", in_build: str = "") -> type[PromptLearner]:
        text = FORMER.format(word=word or "pass", in_build=in_build or "pass")
        (tmp_path / "former.py").write_text(text, encoding="utf-8")
        return methods.find("former")

    return write


def test_live_images_still_means_pixels(former, tiny_clip: CLIP):
    with pytest.warns(
        FutureWarning, match='Former says live_images = True.*image_input = "pixels"'
    ):
        kind = former("live_images = True")
    assert kind.image_input == "pixels"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        old = kind(tiny_clip, NAMES, "a photo of a {}.", kind.Config(), seed=1)
    assert old.image_input == "pixels"
    assert old.no_linear_head(NAMES)
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    new = methods.find("vpt+text")(
        tiny_clip, NAMES, "a photo of a {}.", methods.find("vpt+text").Config(), seed=1
    )
    assert torch.equal(old.predict(pixels, OTHERS), new.predict(pixels, OTHERS))


def test_a_word_that_build_gives_counts_for_the_learner(former, tiny_clip: CLIP):
    kind = former(in_build="self.live_images = True")
    assert kind.image_input == "features"
    with pytest.warns(FutureWarning, match="live_images = True"):
        old = kind(tiny_clip, NAMES, "a photo of a {}.", kind.Config(), seed=1)
    assert old.image_input == "pixels"


@pytest.mark.parametrize(
    ("word", "image_input"),
    [
        ("unnormalized = True", "unnormalized"),
        ("unnormalized = live_images = True", "pixels"),
        ("live_images = False", "features"),
        ('image_input = "unnormalized"; live_images = False', "unnormalized"),
    ],
)
@pytest.mark.filterwarnings("ignore:The method Former says:FutureWarning")
def test_former_words_are_one_word(former, word: str, image_input: str):
    assert former(word).image_input == image_input


def test_a_method_of_the_present_warns_of_nothing(former, recwarn):
    former('image_input = "pixels"\n\n    def unnormalized(self): ...')
    assert not recwarn


def test_a_word_that_is_none_names_those_there_are(former):
    with pytest.raises(
        SimpromptError,
        match=r"former cannot be used: .*features, unnormalized, pixels; got 'pixel'",
    ):
        former('image_input = "pixel"')


@pytest.mark.parametrize("name", methods.names())
def test_each_method_takes_what_it_says(name: str, tiny_clip: CLIP):
    """The word decides the shape and the length of what reaches it."""
    learner = make(tiny_clip, name)
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    unnormalized = tiny_clip.encode_pixels(pixels, unnormalized=True)
    images: Images = {
        "pixels": pixels, "unnormalized": unnormalized, "features": F.normalize(unnormalized),
    }[learner.image_input]  # fmt: skip
    assert learner.image_features(images).shape == (2, 24)
    if name != "image-map":
        again = learner.unnormalized_images(images)
        assert (again is images) is (learner.image_input != "pixels")
