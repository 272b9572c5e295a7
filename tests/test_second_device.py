"""Every method with model and data on a second device (`second_device`): nothing meets across
devices, numbers are those of the CPU, and a step waits for nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from second_device import DEVICE, SecondDevice, back
from shell import in_process
from simprompt import methods, regularisers
from simprompt.clip.model import CLIP
from simprompt.config import SAR, SARPlus, Training
from simprompt.data.split import Split
from simprompt.errors import SimpromptError
from simprompt.features.cache import image_features
from simprompt.methods.base import PromptLearner
from simprompt.sar import Regulariser
from simprompt.training.loop import train
from simprompt.utils import devices
from test_checkpoint import HOSTS, quick

pytestmark = pytest.mark.integration

BASE = ["cat", "red fox", "zebra", "old_house"]
NOVEL = ["dog", "blue whale", "oak", "apple pear"]
TRAINED = [name for name in methods.names() if name != "zero-shot"]
PLUGS: dict[str, SAR] = {
    "sar": SAR(classes_per_step=5),
    "sar+": SARPlus(classes_per_step=5, compare_with="all", teacher="average", anchor="absolute"),
    "sar+images": SARPlus(classes_per_step=5, diagonal="out", kl="learned", anchor="cross-modal"),
}
CASES = [
    (name, plug) for name in TRAINED for plug in (None, *PLUGS)
    if plug is None or methods.find(name).text_moves
    if plug in (None, "sar") or name in HOSTS
    if plug != "sar+images" or methods.find(name).image_input != "pixels"
]  # fmt: skip
for other in sorted({*regularisers.names()} - {"sar", "sar-plus"}):
    PLUGS[other] = regularisers.find(other).Config(classes_per_step=5, regulariser=other)
    CASES.append(("coop", other))


def regulariser(learner: PromptLearner, plug: str) -> Regulariser:
    return regularisers.build(PLUGS[plug], learner, [*BASE, *NOVEL], (), 1)


def learned(clip: CLIP, name: str, plug: str | None, epochs: int, batch: int) -> PromptLearner:
    kind = methods.find(name)
    learner = kind(clip, BASE, "a photo of a {}.", quick(kind), seed=1)
    random = torch.Generator().manual_seed(0)
    shape = (8, 3, 16, 16) if learner.image_input == "pixels" else (8, 2, 24)
    images = torch.randn(shape, generator=random)
    images = images if learner.image_input == "pixels" else F.normalize(images, dim=-1)
    sar = None
    if plug:
        sar = regulariser(learner, plug), learner.prompts([*BASE, *NOVEL])
    settings = Training(lr=learner.schedule.lr, epochs=epochs, batch_size=batch)
    train(learner, images, torch.arange(8) % 4, settings, 1, sar)
    return learner


def answers(learner: PromptLearner) -> Tensor:
    random = torch.Generator().manual_seed(1)
    shape = (6, 3, 16, 16) if learner.image_input == "pixels" else (6, 24)
    images = torch.randn(shape, generator=random)
    names = NOVEL if learner.new_classes else BASE
    return learner.predict(images, names)


@pytest.mark.parametrize(("name", "plug"), CASES)
@pytest.mark.filterwarnings("ignore:SAR sees")
def test_learns_and_predicts_what_the_cpu_does_and_a_step_waits_for_nothing(
    name: str, plug: str | None, make_clip: Callable[..., CLIP]
) -> None:
    """Two epochs of two steps wait at most once more than one step: for the second epoch."""
    here = learned(make_clip(), name, plug, 2, 4)
    with SecondDevice() as once:
        learned(make_clip().to(DEVICE), name, plug, 1, 8)
    with SecondDevice() as device:
        there = learned(make_clip().to(DEVICE), name, plug, 2, 4)
        assert len(device.waits) <= len(once.waits) + 1, (
            f"A step of {name} waits for the device: {device.waits[len(once.waits) :]}. Make "
            "tensors on the device (device=x.device), or take them there in build, or by "
            "utils.devices.to_device."
        )
        assert {x.device for x in there.state_dict().values()} == {DEVICE}
        numbers = {key: back(x) for key, x in there.state_dict().items()}
        told = answers(there)
    assert told.device.type == "cpu"
    assert (told - answers(here)).abs().max() < 1e-5
    for key, value in here.state_dict().items():
        assert (numbers[key].float() - value.float()).abs().max() < 1e-5, key


def test_features_are_extracted_there_and_come_back(tiny_clip: CLIP, tmp_path: Path) -> None:
    class Noise:
        root = tmp_path

        def __call__(self, item: str) -> Image.Image:  # images are read ahead, in any order
            random = torch.Generator().manual_seed(ord(item))
            pixels = torch.randint(0, 256, (16, 16, 3), generator=random, dtype=torch.uint8)
            return Image.fromarray(pixels.numpy())

    split = Split(("a", "b", "c"), (0, 1, 0), ("cat", "dog"), Noise())
    here = image_features(tiny_clip, split, cache=tmp_path / "here")
    with SecondDevice():
        there = image_features(tiny_clip.to(DEVICE), split, cache=tmp_path / "there")
    assert there.device.type == "cpu"
    assert (here - there).abs().max() < 1e-5


def test_the_second_device_refuses_what_cuda_refuses() -> None:
    with SecondDevice() as device:
        there = torch.ones(3).to(DEVICE)
        with pytest.raises(RuntimeError, match="two devices"):
            there + torch.ones(3)
        with pytest.raises(RuntimeError, match="two devices"):
            torch.cat([there, torch.ones(1)])
        with pytest.raises(RuntimeError, match="indices from elsewhere"):
            torch.ones(3)[torch.zeros(1, dtype=torch.long).to(DEVICE)]
        assert back(there + torch.tensor(1.0)).tolist() == [2, 2, 2]  # a number may come along
        before = len(device.waits)
        assert there.sum().item() == 3
        assert len(device.waits) == before + 1


@pytest.mark.parametrize(
    ("device", "words"),
    [("banana", "no device 'banana'"), ("cuda:99", "cannot be used here"), ("cuda:x", "no device")],
)
def test_a_device_that_is_not_here_is_said(
    device: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for verb in (
        ["run", "--dataset", "icons/food", "--model", "icons", "--method", "coop"],
        ["learn", str(tmp_path)],
        [
            "tune",
            "--dataset",
            "icons/food",
            "--model",
            "icons",
            "--method",
            "coop",
            "--grid",
            "sar.weight=0.1,0.2",
        ],
        ["study", "sample-size"],
        ["encode", "icons/food", "--model", "icons"],
        ["demo"],
    ):
        result = in_process(*verb, "--device", device)
        assert result.returncode == 2, verb
        assert words in " ".join(result.stderr.split()), (verb, result.stderr)


def test_auto_is_what_there_is() -> None:
    name = devices.resolve_device("auto")
    assert re.fullmatch(devices.NAMES, name)
    gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    assert (name == "cpu") == (not gpu)
    with pytest.raises(SimpromptError, match="auto, cpu, cuda"):
        devices.resolve_device("gpu")


def test_device_and_dtype_are_part_of_a_result(tmp_path: Path) -> None:
    import json

    found: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16"):
        result = in_process(
            "run", "--dataset", "icons/food", "--model", "icons", "--method", "zero-shot",
            "--seeds", "1", "--max-test-per-class", "2", "--device", "cpu", "--dtype", dtype,
            "--out", str(tmp_path / "runs"),
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    for path in (tmp_path / "runs").rglob("result.json"):
        value = json.loads(path.read_text(encoding="utf-8"))
        found[value["config"]["dtype"]] = value
    assert set(found) == {"float32", "bfloat16"}  # neither stood for the other
    assert {value["environment"]["device"] for value in found.values()} == {"cpu"}


def test_a_tower_that_overflows_in_float16_says_so(tiny_clip: CLIP, tmp_path: Path) -> None:
    """Numbers beyond 65,504 that float32 and bfloat16 hold."""

    class Grey:
        root = tmp_path

        def __call__(self, item: str) -> Image.Image:
            return Image.new("RGB", (16, 16), (90, 120, 60))

    split = Split(("a", "b"), (0, 1), ("cat", "dog"), Grey())
    with torch.no_grad():
        for tower in (tiny_clip.text, tiny_clip.visual):
            for block in tower.blocks:
                for weight in block.parameters():
                    weight *= 1000
    assert image_features(tiny_clip, split, cache=tmp_path / "a").isfinite().all()
    kind = methods.find("kgcoop")
    kind(tiny_clip, BASE, "a photo of a {}.", kind.Config(), seed=1).teacher(BASE)
    tiny_clip.text.half()
    tiny_clip.visual.half()
    words = "overflows in float16, which ends at 65,504; take dtype bfloat16 or float32"
    with pytest.raises(SimpromptError, match=f"image 'a' hold NaN.*{words}"):
        image_features(tiny_clip, split, cache=tmp_path / "b")
    with pytest.raises(SimpromptError, match=f"text 'a photo of a .*{words}"):
        kind(tiny_clip, BASE, "a photo of a {}.", kind.Config(), seed=1).teacher(BASE)
