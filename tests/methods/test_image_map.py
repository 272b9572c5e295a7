"""The image map against a generic least-squares solver, and what its figures rest on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import simprompt
from simprompt.errors import SimpromptError
from simprompt.methods.closed_form import solve


def problem(seed: int, n: int, e: int, classes: int, novel: int):
    torch.manual_seed(seed)
    draw = lambda *shape: F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)  # noqa: E731
    labels = torch.arange(n) % classes
    return draw(n, e), labels, draw(classes, e), draw(novel, e)


@given(
    seed=st.integers(0, 99),
    n=st.integers(4, 20),
    ridge=st.floats(0.003, 3),
    hold=st.sampled_from([0.0, 0.3, 20.0]),
)
def test_the_closed_form_is_the_least_squares_solution(seed, n, ridge, hold):
    """All three squares as rows of one system in the E^2 numbers of W, given to lstsq."""
    e, classes = 5, 3
    images, labels, text, held = problem(seed, n, e, classes, 7)
    mean, weight = solve(images, labels, text, ridge, hold, held)
    x = images - images.mean(0)
    t = (text - text.mean(0))[labels]
    scale = x.norm(dim=1).mean() / t.norm(dim=1).mean()
    c = x.pow(2).sum(1).mean()
    spread = held - held.mean(0)
    covariance = spread.T @ spread
    values, vectors = torch.linalg.eigh(covariance)
    b = vectors @ torch.diag((values.clamp(min=0) / values[-1]).sqrt())
    one = torch.eye(e, dtype=torch.float64)
    rows = torch.cat([torch.kron(x, one), (ridge * c * n).sqrt() * torch.kron(one, one),
                      hold**0.5 * torch.kron(x, b.T.contiguous())])  # fmt: skip
    target = torch.cat([(scale * t - x).flatten(), torch.zeros(e * e + n * e)])
    oracle = torch.linalg.lstsq(rows, target.double(), driver="gelsd").solution.view(e, e)
    assert (mean - images.mean(0)).abs().max() < 1e-12
    assert (weight - oracle).abs().max() < 1e-8 * max(1, float(oracle.abs().max()))


def test_a_large_ridge_is_the_host_and_a_small_one_brings_images_to_their_text():
    images, labels, text, _ = problem(1, 12, 16, 4, 3)
    mean, still = solve(images, labels, text, 1e9)
    assert still.abs().max() < 1e-6
    before = (images @ text.T).argmax(1) == labels
    mean, weight = solve(images, labels, text, 1e-6)
    mapped = images + (images - mean) @ weight
    after = (F.normalize(mapped, dim=-1) @ (text - text.mean(0)).T).argmax(1) == labels
    assert after.all()
    assert not before.all()


@pytest.fixture(scope="module")
def learned():
    clip = simprompt.load_clip("icons")
    data = simprompt.load_dataset("icons/animals")
    shots = data.base.few_shot(4, seed=1)
    sar = simprompt.SAR(weight=1.0)
    training = {"epochs": 2, "lr": 0.02, "batch_size": 16}
    words = {"n_ctx": 4}
    alone = simprompt.learn(clip, shots, method="coop", sar=sar, options=words, training=training)
    options = {"host": "coop", "host_options": words}
    mapped = simprompt.learn(
        clip, shots, method="image-map", sar=sar, options=options, training=training
    )
    return data, alone, mapped


def test_the_host_is_trained_as_it_is_alone(learned):
    data, alone, mapped = learned
    names = data.new.classnames
    assert torch.equal(alone.text_features(names), mapped.text_features(names))
    assert mapped.learner.weight.abs().max() > 0


def test_it_comes_back_from_disk(learned, tmp_path):
    data, _, mapped = learned
    mapped.save(tmp_path / "p")
    again = simprompt.load_prompt(tmp_path / "p", mapped.clip)
    split = data.new.test
    assert torch.equal(again.probabilities(split), mapped.probabilities(split))


def test_zero_shot_is_a_host_and_novel_names_hold_the_map():
    clip = simprompt.load_clip("icons")
    shots = simprompt.load_dataset("icons/animals").base.few_shot(4, seed=1)
    free, held = (
        simprompt.learn(
            clip,
            shots,
            method="image-map",
            sar=False,
            training={"epochs": 1},
            options={"host": "zero-shot", "hold": mu, "ridge": 0.05},
        )
        for mu in (0, 100)
    )
    assert held.learner.weight.norm() < 0.9 * free.learner.weight.norm()


@pytest.mark.parametrize("host", ["class-means", "vpt", "cocoop", "dept"])
def test_hosts_that_cannot_be_had_are_named(host):
    clip = simprompt.load_clip("icons")
    shots = simprompt.load_dataset("icons/animals").base.few_shot(1, seed=1)
    with pytest.raises(SimpromptError, match=f"cannot have '{host}' as its host"):
        simprompt.learn(clip, shots, method="image-map", sar=False, options={"host": host})
