"""A run is what it depends on, by content: changed content is another run, another name is not.

Each run here learns for two steps on a tiny CLIP and a few coloured squares.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from simprompt import recipes
from simprompt.cli.main import app
from simprompt.clip import hub
from simprompt.clip.model import CLIP
from simprompt.clip.preprocess import Preprocess
from simprompt.config import DEFAULT_TEMPLATE, SAR, RunConfig, Training
from simprompt.data import icons
from simprompt.data.dataset import Dataset
from simprompt.data.own_images import folder
from simprompt.data.split import Split
from simprompt.errors import SimpromptError
from simprompt.experiments import runner
from simprompt.experiments.run_key import folder_name
from simprompt.experiments.runner import identify
from simprompt.experiments.store import read_runs
from simprompt.experiments.sweep.make import make_runs, sweep
from simprompt.features import digests
from simprompt.features.digests import safe_name
from simprompt.prompt.loading import load_prompt

COLOURS = {
    "black_cat": "black", "blue_bird": "blue", "green_frog": "lime", "red_fox": "red",
    "white_horse": "white", "yellow_lion": "yellow",
}  # fmt: skip
QUICK = Training(max_steps=2, epochs=2, shots=1, lr=0.1, batch_size=2)


class World:
    """A folder of photos, a CLIP on disk, a file of names, and a results directory."""

    def __init__(self, root: Path, clip: CLIP, tokenizer: Path) -> None:
        self.photos, self.model, self.out = root / "photos", root / "model", root / "res"
        self.names = root / "names.txt"
        for name, colour in COLOURS.items():
            for i in range(4):
                self.paint(name, i, colour)
        hub.save(clip, self.model)
        shutil.copy(tokenizer, self.model / "tokenizer.json")
        self.names.write_text("owl\nwolf\nbear\nhorse\n", encoding="utf-8")

    def paint(self, name: str, i: int, colour: str) -> None:
        path = self.photos / name / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16 + i), colour).save(path, compress_level=0)  # one size

    def config(self, **more: object) -> RunConfig:
        sar = SAR(novel=f"file:{self.names}", novel_count=4, classes_per_step=4)
        values = {"dataset": str(self.photos), "model": str(self.model), "sar": sar}
        return RunConfig(**{**values, "training": QUICK, **more})

    def make(self, **more: object) -> dict:
        """The run's result, made or read back."""
        return make_runs([self.config(**more)], self.out, quiet=True)[0]


@pytest.fixture
def world(tmp_path, make_clip, tiny_tokenizer, monkeypatch) -> World:
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "cache"))
    runner.look_again()
    return World(tmp_path, make_clip(), tiny_tokenizer)


def other_weights(world: World, make_clip) -> None:
    hub.save(make_clip(seed=1), world.model)


def other_photo(world: World, make_clip) -> None:
    """The same number of bytes and the same time of change, as a restored backup may have."""
    path = world.photos / "red_fox" / "0.png"
    before = path.stat()
    world.paint("red_fox", 0, "navy")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def other_class_name(world: World, make_clip) -> None:
    (world.photos / "red_fox").rename(world.photos / "red_wolf")


def other_split(world: World, make_clip) -> None:
    world.paint("red_fox", 4, "red")


def other_words(world: World, make_clip) -> None:
    world.names.write_text("owl\nwolf\nbear\nzebra\n", encoding="utf-8")


def other_tokenizer(world: World, make_clip) -> None:
    path = world.model / "tokenizer.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    ids = card["model"]["vocab"]
    ids["fox"], ids["cat"] = ids["cat"], ids["fox"]
    path.write_text(json.dumps(card), encoding="utf-8")


def other_preprocessing(world: World, make_clip) -> None:
    path = world.model / "model.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**card, "resize_mode": "squash"}), encoding="utf-8")


CHANGES = {
    other_weights: "model", other_photo: "dataset", other_class_name: "dataset",
    other_split: "dataset", other_words: "novel", other_tokenizer: "model",
    other_preprocessing: "model",
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_content_that_changes_at_the_same_path_makes_another_run(world, make_clip, change):
    first = world.make()
    assert world.make() == first, "nothing was touched: it is read back"
    change(world, make_clip)
    second = world.make()
    assert second["key"] != first["key"]
    assert second["when"] > first["when"]
    parts = {p for p in first["identity"] if first["identity"][p] != second["identity"][p]}
    assert parts == {CHANGES[change]}, "the result says why it was made again"
    if change is other_class_name:
        assert "red wolf" in second["classes"]["new"]
    with pytest.warns(UserWarning, match=rf"made later again .* content \({CHANGES[change]}\)"):
        (shown,) = read_runs([world.out])
    assert shown["key"] == second["key"]


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_a_new_result_is_that_of_a_fresh_directory(world, make_clip, change):
    """What is computed after a change takes nothing from before it: neither result nor features."""
    world.make()
    change(world, make_clip)
    again = world.make()
    shutil.rmtree(world.out)
    shutil.rmtree(world.out.parent / "cache")
    anew = world.make()
    for name in ("key", "base", "new", "mechanism", "files"):
        assert again[name] == anew[name]


def test_a_table_shows_what_was_asked_for_last(world, make_clip):
    """Also where a change was taken back, so that the run was read, not made."""
    first = world.make()
    kept = world.model.with_name("kept")
    shutil.copytree(world.model, kept)
    other_weights(world, make_clip)
    world.make()
    shutil.rmtree(world.model)
    kept.rename(world.model)
    again = world.make()
    assert again["files"] == first["files"]
    assert again["key"] == first["key"]
    with pytest.warns(UserWarning, match="made later again"):
        (shown,) = read_runs([world.out])
    assert shown["key"] == first["key"]
    (path,) = world.out.rglob(f"seed1-{first['key']}/result.json")
    before = path.stat().st_mtime_ns
    assert world.make() == again
    assert path.stat().st_mtime_ns == before


def test_the_same_content_under_other_names_is_the_same_run(world, monkeypatch):
    first = world.make()
    for name in ("photos", "model", "names.txt"):
        source, copy = world.out.parent / name, world.out.parent / f"other-{name}"
        if source.is_dir():
            shutil.copytree(source, copy)
        else:
            shutil.copy(source, copy)
    monkeypatch.chdir(world.out.parent)
    moved = world.config(
        dataset="other-photos", model="./other-model",
        sar=SAR(novel="file:other-names.txt", novel_count=4, classes_per_step=4),
    )  # fmt: skip
    assert identify(moved).key == first["key"]


def test_of_a_large_dataset_those_images_count_that_a_run_sees(world, monkeypatch):
    """All that it is tested on, and of the others the shots; the names and labels of all."""
    first = world.config(), world.config(seed=2)
    monkeypatch.setattr(digests, "READ", 100)
    runner.look_again()
    data = folder.load(world.photos).dataset
    assert digests.is_large(data.train)

    def keys() -> list[str]:
        runner.look_again()
        return [identify(config).key for config in first]

    def change(item: str) -> list[str]:
        path, before = world.photos / item, (world.photos / item).stat()
        kept = path.read_bytes()
        world.paint(path.parent.name, int(path.stem), "navy")
        assert path.stat().st_size == before.st_size
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        changed = keys()
        path.write_bytes(kept)
        assert keys() == before_all, "the same content is the same run, whatever its time"
        return changed

    before_all = keys()
    drawn = [{*data.base.few_shot(1, seed).items} for seed in (1, 2)]
    base = data.base.train.items
    seen = next(item for item in base if item in drawn[0])
    unseen = next(item for item in base if item not in drawn[0] | drawn[1])
    assert change(data.base.test.items[0])[0] != before_all[0]
    assert change(seen)[0] != before_all[0]
    assert change(unseen) == before_all
    runner.look_again()


def test_nothing_is_decoded_to_read_a_finished_run_back(world, monkeypatch):
    first = world.make()
    monkeypatch.setattr(
        "simprompt.data.images.read_image", lambda *_, **__: pytest.fail("an image was decoded")
    )
    assert world.make() == first


def test_targets_are_part_of_a_run():
    tasks = ("icons/places", "icons/food")
    a, b = (
        identify(RunConfig(protocol="cross-dataset", dataset="icons/home", targets=tasks[:n]))
        for n in (1, 2)
    )
    assert a.key != b.key
    named = tuple(t for t in icons.tasks() if t != "icons/home")
    default, written = (
        identify(RunConfig(protocol="cross-dataset", dataset="icons/home", targets=targets))
        for targets in (None, named)
    )
    assert default.key == written.key


def test_one_run_has_one_key():
    """Defaults written out or left out; settings from a recipe or by hand."""
    plain = RunConfig(dataset="icons/places", training=Training())
    from simprompt import methods

    options = methods.find("coop").Config().model_dump()
    full = plain.model_copy(update={"options": options})
    templated = full.model_copy(update={"template": icons.TEMPLATES[0]})
    built = recipes.build(
        {"training": Training().model_dump()}, False, method="coop", dataset="icons/places"
    )
    keys = {identify(c).key for c in (plain, full, templated, built)}
    assert len(keys) == 1
    assert identify(plain.model_copy(update={"seed": 2})).key not in keys
    changed = plain.model_copy(update={"options": {**options, "n_ctx": 2}})
    assert identify(changed).key not in keys


def test_one_run_asked_for_twice_is_made_once(world):
    plain = world.config()
    written = plain.model_copy(update={"template": DEFAULT_TEMPLATE})
    found = sweep([plain, written], world.out, quiet=True)
    assert plain.handle != written.handle
    assert found.results[plain.handle] == found.results[written.handle]
    assert len(list(world.out.rglob("result.json"))) == 1


def test_what_cannot_be_opened_stops_no_other_run(world):
    bad = [
        world.config(dataset="no/such/photos"), world.config(model="no/such/model"),
        world.config(sar=SAR(novel="file:no-such-names.txt")),
        world.config(method="no-such-method"), world.config(protocol="cross-dataset"),
    ]  # fmt: skip
    good = world.config()
    found = sweep([*bad, good], world.out, quiet=True)
    assert found.results.keys() == {good.handle}
    assert found.failed.keys() == {c.handle for c in bad}
    assert len({identify(c).key for c in [*bad, good]}) == len(bad) + 1
    assert len(list((world.out / "failed").iterdir())) == len(bad)
    world.names.rename(world.out.parent / "no-such-names.txt")


def test_a_failure_is_forgotten_when_its_run_has_other_content(world):
    away = world.photos.with_name("away")
    world.photos.rename(away)
    config = world.config()
    assert sweep([config], world.out, quiet=True).failed
    away.rename(world.photos)
    assert sweep([config], world.out, quiet=True).results, "it is not the run that failed"
    assert list((world.out / "failed").iterdir()) == []


@pytest.mark.parametrize("how", ["absolute", "above", "trailing slash"])
def test_all_that_is_written_is_below_out(world, monkeypatch, how):
    inside = world.out.parent / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    before = {p for p in world.photos.rglob("*")}
    dataset = {
        "absolute": str(world.photos), "above": "../photos", "trailing slash": "../photos/",
    }[how]  # fmt: skip
    make_runs([world.config(dataset=dataset)], "res", quiet=True)
    assert {p for p in world.photos.rglob("*")} == before
    (result,) = (inside / "res").rglob("result.json")
    assert result.relative_to(inside / "res").parts[:2] == ("photos", "coop+sar")
    assert len(read_runs([inside / "res"])) == 1
    assert {p.name for p in inside.iterdir()} == {"res"}


# --------------------------------------------------------------------------------- names

WINDOWS = re.compile(r'[<>:"/\\|?*\x00-\x1f]|[. ]$')
DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in range(10))}


def assert_safe(part: str) -> None:
    assert part
    assert not WINDOWS.search(part)
    assert part.split(".")[0].lower() not in DEVICES
    assert not part.startswith((".", "-"))
    assert len(part.encode()) <= 255
    part.encode("utf-8")


@given(st.text() | st.text("/\\.: ~con", max_size=12) | st.sampled_from(sorted(DEVICES)))
def test_any_name_is_safe_in_a_path(name):
    assert_safe(safe_name(name))
    parts = folder_name(name, name, -1, "0123456789ab").split("/")
    assert len(parts) == 3
    for part in parts:
        assert_safe(part)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("icons/animals", "icons-animals"),
        ("icons/animals@outline", "icons-animals-outline"),
        ("icons/animals:rehearsal", "icons-animals-rehearsal"),
        ("hf:org/name", "hf-org-name"),
        ("sar+@x", "sar+-x"),
        ("/home/me/photos", "photos"),
        ("../photos", "photos"),
        ("~/photos/", "photos"),
        ("C:\\photos\\mine", "mine"),
        ("photos.csv", "photos.csv"),
        ("con", "_con"),
        ("Aux.csv", "_Aux.csv"),
        ("photos. ", "photos"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("写真/猫", "写真-猫"),
        ("Катя\u200b\u202e", "Катя"),
        ("\udcff", "unnamed"),
        ("x" * 300, "x" * 40),
    ],
)
def test_names_stay_readable(name, safe):
    assert safe_name(name) == safe


def test_folders_of_other_things_are_not_taken():
    assert folder_name("failed", "coop", 1, "k").startswith("_failed/")
    assert folder_name("TensorBoard", "coop", 1, "k").startswith("_TensorBoard/")


def test_names_that_a_file_system_takes_for_one_are_told_apart_by_the_key(world):
    world.photos.rename(world.photos.with_name("Photos"))
    shutil.copytree(world.photos.with_name("Photos"), world.out.parent / "below" / "photos")
    world.photos = world.out.parent / "below" / "photos"
    world.paint("red_fox", 0, "pink")
    lower, upper = world.config(), world.config(dataset=str(world.out.parent / "Photos"))
    a, b = identify(lower).folder, identify(upper).folder
    assert a.lower() != b.lower()


# --------------------------------------------------------------------------------- digests


def test_a_model_s_digest_is_its_content(make_clip: Callable[..., CLIP]):
    one = make_clip()
    same = make_clip()
    same.name = "another name"
    assert digests.of_model(one) == digests.of_model(same)
    others = [make_clip(seed=1), make_clip().half(), make_clip(vision={"layers": 2})]
    tower = make_clip()
    tower.text.ln_final.weight.data[0] += 1
    scaled = make_clip()
    scaled.logit_scale.data += 1
    shown = make_clip()
    shown.preprocess = Preprocess(16, (0.5,) * 3, (0.5,) * 3)
    others += [tower, scaled, shown]
    for field, value in (("interpolation", "bilinear"), ("resize_mode", "squash")):
        clip = make_clip()
        p = clip.preprocess
        clip.preprocess = Preprocess(p.size, p.mean, p.std, **{field: value})
        others.append(clip)
    found = {digests.of_model(clip) for clip in (one, *others)}
    assert len(found) == 1 + len(others)
    same_image_tower = {digests.of_image_tower(clip) for clip in (one, tower, scaled)}
    assert len(same_image_tower) == 1
    assert len({digests.of_image_tower(clip) for clip in (one, *others)}) == len(found) - 2


def test_a_resnet_has_a_digest():
    """Its batch norms hold counters, tensors without a dimension."""
    from simprompt.clip.model import CLIPConfig
    from simprompt.clip.resnet import ResNetConfig
    from simprompt.clip.text import TextConfig

    text = TextConfig(10, 8, 16, 1, 2, 8, 0, 1)
    vision = ResNetConfig(image_size=32, layers=(1, 1, 1, 1), width=8, heads=4, embed_dim=8)
    with torch.random.fork_rng():
        clips = [CLIP(CLIPConfig(text, vision), None, "resnet") for _ in range(2)]
    assert any(v.dim() == 0 and "num_batches" in k for k, v in clips[0].state_dict().items())
    assert len({digests.of_image_tower(clip) for clip in clips}) == 2


def test_a_dataset_s_digest_is_its_content():
    def dataset(items="abcd", labels=(0, 1, 0, 1), names=("x", "y"), version="1", groups=None):
        split = Split(tuple(items), tuple(labels), names, lambda _: None, groups)
        return Dataset("n", names, ("a {}.",), split, None, split.take([0, 1]), version)

    variants = [
        dataset(), dataset(items="abce"), dataset(labels=(0, 1, 1, 1)), dataset(names=("x", "z")),
        dataset(version="2"), dataset(groups=("g", "g", "h", "h")),
    ]  # fmt: skip
    assert len({digests.of_dataset(d) for d in variants}) == len(variants)
    assert digests.of_dataset(dataset()) == digests.of_dataset(variants[0])


def test_a_language_model_s_list_is_known_by_its_content(world, monkeypatch):
    """A run that asks is kept under what was answered, and read back."""
    from simprompt.novel import llm

    monkeypatch.setenv("SIMPROMPT_LLM_BASE_URL", "http://localhost:9/v1")
    answers = iter([["owl", "wolf", "cow"], ["bear", "horse", "dog"]])

    def generate(base, topic, n, ask, folder):
        path = llm.stored_path(base, topic, n, ask, folder)
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        value = {"names": next(answers), "sha256": "", "provenance": {}}
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")
        return value

    monkeypatch.setattr(llm, "generate", generate)
    asked = {"sar": SAR(novel="llm", novel_count=3, classes_per_step=4)}
    first = world.make(**asked)
    assert world.make(**asked) == first
    (stored,) = (world.out.parent / "cache" / "novel").iterdir()
    stored.unlink()
    second = world.make(**asked)
    assert second["key"] != first["key"]
    assert len(list(world.out.rglob("result.json"))) == 2


# --------------------------------------------------------------------------------- arrays


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["prompt", "text", "predictions"])
def test_damaged_arrays_of_a_run_are_named_and_it_is_made_again(world, name):
    first = world.make()
    (path,) = world.out.rglob(f"{name}.safetensors")
    good = path.read_bytes()
    flip_last_byte(path)
    with pytest.warns(UserWarning, match=rf"{name}\.safetensors is not what was written"):
        again = world.make()
    assert again["files"] == first["files"]
    assert path.read_bytes() == good


def test_a_damaged_prompt_is_not_loaded(world):
    world.make()
    (path,) = world.out.rglob("prompt.safetensors")
    load_prompt(path)
    flip_last_byte(path)
    with pytest.raises(SimpromptError, match="not those that the card was written with"):
        load_prompt(path)


# --------------------------------------------------------------------------------- command line


def test_run_and_table_as_a_user_sees_them(world, monkeypatch):
    """Everything below --out; made again for each change, read back for none; `table` prints it."""
    monkeypatch.chdir(world.out.parent)
    arguments = [
        "run", "--dataset", str(world.photos), "--out", "res", "--model", str(world.model),
        "--seeds", "1", "--sar", "on", "--set", "max_steps=2", "--set", "shots=1",
        "--set", "sar.novel=file:names.txt", "--set", "sar.novel_count=4", "--json",
    ]  # fmt: skip

    def results() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in Path("res").rglob("result.json")}

    def invoke(*words: str) -> str:
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    invoke(*arguments)
    known = results()
    assert len(known) == 1
    invoke(*arguments)
    assert results() == known
    for number, change in enumerate((other_photo, other_class_name, other_words), start=2):
        change(world, None)
        invoke(*arguments)
        assert len(results()) == number
        assert results().items() > known.items()
        known = results()
    with pytest.warns(UserWarning, match="made later again with the same settings"):
        table = invoke("report", "res")
    assert "photos" in table
    assert len(list(world.photos.rglob("*"))) == 6 * 5
