"""Your own images: folders, tables, names, unreadable files, and the command end to end."""

from __future__ import annotations

import io
import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from simprompt.clip import hub as clip_hub
from simprompt.data import catalogue
from simprompt.data.images import check_image
from simprompt.data.names import clean_name, read_names
from simprompt.data.own_images import decodable, folder, trees
from simprompt.data.own_images.rows import DAMAGED, NOT_AN_IMAGE
from simprompt.data.split import DatasetError
from simprompt.errors import SimpromptError
from simprompt.utils.progress import listening

COLOURS = {"Red_things": (200, 30, 30), "greenThings": (30, 200, 30), "BLUE": (30, 30, 200)}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """A cache of the test's own, where records of files that could be read are kept."""
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SIMPROMPT_CACHE", str(place))
    return place


def photo(path: Path, colour=(90, 90, 90), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-20, 20, (20, 24, 3))
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "my_photos"
    for c, (name, colour) in enumerate(COLOURS.items()):
        for i in range(8):
            photo(root / name / f"{i}.png", colour, seed=10 * c + i)
    return root


def test_a_folder_of_folders(photos):
    own = folder.load(photos)
    data = own.dataset
    assert data.classnames == ("BLUE", "red things", "green things")  # folders sorted, then words
    assert (len(data.train), len(data.test), data.val) == (18, 6, None)
    assert set(data.train.items).isdisjoint(data.test.items)
    assert sorted(set(data.test.labels)) == [0, 1, 2]
    assert data.test.load(0).size == (24, 20)
    assert folder.load(photos).dataset.test.items == data.test.items
    assert folder.load(photos, seed=2).dataset.test.items != data.test.items
    assert catalogue.load(str(photos)).classnames == data.classnames


def test_ready_made_splits_and_nested_folders(tmp_path):
    for part, count in (("train", 3), ("validation", 2), ("test", 1)):
        for i in range(count):
            photo(tmp_path / part / "cat" / "indoors" / f"{i}.jpg")
            photo(tmp_path / part / "dog" / f"{i}.jpg")
    data = folder.load(tmp_path).dataset
    assert (len(data.train), len(data.val), len(data.test)) == (6, 4, 2)
    assert data.train.items[0] == "train/cat/indoors/0.jpg"


def test_names_are_cleaned_and_can_be_overridden(photos, tmp_path):
    for raw, clean in {
        "Golden_Retriever": "golden retriever", "goldenRetriever": "golden retriever",
        "BMW": "BMW", "boeing-737": "boeing-737", "sea-lion": "sea lion", " a  b ": "a b",
        "707-320": "707-320", "Émeu": "émeu", "T-shirt": "T shirt".lower(),
    }.items():  # fmt: skip
        assert clean_name(raw) == clean, raw
    override = tmp_path / "names.txt"
    override.write_text("BLUE = the colour blue\n", encoding="utf-8")
    assert folder.load(photos, names=override).dataset.classnames[0] == "the colour blue"
    override.write_text("PURPLE = lilac\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="renames PURPLE"):
        folder.load(photos, names=override)
    photo(photos / "red things" / "x.png")
    with pytest.raises(DatasetError, match="both called 'red things'"):
        folder.load(photos)


def test_unreadable_images_are_left_out_and_listed(photos):
    (photos / "BLUE" / "broken.jpg").write_bytes(b"\xff\xd8 not a jpeg")
    (photos / "BLUE" / "notes.txt").write_text("not even named like an image", encoding="utf-8")
    own = folder.load(photos)
    assert {(u.path, u.reason) for u in own.unused} == {
        ("BLUE/broken.jpg", DAMAGED), ("BLUE/notes.txt", NOT_AN_IMAGE)
    }  # fmt: skip
    assert len(own.dataset.train) + len(own.dataset.test) == 24
    with pytest.raises(DatasetError, match=r"1 image that cannot be read.*First: .*broken\.jpg"):
        folder.load(photos, strict=True)


def test_a_file_is_decoded_once_for_all_processes(photos, cache, monkeypatch):
    """Until it changes; and a bad one is looked at each time, for it may have been mended."""
    decoded: list[str] = []

    def count(source, name):
        decoded.append(Path(name).name)
        return check_image(source, name)

    monkeypatch.setattr(decodable, "check_image", count)
    broken = photos / "BLUE" / "broken.jpg"
    broken.write_bytes(b"no jpeg")
    told: list[tuple[str, int, int]] = []
    with listening(lambda *said: told.append(said)):
        first = folder.load(photos)
    assert len(decoded) == 25
    assert told == [("images of my_photos looked at", done, 25) for done in (0, 25)]
    decoded.clear()
    again = folder.load(photos)
    assert decoded == ["broken.jpg"]
    assert again.unused == first.unused
    assert again.dataset.train.items == first.dataset.train.items
    decoded.clear()
    (photos / "BLUE" / "3.png").write_bytes(b"was a picture")
    photo(broken.with_name("broken.png"))
    broken.unlink()
    changed = folder.load(photos)
    assert sorted(decoded) == ["3.png", "broken.png"]
    assert "3.png: not an image" in str(changed.unused[0])
    for record in (cache / "readable").glob("*.json"):
        record.write_text("{half a rec", encoding="utf-8")
    decoded.clear()
    assert folder.load(photos).unused == changed.unused
    assert len(decoded) == 25
    assert not list(cache.rglob("*.tmp"))


def test_without_a_place_for_the_record_every_file_is_decoded(photos, cache, monkeypatch):
    (cache / "readable").touch()  # no folder can be made there
    (photos / "BLUE" / "broken.jpg").write_bytes(b"no jpeg")
    assert [len(folder.load(photos).unused) for _ in range(2)] == [1, 1]


def test_new_classes_need_no_image(photos, tmp_path):
    own = folder.load(photos, new_classes=["yellow_things", "pink things"])
    assert own.dataset.classnames[3:] == ("yellow things", "pink things")
    assert own.known == (0, 1, 2)
    for bad, match in ((["BLUE"], "there are images of it"), (["x", "x"], "named twice")):
        with pytest.raises(DatasetError, match=match):
            folder.load(photos, new_classes=bad)
    listed = tmp_path / "new.txt"
    listed.write_text("# not yet photographed\nyellow_things\n\npink things\n", encoding="utf-8")
    assert read_names(listed) == ["yellow things", "pink things"]
    listed.write_text("\n", encoding="utf-8")
    with pytest.raises(SimpromptError, match="names no classes"):
        read_names(listed)


def test_tables(photos, tmp_path):
    rows = ["path,label,split"]
    for name in COLOURS:
        for i in range(8):
            rows.append(f"my_photos/{name}/{i}.png,{name},{'test' if i == 7 else 'train'}")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(rows), encoding="utf-8-sig")
    data = folder.load(table).dataset
    assert (len(data.train), len(data.test)) == (21, 3)
    assert data.test.load(0).size == (24, 20)
    assert catalogue.load(str(table)).test.items == data.test.items
    for text, match in (
        ("a,b\n1,2", "no column that is known to hold images: a, b"),
        ("path,label,split\na,b,later", "line 2: the split in the column split is 'later'"),
        ("path,label\na,", "no readable images.*without a label"),
        ("path,label\nmissing.png,b", "no readable images"),
    ):
        table.write_text(text, encoding="utf-8")
        with pytest.raises(DatasetError, match=match):
            folder.load(table)
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    paths = [f"my_photos/{name}/{i}.png" for name in COLOURS for i in range(8)]
    labels = [name for name in COLOURS for _ in range(8)]
    written = tmp_path / "table.parquet"
    parquet.write_table(pyarrow.table({"path": paths, "label": labels}), written)
    assert len(folder.load(written).dataset.train) == 18


def test_what_is_not_there_is_said(tmp_path):
    for source, match in (
        (tmp_path / "nowhere", "no folder or file"),
        (tmp_path, "no readable images"),
        (__file__, "expected a folder, or a table"),
    ):
        with pytest.raises(DatasetError, match=match):
            folder.load(source)
    (tmp_path / "t.csv").write_text(f"path,label\n{'long' * 2000}.png,b", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"no readable images.*cannot be opened"):
        folder.load(tmp_path / "t.csv")


def test_out_is_looked_at_before_anything_is_learned(photos, tmp_path):
    from simprompt.cli.main import app

    (tmp_path / "taken").touch()
    with pytest.raises(SimpromptError, match=r"`out` takes a folder; .*taken is a file"):
        CliRunner().invoke(app, ["learn", str(photos), "--out", str(tmp_path / "taken")],
                           catch_exceptions=False)  # fmt: skip


def test_a_folder_that_may_not_be_read_is_named(photos, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied", str(photos))

    monkeypatch.setattr(trees.os, "scandir", refuse)
    with pytest.raises(DatasetError, match="my_photos cannot be read: Permission denied"):
        folder.load(photos)


def test_parquet_files_that_datasets_reads(tmp_path, monkeypatch):
    """The real library on a local folder, as the hub serves a dataset: no network is needed."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    # the variable HF_HUB_OFFLINE, which both have read already
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    kinds = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["black_cat", "dog"])}
    )
    for part, count in (("train", 6), ("validation", 2), ("test", 4)):
        images = [Image.new("L", (9, 8), 20 * i) for i in range(count)]
        rows = {"image": images, "label": [i % 2 for i in range(count)]}
        table = datasets.Dataset.from_dict(rows, features=kinds)
        table.to_parquet(str(tmp_path / "pets" / f"{part}-00000-of-00001.parquet"))
    data = folder.load(f"hf:{tmp_path / 'pets'}").dataset
    assert data.classnames == ("black cat", "dog")
    assert (len(data.train), len(data.val), len(data.test)) == (6, 2, 4)
    assert data.test.labels == (0, 1, 0, 1)
    assert data.test.load(3).getpixel((0, 0)) == (60, 60, 60)
    assert folder.load(f"hf:{tmp_path / 'pets'}").dataset.version == data.version
    with pytest.raises(DatasetError, match="could not be loaded"):
        folder.load("hf:nobody/nothing")


def test_a_dataset_of_the_hub(monkeypatch):
    """With a stand-in for the `datasets` library, which needs a network."""

    class ImageColumn:
        def __init__(self, decode: bool = True) -> None:
            pass

    class ClassLabel:
        names = ("cat", "dog")

    class Table(list):
        features = {"image": ImageColumn(), "label": ClassLabel(), "id": object()}  # noqa: RUF012
        _fingerprint = "f0"

        def __getitem__(self, key):
            return (
                [r["label"] for r in self] if isinstance(key, str) else list.__getitem__(self, key)
            )

        def cast_column(self, name, kind):
            return self

    png = io.BytesIO()
    Image.new("RGBA", (5, 5)).save(png, "PNG")
    image = {"bytes": png.getvalue(), "path": None}

    def rows(count: int) -> Table:
        return Table({"image": image, "label": i % 2} for i in range(count))

    fake = types.SimpleNamespace(
        Image=ImageColumn, ClassLabel=ClassLabel,
        load_dataset=lambda name: {"train": rows(6), "validation": rows(2), "test": rows(4)},
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "datasets", fake)
    data = catalogue.load("hf:org/pets")
    assert data.classnames == ("cat", "dog")
    assert (len(data.train), len(data.val), len(data.test)) == (6, 2, 4)
    assert data.test.load(3).mode == "RGB"
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DatasetError, match="pip install 'datasets"):
        catalogue.load("hf:org/pets")


def test_learn_end_to_end(photos, tmp_path, tiny_clip, tiny_tokenizer, monkeypatch):
    import simprompt
    from simprompt.cli.main import app

    model = tmp_path / "model"
    clip_hub.save(tiny_clip, model)
    shutil.copy(tiny_tokenizer, model / "tokenizer.json")
    (photos / "BLUE" / "broken.jpg").touch()
    (tmp_path / "new.txt").write_text("yellow fish\nblack cat\n", encoding="utf-8")
    out = tmp_path / "learned"
    command = ["learn", str(photos), "--new-classes", str(tmp_path / "new.txt"), "--model",
               str(model), "--set", "training.epochs=3", "--out", str(out)]  # fmt: skip
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "3 classes: BLUE, red things, green things" in result.output
    assert "2 new classes without images" in result.output
    assert "broken.jpg: empty, zero bytes" in result.output
    assert "among your 3 classes and 2 new ones" in result.output
    record = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert (record["training_images"], record["test_images"]) == (18, 6)
    prompt = simprompt.load_prompt(out / "prompt", tiny_clip)
    assert "yellow fish" in prompt.card["novel"]
    assert len(prompt.card["novel"]) == 200
    answer = prompt.predict([photos / "BLUE" / "0.png"], ["blue", "yellow fish"])[0]
    assert answer.name in ("blue", "yellow fish")
    # everything but SAR and the new classes: another path through the command
    again = CliRunner().invoke(app, [*command[:2], *command[4:], "--sar", "off", "--json"])
    assert again.exit_code == 0, again.output
    assert list(json.loads(again.stdout)["accuracy"]) == ["among your classes"]


def test_every_door_gives_the_same_answer(photos, tmp_path, monkeypatch):
    """`learn`, `run`, `data check` and Python name the same classes, images and unused files."""
    import simprompt
    from simprompt.cli.main import app
    from simprompt.features.digests import of_dataset

    wrapped = tmp_path / "outer"
    shutil.copytree(photos, wrapped / "archive" / "train")
    shutil.copytree(photos, wrapped / "archive" / "Test")
    (wrapped / "archive" / "train" / "BLUE" / "notes.txt").write_text("no image", encoding="utf-8")
    seen = []
    load = folder.load
    monkeypatch.setattr(folder, "load", lambda *a, **k: seen.append(load(*a, **k)) or seen[-1])
    python = simprompt.load_dataset(str(wrapped))
    assert python.unused == (("archive/train/BLUE/notes.txt", NOT_AN_IMAGE),)
    for command in (
        ["learn", str(wrapped), "--model", str(tmp_path), "--json"],  # a folder without a model
        ["run", "--dataset", str(wrapped), "--method", "zero-shot", "--model", str(tmp_path)],
        ["check", str(wrapped)],
    ):
        seen.clear()
        CliRunner().invoke(app, command)
        assert {of_dataset(own.dataset) for own in seen} == {of_dataset(python)}, command
        assert seen[0].dataset.unused == python.unused


def test_what_is_learned_from_has_the_identity_not_what_lies_beside(photos, tmp_path):
    """A file that is not used changes no key; one more image does, and so does a joined class."""
    from simprompt.features.digests import look_again, of_dataset

    def key() -> str:
        look_again()
        return of_dataset(folder.load(photos).dataset)

    before = key()
    (photos / "BLUE" / "notes.txt").write_text("not an image", encoding="utf-8")
    (photos / ".DS_Store").write_bytes(b"\0")
    assert key() == before
    photo(photos / "BLUE" / "another.png", seed=99)
    assert key() != before


def test_digests_are_those_of_the_bytes_also_from_the_record(photos):
    import hashlib

    for _ in range(2):
        digests = folder.load(photos).digests
        assert len(digests) == 24
        for item, digest in digests.items():
            assert digest == hashlib.sha256((photos / item).read_bytes()).hexdigest()


def test_a_result_lists_all_and_the_screen_a_few(photos):
    for i in range(9):
        (photos / "BLUE" / f"{i}.txt").write_text("not an image", encoding="utf-8")
    own = folder.load(photos)
    assert own.facts()["unused_by_reason"] == {NOT_AN_IMAGE: 9}
    assert len(own.facts()["unused"]) == len(own.dataset.unused) == 9
    assert own.told(most=3)[:1] == [f"not used: 9 x {NOT_AN_IMAGE}"]
    assert own.told(most=3)[-1] == "  and 6 more; result.json lists them all"


def test_run_and_python_read_as_the_columns_say(photos, tmp_path, monkeypatch):
    """Options and arguments mean the same; other options, other runs; for own images alone."""
    import simprompt
    from simprompt.cli.main import app

    monkeypatch.chdir(tmp_path)
    rows = [f"my_photos/{name}/{i}.png,{name},x{i % 2}" for name in COLOURS for i in range(8)]
    Path("t.csv").write_text("\n".join(["file,species,breed", *rows]), encoding="utf-8")
    Path("names.txt").write_text("BLUE = sky\nRed_things = sky\n", encoding="utf-8")
    columns = ["--label-column", "species"]
    command = ["run", "--dataset", "t.csv", "--method", "zero-shot", "--sar", "off", "--seeds", "1",
               "--json", "--out", "runs"]  # fmt: skip
    keys = set()
    for options in (columns, ["--label-column", "breed"], [*columns, "--rename", "names.txt"]):
        result = CliRunner().invoke(app, [*command, *options])
        assert result.exit_code == 0, result.output
        keys |= {place.name for place in Path("runs").rglob("seed1-*")}
    assert len(keys) == 3
    data = simprompt.load_dataset("t.csv", label_column="species", names="names.txt")
    assert data.classnames == ("sky", "green things")
    with pytest.raises(DatasetError, match="--label-column"):
        simprompt.load_dataset("t.csv")
    with pytest.raises(SimpromptError, match="for your own images, and icons/places is none"):
        CliRunner().invoke(app, ["run", "--dataset", "icons/places", *columns],
                           catch_exceptions=False)  # fmt: skip
