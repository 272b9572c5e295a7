"""What each protocol measures, on small coloured pictures and a random CLIP."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from simprompt.config import SAR, RunConfig, Training
from simprompt.data.dataset import Dataset
from simprompt.data.split import Split
from simprompt.errors import SimpromptError
from simprompt.experiments import inputs, runner
from simprompt.experiments.protocols import MEANING, cross_dataset, domain_shift
from simprompt.experiments.runner import identify, run
from simprompt.experiments.store import run_folder
from simprompt.metrics import harmonic_mean
from simprompt.novel.names import STUDY_ONLY

NAMES = ("bird", "cat", "dog", "fish", "lion")
SEEN = 3  # base classes
QUICK = Training(lr=0.1, epochs=3, batch_size=6, shots=2)


def painter(shift: int) -> Callable[[str], Image.Image]:
    def paint(item: str) -> Image.Image:
        name, _, number = item.partition("/")
        hue = 50 * NAMES.index(name) + 3 * int(number) + shift
        return Image.new("RGB", (18, 18), (hue % 256, (2 * hue) % 256, (255 - hue) % 256))

    return paint


def dataset(name: str, names: tuple[str, ...] = NAMES, shift: int = 0) -> Dataset:
    def split(numbers: range) -> Split:
        rows = [(f"{n}/{i}", label) for label, n in enumerate(names) for i in numbers]
        return Split(tuple(r[0] for r in rows), tuple(r[1] for r in rows), names, painter(shift))

    return Dataset(name, names, ("a photo of a {}.",), split(range(3)), None, split(range(3, 8)))


WORLD = {
    "colours": dataset("colours"),
    "shifted": dataset("shifted", shift=40),
    "some": dataset("some", NAMES[:2]),
    "others": dataset("others", ("lion", "bird")),
}


def live_in_it(monkeypatch, make_clip, tmp_path: Path) -> None:
    """Runs find WORLD's datasets and one random CLIP, and keep their features to themselves."""
    clip = make_clip()
    monkeypatch.setattr(inputs, "cached_clip", lambda name: clip)
    monkeypatch.setattr(inputs, "cached_dataset", WORLD.__getitem__)
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _world(monkeypatch, make_clip, tmp_path: Path) -> None:
    live_in_it(monkeypatch, make_clip, tmp_path)


def config(protocol: str, **more) -> RunConfig:
    sar = SAR(novel="random-nouns", novel_count=4, classes_per_step=5)
    return RunConfig(
        **{"protocol": protocol, "dataset": "colours", "training": QUICK, "sar": sar, **more}
    )


@pytest.mark.parametrize("protocol", sorted(MEANING))
def test_every_result_says_the_same_things(protocol, tmp_path):
    choice = config(protocol, targets=("shifted", "some") if "dataset" in protocol
                    or "domain" in protocol else None)  # fmt: skip
    result = run(choice, tmp_path)
    folder = run_folder(tmp_path, identify(choice))
    assert (
        json.loads((folder / "result.json").read_text(encoding="utf-8"))["key"]
        == identify(choice).key
    )
    assert {p.name for p in folder.iterdir()} == {
        "result.json", "prompt.json", "prompt.safetensors", "text.safetensors",
        "predictions.safetensors",
    }  # fmt: skip
    assert 0 <= result["base"] <= 100
    assert 0 <= result["ece_base"] <= 100
    by_class = result["by_class"]["base"]
    assert result["base"] == pytest.approx(
        100 * sum(r for _, r in by_class) / sum(n for n, _ in by_class)
    )
    means = [100 * right / images for images, right in by_class if images]
    assert result["macro_base"] == pytest.approx(sum(means) / len(means))
    assert "h" in result
    assert math.isnan(result["new"]) == (MEANING[protocol]["new"] is None)
    assert result["mechanism"]["base"]["row_kl"] >= 0
    assert result["mechanism"].keys() >= {"novel"}
    assert isinstance(result["warnings"], list)
    assert result["parameters"] > 0
    assert set(result["classes"]) == set(load_file(folder / "text.safetensors"))


def test_a_run_with_the_oracle_s_names_says_so(tmp_path):
    clean, oracle = (
        run(config("base-to-new", sar=SAR(novel=n, novel_count=2, classes_per_step=5)), tmp_path)
        for n in ("random-nouns", "oracle")
    )
    assert any(STUDY_ONLY in warning for warning in oracle["warnings"])
    assert not any(STUDY_ONLY in warning for warning in clean["warnings"])


def test_base_to_new_is_accuracy_among_own_names(tmp_path):
    result = run(config("base-to-new"), tmp_path, WORLD["colours"])
    assert result["classes"] == {"base": list(NAMES[:SEEN]), "new": list(NAMES[SEEN:])}
    predictions = load_file(
        run_folder(tmp_path, identify(config("base-to-new"))) / "predictions.safetensors"
    )
    for side in ("base", "new"):
        right = (predictions[f"{side}_labels"] == predictions[f"{side}_predicted"]).double().mean()
        assert result[side] == pytest.approx(100 * right.item())
    assert result["h"] == harmonic_mean(result["base"], result["new"])


def test_generalised_is_harder_and_agrees_with_closed_sets(tmp_path):
    closed = run(config("base-to-new"), tmp_path)
    joint = run(config("generalised"), tmp_path)
    for side in ("base", "new"):
        assert joint[f"{side}_closed"] == closed[side], "same prompt, same images"
        assert joint[side] <= closed[side]
    predictions = load_file(
        run_folder(tmp_path, identify(config("generalised"))) / "predictions.safetensors"
    )
    assert predictions["new_labels"].min() == SEEN, "labels count over all names, base first"
    assert predictions["new_predicted"].max() < len(NAMES)
    taken = (predictions["new_predicted"] < SEEN).double().mean().item()
    assert joint["new_as_base"] == pytest.approx(100 * taken)


def test_few_shot_learns_all_classes_from_k_images(tmp_path):
    result = run(config("few-shot"), tmp_path)
    assert result["classes"] == {"base": list(NAMES)}
    assert result["steps"] == 3  # 5 classes x 2 shots: one whole batch of 6, three epochs
    assert math.isnan(result["new"])
    assert math.isnan(result["h"])


def test_transfer_means_over_targets_with_their_own_names(tmp_path):
    choice = config("cross-dataset", targets=("others", "shifted"))
    result = run(choice, tmp_path)
    assert list(result["targets"]) == ["others", "shifted"]
    assert result["new"] == pytest.approx(sum(result["targets"].values()) / 2)
    predictions = load_file(run_folder(tmp_path, identify(choice)) / "predictions.safetensors")
    assert predictions["others_predicted"].max() < 2, "only the target's names can be chosen"


def test_domain_shift_takes_a_part_of_the_classes_but_no_strange_ones(tmp_path, monkeypatch):
    result = run(config("domain-shift", targets=("some", "shifted")), tmp_path)
    assert set(result["targets"]) == {"some", "shifted"}
    monkeypatch.setitem(WORLD, "strange", dataset("strange", ("cat", "fish")))
    monkeypatch.setitem(WORLD, "colours", dataset("colours", NAMES[:2]))
    with pytest.raises(SimpromptError, match="no other domain"):
        run(config("domain-shift", targets=("shifted",)), tmp_path)


def test_targets_by_default_are_the_fields():
    assert len(cross_dataset.targets(config("cross-dataset", dataset="imagenet"))) == 10
    assert len(domain_shift.targets(config("domain-shift", dataset="imagenet"))) == 4
    icons = cross_dataset.targets(config("cross-dataset", dataset="icons/food"))
    assert len(icons) == 7
    assert "icons/food" not in icons
    assert domain_shift.targets(config("domain-shift", dataset="icons/food@colour")) == (
        "icons/food@filled", "icons/food@outline", "icons/food@colour@strong",
    )  # fmt: skip
    for module, protocol in ((cross_dataset, "cross-dataset"), (domain_shift, "domain-shift")):
        with pytest.raises(SimpromptError, match="targets"):
            module.targets(config(protocol))
        with pytest.raises(SimpromptError, match="targets"):
            module.targets(config(protocol, targets=("colours",)))


def test_a_base_only_classifier_has_no_new_accuracy(tmp_path):
    plain = {"method": "linear-probe", "sar": None}
    for protocol in ("base-to-new", "generalised"):
        result = run(config(protocol, **plain), tmp_path)
        assert 0 <= result["base"] <= 100
        assert math.isnan(result["new"])
    with pytest.raises(SimpromptError, match="classifier of the classes"):
        run(config("cross-dataset", targets=("others",), **plain), tmp_path)


def test_a_run_has_its_own_number_of_threads_and_leaves_the_callers(tmp_path, monkeypatch):
    seen = []
    real = runner.learn.train_many
    monkeypatch.setattr(
        runner.learn, "train_many", lambda *u: (seen.append(torch.get_num_threads()), real(*u))[1]
    )
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        run(config("base-to-new", threads=2), tmp_path)
        assert (seen, torch.get_num_threads()) == ([2], 3)
    finally:
        torch.set_num_threads(before)


def test_the_same_settings_give_the_same_bits(tmp_path):
    a, b = (run(config("generalised"), tmp_path / x) for x in "ab")
    times = {"seconds", "train_seconds", "peak_mb", "curves", "when"}
    said = [json.dumps({k: v for k, v in r.items() if k not in times}) for r in (a, b)]
    assert said[0] == said[1]
    first, second = (
        load_file(run_folder(tmp_path / x, identify(config("generalised"))) / "prompt.safetensors")
        for x in "ab"
    )
    assert torch.equal(first["ctx"], second["ctx"])
