"""The pure functions of the methods, against numbers that were published or can be done by hand."""

from __future__ import annotations

import math

import pytest
import torch

from simprompt.cli.described import described, parameters, vit_b16
from simprompt.clip.model import CLIP
from simprompt.config import Training
from simprompt.methods import find
from simprompt.methods.kgcoop import knowledge_distance
from simprompt.methods.parts import seeded
from simprompt.methods.prograd import distillation, project
from simprompt.methods.promptsrc import averaging_weights
from simprompt.methods.teacher import IMAGENET_60
from simprompt.training.schedule import learning_rate

PUBLISHED = {
    "coop": 2_048,
    "kgcoop": 2_048,
    "cocoop": 35_360,
    "maple": 3_555_072,
    "tcp": 331_904,
    "vpt": 73_728,
    "ivlp": 30_720,
    "promptsrc": 46_080,
}


def test_parameter_counts_on_vit_b16() -> None:
    rows = {row["method"]: row for row in described()}
    assert {name: rows[name]["parameters"] for name in PUBLISHED} == PUBLISHED
    assert not any(rows[name]["per_class"] for name in PUBLISHED)
    # by hand: 16 x 512 host, 4 x 512 scales and biases, a head of 512 + 1 a class
    assert rows["dept"]["parameters"] == 16 * 512 + 4 * 512 + 50 * 513
    assert rows["tip-adapter"]["parameters"] == 50 * 16 * 512
    assert rows["linear-probe"]["parameters"] == 50 * 513
    assert rows["coop"]["recipes"][:2] == ["coop+sar@paper", "coop@cocoop-paper"]
    assert not rows["vpt"]["sar"]
    assert rows["vpt+text"]["sar"]
    clip = vit_b16()
    assert parameters(find("coop"), clip, 7, class_specific=True) == 7 * 2_048
    assert parameters(find("vpt"), clip, 7, depth=1) == 8 * 768
    assert parameters(find("language"), clip, 7) == 4 * 12 * 512


def test_kgcoops_squared_cosine_is_its_authors_log() -> None:
    """htyao89/KgCoOp issue 2: 1.217413e-10 after 100 epochs of 100."""
    squared = Training(lr=2e-3, epochs=100, schedule="squared cosine")
    assert learning_rate(100, squared, 100) == pytest.approx(1.217413e-10, rel=1e-6)
    assert learning_rate(0, squared, 100) == 1e-5
    assert learning_rate(1, squared, 100) == 2e-3
    assert learning_rate(51, squared, 100) == pytest.approx(0.25 * 2e-3)
    # the newer torch never lifted the warm-up rate: 1e-5 f^2, read by the reporter at 80 and 99
    stuck = Training(lr=1e-5, epochs=100, schedule="squared cosine")
    assert learning_rate(80, stuck, 100) == pytest.approx(1.100873e-07, rel=1e-5)
    assert learning_rate(99, stuck, 100) == pytest.approx(9.7345e-12, rel=1e-4)


def test_promptsrcs_weights_are_a_gaussian_over_epochs() -> None:
    weights = averaging_weights(20, 15, 1)
    density = [math.exp(-((e - 15) ** 2) / 2) for e in range(1, 21)]
    assert weights == pytest.approx([d / sum(density) for d in density], abs=1e-12)
    assert max(range(20), key=weights.__getitem__) == 14
    assert sum(averaging_weights(5, 15, 1)) == pytest.approx(1)  # all weight on the last epoch
    assert averaging_weights(3, 6, 1e9) == pytest.approx([1 / 3] * 3)


def test_prograd_projects_only_what_goes_against_general_knowledge() -> None:
    general = torch.tensor([0.0, 2.0])
    along = torch.tensor([3.0, 1.0])
    assert torch.equal(project(along, general, 1.0), along)
    against = torch.tensor([3.0, -1.0])
    assert torch.equal(project(against, general, 1.0), torch.tensor([3.0, 0.0]))
    assert torch.allclose(project(against, general, 0.8), torch.tensor([3.0, -0.2]))


def test_distillation_is_kl_plus_a_constant() -> None:
    s, z = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p, q = (z / 2).softmax(-1), (s / 2).softmax(-1)
    kl = (p * (p / q).log()).sum(-1).mean()
    entropy = -(p * p.log()).sum(-1).mean()
    assert distillation(s, z, 2.0) == pytest.approx(4 * (kl + entropy).item())


def test_kgcoops_distance() -> None:
    t = torch.eye(3)
    assert knowledge_distance(t, t) == 0
    assert knowledge_distance(t, -t) == 2
    assert knowledge_distance(t, t.roll(1, 0)) == 1


def test_initial_numbers_of_one_seed_are_not_those_of_another(tiny_clip: CLIP) -> None:
    """Context, text tokens, image tokens and layers draw from streams of their own."""
    kind = find("ivlp")
    made = {
        seed: kind(tiny_clip, ["cat"], "a {}.", kind.Config(init="random"), seed)
        for seed in (1, 1001, 2001)
    }
    drawn = [
        part.detach().flatten()[:60]
        for one in made.values()
        for part in (one.ctx, one.deep, one.tokens)
    ]
    with seeded(1, "net"):
        drawn.append(torch.randn(60))
    alike = torch.corrcoef(torch.stack(drawn)).fill_diagonal_(0)
    assert alike.abs().max() < 0.6


def test_the_60_templates() -> None:
    assert len(set(IMAGENET_60)) == 60
    assert all(t.count("{}") == 1 and t == t.strip() for t in IMAGENET_60)
