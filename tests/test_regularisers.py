"""A regulariser is a file: found by its name, riding on any host, with its own label and key."""

from __future__ import annotations

import textwrap

import numpy as np
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
from simprompt.regularisers.gram import Gram, GramConfig
from simprompt.regularisers.moments import Moments, MomentsConfig
from simprompt.regularisers.text_to_text import TextToText, TextToTextConfig
from simprompt.sar import Regulariser, sar_loss
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


def test_gram_matching_is_the_sum_written_out():
    teacher, learned = unit(9, 6), unit(12, 6)[3:]
    regulariser = Gram(GramConfig(temperature=0.5, classes_per_step=4), teacher, 5, 1)
    drawn = regulariser.draw()
    loss = regulariser.loss(learned, torch.arange(9), drawn)
    by_hand = [
        (float(learned[i] @ learned[j]) - float(teacher[i] @ teacher[j])) ** 2 / (2 * 0.5**2)
        for i in drawn.tolist()
        for j in drawn.tolist()
        if i != j
    ]
    assert loss.item() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)


def test_gram_matching_is_sar_to_second_order_where_rows_are_flat():
    """Orthogonal names are all alike to each other; KL is then half the variance of a row."""
    teacher = torch.eye(40, dtype=torch.float64)[:30]
    change = torch.randn(30, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    learned = F.normalize(teacher + 1e-4 * change, dim=-1)
    change = (learned @ learned.T)[~torch.eye(30, dtype=torch.bool)].view(30, 29)
    gram = Gram(GramConfig(classes_per_step=99), teacher, 5, 1)
    numbers = torch.arange(30)
    whole = gram.loss(learned, numbers, gram.draw())
    of_the_mean = change.mean(1).square().mean() / (2 * 0.01**2)
    kl = sar_loss(learned, teacher, 0.01)
    assert (whole - of_the_mean).item() == pytest.approx(kl.item(), rel=0.02)


def test_moment_matching_is_numpys_mean_and_covariance():
    teacher, learned = unit(9, 6).double(), unit(12, 6)[3:].double()
    regulariser = Moments(MomentsConfig(classes_per_step=5), teacher, 5, 1)
    drawn = regulariser.draw()
    loss = regulariser.loss(learned, torch.arange(9), drawn)
    t, h = learned[drawn].numpy(), teacher[drawn].numpy()
    c_t, c_h = (np.cov(x, rowvar=False, bias=True) for x in (t, h))
    wanted = np.sum((t.mean(0) - h.mean(0)) ** 2) / np.trace(c_h)
    wanted += np.linalg.norm(c_t - c_h) ** 2 / np.linalg.norm(c_h) ** 2
    assert loss.item() == pytest.approx(wanted, rel=1e-9)
    exchanged = regulariser.loss(teacher[drawn.flip(0)], drawn, drawn)
    assert exchanged.item() == pytest.approx(0, abs=1e-12)  # names may change places


@pytest.mark.parametrize("kind", [Gram, Moments, TextToText])
def test_one_class_alone_has_no_loss_that_is_not_a_number(kind):
    regulariser = kind(kind.Config(classes_per_step=2), unit(1, 6), 1, 1)
    assert regulariser.loss(unit(2, 6)[1:], torch.arange(1), regulariser.draw()).isfinite()


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
