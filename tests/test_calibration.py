"""Temperature and "none of these" against what they are by definition."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from simprompt.clip.same_text import canonical_text
from simprompt.data.split import Split
from simprompt.errors import SimpromptError
from simprompt.metrics import at_temperature, best_temperature, best_threshold
from simprompt.prompt import calibration
from simprompt.prompt.calibration import calibrate, fit, fit_threshold
from simprompt.prompt.learn import learn
from simprompt.prompt.loading import load_prompt
from simprompt.prompt.prompt import Prompt
from simprompt.prompt.storage import Calibration
from test_prompt import SCHEDULE, picture, shots  # noqa: F401 (a fixture)

OLDER = {
    "temperature": 1.5, "images": 4, "source": "val", "ece_before": 9.0, "ece_after": 3.0,
    "unknown": 0.3, "known_kept": 95.0, "unknown_refused": 60.0,
}  # fmt: skip
"""A calibration as cards had it before there were intervals."""


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
    untempered = prompt.probabilities(shots)
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
        calibrated, at_temperature(untempered, made.temperature).float(), atol=1e-5, rtol=1e-4
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


def test_the_effect_is_read_from_the_figures():
    sure = torch.full((60, 3), 0.001)
    sure[:, 0] = 0.998
    right = fit(sure, torch.zeros(60, dtype=torch.long), "val")
    assert right.temperature == 1
    assert right.effect == (
        "Probabilities are as learned (T = 1). On 60 calibration images (val) they average 99.8 %, "
        "and 100.0 % of the answers are right [21, 100]."
    )
    made = fit(sure, torch.tensor([0, 1, 2] * 20), "val")
    assert made.temperature > 1
    assert made.effect.startswith("Probabilities were softened (T = ")
    assert "instead of 99.8 %, and 33.3 % of the answers are right [6, 79]." in made.effect
    older = Calibration(**OLDER)
    assert "9.0 % before temperature scaling, 3.0 % after (T = 1.50)" in older.effect
    assert "keeps 95 % of images" in older.rejection


def test_it_is_fitted_among_all_names_that_the_prompt_answers_with(tiny_clip, shots):  # noqa: F811
    def again(part):
        return learn(tiny_clip, part, training=SCHEDULE)

    prompt = again(shots)
    prompt.card["new_classes"] = ["boat", "tree"]
    made = calibrate(prompt, shots, again, val=shots)
    prompt.learner.temperature = 1.0
    among_all = prompt.probabilities(shots, prompt.classes)
    assert among_all.shape == (len(shots), 5)
    wanted = fit(among_all, torch.tensor(shots.labels), "val")
    assert made == wanted.model_copy(update={"among": list(prompt.classes)})


def test_calibrating_again_changes_nothing(tiny_clip, shots):  # noqa: F811
    """The values are fitted on probabilities at T = 1, whatever the prompt's temperature."""
    prompt = learn(tiny_clip, shots, training=SCHEDULE)
    first = calibrate(prompt, shots, None, val=shots)
    prompt.calibrated({**first.model_dump(mode="json"), "temperature": 3.0})
    assert calibrate(prompt, shots, None, val=shots) == first
    assert calibrate(prompt, shots, None, val=shots) == first


def test_a_calibration_that_was_taken_off_stays_off(tiny_clip, shots, tmp_path):  # noqa: F811
    prompt = learn(tiny_clip, shots, training=SCHEDULE)
    untempered = prompt.probabilities(shots)
    prompt.calibrated(OLDER | {"temperature": 3.0})
    prompt.calibrated(None)
    prompt.save(tmp_path / "p")
    for one in (prompt, load_prompt(tmp_path / "p", tiny_clip)):
        assert (one.unknown, one.card.get("calibration")) == (0.0, None)
        assert torch.equal(one.probabilities(shots), untempered)


# ---- on images that fitting did not see


def drawn(seed: int, classes: int, images: int, spread: float = 2.0, sharp: float = 1.0):
    """Probabilities [N, C] of a classifier whose labels are drawn from them at `sharp` = 1."""
    rng = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(images, classes, generator=rng, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=rng).flatten()
    return (sharp * logits).softmax(-1), labels


def log_loss(probabilities, labels) -> float:
    return -probabilities.gather(1, labels[:, None]).log().mean().item()


def test_a_temperature_from_few_images_does_no_harm_elsewhere():
    test, truth = drawn(10_000, 6, 20_000)
    reference = log_loss(test, truth)
    ours, theirs = [], []
    for seed in range(40):
        held = drawn(seed, 6, 24)
        for found, temperature in ((ours, fit(*held, "val").temperature),
                                   (theirs, best_temperature(*held))):  # fmt: skip
            found.append(log_loss(at_temperature(test, temperature), truth) - reference)
    assert sum(ours) < sum(theirs) / 2
    assert sum(found > 0 for found in ours) <= 10
    sharp = [fit(*drawn(seed, 6, 200, sharp=3.0), "val").temperature for seed in range(10)]
    assert min(sharp) > 1.5, "where a temperature is needed, it is found"


def rejection(probabilities, labels, threshold: float) -> tuple[float, float]:
    """Percent kept, and percent refused without their own class."""
    others = probabilities.scatter(-1, labels[:, None], 0.0)
    others = others / others.sum(-1, keepdim=True)
    kept = (probabilities.max(-1).values >= threshold).double().mean()
    return 100 * kept.item(), 100 * (others.max(-1).values < threshold).double().mean().item()


def test_what_is_said_of_the_threshold_holds_on_other_images():
    """Chosen and judged on the same few images, it would be too good by the difference of luck."""
    test, truth = drawn(10_000, 8, 20_000, spread=3)
    held, bias = 0, []
    for seed in range(40):
        found = fit(*drawn(seed, 8, 24, spread=3), "val")
        if not found.unknown:
            continue
        probabilities = at_temperature(test, found.temperature)
        true = rejection(probabilities, truth, found.unknown)
        said = (found.known_kept, found.unknown_refused)
        bias.append(sum(said) - sum(true))
        for (low, high), value in zip(
            (found.known_kept_interval, found.unknown_refused_interval), true, strict=True
        ):
            held += low <= value <= high
    assert len(bias) > 20
    assert abs(sum(bias) / len(bias)) < 5
    assert held >= 0.95 * 2 * len(bias)


@given(st.integers(0, 1000), st.integers(2, 6), st.integers(2, 20))
@settings(max_examples=25)
def test_the_threshold_s_rates_are_rates(seed: int, classes: int, images: int):
    found = fit_threshold(*drawn(seed, classes, images))
    assert 0 <= found.threshold <= 1
    for rate, (low, high) in ((found.kept, found.kept_interval),
                              (found.refused, found.refused_interval)):  # fmt: skip
        assert 0 <= low <= rate <= high <= 100 + 1e-9
    again = fit_threshold(*drawn(seed, classes, images))
    assert again == found


def test_images_that_are_told_apart_are():
    labels = torch.arange(24) % 4
    clear = torch.full((24, 4), 0.01, dtype=torch.float64)
    clear[torch.arange(24), labels] = 0.97
    found = fit_threshold(clear, labels)
    assert (found.kept, found.refused) == (100, 100)
    assert 1 / 3 < found.threshold < 0.97
    blind = fit_threshold(torch.full((24, 4), 0.25, dtype=torch.float64), labels)
    assert blind.threshold == 0


# ---- a threshold with other candidates


@pytest.fixture(scope="module")
def five(make_clip) -> Prompt:
    names = ("cat", "dog", "red car", "boat", "tree")
    return learn(make_clip(), split_of(names), training=SCHEDULE, progress=False)


def split_of(names) -> Split:
    items = tuple(f"{name}/{i}" for name in names for i in range(4))
    rng = torch.Generator().manual_seed(0)
    pixels = {item: torch.randint(0, 256, (9, 9, 3), generator=rng).byte() for item in items}
    labels = tuple(i // 4 for i in range(len(items)))
    return Split(items, labels, tuple(names), lambda item: Image.fromarray(pixels[item].numpy()))


@given(st.sets(st.sampled_from(["cat", "dog", "red car", "boat", "tree"]), min_size=1),
       st.sets(st.sampled_from(["apple", "Cat", "bear"])))  # fmt: skip
@settings(max_examples=30)
def test_whether_an_image_is_refused_does_not_depend_on_what_else_is_offered(five, some, more):
    """The certainty of an answer is its probability beside the prompt's own classes, so an image
    that they do not explain is refused among one name as among all."""
    if "Cat" in more and "cat" in some:
        more = more - {"Cat"}
    split = split_of(five.classes)
    images = [split.load(row) for row in range(len(split))]
    names = [*sorted(some), *sorted(more)]
    answers = [*five.stream(images, names, certain=True)]
    joint = five.judged_among(names)
    assert len({canonical_text(name) for name in joint}) == len(joint) >= 5
    beside = [*five.stream(images, joint)]
    for answer, whole in zip(answers, beside, strict=True):
        at = names.index(answer.name)
        assert answer.certainty == pytest.approx(whole.probabilities[at], abs=1e-6)
        assert answer.certainty <= answer.probability + 1e-6
        assert answer.certainty <= whole.probability + 1e-6
    assert all(one.certainty is None for one in five.stream(images[:2], names))


def test_a_single_name_has_something_to_be_compared_with(five, shots):  # noqa: F811
    (answer,) = five.stream([picture("cat/1")], ["apple"], certain=True)
    assert answer.probability == 1 > answer.certainty
    alone = learn(five.clip, shots.take([0, 1]).take([0]), "zero-shot", progress=False)
    alone.learner.classnames = ("cat",)
    with pytest.raises(SimpromptError, match="needs a second name to compare with"):
        alone.judged_among(["cat"])


def test_a_method_that_answers_otherwise_among_other_names_has_no_threshold_for_them(
    tiny_clip,
    shots,  # noqa: F811
):
    prompt = learn(tiny_clip, shots, "dept", training=SCHEDULE, progress=False)
    with pytest.raises(SimpromptError, match="was not calibrated"):
        prompt.check_threshold(["cat", "dog"])
    prompt.calibrated(OLDER | {"among": list(prompt.classes)})
    prompt.check_threshold(["cat"])
    with pytest.raises(SimpromptError, match="classifies in another way"):
        prompt.check_threshold(["cat", "apple"])
