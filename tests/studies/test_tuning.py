"""Settings are chosen on base classes, by the rule that was asked for."""

from __future__ import annotations

import pytest

from simprompt.clip.hub import load_clip
from simprompt.clip.tokenizer import Tokenizer
from simprompt.config import SAR, RunConfig, Training
from simprompt.data import icons
from simprompt.data.catalogue import REHEARSAL, REHEARSAL_ALL, REHEARSAL_RANDOM, rehearsal
from simprompt.data.split import Split
from simprompt.errors import SimpromptError
from simprompt.experiments import inputs, runner
from simprompt.experiments.protocols import MEANING
from simprompt.novel.names import name_key
from simprompt.novel.run_names import names_of_run
from simprompt.studies.tuning import best, parse_grid, strongest

pytestmark = pytest.mark.integration


def row(name, new, *scores):
    per_dataset = {f"d{i}": s for i, s in enumerate(scores)}
    return {
        "point": [name],
        "base": 0.0,
        "new": new,
        "score": sum(scores) / len(scores),
        "per_dataset": per_dataset,
    }


def test_grid_is_every_combination():
    assert parse_grid(["a=1,2", "b=3,4"]) == [
        ["a=1", "b=3"], ["a=1", "b=4"], ["a=2", "b=3"], ["a=2", "b=4"],
    ]  # fmt: skip
    for wrong in ("a", "a=", "a" * 1000 + "=1"):
        with pytest.raises(SimpromptError, match="key=value"):
            parse_grid([wrong])


def test_a_grid_without_end_is_refused_before_it_is_made():
    """Found by `make fuzz`: a number of combinations with more digits than Python prints, and
    axes that took a gigabyte."""
    for axes in (["a=1,2,3,4"] * 20_000, ["a=" + "," * 100_000], ["a=1,2", "b=" + "1," * 9_999]):
        with pytest.raises(SimpromptError, match="more than 10,000 combinations"):
            parse_grid(axes)


def test_a_dataset_without_a_score_chooses_nothing():
    rows = [row("a", 60, 66, 70, 62, 68), row("b", 60, 66, 70, 62, float("nan"))]
    for choose in (best, strongest):
        with pytest.raises(SimpromptError, match="have no image to test on"):
            choose(rows)


def test_one_standard_error_takes_the_strongest_of_equals():
    top = row("top", 60, 66, 70, 62, 68)
    level = row("level", 64, 67, 68, 63, 67)  # 0.25 behind, error 0.75
    worse = row("worse", 70, 64, 68, 60, 66)  # 2 behind on every dataset
    rows = [top, level, worse]
    assert best(rows) is top
    assert strongest(rows) is level
    assert strongest([top, worse]) is top
    assert best(rows, "d2") is level


def test_one_dataset_has_no_error_and_takes_the_best():
    assert strongest([row("a", 1, 66), row("b", 9, 65)])["point"] == ["a"]


PROTOCOLS_INSIDE = ("base-to-new", "few-shot", "generalised")


@pytest.fixture
def looked_at(monkeypatch, tmp_path) -> tuple[list[str], set[str]]:
    """What a run looks at while this test goes on: texts that are tokenised, images that load."""
    texts: list[str] = []
    items: set[str] = set()
    encode, load = Tokenizer.encode, Split.load

    def read(self, text):
        texts.append(text)
        return encode(self, text)

    def look(self, row):
        items.add(self.items[row])
        return load(self, row)

    monkeypatch.setattr(Tokenizer, "encode", read)
    monkeypatch.setattr(Split, "load", look)
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "cache"))
    return texts, items


@pytest.mark.parametrize("kind", [REHEARSAL, REHEARSAL_ALL])
@pytest.mark.parametrize("protocol", sorted(MEANING))
def test_no_protocol_sees_a_new_class_or_a_test_image_in_a_rehearsal(
    protocol, kind, make_clip, monkeypatch, tmp_path, looked_at
):
    """Names and images alike, and whatever source the novel names have."""
    texts, items = looked_at
    clip = make_clip()
    monkeypatch.setattr(inputs, "cached_clip", lambda name: clip)
    name = "icons/places"
    real = icons.load(name)
    new = {name_key(n) for n in real.new.classnames}
    config = RunConfig(
        protocol=protocol,
        dataset=name + kind,
        training=Training(max_steps=1, shots=4),
        sar=SAR(classes_per_step=8, keep_overlap=True),
    )
    if protocol not in PROTOCOLS_INSIDE:
        with pytest.raises(SimpromptError, match="for choosing settings"):
            runner.run(config.model_copy(update={"targets": ("icons/food",)}), tmp_path)
        assert not texts
    else:
        oracle = () if protocol == "few-shot" else ("oracle+bundled",)  # it has no new classes
        for source in ("bundled", "random-nouns", *oracle):
            sar = config.sar.model_copy(update={"novel": source, "novel_count": 250})
            runner.run(config.model_copy(update={"sar": sar}), tmp_path)
        seen = {name_key(text.strip(" .")) for text in texts}
        assert {name_key(n) for n in real.base.classnames} <= seen, "the texts are all recorded"
        assert len(seen) > 250, "novel names, too"
        if kind == REHEARSAL:
            drawn = real.base.few_shot(4, config.seed)
            assert items <= set(drawn.items), "no labels but those of the shots"
        assert items, "the images are recorded"
    assert not new & {name_key(text.strip(" .").split(" a ")[-1]) for text in texts}
    assert not items & {*real.base.test.items, *real.new.test.items, *real.new.train.items}


def test_names_that_the_caller_gives_are_no_way_around():
    real = icons.load("icons/places")
    hidden = real.new.classnames[0]
    shots = real.base.rehearsal().base.few_shot(2)
    names = names_of_run(
        SAR(),
        load_clip("icons"),
        shots.classnames,
        shots.origin,
        given=["lighthouse keeper", hidden.upper()],
    )
    assert names.names == ("lighthouse keeper",)
    assert [d.name for d in names.dropped] == [hidden.upper()]


@pytest.mark.parametrize("task", icons.tasks())
def test_a_rehearsal_is_made_of_base_classes(task):
    real = icons.load(task)
    tested = set(real.base.test.groups) | set(real.new.test.groups)
    for inner in (real.base.rehearsal(), real.base.rehearsal(16, seed=2)):
        assert set(inner.classnames) == set(real.base.classnames)
        assert set(inner.hidden) == set(real.new.classnames)
        assert inner.base.train.origin.hidden == inner.hidden
        groups = set(inner.train.groups) | set(inner.test.groups)
        assert not tested & groups
        assert not set(inner.train.items) & set(inner.test.items)
        assert not set(inner.train.groups) & set(inner.test.groups)
        assert set(inner.test.labels) == set(range(len(inner.classnames)))


def test_a_rehearsal_of_the_shots_has_no_other_images():
    base = icons.load("icons/places").base
    for seed in (1, 2):
        shots, inner = base.few_shot(16, seed), base.rehearsal(16, seed)
        assert sorted(inner.train.items + inner.test.items) == sorted(shots.items)
    assert base.rehearsal(16, 1) != base.rehearsal(16, 2)


def test_random_halves_are_of_the_same_shots_and_differ_by_seed():
    name = "icons/places"
    real = icons.load(name)
    halves = set()
    for seed in (1, 2, 3):
        random_half = rehearsal(real, name + REHEARSAL_RANDOM, 16, seed)
        fixed = rehearsal(real, name + REHEARSAL, 16, seed)
        assert {*random_half.train.items, *random_half.test.items} == {
            *fixed.train.items, *fixed.test.items,
        }  # fmt: skip
        assert {*random_half.classnames} == {*real.base.classnames}
        assert random_half.hidden == fixed.hidden
        halves.add(frozenset(random_half.new.classnames))
    assert len(halves) == 3
