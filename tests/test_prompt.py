"""Learning, predicting, saving and loading through the public API."""

from __future__ import annotations

import io
import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from shell import in_process
from simprompt.clip import hub as clip_hub
from simprompt.config import SAR, RunConfig, Training
from simprompt.data.images import FileLoader
from simprompt.data.own_images import folder
from simprompt.data.split import Split
from simprompt.errors import SimpromptError
from simprompt.features.cache import image_features, view_features
from simprompt.prompt.learn import keeping_last_good, learn, prepare
from simprompt.prompt.loading import load_prompt
from simprompt.prompt.sklearn import PromptClassifier
from simprompt.training.divergence import DivergedError
from simprompt.utils.progress import listening

NAMES = ("cat", "dog", "red car")
COLOURS = {"cat": "red", "dog": "lime", "red car": "blue"}
SCHEDULE = Training(lr=0.2, epochs=15, batch_size=6)


def picture(item: str) -> Image.Image:
    name, _, number = item.partition("/")
    return Image.new("RGB", (20 + int(number), 18), COLOURS[name])


@pytest.fixture
def shots() -> Split:
    items = [f"{name}/{i}" for name in NAMES for i in range(6)]
    return Split(tuple(items), tuple(i // 6 for i in range(18)), NAMES, picture)


def test_learns_saves_loads_and_predicts_the_same(tiny_clip, shots, tmp_path):
    prompt = learn(
        tiny_clip,
        shots,
        sar=SAR(weight=0.1, classes_per_step=5),
        training=SCHEDULE,
        novel=["bird", "wolf"],
    )
    assert prompt.curves.loss[-1] < prompt.curves.loss[0]
    prompt.save(tmp_path / "colours")
    again = load_prompt(tmp_path / "colours", clip=tiny_clip)
    assert again.accuracy(shots) == prompt.accuracy(shots)
    assert torch.equal(again.text_features(["fish"]), prompt.text_features(["fish"]))
    card = json.loads((tmp_path / "colours" / "card.json").read_text(encoding="utf-8"))
    assert card["classnames"] == list(NAMES)
    assert card["sar"]["weight"] == 0.1
    assert card["novel"] == ["bird", "wolf"]
    assert not list(tmp_path.glob("*.partial"))


def test_predicts_among_names_it_never_saw(tiny_clip, shots, tmp_path):
    prompt = learn(tiny_clip, shots, training=SCHEDULE)
    path = tmp_path / "a.png"
    picture("cat/0").save(path)
    (found,) = prompt.predict([path], ["lion", "tiger", "cat"])
    assert found.name in ("lion", "tiger", "cat")
    assert len(found.probabilities) == 3
    assert sum(found.probabilities) == pytest.approx(1, abs=1e-5)
    assert found.probability == max(found.probabilities)
    assert prompt.predict([], ["lion"]) == []


def test_predict_teaches_about_bad_input(tiny_clip, shots, tmp_path):
    prompt = learn(tiny_clip, shots, method="zero-shot")
    broken = tmp_path / "b.png"
    broken.write_text("no image", encoding="utf-8")
    with pytest.raises(SimpromptError, match=r"b\.png: not an image"):
        prompt.predict([broken], ["cat"])
    with pytest.raises(SimpromptError, match=r"images\[1\]: not an image"):
        prompt.predict([picture("cat/0"), b"no image"], ["cat"])
    for names, sentence in (
        ([], "at least one class"),
        ("circle", "list of names"),
        (3, "list of names"),
        (["cat", 3], r"classes\[1\] has to be a class name"),
        (["cat", " "], r"classes\[1\] has to be a class name"),
        (["cat", "dog", "cat"], "'cat' is there twice"),
    ):
        with pytest.raises(SimpromptError, match=sentence):
            prompt.predict([picture("cat/0")], names)
    for wrong in (None, 3, {"a": 1}.keys, object()):
        with pytest.raises(SimpromptError):
            prompt.predict(wrong, ["cat"])
    with pytest.raises(SimpromptError, match="many images"):
        list(prompt.stream("a.png", ["cat"]))


def test_one_image_or_many_of_every_kind(tiny_clip, shots, tmp_path):
    prompt = learn(tiny_clip, shots, method="zero-shot")
    image = picture("cat/0")
    path = tmp_path / "a.png"
    image.save(path)
    array = np.asarray(image)
    expected = prompt.predict([image], ["cat", "dog"])[0]
    ones = [str(path), path, path.read_bytes(), image, array, torch.tensor(array),
            torch.tensor(array).permute(2, 0, 1)]  # fmt: skip
    for one in ones:
        assert prompt.predict(one, ["cat", "dog"]) == expected
    with path.open("rb") as file:
        assert prompt.predict(file, ["cat", "dog"]) == expected
    for many in (ones, tuple(ones), iter(ones), np.stack([array] * 3),
                 torch.stack([torch.tensor(array)] * 3)):  # fmt: skip
        for made in prompt.predict(
            many, ["cat", "dog"]
        ):  # a batch of another size rounds otherwise
            assert made.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    assert len(prompt.predict(np.stack([array] * 3), ["cat"])) == 3
    assert prompt.predict([]) == []


def test_without_names_the_own_and_the_new_ones_are_taken(tiny_clip, shots):
    prompt = learn(tiny_clip, shots, method="zero-shot")
    prompt.card["new_classes"] = ["lion", "cat"]
    assert prompt.classes == ("cat", "dog", "red car", "lion")
    assert len(prompt.predict(picture("cat/0")).probabilities) == 4


def test_names_that_are_one_text_are_refused(tiny_clip, shots):
    prompt = learn(tiny_clip, shots, method="zero-shot")
    for twins in (["cat", "Cat"], ["red car", "red_car"], ["cat", "cat "], ["cat", "c\u0061t "]):
        with pytest.raises(SimpromptError, match="one text"):
            prompt.predict(picture("cat/0"), twins)


def test_a_stream_asks_for_a_few_images_at_a_time(tiny_clip, shots):
    prompt = learn(tiny_clip, shots, method="zero-shot")
    asked = 0

    def images():
        nonlocal asked
        for _ in range(50):
            asked += 1
            yield picture("cat/0")

    stream = prompt.stream(images(), ["cat", "dog"], batch=4)
    next(stream)
    assert asked <= 8  # the batch that is classified, and the one that is read meanwhile
    assert len(list(stream)) == 49


def test_names_are_encoded_once(tiny_clip, shots, monkeypatch):
    prompt = learn(tiny_clip, shots, training=SCHEDULE)
    calls = []
    encode = type(prompt.learner).text_features
    monkeypatch.setattr(
        type(prompt.learner), "text_features", lambda *a: calls.append(1) or encode(*a)
    )
    for _ in range(3):
        list(prompt.stream([picture("cat/0")] * 9, ["cat", "lion"], batch=2))
    assert len(calls) == 1


def test_zero_shot_is_the_template(tiny_clip, shots):
    prompt = learn(tiny_clip, shots, method="zero-shot", template="a photo of a {}.")
    expected = tiny_clip.encode_texts(["a photo of a cat.", "a photo of a red car."])
    assert (prompt.text_features(["cat", "red_car"]) - expected).abs().max() < 1e-6
    assert prompt.learner.parameter_count() == 0


def test_sar_is_refused_where_text_cannot_move(tiny_clip, shots):
    with pytest.raises(SimpromptError, match="do not change"):
        learn(tiny_clip, shots, method="zero-shot", sar=SAR())


def test_a_prompt_for_another_model_is_refused(tiny_clip, make_clip, shots, tmp_path):
    learn(tiny_clip, shots, training=SCHEDULE).save(tmp_path / "p")
    with pytest.raises(SimpromptError, match="other weights"):
        load_prompt(tmp_path / "p", clip=make_clip(text={"width": 16}))
    other = make_clip()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.9)
    with pytest.raises(SimpromptError, match="other weights"):
        load_prompt(tmp_path / "p", clip=other)
    load_prompt(tmp_path / "p", clip=make_clip())
    with pytest.raises(SimpromptError, match="no saved prompt"):
        load_prompt(tmp_path / "nothing")


def test_a_long_class_name_is_named(tiny_clip, shots):
    prompt = learn(tiny_clip, shots, training=SCHEDULE)
    with pytest.raises(SimpromptError, match="long long"):
        prompt.text_features(["long " * 40])


@pytest.mark.parametrize("options", [{"n_ctx": 0}, {"ctx": 4}])
def test_wrong_options_name_what_exists(tiny_clip, shots, options):
    with pytest.raises(SimpromptError, match="n_ctx"):
        learn(tiny_clip, shots, options=options)


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Class folders of noise: phone photos that lie on their side, 16-bit scans, float TIFFs."""
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            deep = rng.integers(0, 65536, (18, 30, 3), dtype=np.uint16)
            stem = tmp_path / "photos" / name / str(i)
            Image.fromarray((deep >> 8).astype(np.uint8)).save(f"{stem}.jpg", exif=exif)
            Image.fromarray(deep[..., 0]).save(f"{stem}.png", exif=exif)
            Image.fromarray(deep[..., 1].astype(np.float32) / 65535).save(f"{stem}.tif")
    return tmp_path / "photos"


@pytest.mark.parametrize("method", ["coop", "vpt"])  # cached features, and pixels
def test_predict_reads_images_as_learning_does(tiny_clip, photos, tmp_path, method):
    """Whatever a file holds and however it is given, the probabilities are those of testing."""
    data = folder.load(photos).dataset
    learn(tiny_clip, data.train, method, training=Training(lr=0.2, epochs=2)).save(tmp_path / "p")
    prompt = load_prompt(tmp_path / "p", tiny_clip)
    expected = prompt.probabilities(data.test)
    assert (expected[0] - expected[1]).abs().max() > 1e-4, "a noise of its own each"
    paths = [photos / item for item in data.test.items]
    for images in (
        paths,
        [str(path) for path in paths],
        [path.read_bytes() for path in paths],
        [io.BytesIO(path.read_bytes()) for path in paths],
        [Image.open(io.BytesIO(path.read_bytes())) for path in paths],
        [np.asarray(data.test.load(i)) for i in range(len(paths))],
    ):
        rows = [row.probabilities for row in prompt.predict(images, data.classnames)]
        assert (torch.tensor(rows) - expected).abs().max() < 1e-6


def test_predict_turns_photos_only_if_learning_did(tiny_clip, photos, tmp_path):
    """The benchmarks' reader leaves photos as they are stored, and a prompt remembers it."""
    items = tuple(f"{name}/{i}.jpg" for name in ("cat", "dog") for i in range(4))
    paths = [photos / item for item in items]
    for upright in (False, True):
        split = Split(items, (0,) * 4 + (1,) * 4, ("cat", "dog"), FileLoader(photos, upright))
        learn(tiny_clip, split, training=SCHEDULE).save(tmp_path / "p")
        prompt = load_prompt(tmp_path / "p", tiny_clip)
        assert prompt.card["upright"] is upright
        expected = prompt.probabilities(split)
        as_learned, other = (
            torch.tensor([r.probabilities for r in prompt.predict(paths, ("cat", "dog"), **how)])
            for how in ({}, {"upright": not upright})
        )
        assert (as_learned - expected).abs().max() < 1e-6
        assert (other - expected).abs().max() > 1e-4


def test_images_of_no_file_are_learned_as_upright(tiny_clip, shots):
    assert learn(tiny_clip, shots, training=SCHEDULE).card["upright"] is True


# --- what is not a number -------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_a_prompt_that_is_no_number_is_neither_saved_nor_loaded(tiny_clip, shots, tmp_path, wrong):
    prompt = learn(tiny_clip, shots, training=SCHEDULE)
    prompt.save(tmp_path / "good")
    weights, card_file = (tmp_path / "good" / name for name in ("prompt.safetensors", "card.json"))
    before = weights.read_bytes()
    prompt.learner.ctx.data[1, 2] = wrong
    with pytest.raises(SimpromptError, match=r"not saved to .*its ctx holds NaN or infinity"):
        prompt.save(tmp_path / "good")
    assert weights.read_bytes() == before
    with pytest.raises(SimpromptError, match="not saved"):
        prompt.save(tmp_path / "bad")
    assert not list(tmp_path.glob("bad*"))
    state = load_file(weights)
    state["ctx"][0, 0] = wrong
    save_file(state, weights)
    card = json.loads(card_file.read_text(encoding="utf-8"))
    del card["checksum"]  # written by hand, as it were
    card_file.write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(
        SimpromptError, match=r"prompt\.safetensors cannot be used: its ctx holds NaN"
    ):
        load_prompt(tmp_path / "good", tiny_clip)


def test_no_answer_is_a_probability_that_is_no_number(tiny_clip, shots):
    prompt = learn(tiny_clip, shots, training=SCHEDULE)
    prompt.learner.ctx.data.fill_(torch.nan)
    with pytest.raises(SimpromptError, match=r"2 of 2 images are not numbers, of images\[0\]"):
        prompt.predict([picture("cat/0"), picture("dog/0")], NAMES)
    for ask in (prompt.accuracy, prompt.probabilities):
        with pytest.raises(SimpromptError, match="18 of 18 images are not numbers, of cat/0"):
            ask(shots)


def test_the_last_good_prompt_of_a_training_that_diverges_is_kept(tiny_clip, shots, tmp_path):
    wild = Training(lr=1e30, epochs=6, batch_size=6)
    with pytest.raises(DivergedError) as error, keeping_last_good(tmp_path / "last-good"):
        learn(tiny_clip, shots, training=wild)
    assert f"kept in {tmp_path / 'last-good'}" in str(error.value)
    kept = load_prompt(tmp_path / "last-good", tiny_clip)
    assert kept.probabilities(shots).isfinite().all()
    assert "The training diverged: " in kept.card["diverged"]
    nothing = Split(shots.items, shots.labels, NAMES, lambda _: picture("cat/0"))
    tiny_clip.text.projection.data.fill_(torch.nan)
    with (
        pytest.raises(DivergedError, match="Nothing was learned"),
        keeping_last_good(tmp_path / "nothing"),
    ):
        learn(tiny_clip, nothing, training=SCHEDULE)
    assert not list(tmp_path.glob("nothing*"))


def test_learn_says_in_one_paragraph_that_it_diverged(
    tiny_clip, tiny_tokenizer, photos, tmp_path, monkeypatch, capsys
):
    from simprompt.cli import main

    clip_hub.save(tiny_clip, tmp_path / "model")
    shutil.copy(tiny_tokenizer, tmp_path / "model" / "tokenizer.json")
    out = tmp_path / "learned"
    command = ["learn", str(photos), "--model", str(tmp_path / "model"), "--sar", "off", "--out",
               str(out), "--set", "training.lr=1e30", "--set", "training.epochs=9"]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["simprompt", *command])
    with pytest.raises(SystemExit) as stopped, warnings.catch_warnings():
        main.main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert "The last good prompt is the one after 1 of 9 epochs" in said
    assert str(out / "last-good") in said
    assert {path.name for path in out.iterdir()} == {"last-good"}
    # a model that is not finite is no model
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["text.projection"][0] = torch.inf
    save_file(weights, tmp_path / "model" / "model.safetensors")
    result = CliRunner().invoke(main.app, command)
    assert "text.projection holds NaN or infinity" in str(result.exception)


# --- for people at a prompt ---------------------------------------------------------------------


def test_what_is_printed_is_one_line_and_html_obeys_no_name(tiny_clip, shots):
    from dataclasses import replace

    from simprompt.data.dataset import Dataset

    evil = replace(shots, classnames=("<script>x</script>", "dog", "red car"))
    data = Dataset("mine", evil.classnames, ("a {}.",), evil, None, evil)
    prompt = learn(tiny_clip, evil, sar=False, training=SCHEDULE)
    for thing in (evil, data, data.base, prompt):
        assert "\n" not in repr(thing)
        assert len(repr(thing)) < 200
    for thing in (evil, data, prompt):
        page = thing._repr_html_()
        assert "<script" not in page
        assert "&lt;script&gt;" in page
    assert "12 numbers" not in repr(prompt)
    assert f"{prompt.learner.parameter_count():,} numbers" in repr(prompt)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"clip": "icons"}, "takes a CLIP"),
        ({"shots": ["a.jpg", "b.jpg"]}, "takes a split"),
        ({"sar": "x"}, "sar=True, a weight"),
        ({"training": 3}, r"a dictionary or Training\(\.\.\.\)"),
        ({"options": [1]}, "takes a dictionary"),
    ],
)
def test_arguments_of_other_kinds_are_refused_in_a_sentence(tiny_clip, shots, changed, sentence):
    with pytest.raises(SimpromptError, match=sentence):
        learn(**{"clip": tiny_clip, "shots": shots, **changed})


def test_learning_in_python_is_told(tiny_clip, shots):
    told = []
    with listening(lambda *what: told.append(what)):
        learn(tiny_clip, shots, training=SCHEDULE)
    assert ("epochs learned", 15, 15) in told


@pytest.mark.parametrize("batch", [0, -1, True, 1.5, None])
def test_a_batch_of_no_images_is_refused_wherever_it_is_given(tiny_clip, shots, batch):
    prompt = learn(tiny_clip, shots, "zero-shot", progress=False)
    pixels = torch.zeros(2, 3, *[tiny_clip.preprocess(picture("cat/1")).shape[-1]] * 2)
    calls = [
        lambda: [*prompt.stream([picture("cat/1")], batch=batch)],
        lambda: [*prompt.stream_with_errors([picture("cat/1")], batch=batch)],
        lambda: tiny_clip.encode_pixels(pixels, batch=batch),
        lambda: tiny_clip.encode_texts(["cat"], chunk=batch),
    ]
    if batch is not None:  # which takes the default
        calls += [
            lambda: prompt.learner.classifier(NAMES, batch),
            lambda: image_features(tiny_clip, shots, batch=batch),
            lambda: view_features(tiny_clip, shots, 2, batch=batch),
        ]
    for call in calls:
        with pytest.raises(SimpromptError, match="must be a whole number of at least 1"):
            call()


def test_a_template_without_a_place_for_the_name_is_refused_by_every_way_in(tiny_clip, shots):
    wrong = "a photo"
    calls = [
        lambda: learn(tiny_clip, shots, template=wrong, progress=False),
        lambda: learn(tiny_clip, shots, "class-means", template=wrong, progress=False),
        lambda: prepare(tiny_clip, shots, template=wrong),
        lambda: RunConfig(dataset="a", template=wrong),
        lambda: learn(
            tiny_clip, shots, "promptsrc", options={"templates": ["a {}", wrong]}, progress=False
        ),
        lambda: PromptClassifier(tiny_clip, template=wrong, sar=False).fit(
            [picture("cat/1"), picture("dog/1")], ["cat", "dog"]
        ),
    ]
    for call in calls:
        with pytest.raises((SimpromptError, ValueError), match="in the place of the class name"):
            call()


# ---- which model a saved prompt is given


@pytest.fixture
def moved(tiny_clip, make_clip, shots, tiny_tokenizer, tmp_path, monkeypatch):
    """(a prompt's folder, the folder of its checkpoint, which has moved since)."""
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "jane").mkdir()
    clip_hub.save(tiny_clip, tmp_path / "jane")
    shutil.copy(tiny_tokenizer, tmp_path / "jane" / "tokenizer.json")
    clip = clip_hub.load_clip(tmp_path / "jane")
    place = learn(clip, shots, "zero-shot", progress=False).save(tmp_path / "p")
    assert load_prompt(place).clip.source["name"] == str(tmp_path / "jane"), "as long as it lies"
    (tmp_path / "jane").rename(tmp_path / "joan")
    return place, tmp_path / "joan"


def test_a_checkpoint_that_moved_is_named_once(moved, make_clip, tmp_path, tiny_tokenizer):
    place, checkpoint = moved
    for name in ("card.json", "README.md"):
        assert str(tmp_path) not in (place / name).read_text(encoding="utf-8")
    with pytest.raises(SimpromptError, match=r"checkpoint 'jane' .*--model PATH.*model=PATH"):
        load_prompt(place)
    other = tmp_path / "other"
    other.mkdir()
    clip_hub.save(make_clip(seed=1), other)
    shutil.copy(tiny_tokenizer, other / "tokenizer.json")
    with pytest.raises(SimpromptError, match="other weights"):
        load_prompt(place, model=other)
    with pytest.raises(SimpromptError, match="checkpoint 'jane'"):
        load_prompt(place)  # what did not fit is not remembered
    assert load_prompt(place, model=checkpoint)
    assert load_prompt(place).clip.source["name"] == str(checkpoint)


def test_the_commands_take_the_model(moved, tmp_path):
    place, checkpoint = moved
    image = tmp_path / "a.png"
    Image.new("RGB", (16, 16)).save(image)
    given = ("--model", str(checkpoint))
    for words in (
        ("predict", str(place), str(image)),
        ("explain", str(place), "--out", str(tmp_path / "page.html")),
        ("export", str(place), "--to", "head", "--out", str(tmp_path / "e")),
    ):
        os.environ["SIMPROMPT_CACHE"] = str(tmp_path / words[0])  # the fixture puts it back
        refused = in_process(*words)
        assert (refused.returncode, "--model PATH" in refused.stderr) == (2, True)
        ran = in_process(*words, *given)
        assert ran.returncode == 0, ran.stderr
    assert str(tmp_path) not in (tmp_path / "e" / "export.json").read_text(encoding="utf-8")
    from simprompt.deploy.engine import load_prompts

    os.environ["SIMPROMPT_CACHE"] = str(tmp_path / "serve")
    one, two = load_prompts([place, place], str(checkpoint))
    assert one.clip is two.clip


def test_a_path_in_a_card_is_never_opened(moved, tmp_path, monkeypatch):
    place, checkpoint = moved
    card = json.loads((place / "card.json").read_text(encoding="utf-8"))
    opened = []
    monkeypatch.setattr(
        "simprompt.prompt.loading.load_clip", lambda name, **more: opened.append(name)
    )
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)  # where "joan" is a folder
    for changes in (
        {"model": str(checkpoint)}, {"model": "joan"}, {"model": "joan/"}, {"model": "/dev/zero"},
        {"model": "icons", "tokenizer": "/dev/zero"}, {"model_digest": "../../joan"},
        {"model": "hub", "model_digest": "0" * 64}, {"model": "../joan"},
    ):  # fmt: skip
        (place / "card.json").write_text(json.dumps({**card, **changes}), encoding="utf-8")
        with pytest.raises(SimpromptError, match=r"--(model|tokenizer) PATH"):
            load_prompt(place)
    assert opened == []
