"""A regulariser is a file: found by its name, riding on any host, with its own label and key."""

from __future__ import annotations

import textwrap

import pytest
import torch
import torch.nn.functional as F

import simprompt
from simprompt import regularisers
from simprompt.config import SAR, SARPlus
from simprompt.errors import SimpromptError
from simprompt.experiments.runner import identify
from simprompt.prompt.learn import prepare
from simprompt.recipes import plan
from simprompt.regularisers.text_to_text import TextToText, TextToTextConfig
from simprompt.sar import Regulariser
from simprompt.utils.options import MethodOptions, ModelOptions

OWN = """
from simprompt.config import SAR
from simprompt.sar import Regulariser

class Config(SAR):
    power: float = 2.0

class Drift(Regulariser):
    "Distance of the drawn classes to the hand-crafted text."
    Config = Config

    def loss(self, text, numbers, drawn):
        rows = (numbers[:, None] == drawn).nonzero()[:, 0]
        return (text[rows] - self.teacher[drawn]).norm(dim=-1).pow(self.settings.power).mean()

REGULARISER = Drift
"""


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(0)), dim=-1)


def test_sar_is_one_of_them():
    assert {"sar", "sar-plus", "text-to-text"} <= {*regularisers.names()}
    assert regularisers.find("sar") is Regulariser
    for name in regularisers.names():
        kind = regularisers.find(name)
        assert issubclass(kind, Regulariser)
        assert issubclass(kind.Config, SAR)
    with pytest.raises(SimpromptError, match="Did you mean 'text-to-text'"):
        regularisers.find("text-to-txt")


def test_text_to_text_is_the_cross_entropy_written_out():
    teacher, learned = unit(9, 6), unit(12, 6)[3:]
    regulariser = TextToText(TextToTextConfig(temperature=0.5, classes_per_step=4), teacher, 5, 1)
    drawn = regulariser.draw()
    loss = regulariser.loss(learned, torch.arange(9), drawn)
    by_hand = 0.0
    for i in drawn.tolist():
        row = [float(learned[i] @ teacher[j]) / 0.5 for j in range(9)]
        by_hand += torch.tensor(row).logsumexp(0).item() - row[i]
    assert loss.item() == pytest.approx(by_hand / 4, rel=1e-5)


def test_it_rides_on_a_host_with_its_own_label_and_key():
    configs = [
        plan.plan(
            ["icons/food"],
            [1],
            ModelOptions("icons"),
            MethodOptions(settings=settings, method="kgcoop", sar="on"),
        )[0]
        for settings in ([], ["sar.regulariser=text-to-text"], ["sar.regulariser=sar"])
    ]
    assert [c.label for c in configs] == ["kgcoop+sar", "kgcoop+text-to-text", "kgcoop+sar"]
    keys = [identify(c).key for c in configs]
    assert keys[1] not in (keys[0], keys[2])
    assert isinstance(configs[1].sar, TextToTextConfig)


@pytest.fixture(scope="module")
def world():
    clip = simprompt.load_clip("icons")
    return clip, simprompt.load_dataset("icons/animals").base.few_shot(2, seed=1)


def trained(world, **settings):
    clip, shots = world
    prompt = simprompt.learn(
        clip, shots, method="kgcoop", sar={"classes_per_step": 8, **settings},
        training={"epochs": 2}, novel=["stone", "river", "tower"],
    )  # fmt: skip
    return prompt


def test_a_prompt_is_trained_with_it_saved_and_loaded(world, tmp_path):
    prompt = trained(world, regulariser="text-to-text", weight=1.0)
    plain = trained(world, weight=1.0)
    names = ["stone", "cat"]
    assert not torch.equal(prompt.text_features(names), plain.text_features(names))
    assert prompt.card["sar"]["regulariser"] == "text-to-text"
    prompt.save(tmp_path / "p")
    again = simprompt.load_prompt(tmp_path / "p", prompt.clip)
    assert torch.equal(again.text_features(names), prompt.text_features(names))


def test_one_of_your_own_is_a_file(world, tmp_path, monkeypatch):
    (tmp_path / "drift.py").write_text(textwrap.dedent(OWN), encoding="utf-8")
    monkeypatch.setattr(regularisers, "__path__", [*regularisers.__path__, str(tmp_path)])
    assert "drift" in regularisers.names()
    prompt = trained(world, regulariser="drift", power=1.0)
    assert prompt.card["sar"]["power"] == 1.0
    (config,) = plan.plan(
        ["icons/food"],
        [1],
        ModelOptions("icons"),
        MethodOptions(settings=["sar.regulariser=drift"], method="coop", sar="on"),
    )
    before = identify(config).key
    clip, shots = world
    training_key = prepare(clip, shots, sar=config.sar).key()
    assert prepare(clip, shots, sar=config.sar).key() == training_key
    text = (tmp_path / "drift.py").read_text(encoding="utf-8")
    (tmp_path / "drift.py").write_text(text.replace("mean()", "sum()"), encoding="utf-8")
    assert identify(config).key != before
    assert prepare(clip, shots, sar=config.sar).key() != training_key
    with pytest.raises(SimpromptError, match="there is no setting 'power'"):
        trained(world, power=1.0)
    (tmp_path / "drift.py").write_text("REGULARISER = 3", encoding="utf-8")
    with pytest.raises(SimpromptError, match="drift cannot be used"):
        trained(world, regulariser="drift")


def test_settings_without_a_name_are_those_of_sar():
    assert regularisers.settings_of({}) is SARPlus
    assert regularisers.settings_of({"regulariser": "text-to-text"}) is TextToTextConfig
