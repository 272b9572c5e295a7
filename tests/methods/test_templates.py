"""Each recipe takes its paper's hand-crafted prompts, and TCP's student has words of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from simprompt import methods, recipes
from simprompt.clip.model import CLIP
from simprompt.config import RunConfig, Training
from simprompt.data import coop
from simprompt.data.dataset import Dataset
from simprompt.data.split import DatasetError, Origin, Split
from simprompt.experiments import runner
from simprompt.prompt.learn import learn, prepare
from simprompt.prompt.loading import load_prompt
from simprompt.recipes.plan import template_of

PHOTO = "a photo of a {}."
# dataset: CoOp, KgCoOp (= DePT), ProGrad, TCP's teacher, TCP's student, from the authors' trainers
PUBLISHED = {
    "oxford_pets": (
        "a photo of a {}, a type of pet.",
        "a photo of a {}, a type of pet.",
        "a type of pet, a photo of a {}.",
        "a photo of a {}, a type of pet.",
        "{}, a type of pet.",
    ),
    "fgvc_aircraft": (
        "a photo of a {}, a type of aircraft.",
        "a photo of a {}, a type of aircraft.",
        "a type of aircraft, a photo of a {}.",
        "a photo of an aircraft {}.",
        "{}, a type of aircraft.",
    ),
    "dtd": (
        "{} texture.",
        "a photo of a {}, a type of texture.",
        "a texture of {}.",
        "a photo of a {}, a type of texture.",
        "{} texture.",
    ),
    "food101": (
        "a photo of {}, a type of food.",
        "a photo of {}, a type of food.",
        "a type of food, a photo of {}.",
        "a photo of a {}, a type of food.",
        "{}, a type of food.",
    ),
    "eurosat": (*["a centered satellite photo of {}."] * 4, "{}."),
    "ucf101": ("a photo of a person doing {}.",) * 5,
    "stanford_cars": (*[PHOTO] * 4, "{}, a type of car"),
    "sun397": (*[PHOTO] * 4, "{}."),
    "imagenet": (PHOTO,) * 5,
}
SETS = ("coop", "kgcoop", "prograd", "tcp-teacher", "tcp-student")


def run_of(recipe: str, dataset: str, **other: object) -> RunConfig:
    values = recipes.load(recipe)
    return recipes.build(values, "sar" in values, dataset=dataset, **other)


def split_of(dataset: str) -> Split:
    origin = Origin(dataset, "1", ("a picture of {}.",))
    image = Image.new("RGB", (16, 16))
    return Split(("1", "2"), (0, 1), ("red fox", "owl"), lambda item: image, origin=origin)


def test_the_sets_are_the_published_ones() -> None:
    for dataset, rows in PUBLISHED.items():
        assert tuple(coop.template_in(name, dataset) for name in SETS) == rows
    assert coop.template_in("kgcoop", "icons/animals") is None
    with pytest.raises(DatasetError, match="there are coop, kgcoop"):
        coop.template_in("kgcop", "icons/animals")


@pytest.mark.parametrize(
    ("recipe", "column"),
    [
        ("coop@cocoop-paper", 0), ("maple@paper", 0), ("promptsrc@paper", 0), ("vpt@maple", 0),
        ("kgcoop@paper", 1), ("kgcoop@head", 1), ("coop@kgcoop-run", 1), ("dept@coop", 1),
        ("dept@kgcoop", 1), ("dept@maple", 1), ("coop@dept", 1),
        ("prograd@repository", 2), ("tcp@paper", 3),
    ],
)  # fmt: skip
def test_a_recipe_brings_its_papers_templates(recipe: str, column: int) -> None:
    for dataset, rows in PUBLISHED.items():
        assert template_of(run_of(recipe, dataset)) == rows[column]
    assert template_of(run_of(recipe, "dtd:rehearsal")) == PUBLISHED["dtd"][column]


def test_what_comes_before_a_recipes_templates() -> None:
    assert template_of(run_of("kgcoop@paper", "dtd", template="one {}.")) == "one {}."
    assert template_of(run_of("kgcoop@paper", "dtd@prograd")) is None  # the dataset brings it
    assert template_of(run_of("kgcoop@paper", "icons/animals")) is None  # the task's own
    values = recipes.assign(recipes.load("kgcoop@paper"), ["template_set=prograd"])
    changed = recipes.build(values, False, dataset="dtd")
    assert template_of(changed) == "a texture of {}."
    assert changed.handle != run_of("kgcoop@paper", "dtd").handle
    assert run_of("kgcoop@paper", "dtd").model_dump()["template_set"] == "kgcoop"


def test_a_run_is_made_with_them() -> None:
    names = ("banded", "dotted", "lined", "woven")
    images = Split(names, (0, 1, 2, 3), names, lambda item: Image.new("RGB", (48, 48)))
    data = Dataset("dtd", names, ("{} texture.",), images, None, images)
    training = {"shots": 1, "epochs": 1}
    for recipe, said in [("kgcoop@paper", "a photo of a {}, a type of texture."), (None, None)]:
        values = recipes.load(recipe) if recipe else {"method": "kgcoop"}
        config = recipes.build({**values, "training": training}, False, dataset="dtd")
        making = runner.prepare(config, data)
        assert making.untrained.card["template"] == (said or "{} texture.")
        assert making.untrained.run.learner.teacher.templates == (said or "{} texture.",)


def test_every_published_recipe_says_whose_templates_it_takes() -> None:
    # the SAR paper does not name its templates
    own = {"sar+", "sar@light", "low-memory", "coop+sar@paper"}
    for name in set(recipes.names()) - own:
        assert ("template_set" in recipes.load(name)) != name.endswith(("@icons", "@photos")), name


@pytest.mark.parametrize(
    "recipe", ["coop@cocoop-paper", "cocoop@paper", "coop@kgcoop-run", "kgcoop@paper"]
)
def test_the_cocoop_papers_start_is_the_same_on_every_dataset(recipe: str, tiny_clip: CLIP) -> None:
    config = run_of(recipe, "dtd")
    kind = methods.find(config.method)
    for rows in PUBLISHED.values():
        learner = kind(tiny_clip, ["cat"], rows[0], kind.Config(**config.options))
        assert torch.equal(learner.ctx, tiny_clip.embed_prefix("a photo of a")[1:])


@pytest.mark.parametrize("dataset", ["dtd", "fgvc_aircraft", "stanford_cars", "ucf101", "eurosat"])
def test_tcps_student_says_its_own_words(dataset: str, tiny_clip: CLIP) -> None:
    """Behind the context stand the words of tcp.py; the teacher has others."""
    config = run_of("tcp@paper", dataset)
    ready = prepare(
        tiny_clip, split_of(dataset), config.method, options=config.options,
        template=template_of(config), training=Training(epochs=1),
    )  # fmt: skip
    learner = ready.run.learner
    spoken = {
        "dtd": "red fox texture.",
        "fgvc_aircraft": "red fox, a type of aircraft.",
        "stanford_cars": "red fox, a type of car",
        "ucf101": "person doing red fox.",
        "eurosat": "red fox.",
    }[dataset]
    assert learner.prompts(["red_fox"]).ids[0] == tiny_clip.suffixes([spoken], "").ids[0]
    taught = PUBLISHED[dataset][3].replace("{}", "red fox")
    assert (learner.teacher(["red fox"]) - tiny_clip.encode_texts([taught])).abs().max() < 1e-6
    assert ready.card["options"]["student"] == PUBLISHED[dataset][4]


def test_a_student_set_is_for_the_fields_datasets(tiny_clip: CLIP) -> None:
    ready = prepare(tiny_clip, split_of("mine"), "tcp", options={"student": "tcp-student"})
    assert ready.card["options"]["student"] is None
    assert ready.run.learner.tail == "."
    with pytest.raises(DatasetError, match="no template set 'tcp-pupil'"):
        prepare(tiny_clip, split_of("dtd"), "tcp", options={"student": "tcp-pupil"})


def test_a_saved_prompt_keeps_its_students_words(tiny_clip: CLIP, tmp_path: Path) -> None:
    options = {"student": "tcp-student"}
    made = learn(tiny_clip, split_of("ucf101"), "tcp", options=options, training=Training(epochs=1))
    read = load_prompt(made.save(tmp_path / "prompt"), tiny_clip)
    assert torch.equal(made.text_features(["cat", "dog"]), read.text_features(["cat", "dog"]))
    assert made.learner.prompts(["cat"]).ids == read.learner.prompts(["cat"]).ids
