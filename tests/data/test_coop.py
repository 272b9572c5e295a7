"""The field's datasets in CoOp's layout: found, split, named, downloaded, checked."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from simprompt.data import catalogue, coop, specs
from simprompt.data.split import DatasetError
from simprompt.utils.files.hub_requests import FetchError

SHARED = os.environ.get("SIMPROMPT_SHARED_DATA")
needs_shared = pytest.mark.skipif(
    not SHARED, reason="needs images of EuroSAT and DTD below SIMPROMPT_SHARED_DATA"
)


def jpeg(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


FOLDERS = ["AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture",
           "PermanentCrop", "Residential", "River", "SeaLake"]  # fmt: skip


def eurosat_files(images: int = 4) -> dict[str, bytes]:
    """EuroSAT in the mirror's layout, with few images."""
    names = coop.class_names("eurosat")
    files, split = {}, {"train": [], "val": [], "test": []}
    for label, folder in enumerate(FOLDERS):
        for i in range(images):
            item = f"{folder}/{folder}_{i + 1}.jpg"
            files[f"eurosat/2750/{item}"] = jpeg(100 * label + i)
            part = ("train", "train", "val", "test")[i % 4]
            split[part].append([item, label, names[label]])
    files["eurosat/split_zhou_EuroSAT.json"] = json.dumps(split).encode()
    return files


def write(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def test_the_catalogue_is_whole():
    assert len(coop.specs()) == 15
    for spec in coop.specs().values():
        assert spec.name in catalogue.entries()
        names = coop.class_names(spec.name)
        assert len(names) == (1000 if spec.name.startswith("imagenet") else spec.classes)
        assert not any("_" in n or n != n.strip() for n in names)
        assert bool(spec.archive) == (spec.name != "imagenet")
    assert coop.template_sets() == ("coop", "kgcoop", "prograd", "tcp-student", "tcp-teacher")
    # research/peers: the one template that differs from paper to paper
    assert [coop.template("dtd", s) for s in coop.template_sets()] == [
        "{} texture.", "a photo of a {}, a type of texture.", "a texture of {}.",
        "{} texture.", "a photo of a {}, a type of texture.",
    ]  # fmt: skip
    assert coop.template("sun397") == "a photo of a {}."
    assert coop.class_names("eurosat")[3] == "Highway or Road"
    assert coop.class_names("caltech101")[:3] == ("face", "leopard", "motorbike")
    imagenet = coop.class_names("imagenet")
    assert [n for n in ("missile", "sunglasses") if imagenet.count(n) == 2] == [
        "missile", "sunglasses"]  # fmt: skip


def test_an_existing_folder_works_at_once(tmp_path, monkeypatch):
    write(tmp_path, eurosat_files())
    monkeypatch.setenv("SIMPROMPT_DATA", str(tmp_path))
    data = catalogue.load("eurosat")
    assert (len(data.train), len(data.val), len(data.test)) == (20, 10, 10)
    assert data.base.classnames == coop.class_names("eurosat")[:5]
    assert data.test.load(0).size == (16, 16)
    assert data.notes == ()
    # The dataset's own folder, or another paper's templates, will do as well.
    assert catalogue.load("eurosat", tmp_path / "eurosat").test.items == data.test.items
    assert catalogue.load("eurosat@tcp-teacher").templates == ("a centered satellite photo of {}.",)
    with pytest.raises(DatasetError, match="template set"):
        catalogue.load("eurosat@other")


def test_without_the_split_file_the_rule_is_applied_and_said(tmp_path):
    write(tmp_path, eurosat_files(images=10))
    (tmp_path / "eurosat" / "split_zhou_EuroSAT.json").unlink()
    data = catalogue.load("eurosat", tmp_path)
    assert (len(data.train), len(data.val), len(data.test)) == (50, 20, 30)
    assert len({*data.train.items, *data.val.items, *data.test.items}) == 100
    assert data.classnames == coop.class_names("eurosat")
    assert data.test.items[0].startswith("AnnualCrop/")
    assert "not comparable with published" in data.notes[0]
    assert data.base.rehearsal().notes == data.notes
    assert catalogue.load("eurosat", tmp_path).train.items == data.train.items
    for file in (tmp_path / "eurosat" / "2750" / "River").iterdir():
        file.unlink()
    (tmp_path / "eurosat" / "2750" / "River").rmdir()
    with pytest.raises(DatasetError, match="9 class folders, eurosat has 10"):
        catalogue.load("eurosat", tmp_path)


def test_official_lists_stand_in_for_missing_split_files(tmp_path):
    lists = {
        "fgvc_aircraft/variants.txt": "\n".join(coop.class_names("fgvc_aircraft")),
        "fgvc_aircraft/images_variant_train.txt": "0001 707-320\n0002 A300B4\n",
        "fgvc_aircraft/images_variant_val.txt": "0003 DC-3\n",
        "fgvc_aircraft/images_variant_test.txt": "0004 Yak-42\n0005 747-100\n",
        "fgvc_aircraft/images/0001.jpg": "",
        "oxford_pets/images/x.jpg": "",
        "oxford_pets/annotations/trainval.txt": "".join(
            f"Abyssinian_{i} 1 1 1\nbeagle_{i} 5 2 3\n" for i in range(10)
        ),
        "oxford_pets/annotations/test.txt": "pug_9 26 2 19\n",
        "sun397/SUN397/x": "",
        "sun397/ClassName.txt": "/a/abbey\n/a/apartment_building/outdoor\n",
        "sun397/Training_01.txt": "".join(f"/a/abbey/{i}.jpg\n" for i in range(5)),
        "sun397/Testing_01.txt": "/a/apartment_building/outdoor/s.jpg\n",
        "ucf101/UCF-101-midframes/x": "",
        "ucf101/ucfTrainTestlist/classInd.txt": "1 ApplyEyeMakeup\n2 ApplyLipstick\n",
        "ucf101/ucfTrainTestlist/trainlist01.txt": "".join(
            f"ApplyLipstick/v_{i}.avi 2\n" for i in range(5)
        ),
        "ucf101/ucfTrainTestlist/testlist01.txt": "ApplyEyeMakeup/v_g01.avi\n",
    }
    write(tmp_path, {name: text.encode() for name, text in lists.items()})
    planes = catalogue.load("fgvc_aircraft", tmp_path)
    assert planes.train.items == ("0001.jpg", "0002.jpg")
    assert planes.classnames[planes.test.labels[0]] == "Yak-42"
    assert planes.notes == ()  # its own lists are what everybody uses
    pets = catalogue.load("oxford_pets", tmp_path)
    assert (len(pets.train), len(pets.val)) == (16, 4)
    assert pets.test.items == ("pug_9.jpg",)
    assert pets.classnames[pets.test.labels[0]] == "pug"
    sun = catalogue.load("sun397", tmp_path)
    assert sun.test.items == ("a/apartment_building/outdoor/s.jpg",)
    assert (len(sun.train), len(sun.val)) == (4, 1)
    ucf = catalogue.load("ucf101", tmp_path)
    assert ucf.test.items == ("Apply_Eye_Makeup/v_g01.jpg",)
    assert ucf.classnames[1] == "Apply Lipstick"
    (tmp_path / "ucf101/ucfTrainTestlist/classInd.txt").unlink()
    with pytest.raises(DatasetError, match="download ucf101"):
        catalogue.load("ucf101", tmp_path)


def test_imagenet_and_its_variants(tmp_path):
    wnids = specs.package_json("classnames/imagenet.json")["wnids"]
    for part in ("train", "val"):
        for wnid in wnids:
            (tmp_path / "imagenet/images" / part / wnid).mkdir(parents=True)
        (tmp_path / "imagenet/images" / part / wnids[7] / "a.JPEG").touch()
    data = catalogue.load("imagenet", tmp_path)
    assert data.train.items == (f"train/{wnids[7]}/a.JPEG",)
    assert data.test.labels == (7,)
    assert data.val is None
    some = wnids[3:203]
    for wnid in some:
        (tmp_path / "imagenet-rendition/imagenet-r" / wnid).mkdir(parents=True)
        (tmp_path / "imagenet-rendition/imagenet-r" / wnid / "b.jpg").touch()
    (tmp_path / "imagenet-rendition/imagenet-r/README.txt").touch()
    art = catalogue.load("imagenet_r", tmp_path)
    assert len(art.classnames) == 200
    assert art.classnames[0] == data.classnames[3]
    assert art.test.items[-1] == f"{some[-1]}/b.jpg"
    assert len(art.train) == 0
    for label in range(1000):
        (tmp_path / "imagenetv2/imagenetv2-matched-frequency-format-val" / str(label)).mkdir(
            parents=True
        )
    folder = tmp_path / "imagenetv2/imagenetv2-matched-frequency-format-val/10"
    (folder / "c.jpeg").touch()
    assert catalogue.load("imagenet_v2", tmp_path).test.labels == (10,)


def test_a_wrong_split_file_is_refused(tmp_path):
    files = eurosat_files()
    split = json.loads(files["eurosat/split_zhou_EuroSAT.json"])
    for change, match in (
        (["Forest/1.jpg", 1, "Jungle"], "another dataset or version"),
        (["../../etc/passwd", 1, "Forest"], "not below the image folder"),
        (["Forest/1.jpg", 99, "Forest"], "not a split file"),
    ):
        bad = {**split, "test": [change]}
        write(tmp_path, files | {"eurosat/split_zhou_EuroSAT.json": json.dumps(bad).encode()})
        with pytest.raises(DatasetError, match=match):
            catalogue.load("eurosat", tmp_path)


def mirror(hub, files: dict[str, bytes], name: str = "eurosat.zip") -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        for path, data in files.items():
            zipped.writestr(path, data)
    hub.repos["zhengli97/prompt_learning_dataset"] = {name: archive.getvalue()}
    return archive.getvalue()


@pytest.mark.parametrize("top", ["eurosat/", ""])
def test_download_unpacks_checks_and_records(hub, tmp_path, capsys, top):
    files = {top + name.removeprefix("eurosat/"): d for name, d in eurosat_files().items()}
    archive = mirror(hub, files)
    root = tmp_path / "data"
    data = coop.load(coop.specs()["eurosat"], root)
    assert len(data.test) == 10
    assert "not the published file" in capsys.readouterr().err
    record = json.loads((root / "eurosat" / "downloaded_from.json").read_text(encoding="utf-8"))
    assert record["sha256"] == hashlib.sha256(archive).hexdigest()
    assert not list((tmp_path / "hf").rglob("*.zip"))  # the archive is not kept twice
    asked = len(hub.log)
    assert coop.download(coop.specs()["eurosat"], root) == root / "eurosat"
    assert len(hub.log) == asked


def test_two_roots_that_share_a_hub_cache_get_a_dataset_at_once(hub, tmp_path):
    """Each removes the archive when it has unpacked it, and takes none from the other's hands."""
    mirror(hub, eurosat_files())
    spec, roots = coop.specs()["eurosat"], [tmp_path / name for name in "aabb"]
    start = threading.Barrier(len(roots))

    def get(root: Path) -> Path:
        start.wait()
        return coop.download(spec, root)

    with ThreadPoolExecutor(len(roots)) as pool:
        assert list(pool.map(get, roots)) == [root / "eurosat" for root in roots]
    assert all(len(coop.load(spec, root).test) == 10 for root in roots)


def test_image_net_variants_come_from_their_authors(hub, tmp_path):
    """ImageNet-V2 and -Sketch: the archives that public code downloads, in their own layout."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for label in range(1000):
            info = tarfile.TarInfo(f"imagenetv2-matched-frequency-format-val/{label}/a.jpeg")
            tar.addfile(info, io.BytesIO())
    hub.repos["vaishaal/ImageNetV2"] = {"imagenetv2-matched-frequency.tar.gz": packed.getvalue()}
    data = catalogue.load("imagenetv2", tmp_path)
    assert len(data.test) == 1000
    assert (tmp_path / "imagenetv2" / "downloaded_from.json").is_file()
    wnids = json.loads(resources.files("simprompt.data").joinpath(
        "classnames/imagenet.json").read_text(encoding="utf-8"))["wnids"]  # fmt: skip
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        for wnid in wnids:
            archive.writestr(f"sketch/{wnid}/a.JPEG", b"")
    hub.repos["songweig/imagenet_sketch"] = {"data/ImageNet-Sketch.zip": zipped.getvalue()}
    data = catalogue.load("imagenet_sketch", tmp_path)
    assert len(data.test) == 1000
    (tmp_path / "imagenet-sketch" / "sketch").rename(tmp_path / "imagenet-sketch" / "images")
    assert catalogue.load("imagenet_sketch", tmp_path).test.items == data.test.items


def test_a_data_root_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"data root .*file cannot be written to"):
        coop.download(coop.specs()["eurosat"], tmp_path / "file")


def test_a_pinned_hash_stops_another_archive(hub, tmp_path, monkeypatch):
    mirror(hub, eurosat_files())
    spec = coop.specs()["eurosat"]
    monkeypatch.setattr(coop.hub, "endpoint", lambda: hub.url)
    monkeypatch.delenv("HF_ENDPOINT")  # as if the loopback hub were the hub itself
    with pytest.raises(FetchError, match=r"expected SHA-256 cedceda1690cad47"):
        coop.download(spec, tmp_path / "data")


def test_imagenet_comes_with_instructions(tmp_path):
    with pytest.raises(DatasetError, match=r"image-net\.org"):
        catalogue.load("imagenet", tmp_path)


def test_check_of_a_dataset(tmp_path):
    from simprompt.cli.main import app

    write(tmp_path, eurosat_files())
    run = CliRunner().invoke
    good = run(app, ["check", "eurosat", "--data-root", str(tmp_path)])
    assert good.exit_code == 0, good.output
    assert "20 train, 10 val, 10 test; 40 files decode" in good.output
    (tmp_path / "eurosat/2750/River/River_1.jpg").unlink()
    bad = run(app, ["check", "eurosat", "--data-root", str(tmp_path)])
    assert bad.exit_code == 1
    assert "River/River_1.jpg: missing" in bad.output


@needs_shared
def test_check_of_the_real_textures():
    from simprompt.data.own_images.check import check_dataset

    data = catalogue.load("dtd", Path(SHARED) / "coop_layout")
    report = check_dataset(data)
    assert report.counts == {"train": 2820, "val": 1128, "test": 1692}
    missing = report.of_kind("missing")
    assert (report.readable, len(missing)) == (560, 5640 - 560)
    folders = {item.split("/")[0] for item in data.train.items}
    there = {p.name for p in (Path(SHARED) / "coop_layout/dtd/images").iterdir()}
    assert len(folders - there) == 37
    assert folders - there <= {f.item.split("/")[0] for f in missing}
    assert len(report.of_kind("unreadable")) == 0


@needs_shared
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_real_eurosat_draws_the_published_images(seed):
    data = catalogue.load("eurosat", Path(SHARED) / "coop_layout")
    lists = Path(SHARED) / f"splits/indices_16shot/eurosat/shot_16-seed_{seed}.json"
    published = [
        r for r in json.loads(lists.read_text(encoding="utf-8"))["train"]["data"] if r["label"] < 5
    ]
    shots = data.base.few_shot(16, seed)
    assert [f"./data/eurosat/2750/{item}" for item in shots.items] == [
        r["impath"] for r in published
    ]
    assert shots.load(79).size == (64, 64)
