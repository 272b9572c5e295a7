"""Folder trees."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from page_cases import case, check, classes, images, refusal
from simprompt.cli.main import app
from simprompt.data import icons

THREE = ["circle", "square", "triangle"]


def splits(root: Path, *names: str) -> Path:
    return classes(root, *(f"{name}/{own}" for name in names for own in THREE))


@case("split-words")
def _(at: Path) -> None:
    ways = (
        ("train", "val", "test"), ("Train", "VAL", "Test"), ("training", "validation", "testing"),
        ("train_set", "valid-set", "TestSet"), ("images_train", "dev", "eval"),
        ("train2017", "val2017", "test2017"),
    )  # fmt: skip
    for number, names in enumerate(ways):
        own = check(splits(at / str(number), *names))
        assert own["images"] == {"train": 6, "val": 6, "test": 6}, names
        assert own["class_names"] == THREE


@case("stray-folder")
def _(at: Path) -> None:
    splits(at, "train", "test")
    images(at, "figures/1.png", "cover.png")
    (at / "annotations").mkdir()
    (at / "annotations" / "boxes.xml").write_text("<xml/>", encoding="utf-8")
    own = check(at)
    assert (own["class_names"], own["images"]) == (THREE, {"train": 6, "test": 6})
    assert own["unused_by_reason"] == {
        "not an image": 1, "outside every class folder": 1, "in a folder beside the splits": 1
    }  # fmt: skip
    assert "Not used, beside the splits: figures." in own["notes"]


@case("system-files")
def _(at: Path) -> None:
    splits(at, "train", "test")
    images(at, "__MACOSX/train/circle/._0.png", ".ipynb_checkpoints/a.png", "@eaDir/a.png")
    for name in ("Thumbs.db", "train/.DS_Store", "train/circle/desktop.ini"):
        (at / name).write_bytes(b"\0")
    own = check(at, "--strict")
    assert (own["class_names"], own["images"]) == (THREE, {"train": 6, "test": 6})
    assert own["unused_by_reason"] == {"file of the operating system or of a tool": 6}


@case("hidden")
def _(at: Path) -> None:
    classes(at, *THREE, ".thumbnails")
    images(at, "circle/.edited.png")
    own = check(at)
    assert own["class_names"] == THREE
    assert own["unused_by_reason"] == {"hidden file or folder": 3}


@case("too-deep")
def _(at: Path) -> None:
    own = check(splits(at / "a", "archive/shapes/train", "archive/shapes/test"))
    assert own["images"] == {"train": 6, "test": 6}
    assert "The images lie two folders deep, in archive/shapes." in own["notes"]
    own = check(classes(at / "b", *(f"archive/{name}" for name in THREE)))
    assert own["class_names"] == THREE
    own = check(splits(at / "c", "train/train", "test/test"))
    assert (own["class_names"], own["images"]) == (THREE, {"train": 6, "test": 6})


@case("two-sets")
def _(at: Path) -> None:
    splits(at, "one/train", "one/test", "two/train", "two/test")
    message = refusal(at)
    assert f"Name the one that is meant: {at / 'one'} or {at / 'two'}." in message


@case("two-for-a-split")
def _(at: Path) -> None:
    message = refusal(splits(at, "train", "val", "validation"))
    assert "2 folders for val, val, validation" in message


@case("no-train")
def _(at: Path) -> None:
    message = refusal(splits(at, "val", "test"))
    assert "no folder for training" in message
    assert f"{at / 'val'} or {at / 'test'}" in message


@case("train-alone")
def _(at: Path) -> None:
    message = refusal(splits(at, "train", "pred"))
    assert f"Name the one that is meant: {at / 'train'}" in message


@case("train-is-a-class")
def _(at: Path) -> None:
    assert check(classes(at, "bus", "car", "train"))["class_names"] == ["bus", "car", "train"]


@case("splits-without-classes")
def _(at: Path) -> None:
    message = refusal(images(at, "train/a.png", "train/b.png", "test/c.png", "test/d.png"))
    assert "no class folders" in message


@case("unlabelled-test")
def _(at: Path) -> None:
    own = check(images(splits(at, "train"), "test/1.png", "test/2.png"))
    assert own["images"] == {"train": 3, "test": 3}
    assert own["unused_by_reason"] == {"without a label": 2}


@case("split-spelling")
def _(at: Path) -> None:
    own = check(classes(at, "train/circle", "train/big_square", "test/Circle", "test/Big Square"))
    assert own["class_names"] == ["big square", "circle"]
    assert own["images"] == {"train": 4, "test": 4}
    assert "Circle and circle are one class." in own["notes"]


@case("only-in-test")
def _(at: Path) -> None:
    own = check(classes(splits(at, "train", "test"), "test/star"))
    assert own["class_names"] == THREE
    assert own["unused_by_reason"] == {"class without training images": 2}


@case("flat")
def _(at: Path) -> None:
    own = check(images(at, *(f"{n}{i}.png" for n in ("cat.", "dog_", "sea lion ") for i in (1, 2))))
    assert own["class_names"] == ["cat", "dog", "sea lion"]
    assert "cat (2), dog (2), sea lion (2)" in own["notes"][0]


@case("flat-unnamed")
def _(at: Path) -> None:
    for number, names in enumerate((("IMG_1", "IMG_2", "DSC_1", "DSC_2"), ("cat", "dog"))):
        message = refusal(images(at / str(number), *(f"{name}.png" for name in names)))
        assert "no class folders" in message
        assert "Put the images of each class into a folder" in message


@case("by-content")
def _(at: Path) -> None:
    classes(at, "cat", "dog")
    images(at, "cat/a.jfif", "dog/b", "dog/c.photo")
    (at / "cat" / "notes.txt").write_text("no image", encoding="utf-8")
    own = check(at)
    assert sum(own["images"].values()) == 7
    assert [(u["path"], u["reason"]) for u in own["unused"]] == [("cat/notes.txt", "not an image")]


@case("heic")
def _(at: Path) -> None:
    classes(at, "cat", "dog")
    (at / "cat" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40)
    own = check(at)
    (one,) = own["unused"]
    assert one["path"] == "cat/IMG_1.HEIC"
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        assert one["reason"] == "image of a kind that needs another package"
        assert "pip install 'pillow-heif" in one["detail"]
    else:  # this one has nothing in it
        assert one["reason"] == "image that cannot be read"


@case("damaged")
def _(at: Path) -> None:
    classes(at, "cat", "dog")
    (at / "cat" / "half.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (at / "dog" / "page.jpg").write_bytes(b"<html>")
    (at / "dog" / "none.jpg").touch()
    assert check(at)["unused_by_reason"] == {"image that cannot be read": 3}


@case("linked")
def _(at: Path) -> None:
    pool, root = at / "pool", at / "photos"
    classes(pool, "cat", "dog")
    classes(root, "fox")
    for name in ("cat", "dog"):
        (root / name).symlink_to(pool / name)
    (root / "fox" / "more.png").symlink_to(pool / "cat" / "0.png")
    own = check(root)
    assert own["class_names"] == ["cat", "dog", "fox"]
    assert (sum(own["images"].values()), own["unused"]) == (7, [])


@case("linked-back")
def _(at: Path) -> None:
    classes(at, "cat", "dog")
    (at / "cat" / "up").symlink_to(at)
    (at / "dog" / "gone.png").symlink_to(at / "nowhere.png")
    (at / "dog" / "again").symlink_to(at / "dog")
    (at / "cat" / "dogs").symlink_to(at / "dog")
    own = check(at)
    assert sum(own["images"].values()) == 4
    links = [u["path"] for u in own["unused"]]
    assert {"cat/up", "dog/gone.png", "dog/again", "cat/dogs/0.png", "cat/dogs/1.png"} <= {*links}
    assert set(own["unused_by_reason"]) == {"link that leads nowhere, or to what is read already"}


@case("empty-class")
def _(at: Path) -> None:
    classes(at, "cat", "dog")
    (at / "fox").mkdir()
    (at / "owl").mkdir()
    (at / "owl" / "only.jpg").write_bytes(b"no image")
    own = check(at)
    assert own["class_names"] == ["cat", "dog"]
    empty = [u["path"] for u in own["unused"] if u["reason"].startswith("class without images")]
    assert empty == ["fox/", "owl"]


@case("one-image")
def _(at: Path) -> None:
    own = check(images(classes(at, "cat", "dog"), "fox/only.png"))
    assert own["untested_classes"] == ["fox"]


@case("beside")
def _(at: Path) -> None:
    own = check(images(classes(at, "cat", "dog"), "cover.png"))
    assert own["class_names"] == ["cat", "dog"]
    assert own["unused_by_reason"] == {"outside every class folder": 1}


@case("strict")
def _(at: Path) -> None:
    classes(at / "whole", "cat", "dog")
    check(at / "whole", "--strict")
    for number, path in enumerate(("cat/notes.txt", "cat/.hidden.png", "cover.png", "fox/one.png")):
        root = images(classes(at / str(number), "cat", "dog"), path)
        if path.endswith(".txt"):
            (root / path).write_text("no image", encoding="utf-8")
        assert "is not used in full: 1 " in refusal(root)
        result = CliRunner().invoke(app, ["learn", str(root), "--strict", "--out", str(at / "out")])
        assert "is not used in full: 1 " in str(result.exception)
        result = CliRunner().invoke(app, ["run", "--dataset", str(root), "--strict"])
        assert "is not used in full: 1 " in str(result.exception)


@case("odd-path")
def _(at: Path) -> None:
    from simprompt.data import catalogue

    paths = [str(classes(at / name, "cat", "dog")) for name in ("a,b", "c @d:é", "e'\"f #%&[]")]
    assert catalogue.listed([*paths, "icons/animals,dtd"]) == [*paths, "icons/animals", "dtd"]
    assert catalogue.listed(["icons"]) == [*icons.tasks()]
    for path in paths:
        assert check(Path(path))["class_names"] == ["cat", "dog"]
        result = CliRunner().invoke(app, ["run", "--dataset", path, "--sar", "nonsense"])
        assert "--sar" in str(result.exception)  # the dataset was understood before
