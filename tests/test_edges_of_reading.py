"""No home folder, folders of `save_to_disk`, sizes without bound, and nothing to learn from."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import simprompt
from oracles.foreign import hf_model, write_vocabulary
from simprompt.cli.main import app
from simprompt.clip.checkpoints import CheckpointError, load_checkpoint
from simprompt.clip.model import MOST_PIXELS
from simprompt.data.own_images import folder, hf
from simprompt.data.split import DatasetError, Split
from simprompt.errors import SimpromptError
from simprompt.utils.files import cache_folders, hub, regular

pytestmark = pytest.mark.filterwarnings("ignore::EncodingWarning")


# --- no home folder -------------------------------------------------------------------------------


@pytest.fixture
def homeless(monkeypatch):
    """A user whom the system does not know, without HOME; what `Path.home` does then."""

    def nobody(*_: object) -> None:
        raise RuntimeError("Could not determine home directory.")

    for name in ("HOME", "SIMPROMPT_CACHE", "SIMPROMPT_DATA", "HF_HOME", "HF_HUB_CACHE",
                 "XDG_CACHE_HOME"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr(Path, "expanduser", lambda self: nobody() if "~" in str(self) else self)
    monkeypatch.setattr(cache_folders, "_warned_of_no_home", False)


def a_photo_folder(root: Path, *classes: str, images: int = 3) -> Path:
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(images):
            Image.new("RGB", (8, 8), (40 * i, 90 * number, 30)).save(root / name / f"{i}.png")
    return root


def test_without_a_home_folder_there_is_no_cache_and_one_warning(homeless, tmp_path, tiny_clip):
    photos = a_photo_folder(tmp_path / "photos", "cat", "dog")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            data = folder.load(photos).dataset
            simprompt.learn(tiny_clip, data.train, training={"epochs": 1})
    said = [str(w.message) for w in caught if "home folder" in str(w.message)]
    assert len(said) == 1
    assert "SIMPROMPT_CACHE" in said[0]
    assert not any("cache cannot be written" in str(w.message) for w in caught)
    assert hub.on_disk("a/b", "c") is None
    assert regular.expanded("~nobody/x") == Path("~nobody/x")


def test_the_doctor_and_a_path_with_a_tilde_need_no_home_folder(homeless, tmp_path):
    result = CliRunner().invoke(app, ["doctor"])
    assert "none: there is no home folder" in result.output
    assert result.exit_code in (0, 1)
    with pytest.raises(DatasetError, match="There is no folder or file at ~"):
        folder.load("~someone/photos")
    with pytest.raises(SimpromptError, match="There is no model called"):
        simprompt.load_clip("~someone/clip")


# --- save_to_disk ---------------------------------------------------------------------------------


def saved(root: Path, splits: tuple[str, ...]) -> Path:
    datasets = pytest.importorskip("datasets")
    photos = a_photo_folder(root / "photos", "black_cat", "dog", images=4)
    kinds = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["black_cat", "dog"])}
    )
    rows = [(path.read_bytes(), path.parent.name) for path in sorted(photos.rglob("*.png"))]

    def table(start: int):
        part = rows[start::2] if splits else rows
        images = [{"bytes": content, "path": None} for content, _ in part]
        labels = [kinds["label"].str2int(name) for _, name in part]
        return datasets.Dataset.from_dict({"image": images, "label": labels}, features=kinds)

    parts = {name: table(start) for start, name in enumerate(splits)}
    whole = datasets.DatasetDict(parts) if splits else table(0)
    whole.save_to_disk(root / "given")
    return root / "given"


@pytest.mark.parametrize("splits", [(), ("train", "test")])
def test_folders_of_save_to_disk_are_read(splits, tmp_path, monkeypatch):
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    place = saved(tmp_path, splits)
    for source in (place, f"hf:{place}"):
        data = folder.load(source).dataset
        assert data.classnames == ("black cat", "dog")
        assert len(data.train) + len(data.test) == 8
        assert len(data.test) == (4 if splits else 2)
        shades = {data.train.load(i).getpixel((0, 0)) for i in range(len(data.train))}
        assert len(shades) == len(data.train)
    from simprompt.cli.main import app as commands

    result = CliRunner().invoke(commands, ["check", str(place)])
    assert result.exit_code == 0, result.output
    assert "8 files decode" in result.output


def test_without_the_library_a_folder_of_save_to_disk_says_what_it_needs(tmp_path, monkeypatch):
    (tmp_path / "state.json").write_text("{}", encoding="utf-8")
    (tmp_path / "dataset_info.json").write_text("{}", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert hf.is_saved(tmp_path)
    with pytest.raises(DatasetError, match=r"save_to_disk.*pip install 'datasets"):
        folder.load(tmp_path)


# --- bounds of a model's images -------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("clip")
    vocabulary = write_vocabulary(place)
    model = hf_model(len(vocabulary), text=16, vision=16, heads=2, layers=1, joint=8, context=20)
    model.save_pretrained(place)
    return place


@pytest.mark.parametrize("size", [20000, 16000, MOST_PIXELS * 2])
def test_an_image_size_that_no_model_has_is_refused(size, checkpoint):
    with pytest.raises(CheckpointError, match=r"too large for .*--image-size"):
        load_checkpoint(checkpoint, image_size=size)


def test_a_configuration_of_huge_images_is_refused(checkpoint, tmp_path):
    for path in checkpoint.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    values = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    values["vision_config"]["image_size"] = 20000
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(CheckpointError, match="at most 1,024 pixels"):
        load_checkpoint(tmp_path)


# --- nothing to learn from ------------------------------------------------------------------------


def test_learn_says_what_a_split_lacks(tiny_clip):
    def picture(_: str) -> Image.Image:
        return Image.new("RGB", (8, 8))

    for items, names, what in (
        ((), (), "has no class"),
        ((), ("cat",), "has one class, 'cat'"),
        (("a",), ("cat",), "has one class, 'cat'"),
        ((), ("cat", "dog"), "no image to learn from"),
    ):
        split = Split(items, (0,) * len(items), names, picture)
        with pytest.raises(SimpromptError, match=what):
            simprompt.learn(tiny_clip, split)
    for labels in ((), ("cat",), ("cat", "cat")):
        with pytest.raises(SimpromptError, match="at least two classes"):
            simprompt.PromptClassifier().fit([picture("")] * len(labels), labels)


@pytest.mark.parametrize("command", ["learn", "run"])
@pytest.mark.parametrize("classes", [(), ("cat",)])
def test_a_folder_of_no_class_or_one_is_a_sentence(command, classes, tmp_path, monkeypatch):
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "cache"))
    photos = a_photo_folder(tmp_path / "photos", *classes)
    photos.mkdir(exist_ok=True)
    arguments = [str(photos)] if command == "learn" else ["--dataset", str(photos), "--seeds", "1"]
    arguments += ["--method", "coop"] if command == "run" else ["--sar", "off"]
    result = CliRunner().invoke(
        app, [command, *arguments, "--model", "icons", "--out", str(tmp_path / "out")]
    )
    said = f"{result.output} {result.exception}"
    assert "Error" not in said.replace("SimpromptError", "").replace("DatasetError", "")
    assert ("has one class, 'cat'" if classes else "no readable images") in said
    assert result.exit_code
