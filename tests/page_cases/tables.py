"""Tables, and what else says labels beside images."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from page_cases import case, check, images, refusal

FILES = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(4)]
LABELS = [path.partition("/")[0] for path in FILES]


def photos(at: Path) -> Path:
    return images(at, *FILES)


def write(path: Path, header: str, rows: list[str], encoding: str = "utf-8") -> Path:
    path.write_bytes("\r\n".join([header, *rows, ""]).encode(encoding))
    return path


def both(path: Path | str, *options: str) -> dict[str, Any]:
    """What is understood, where it is two classes of four images."""
    own = check(path, *options)
    assert own["class_names"] == ["cat", "dog"], own
    assert own["images"] == {"train": 6, "test": 2}, own
    return own


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (20 * number, 9, 9)).save(buffer, "PNG")
    return buffer.getvalue()


@case("delimiters")
def _(at: Path) -> None:
    photos(at)
    for mark in (",", ";", "\t", "|"):
        rows = [f"{path} {mark} {label} " for path, label in zip(FILES, LABELS, strict=True)]
        both(write(at / "t.csv", f"path{mark}label", rows))
        both(write(at / "t.csv", f"sep={mark}\r\npath{mark}label{mark}", [r + mark for r in rows]))
    rows = ['"cat/0.png","big, ""red""\ncat"', *(f"{p},dog" for p in FILES[4:])]
    own = check(write(at / "t.csv", "path,label", rows))
    assert own["class_names"] == ['big, "red" cat', "dog"]


@case("encodings")
def _(at: Path) -> None:
    photos(at)
    rows = [f"{path};{label}ö" for path, label in zip(FILES, LABELS, strict=True)]
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"):
        own = check(write(at / "t.csv", "path;label", rows, encoding))
        assert own["class_names"] == ["catö", "dogö"], encoding
        assert any("cp1252" in note for note in own["notes"]) == (encoding == "cp1252")


@case("column-names")
def _(at: Path) -> None:
    photos(at)
    rows = [f"{path},{label},train" for path, label in zip(FILES, LABELS, strict=True)]
    for header in ("Path,LABEL,Split", "file_name,class,set", "Image Path,category,subset",
                   "img,species,partition", "filename,target,fold"):  # fmt: skip
        own = both(write(at / "t.csv", header, rows))
        assert "as the image" in own["notes"][0]
    assert "as the label" not in both(write(at / "t.csv", "file,label,split", rows))["notes"][0]


@case("which-column")
def _(at: Path) -> None:
    photos(at)
    rows = [f"{path},{label},x{i % 3}" for i, (path, label) in enumerate(zip(FILES, LABELS))]  # noqa: B905
    table = write(at / "t.csv", "file,species,breed", rows)
    message = refusal(table)
    assert "several columns of labels: species, breed" in message
    assert "--label-column" in message
    both(table, "--label-column", "species")
    message = refusal(write(at / "t.csv", "a,b,c", rows))
    assert "--label-column" in message
    both(at / "t.csv", "--image-column", "a", "--label-column", "B")
    assert "no column 'd' for --label-column; it has b, c" in refusal(
        at / "t.csv", "--label-column", "d"
    )


@case("paths")
def _(at: Path) -> None:
    photos(at / "images")
    ways = (
        lambda p: str(at / "images" / p), lambda p: f"images\\{p}".replace("/", "\\"),
        lambda p: f"C:\\Users\\me\\images\\{p}".replace("/", "\\"), lambda p: f"./images/./{p}",
        lambda p: p, lambda p: f"/home/me/{p}", lambda p: p.upper().replace("CAT/", "cat/")
        .replace("DOG/", "dog/"),
    )  # fmt: skip
    for way in ways:
        rows = [f"{way(path)},{label}" for path, label in zip(FILES, LABELS, strict=True)]
        own = both(write(at / "t.csv", "path,label", rows))
        assert own["unused"] == []
    rows = ["https://example.org/a.png,cat", "cat/0.png,cat"]
    assert "line 2" in refusal(write(at / "t.csv", "path,label", rows))


@case("ids")
def _(at: Path) -> None:
    images(at, *(f"images/{i:04}.png" for i in range(8)))
    rows = [f"{i:04},{'cat' if i < 4 else 'dog'}" for i in range(8)]
    table = write(at / "t.csv", "id,breed", rows)
    own = both(table)
    assert "The images were found in images/ (8)." in own["notes"]
    images(at, "images/0003.jpg")
    message = refusal(table)
    assert "line 5: 0003 may be images/0003.jpg or images/0003.png" in message
    assert "suffix" in message


@case("ragged")
def _(at: Path) -> None:
    photos(at)
    rows = ["cat/0.png,cat", "cat/1.png,cat, tabby", "dog/0.png,dog"]
    message = refusal(write(at / "t.csv", "path,label", rows))
    assert "t.csv, line 3: 3 values, and the first line has 2 (path, label)" in message
    assert "stands in quotes" in message
    message = refusal(write(at / "t.csv", "path,label", ["cat/0.png,cat", '"dog/0.png,dog']))
    assert "line 3: unexpected end of data" in message


@case("no-header")
def _(at: Path) -> None:
    photos(at)
    rows = [f"{path},{label}" for path, label in zip(FILES, LABELS, strict=True)]
    own = both(write(at / "t.csv", rows[0], rows[1:]))
    assert "no header; its columns were read as path, label" in " ".join(own["notes"])
    rows = [f"{row},1.5" for row in rows]
    message = refusal(write(at / "t.csv", rows[0], rows[1:]))
    assert "line 1" in message
    assert "Put a line such as path,label in front" in message


@case("splits-in-a-table")
def _(at: Path) -> None:
    photos(at)
    words = ["train", "Training", "TEST", "validation"] * 2
    rows = [f"{p},{n},{w}" for p, n, w in zip(FILES, LABELS, words, strict=True)]
    own = check(write(at / "t.csv", "path,label,split", rows))
    assert own["images"] == {"train": 4, "val": 2, "test": 2}
    message = refusal(write(at / "t.csv", "path,label,split", [*rows, "cat/0.png,cat,later"]))
    assert "line 10: the split in the column split is 'later'" in message
    paths = [f"{part}/{path}" for part in ("train", "test") for path in FILES]
    images(at, *paths)
    rows = [f"{path},{path.split('/')[1]}" for path in paths]
    assert check(write(at / "t.csv", "path,label", rows))["images"] == {"train": 8, "test": 8}


@case("rows-not-used")
def _(at: Path) -> None:
    photos(at)
    rows = [f"{path},{label}" for path, label in zip(FILES, LABELS, strict=True)]
    rows += ["cat/0.png,cat", "dog/0.png,cat", ",cat", "cat/1.png,", "gone.png,dog"]
    own = check(write(at / "t.csv", "path,label", rows))
    assert own["unused_by_reason"] == {
        "image that cannot be read": 1, "image with several labels": 2, "row without an image": 1,
        "without a label": 1, "row that is there twice": 1,
    }  # fmt: skip
    assert sum(own["images"].values()) == 7
    (conflict, _) = (u for u in own["unused"] if u["reason"] == "image with several labels")
    assert "'dog' (line 6: dog/0.png) and 'cat' (line 11: dog/0.png)" in conflict["detail"]


@case("labels-in-numbers")
def _(at: Path) -> None:
    photos(at)
    numbers = ["1.0"] * 3 + ["-1"] + ["2.0"] * 3 + ["nan"]
    rows = [f"{path},{number}" for path, number in zip(FILES, numbers, strict=True)]
    own = check(write(at / "t.csv", "path,label", rows))
    assert own["class_names"] == ["1", "2"]
    assert own["unused_by_reason"] == {"without a label": 2}
    rows = [f"{p},{0 if n == 'cat' else 1},{n}" for p, n in zip(FILES, LABELS, strict=True)]
    both(write(at / "t.csv", "path,label,label_name", rows))


@case("parquet")
def _(at: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    from pyarrow import parquet

    photos(at)
    kinds = {
        "paths": {"path": FILES, "label": LABELS},
        "bytes": {"image": [png(i) for i in range(8)], "label": LABELS},
        "cells": {"image": [{"bytes": png(i), "path": None} for i in range(8)], "label": LABELS},
    }
    for name, columns in kinds.items():
        parquet.write_table(pyarrow.table(columns), at / f"{name}.parquet")
        both(at / f"{name}.parquet")
    (at / "hub" / "data").mkdir(parents=True)
    for part, rows in (("train", [0, 1, 4, 5]), ("test", [2, 3, 6, 7])):
        columns = {"image": [png(i) for i in rows], "label": [LABELS[i] for i in rows]}
        parquet.write_table(
            pyarrow.table(columns), at / "hub" / "data" / f"{part}-00000-of-00001.parquet"
        )
    assert check(at / "hub")["images"] == {"train": 4, "test": 4}
    columns = {"image": [*(png(i) for i in range(7)), b"no image"], "label": LABELS}
    parquet.write_table(pyarrow.table(columns), at / "damaged.parquet")
    assert check(at / "damaged.parquet")["unused_by_reason"] == {"image that cannot be read": 1}


@case("json")
def _(at: Path) -> None:
    photos(at)
    coded = [base64.b64encode(png(i)).decode() for i in range(8)]
    for cells in (
        FILES, coded, [f"data:image/png;base64,{text}" for text in coded],
        [{"bytes": text, "path": None} for text in coded],
    ):  # fmt: skip
        rows = [{"image": c, "label": n} for c, n in zip(cells, LABELS, strict=True)]
        (at / "t.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        both(at / "t.jsonl")
        (at / "t.json").write_text(json.dumps(rows), encoding="utf-8")
        both(at / "t.json")
    (at / "t.jsonl").write_text('{"path": "cat/0.png", "label": "cat"}\n{"path"', encoding="utf-8")
    assert "t.jsonl, line 2: not JSON" in refusal(at / "t.jsonl")


@case("coco")
def _(at: Path) -> None:
    images(at, *(f"train/{i}.png" for i in range(9)))
    boxes = [(i, 1 + (i > 3)) for i in range(8)] + [(0, 1), (7, 1)]
    value = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(9)],
        "annotations": [{"image_id": i, "category_id": c, "bbox": [0, 0, 1, 1]} for i, c in boxes],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    for path, source in (
        ("annotations/instances_train.json", "annotations/instances_train.json"),
        ("train/_annotations.coco.json", "."),
    ):
        (at / path).parent.mkdir(exist_ok=True)
        (at / path).write_text(json.dumps(value), encoding="utf-8")
        own = check(at / source)
        assert own["class_names"] == ["cat", "dog"]
        assert sum(own["images"].values()) == 7
        assert own["unused_by_reason"] == {"image with several labels": 1, "without a label": 1}


@case("image-folder")
def _(at: Path) -> None:
    for part in ("train", "test"):
        images(at, *(f"{part}/{i}.png" for i in range(4)))
        rows = [f"{i}.png,{'cat' if i % 2 else 'dog'}" for i in range(4)]
        write(at / part / "metadata.csv", "file_name,label", rows)
    own = check(at)
    assert (own["class_names"], own["images"]) == (["cat", "dog"], {"train": 4, "test": 4})
    for part in ("train", "test"):
        (at / part / "metadata.csv").unlink()
    rows = [{"file_name": f"{part}/{i}.png", "label": "cat" if i % 2 else "dog"}
            for part in ("train", "test") for i in range(4)]  # fmt: skip
    (at / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert check(at)["images"] == {"train": 4, "test": 4}


@case("table-in-a-folder")
def _(at: Path) -> None:
    images(at, "IMG_1.png", "IMG_2.png")
    write(at / "labels.csv", "path,label", ["IMG_1.png,cat", "IMG_2.png,dog"])
    assert f"name it: {at / 'labels.csv'}" in refusal(at)


@case("hub")
def _(at: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["cat", "dog"])
    numbers = [0, 1, 0, 1, 0, 1, 0, 1]
    kinds = {
        "hidden": ({"photo": datasets.Image(), "label": names}, {"label": [*numbers[:7], None]}),
        "words": ({"photo": datasets.Image(), "label": datasets.Value("string")},
                  {"label": [("cat", "dog")[n] for n in numbers]}),
        "two": ({"photo": datasets.Image(), "fine": names, "coarse": names},
                {"fine": numbers, "coarse": [0, 0, 1, 1] * 2}),
    }  # fmt: skip
    for name, (features, columns) in kinds.items():
        rows = {"photo": [{"bytes": png(i), "path": None} for i in range(8)], **columns}
        table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        table.to_parquet(str(at / name / "training-00000-of-00001.parquet"))
    hidden = {"photo": [{"bytes": png(9), "path": None}], "label": [-1]}
    features = datasets.Features(kinds["hidden"][0])
    table = datasets.Dataset.from_dict(hidden, features=features)
    table.to_parquet(str(at / "hidden" / "test-00000-of-00001.parquet"))
    own = check(f"hf:{at / 'hidden'}")
    assert own["class_names"] == ["cat", "dog"]
    assert own["unused_by_reason"] == {"without a label": 2}
    assert sum(own["images"].values()) == 7
    both(f"hf:{at / 'words'}")
    assert "several columns of labels: fine, coarse. Name one with --label-column" in refusal(
        f"hf:{at / 'two'}"
    )
    both(f"hf:{at / 'two'}", "--label-column", "fine")
