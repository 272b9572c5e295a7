"""Learning, predicting, saving and loading through the public API."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from simprompt.config import SAR, Training
from simprompt.data.dataset import Split
from simprompt.errors import SimpromptError
from simprompt.prompt import learn, load_prompt

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
        tiny_clip, shots, sar=SAR(weight=0.1, sample=5), training=SCHEDULE, novel=["bird", "wolf"]
    )
    assert prompt.curves.loss[-1] < prompt.curves.loss[0]
    prompt.save(tmp_path / "colours")
    again = load_prompt(tmp_path / "colours.safetensors", clip=tiny_clip)
    assert again.accuracy(shots) == prompt.accuracy(shots)
    assert torch.equal(again.text_features(["fish"]), prompt.text_features(["fish"]))
    card = json.loads((tmp_path / "colours.json").read_text(encoding="utf-8"))
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
    with pytest.raises(SimpromptError, match=r"b\.png could not be read"):
        prompt.predict([broken], ["cat"])
    with pytest.raises(SimpromptError, match="at least one class"):
        prompt.predict([picture("cat/0")], [])


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
    with pytest.raises(SimpromptError, match="does not fit"):
        load_prompt(tmp_path / "p", clip=make_clip(text={"width": 16}))
    with pytest.raises(SimpromptError, match="not a saved prompt"):
        load_prompt(tmp_path / "nothing")


def test_a_long_class_name_is_named(tiny_clip, shots):
    prompt = learn(tiny_clip, shots, training=SCHEDULE)
    with pytest.raises(SimpromptError, match="long long"):
        prompt.text_features(["long " * 40])


@pytest.mark.parametrize("options", [{"n_ctx": 0}, {"ctx": 4}])
def test_wrong_options_name_what_exists(tiny_clip, shots, options):
    with pytest.raises(SimpromptError, match="n_ctx"):
        learn(tiny_clip, shots, options=options)
