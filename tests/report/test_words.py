"""The sentences follow the numbers, whichever way these go."""

from __future__ import annotations

import pytest

from simprompt.report import words


def of(base_new: dict[str, list[tuple[float, float]]]) -> list[dict]:
    """Results of methods on tasks 0, 1, ... with these accuracies, one seed."""
    config = {"model": "m", "training": {"shots": 16}, "max_test_per_class": None}
    return [
        {
            "protocol": "base-to-new", "dataset": f"d{i}", "method": m, "seed": 1,
            "base": b, "new": n, "h": 2 * b * n / (b + n), "config": config,
        }
        for m, pairs in base_new.items()
        for i, (b, n) in enumerate(pairs)
    ]  # fmt: skip


ZERO = [(60.0, 60.0), (50.0, 55.0), (55.0, 50.0)]


def moved(base: float, new: float, wobble: float = 0.2) -> list[tuple[float, float]]:
    return [(b + base + i * wobble, n + new + i * wobble) for i, (b, n) in enumerate(ZERO)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((10, -5), "it overfits the classes it saw"),
        ((10, 5), "gains on both sides"),
        ((-10, -5), "loses on both sides"),
        ((-10, 5), "does not show the usual gain"),
    ],
)
def test_coop_sentence(change, said):
    sentences = words.explanation(of({"zero-shot": ZERO, "coop": moved(*change)}))
    assert len(sentences) == 3
    assert said in sentences[1]


@pytest.mark.parametrize(
    ("new", "wobble", "said"),
    [
        (-1.2, 0.2, "gives back 80% of what was lost"),
        (2.0, 0.2, "gives back all that was lost"),
        (-9.0, 0.2, "it hurts on new classes"),
        (-5.0, 3.0, "do not show that it helps"),
    ],
)
def test_sar_sentence(new, wobble, said):
    runs = {"zero-shot": ZERO, "coop": moved(10, -5, 0), "coop+sar": moved(8, new, wobble)}
    sentences = words.explanation(of(runs))
    assert len(sentences) == 4
    assert said in sentences[2]
    assert "harmonic mean" in sentences[3]


def test_one_task_gives_no_interval():
    runs = {"zero-shot": ZERO[:1], "coop": moved(9, -4)[:1], "coop+sar": moved(9, 0)[:1]}
    assert "one task gives no interval" in words.explanation(of(runs))[2]


def test_only_zero_shot_and_only_one_method():
    assert len(words.explanation(of({"zero-shot": ZERO}))) == 2
    only = words.explanation(of({"coop": ZERO}))
    assert len(only) == 2
    assert "zero-shot" not in only[0]


def test_a_method_without_new_classes_is_not_spoken_of():
    probe = [(b, float("nan")) for b, _ in ZERO]
    assert words.learned_methods(of({"a-probe": probe, "coop": ZERO})) == ["coop"]


def test_notes_on_what_does_not_compare():
    clean = of({"zero-shot": ZERO, "coop": moved(5, -5)})
    assert words.notes(clean) == []
    assert "2 of 3 tasks" in words.notes(of({"zero-shot": ZERO, "coop": moved(5, -5)[:2]}))[0]
    assert "averaged together" in words.notes([*clean, clean[-1]])[0]
    clean[-1]["config"] = {**clean[-1]["config"], "model": "other", "max_test_per_class": 5}
    said = " ".join(words.notes(clean))
    assert "different CLIPs" in said
    assert "at most 5 images" in said


def test_warnings_of_runs_are_noted():
    runs = of({"zero-shot": ZERO, "coop": moved(5, -5)})
    runs[-1]["warnings"] = ["Something rose."]
    (said,) = words.notes(runs)
    assert said.startswith(
        "1 of 6 runs carry warnings, such as: Something rose. They are: CoOp on "
    )
    assert said.endswith(f"{runs[-1]['dataset']}, seed {runs[-1]['seed']}.")
