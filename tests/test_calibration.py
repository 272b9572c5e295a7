"""Temperature and "none of these" against what they are by definition."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simprompt import calibration
from simprompt.calibration import calibrate, fit
from simprompt.evaluate import at_temperature, best_temperature, best_threshold
from simprompt.prompt import learn, load_prompt
from test_prompt import SCHEDULE, shots  # noqa: F401 (a fixture)


def cross_entropy(probabilities, labels, temperature: float) -> float:
    """Platt's: every image counts N + 1 times as its label and once as something else, as likely
    as the model has it."""
    n, total = len(labels), 0.0
    made = at_temperature(probabilities, temperature)
    for before, after, label in zip(probabilities, made, labels.tolist(), strict=True):
        others = [j for j in range(len(before)) if j != label]
        rest = sum(before[j].item() for j in others)
        total -= (n + 1) * math.log(max(after[label].item(), 1e-300))
        total -= sum(
            before[j].item() / rest * math.log(max(after[j].item(), 1e-300)) for j in others
        )
    return total / (n + 2) / n


@given(st.integers(0, 10_000), st.floats(0.3, 4))
@settings(max_examples=15)
def test_no_temperature_is_better(seed: int, spread: float):
    rng = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(30, 5, generator=rng, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=rng).flatten()
    sharp = (3 * logits).softmax(-1)
    best = best_temperature(sharp, labels)
    least = cross_entropy(sharp, labels, best)
    ends = math.log10(1 / 20), math.log10(20)
    for other in torch.logspace(*ends, 25, dtype=torch.float64).tolist():
        # at an end the loss has a slope, and the search stops within a millionth of the end
        assert least <= cross_entropy(sharp, labels, other) + 1e-6


def test_labels_drawn_from_milder_probabilities_give_their_temperature_back():
    rng = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(40_000, 6, generator=rng, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=rng).flatten()
    assert best_temperature((2.5 * logits).softmax(-1), labels) == pytest.approx(2.5, rel=0.03)
    made = fit((2.5 * logits).softmax(-1), labels, "test")
    assert made.ece_after < 1.5 < made.ece_before


def test_a_temperature_keeps_the_order_and_one_changes_nothing():
    p = torch.rand(20, 7).softmax(-1)
    torch.testing.assert_close(at_temperature(p, 1.0).float(), p)
    assert (at_temperature(p, 3.0).argsort(-1) == p.double().argsort(-1)).all()
    assert best_temperature(torch.rand(0, 3), torch.zeros(0, dtype=torch.long)) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12),
       st.lists(st.floats(0, 1), min_size=1, max_size=12))  # fmt: skip
def test_no_threshold_tells_known_from_unknown_better(known, unknown):
    threshold, kept, refused = best_threshold(known, unknown)

    def rates(limit: float) -> tuple[float, float]:
        return (100 * sum(v >= limit for v in known) / len(known),
                100 * sum(v < limit for v in unknown) / len(unknown))  # fmt: skip

    assert rates(threshold) == pytest.approx((kept, refused))
    for other in [*known, *unknown, 0.0, 1.0, 1.1]:
        assert sum(rates(other)) <= kept + refused + 1e-9


def test_the_prompt_keeps_its_calibration(tiny_clip, shots, tmp_path):  # noqa: F811
    prompt = learn(tiny_clip, shots, training=SCHEDULE)
    plain = prompt.probabilities(shots)
    seen = []

    def again(part):
        seen.append(part)
        return learn(tiny_clip, part, training=SCHEDULE)

    made = calibrate(prompt, shots, again, seed=1)
    (part,) = seen
    held = set(shots.items) - set(part.items)
    assert held
    assert made.images == len(held)
    calibrated = prompt.probabilities(shots)
    torch.testing.assert_close(
        calibrated, at_temperature(plain, made.temperature).float(), atol=1e-5, rtol=1e-4
    )
    prompt.save(tmp_path / "p")
    again_loaded = load_prompt(tmp_path / "p", tiny_clip)
    torch.testing.assert_close(again_loaded.probabilities(shots), calibrated)
    assert again_loaded.unknown == made.unknown
    card = json.loads((tmp_path / "p" / "card.json").read_text(encoding="utf-8"))
    assert calibration.Calibration(**card["calibration"]) == made


def test_images_that_were_not_learned_from_save_the_second_training(tiny_clip, shots):  # noqa: F811
    prompt = learn(tiny_clip, shots, training=SCHEDULE)
    made = calibrate(prompt, shots, lambda part: pytest.fail("learned again"), val=shots)
    assert (made.source, made.images) == ("val", len(shots))
    single = shots.take([0, 6, 12])
    assert calibrate(prompt, single, lambda part: pytest.fail("learned again")) is None


def test_the_effect_says_why_few_certain_answers_are_made_milder():
    sure = torch.full((6, 3), 0.001)
    sure[:, 0] = 0.998
    right, wrong = torch.zeros(6, dtype=torch.long), torch.tensor([0, 0, 0, 1, 2, 1])
    few = fit(sure, right, "val")
    assert "6 images that were not learned from (val) are too few" in few.effect
    assert "too few" not in few.model_copy(update={"images": 100}).effect
    made = fit(sure, wrong, "val")
    assert made.effect == (
        "On 6 images that were not learned from (val) probabilities were off by 49.8 points, and "
        f"are by {made.ece_after:.1f} at a temperature of {made.temperature:.2f}."
    )


def test_it_is_fitted_among_all_names_that_the_prompt_answers_with(tiny_clip, shots):  # noqa: F811
    def again(part):
        return learn(tiny_clip, part, training=SCHEDULE)

    prompt = again(shots)
    prompt.card["new_classes"] = ["boat", "tree"]
    made = calibrate(prompt, shots, again, val=shots)
    prompt.learner.temperature = 1.0
    among_all = prompt.probabilities(shots, prompt.classes)
    assert among_all.shape == (len(shots), 5)
    assert made == fit(among_all, torch.tensor(shots.labels), "val")
