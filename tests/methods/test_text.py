"""Forms of the prompt, what is shared between classes, and what is computed only once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import simprompt
from simprompt import methods
from simprompt.clip.model import CLIP
from simprompt.clip.text import ClassTokens
from simprompt.config import SAR, Training
from simprompt.errors import SimpromptError
from simprompt.methods.base import Batch
from simprompt.methods.teacher import Teacher, teacher_features
from simprompt.sar import Regulariser
from simprompt.training.loop import train

NAMES = ["cat", "red fox", "zebra", "old house"]
NOVEL = ["dog", "blue whale"]


def make(clip: CLIP, name: str, template: str = "a photo of a {}.", **options: object):
    kind = methods.find(name)
    return kind(clip, NAMES, template, kind.Config(**options), seed=1)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_coops_positions_read_as_sentences(position: str, tiny_clip: CLIP) -> None:
    """With words as context, the prompt is that sentence."""
    learner = make(tiny_clip, "coop", position=position, init="a photo of a")
    sentence = {
        "end": "a photo of a {}.",
        "middle": "a photo {} of a.",
        "front": "{} a photo of a.",
    }[position]
    expected = tiny_clip.encode_texts([sentence.format(n) for n in NAMES])
    assert (learner.text_features(learner.prompts(NAMES)) - expected).abs().max() < 1e-5


def test_a_class_specific_context_starts_as_the_shared_one(tiny_clip: CLIP) -> None:
    shared, own = make(tiny_clip, "coop"), make(tiny_clip, "coop", class_specific=True)
    assert own.parameter_count() == 4 * shared.parameter_count()
    names = [*NAMES, *NOVEL]
    a, b = (x.text_features(x.prompts(names)) for x in (shared, own))
    assert (a - b).abs().max() < 1e-5
    with torch.no_grad():
        own.ctx[1] = own.ctx[1].flip(1)  # the red fox moves; unseen classes move with the mean
    moved = (own.text_features(own.prompts(names)) - b).abs().amax(1)
    assert (moved > 1e-4).tolist() == [False, True, False, False, True, True]
    with pytest.raises(SimpromptError, match="takes 4"):
        own.text_features(own.prompts(["old " * 40]))


@pytest.mark.parametrize("layer", [1, 2])
def test_class_tokens_equal_the_plain_path(layer: int, tiny_clip: CLIP) -> None:
    clip = tiny_clip.double()
    suffixes = clip.suffixes(["zebra", "cat", "old red house", "dog"])  # three lengths
    random = torch.Generator().manual_seed(0)
    ctx = torch.randn(3, 32, generator=random, dtype=torch.float64, requires_grad=True)
    tokens = torch.randn(4, 3, 32, generator=random, dtype=torch.float64, requires_grad=True)
    prefix = torch.cat([clip.embed_prefix(), ctx])
    ours = clip.text.encode(prefix, suffixes, switch=ClassTokens(tokens, layer))

    rows = []
    for ids, own in zip(suffixes.ids, tokens, strict=True):
        x = torch.cat([prefix, clip.text.token_embedding(torch.tensor(ids))])
        x = (x + clip.text.positional_embedding[: len(x)])[None]
        for i, block in enumerate(clip.text.blocks):
            if i == layer:
                x = torch.cat([x[:, :1], own[None], x[:, 4:]], dim=1)
            x = block(x, causal=True)
        rows.append(clip.text.project(x[0, -1]))
    plain = torch.stack(rows)
    assert (ours - plain).abs().max() < 1e-12
    weight = torch.randn(plain.shape, generator=random, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), [ctx, tokens]),
        torch.autograd.grad((plain * weight).sum(), [ctx, tokens]),
        strict=True,
    ):
        assert (a - b).abs().max() < 1e-11


def test_tcp_keeps_the_templates_tail(tiny_clip: CLIP) -> None:
    learner = make(tiny_clip, "tcp", template="a photo of a {}, a type of pet.")
    ids = learner.prompts(["red_fox"]).ids[0]
    assert tiny_clip.tokenizer.decode(list(ids[:-1])) == "red fox , a type of pet ."
    assert learner.layer == 2  # two thirds up a tower of 3 layers; 8 of 12


@pytest.mark.parametrize("method", ["maple", "ivlp", "language", "promptsrc"])
def test_words_without_a_learned_token_stay(method: str, tiny_clip: CLIP) -> None:
    depth = {"ivlp": "text_depth", "promptsrc": "text_depth"}.get(method, "depth")
    learner = make(tiny_clip, method, n_ctx=2, **{depth: 1})
    expected = tiny_clip.encode_texts([f"a photo of a {n}." for n in NAMES])
    assert learner.ctx.shape == (2, 32)
    assert (learner.text_features(learner.prompts(NAMES)) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("method", ["coop", "kgcoop", "cocoop", "prograd", "vpt+text"])
def test_coop_and_its_like_have_nothing_between_context_and_name(
    method: str, tiny_clip: CLIP
) -> None:
    learner = make(tiny_clip, method, n_ctx=2)
    expected = tiny_clip.encode_texts([f"a photo {n}." for n in NAMES])
    assert (learner.text_features(learner.prompts(NAMES)) - expected).abs().max() < 1e-5


STUDENT = "a photo of a {}, a type of pet"


@pytest.mark.parametrize(
    "method",
    ["coop", "cocoop", "kgcoop", "prograd", "language", "ivlp", "maple", "promptsrc", "vpt+text"],
)
def test_a_student_template_says_the_learned_prompt(method: str, tiny_clip: CLIP) -> None:
    """All of its words stand in the prompt, whether learned or not; the teacher keeps its own."""
    depth = {"ivlp": "text_depth", "promptsrc": "text_depth"}.get(method, "depth")
    first = {depth: 1} if method in ("language", "ivlp", "maple", "promptsrc") else {}
    for n_ctx in (2, 4):
        learner = make(tiny_clip, method, "an icon of {}.", n_ctx=n_ctx, student=STUDENT, **first)
        expected = tiny_clip.encode_texts([STUDENT.replace("{}", n) for n in NAMES])
        assert (learner.text_features(learner.prompts(NAMES)) - expected).abs().max() < 1e-5
    if method != "promptsrc":
        taught = tiny_clip.encode_texts([f"an icon of {n}." for n in NAMES])
        assert (learner.teacher(NAMES) - taught).abs().max() < 1e-6
    with pytest.raises(SimpromptError, match="student template"):
        make(tiny_clip, method, student="a photo")


@pytest.mark.parametrize("position", ["middle", "front"])
def test_words_that_stay_follow_the_context_in_every_position(
    position: str, tiny_clip: CLIP
) -> None:
    learner = make(tiny_clip, "coop", n_ctx=2, position=position, student="a photo of a {} icon")
    sentence = {"middle": "a {} photo of a icon", "front": "{} a photo of a icon"}[position]
    expected = tiny_clip.encode_texts([sentence.replace("{}", n) for n in NAMES])
    assert (learner.text_features(learner.prompts(NAMES)) - expected).abs().max() < 1e-5


def test_prograd_counts_words_as_its_authors_do(tiny_clip: CLIP) -> None:
    """Their ctx[n_ctx - words:] is embedding[1 : 1 + words]; the suffix begins behind n_ctx."""
    template = "a type of pet, a photo of a {}."
    learner = make(tiny_clip, "prograd", template, n_ctx=10, count="words")
    tokens = tiny_clip.embed_prefix("a type of pet, a photo of a")[1:]
    assert len(tokens) == 9
    assert torch.equal(learner.ctx[:2], torch.zeros(2, 32))
    assert torch.equal(learner.ctx[2:], tokens[:8])
    rows = []
    for name in NAMES:
        ids = [*tiny_clip.tokenizer.encode(f"a {name}."), tiny_clip.tokenizer.eot]
        parts = [tiny_clip.embed_prefix(), learner.ctx, tiny_clip.embed(ids)]
        x = torch.cat(parts)
        rows.append(tiny_clip.text.forward_embedded(x[None], torch.tensor([len(x) - 1]))[0])
    expected = F.normalize(torch.stack(rows), dim=-1)
    assert (learner.text_features(learner.prompts(NAMES)) - expected).abs().max() < 1e-5
    plain = make(tiny_clip, "prograd", "a photo of a {}.", n_ctx=4)
    same = make(tiny_clip, "prograd", "a photo of a {}.", n_ctx=4, count="words")
    assert torch.equal(same.ctx, plain.ctx)  # no comma, no difference
    assert same.rest == ()
    with pytest.raises(SimpromptError, match="8 words, more than the 4"):
        make(tiny_clip, "prograd", template, n_ctx=4, count="words")


def test_cocoop_is_one_coop_per_image(tiny_clip: CLIP) -> None:
    learner = make(tiny_clip, "cocoop")
    images = F.normalize(torch.randn(3, 24, generator=torch.Generator().manual_seed(0)), dim=-1)
    told = learner.predict(images, NOVEL)
    for image, row in zip(images, told, strict=True):
        coop = make(tiny_clip, "coop")
        with torch.no_grad():
            coop.ctx += learner.meta_net(image)
        assert (coop.predict(image[None], NOVEL)[0] - row).abs().max() < 1e-5


def test_cocoop_computes_unconditional_text_only_for_sar(tiny_clip: CLIP, monkeypatch) -> None:
    learner = make(tiny_clip, "cocoop")
    asked: list[int] = []
    plain = type(learner).text_features
    monkeypatch.setattr(
        type(learner), "text_features", lambda s, p: (asked.append(len(p)), plain(s, p))[1]
    )
    images = F.normalize(torch.randn(4, 1, 24, generator=torch.Generator().manual_seed(0)), dim=-1)
    settings = Training(epochs=2, batch_size=2)
    train(learner, images, torch.arange(4), settings, 1)
    assert asked == []
    regulariser = Regulariser(SAR(classes_per_step=3), learner.teacher([*NAMES, *NOVEL]), 4, 1)
    plug = regulariser, learner.prompts([*NAMES, *NOVEL])
    with pytest.warns(UserWarning, match="not regularised"):
        train(learner, images, torch.arange(4), settings, 1, plug)
    assert asked == [3] * 4  # the drawn ones, no base classes beside them


def test_cocoops_batch_mean_reaches_the_net(tiny_clip: CLIP, recwarn) -> None:
    images = F.normalize(torch.randn(3, 24, generator=torch.Generator().manual_seed(0)), dim=-1)
    batch = Batch(images, torch.arange(3))
    for choice, reached in (("context", False), ("batch-mean", True)):
        learner = make(tiny_clip, "cocoop", regularised=choice)
        text = learner.regularised_text(learner.base, batch)
        (grad,) = torch.autograd.grad(text.sum(), [learner.meta_net[0].weight], allow_unused=True)
        assert (grad is not None) == reached
        assert bool(learner.sar_note) != reached


def test_nothing_is_encoded_twice(tiny_clip: CLIP, monkeypatch) -> None:
    seen: list[str] = []
    encode = CLIP.encode_texts
    monkeypatch.setattr(
        CLIP, "encode_texts", lambda self, texts, **k: (seen.extend(texts), encode(self, texts))[1]
    )
    learner = make(tiny_clip, "kgcoop")
    regulariser = Regulariser(SAR(classes_per_step=3), learner.teacher([*NAMES, *NOVEL]), 4, 1)
    plug = regulariser, learner.prompts([*NAMES, *NOVEL])
    images = F.normalize(torch.randn(8, 1, 24, generator=torch.Generator().manual_seed(0)), dim=-1)
    train(learner, images, torch.arange(8) % 4, Training(epochs=2, batch_size=4), 1, plug)
    assert sorted(seen) == sorted(f"a photo of a {n}." for n in [*NAMES, *NOVEL])


def test_teacher_features_in_any_order_and_company(tiny_clip: CLIP) -> None:
    teacher = Teacher(tiny_clip, ["a {}.", "art of a {}."])
    first = teacher(["cat", "dog", "cat"])
    later = teacher(["zebra", "dog"])
    whole = teacher_features(tiny_clip, ["a {}.", "art of a {}."], ["zebra", "dog", "cat"])
    assert torch.equal(first[0], first[2])
    assert (torch.stack([later[0], later[1], first[0]]) - whole).abs().max() < 1e-6
    assert (whole.norm(dim=1) - 1).abs().max() < 1e-6
    with pytest.raises(SimpromptError, match="place for the class name"):
        Teacher(tiny_clip, ["a photo."])


KEPT = """
import importlib, sys
import torch
for place, names in {cases!r}:
    for module in [m for m in sys.modules if m.partition(".")[0] == "simprompt"]:
        del sys.modules[module]
    sys.path[0] = place
    importlib.invalidate_caches()
    from simprompt import methods, recipes
    from simprompt.cli.described import describe
    assert methods.__file__.startswith(place)
    assert methods.names() == names, methods.names()
    assert [row["method"] for row in describe(names)] == names
    for name in recipes.names():
        recipes.build(recipes.load(name), False, dataset="icons/animals")
"""


def test_a_method_is_removed_by_deleting_its_file_and_recipes(tmp_path: Path) -> None:
    """CoOp, and all but TCP; one process looks at both packages, as torch takes long to load."""
    source = Path(simprompt.__file__).parent
    skip = shutil.ignore_patterns("*.safetensors", "*.png", "*.gz")
    every = methods.names()
    cases = []
    for kept in ([name for name in every if name != "coop"], ["tcp"]):
        place = tmp_path / str(len(cases))
        package = place / "simprompt"
        shutil.copytree(source, package, ignore=skip)
        for name in set(every) - set(kept):
            file = name.replace("+", "_with_").replace("-", "_")
            (package / "methods" / f"{file}.py").unlink()
            for recipe in (package / "recipes").glob("*.yaml"):
                if f"method: {name}\n" in recipe.read_text(encoding="utf-8"):
                    recipe.unlink()
        cases.append((str(place), kept))
    subprocess.run(
        [sys.executable, "-c", KEPT.format(cases=cases)], cwd=tmp_path, check=True, timeout=300
    )


def test_no_method_file_imports_another() -> None:
    folder = Path(methods.__file__).parent
    files = {f.stem for f in folder.glob("*.py")} - methods.HELPERS - {"__init__"}
    for file in files:
        text = (folder / f"{file}.py").read_text(encoding="utf-8")
        others = [o for o in files if f"methods.{o} " in text or f"methods import {o}" in text]
        assert not others, f"{file} imports {others}"
