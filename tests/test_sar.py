"""SAR against its formulas in float64, and its properties."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simprompt.config import SAR
from simprompt.sar import Regulariser, relations, row_kl, sar_loss, similarity_logits
from simprompt.utils.seeds import stream


def unit(n: int, e: int, seed: int) -> torch.Tensor:
    x = torch.randn(n, e, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm(dim=-1, keepdim=True)


def by_formula(learned, teacher, tau, diagonal, direction, own, learned_columns, teacher_columns):
    """mean_i sum_j P_ij log(P_ij / Q_ij) with plain loops over numbers."""
    total = learned.new_zeros(())
    for i in range(len(learned)):
        columns = [j for j in range(len(learned_columns)) if diagonal == "in" or j != int(own[i])]
        q = torch.stack([torch.exp(learned[i] @ learned_columns[j] / tau) for j in columns])
        p = torch.stack([torch.exp(teacher[i] @ teacher_columns[j] / tau) for j in columns])
        q, p = q / q.sum(), p / p.sum()
        if direction == "learned":
            p, q = q, p
        total = total + (p * (p.log() - q.log())).sum()
    return total / len(learned)


@pytest.mark.parametrize("tau", [0.01, 0.07, 1.0])
def test_loss_and_gradient_equal_the_formulas(tau):
    own = torch.arange(6)
    losses, gradients = [], []
    for ours in (True, False):
        x, h = unit(6, 5, 1).requires_grad_(), unit(6, 5, 2).requires_grad_()
        fixed = h.detach()
        loss = (
            sar_loss(x, h, tau)
            if ours
            else by_formula(x, fixed, tau, "out", "teacher", own, x, fixed)
        )
        loss.backward()
        assert h.grad is None, "the teacher must stay frozen"
        losses.append(loss.item())
        gradients.append(x.grad)
    assert math.isclose(*losses, rel_tol=1e-9, abs_tol=1e-12)
    assert (gradients[0] - gradients[1]).abs().max() <= 1e-9 * gradients[1].abs().max()


@settings(max_examples=30)
@given(n=st.integers(2, 12), seed=st.integers(0, 10**6), tau=st.floats(0.005, 2))
def test_zero_when_both_agree_and_never_negative(n, seed, tau):
    x, y = unit(n, 5, seed), unit(n, 5, seed + 1)
    assert sar_loss(x, x, tau).item() == 0
    assert sar_loss(x, y, tau).item() >= -1e-12


def test_no_nan_at_a_temperature_that_saturates():
    x = unit(6, 5, 0).float().requires_grad_()
    loss = sar_loss(x, unit(6, 5, 1).float(), 1e-4)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(x.grad).all()


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_blind_to_one_rotation_of_all_learned_embeddings(seed):
    x, h = unit(8, 5, seed), unit(8, 5, seed + 1)
    rotation, _ = torch.linalg.qr(unit(5, 5, seed + 2))
    a, b = sar_loss(x, h, 0.01), sar_loss(x @ rotation, h, 0.01)
    assert math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


class TestRegulariser:
    teacher = unit(30, 5, 0)

    def test_draws_k_different_classes_uniformly(self):
        regulariser = Regulariser(SAR(classes_per_step=10), self.teacher, n_base=12, seed=1)
        counts = torch.zeros(30)
        for _ in range(600):
            drawn = regulariser.draw()
            assert len(set(drawn.tolist())) == 10
            counts[drawn] += 1
        # 600 draws of 10 from 30: 200 expected a class, deviation sqrt(600/3*2/3) = 11.5
        assert (counts - 200).abs().max() < 5 * 11.6

    def test_same_seed_same_draws(self):
        a, b = (Regulariser(SAR(classes_per_step=5), self.teacher, 12, seed=3) for _ in range(2))
        assert [a.draw().tolist() for _ in range(4)] == [b.draw().tolist() for _ in range(4)]

    def test_a_sample_larger_than_the_pool_takes_all(self):
        regulariser = Regulariser(SAR(classes_per_step=64), self.teacher, 12, seed=1)
        assert regulariser.draw().tolist() == list(range(30))

    def test_loss_of_a_step_is_the_loss_of_the_drawn_rows(self):
        regulariser = Regulariser(SAR(classes_per_step=8), self.teacher, n_base=12, seed=5)
        learned = unit(30, 5, 9)
        drawn = regulariser.draw()
        assert torch.equal(regulariser.needed(drawn), drawn)
        numbers = torch.cat([torch.arange(12), drawn[drawn >= 12]])
        h = self.teacher[drawn]
        loss = regulariser.loss(learned[numbers], numbers, drawn)
        wanted = by_formula(
            learned[drawn], h, 0.01, "out", "teacher", torch.arange(8), learned[drawn], h
        )
        assert math.isclose(loss, wanted, rel_tol=1e-9)

    def test_goes_on_from_a_checkpoint_with_the_same_draws(self):
        kept_one, other = (
            Regulariser(SAR(classes_per_step=5), self.teacher, 12, seed=3) for _ in range(2)
        )
        kept_one.draw()
        kept = kept_one.state_dict()
        rest = [kept_one.draw().tolist() for _ in range(3)]
        assert [other.draw().tolist() for _ in range(3)] != rest
        other.load_state_dict(kept)
        assert [other.draw().tolist() for _ in range(3)] == rest

    def test_its_draws_are_those_of_the_stream_named_sar(self):
        regulariser = Regulariser(SAR(classes_per_step=5), self.teacher, 12, seed=3)
        order = torch.randperm(30, generator=stream(3, "sar"))
        assert regulariser.draw().tolist() == sorted(order[:5].tolist())

    @pytest.mark.parametrize(("sample", "part"), [(6, 0.2), (30, 1.0), (64, 1.0)])
    def test_share_is_the_part_of_the_classes_that_is_drawn(self, sample, part):
        assert Regulariser(SAR(classes_per_step=sample), self.teacher, 12, seed=3).share() == part

    def test_the_paper_s_loss_has_no_anchor(self):
        regulariser = Regulariser(SAR(classes_per_step=5), self.teacher, 12, seed=3)
        drawn = regulariser.draw()
        assert regulariser.anchor(self.teacher, torch.arange(30), drawn, self.teacher) == 0.0


def test_all_columns_are_kept_where_no_column_is_the_row_itself():
    rows, columns = unit(3, 5, 0), unit(7, 5, 1)
    logits = similarity_logits(rows, columns, 0.5, None)
    for i in range(3):
        for j in range(7):
            assert math.isclose(logits[i, j], float(rows[i] @ columns[j]) / 0.5)


def test_a_row_s_own_column_is_left_out_wherever_it_stands():
    rows, columns = unit(3, 5, 0), unit(4, 5, 1)
    own = torch.tensor([3, 0, 2])
    whole = similarity_logits(rows, columns, 0.5, None)
    wanted = torch.stack([whole[0, [0, 1, 2]], whole[1, [1, 2, 3]], whole[2, [0, 1, 3]]])
    assert torch.equal(similarity_logits(rows, columns, 0.5, own), wanted)


def test_divergence_of_a_row_alone_is_that_of_the_row_among_others():
    p, q = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    for i in range(4):
        assert math.isclose(row_kl(p, q)[i], row_kl(p[i], q[i]))


def test_the_loss_makes_its_numbers_where_the_embeddings_are():
    """The device "meta" refuses to be mixed with the CPU, as an accelerator does."""
    learned, teacher = (torch.empty(6, 5, device="meta") for _ in range(2))
    assert sar_loss(learned, teacher, 0.01).device.type == "meta"


@pytest.mark.parametrize("tau", [None, 0.3])
@pytest.mark.parametrize("n", [3, 7])
def test_relations_are_the_divergence_the_correlation_and_the_drift_written_out(n, tau):
    learned, teacher = unit(n, 5, 1), unit(n, 5, 2)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    a = [float(learned[i] @ learned[j]) for i, j in pairs]
    b = [float(teacher[i] @ teacher[j]) for i, j in pairs]
    at = 0.01 if tau is None else tau
    kl = by_formula(
        learned, teacher, at, "out", "teacher", torch.arange(n), learned, teacher
    ).item()
    found = relations(learned, teacher) if tau is None else relations(learned, teacher, tau)
    assert found == pytest.approx(
        {
            "row_kl": kl,
            "correlation": statistics.correlation(a, b),
            "drift": sum(float(learned[i] @ teacher[i]) for i in range(n)) / n,
        }
    )


def test_relations_are_computed_in_double_precision():
    learned, teacher = unit(9, 5, 1).float(), unit(9, 5, 2).float()
    assert relations(learned, teacher) == relations(learned.double(), teacher.double())


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_classes_have_no_relations(n):
    found = relations(unit(n, 5, 1), unit(n, 5, 2))
    assert set(found) == {"row_kl", "correlation", "drift"}
    assert all(math.isnan(value) for value in found.values())


def test_a_regulariser_is_built_from_a_learner_s_teacher_and_base_classes():
    class Learner:
        classnames = ("cat", "dog")

        def teacher(self, names):
            assert names == ("cat", "dog", "oak")
            return unit(3, 5, 2)

    for seeds, seed in (((), 0), (((), 5), 5)):
        plug = Regulariser.build(SAR(classes_per_step=2), Learner(), ("cat", "dog", "oak"), *seeds)
        assert torch.equal(plug.teacher, unit(3, 5, 2))
        assert plug.n_base == 2
        same = Regulariser(SAR(classes_per_step=2), unit(3, 5, 2), 2, seed)
        assert all(torch.equal(plug.draw(), same.draw()) for _ in range(9))
