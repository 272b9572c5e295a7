"""The lists that ship with the package: size, uniqueness, length, provenance, stored overlap."""

import json
from importlib import resources

import pytest

from simprompt.clip.hub import load_clip
from simprompt.data import catalogue, coop
from simprompt.novel import NovelNameError, bundled_datasets, novel_names
from simprompt.novel.names import clean_name, name_key, overlap
from simprompt.novel.sources import bundled_list

ELEVEN = [
    "caltech101", "dtd", "eurosat", "fgvc_aircraft", "food101", "imagenet", "oxford_flowers",
    "oxford_pets", "stanford_cars", "sun397", "ucf101",
]  # fmt: skip
# A byte-level BPE never makes more tokens of a name than it has bytes. OpenAI's CLIP has room for
# 77, of which the start, the end, the full stop and at most 16 context tokens are taken.
ROOM = 77 - 3 - 16


def test_there_is_a_list_for_each_of_the_eleven_datasets():
    assert set(ELEVEN) <= set(bundled_datasets())


@pytest.mark.parametrize("dataset", bundled_datasets())
def test_list_has_200_clean_unique_short_names_and_a_truthful_origin(dataset):
    value = bundled_list(dataset)
    names = value["names"]
    assert len(names) == 200
    assert len({name_key(name) for name in names}) == 200
    assert [clean_name(name) for name in names] == names
    assert all(len(name.replace(" ", "").encode()) <= ROOM for name in names)
    assert value["dataset"] == dataset
    assert "written for simprompt" in str(value["provenance"])
    assert len(value["date"]) == 10
    stored = value["exact_overlap"]
    assert stored["count"] == len(stored["names"])
    assert set(stored["names"]) <= set(names)


@pytest.mark.parametrize("dataset", bundled_datasets())
def test_no_base_class_and_the_stored_overlap_is_the_true_one(dataset):
    value = bundled_list(dataset)
    if dataset in coop.specs():
        names = coop.class_names(dataset)
    else:
        names = catalogue.load(dataset).classnames
    middle = (len(names) + 1) // 2
    assert overlap(value["names"], names[:middle]) == []
    assert overlap(value["names"], names[middle:]) == value["exact_overlap"]["names"]


def test_icon_lists_fit_into_the_embedded_model_beside_sixteen_context_tokens():
    clip = load_clip("icons")
    room, tokenizer = clip.config.text.context_length, clip.tokenizer
    for dataset in (name for name in bundled_datasets() if name.startswith("icons/")):
        longest = max(bundled_list(dataset)["names"], key=lambda n: len(tokenizer.encode(n)))
        assert 1 + 16 + len(tokenizer.encode(longest + ".")) + 1 <= room, longest


@pytest.mark.parametrize("dataset", ["imagenet_sketch", "imagenet-r", "ImageNet_A", "imagenetv2"])
def test_imagenet_variants_share_its_list(dataset):
    assert bundled_list(dataset) == bundled_list("imagenet")


def test_part_of_a_list_is_a_seeded_draw_and_all_of_it_keeps_its_order():
    assert list(novel_names("bundled", [], dataset="dtd").names) == bundled_list("dtd")["names"]
    few = novel_names("bundled:50", [], dataset="dtd", n=200, seed=1)
    assert len(few) == 50
    assert few == novel_names("bundled:50", [], dataset="dtd", n=200, seed=1)
    assert few.names != novel_names("bundled:50", [], dataset="dtd", seed=2).names


def test_exact_matches_with_new_classes_are_removed_and_recorded():
    new = ["perforated", "striped", "zigzagged"]
    made = novel_names("bundled", ["banded"], dataset="dtd", new=new)
    assert made.overlap == ("striped", "perforated") or set(made.overlap) == {*new[:2]}
    assert len(made) == 198
    assert not made.leaks
    assert "2 of the real new classes removed" in made.summary()
    kept = novel_names("bundled", ["banded"], dataset="dtd", new=new, keep_overlap=True)
    assert len(kept) == 200
    assert set(kept.overlap) == {*new[:2]}
    assert "2 of the real new classes left in" in kept.summary()


def test_a_dataset_without_a_list_is_told_what_there_is():
    with pytest.raises(NovelNameError, match=r"caltech101.*random-nouns, wordnet"):
        novel_names("bundled", ["a"], dataset="my-photos")


def test_lists_are_plain_json_without_anything_of_the_machine():
    folder = resources.files("simprompt.novel") / "lists"
    for path in folder.iterdir():
        if path.name.endswith(".json"):
            text = path.read_text(encoding="utf-8")
            assert set(json.loads(text)) >= {"dataset", "date", "provenance", "names"}
            assert "http" not in text
            assert "/work" not in text
