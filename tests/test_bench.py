"""The benchmarks compare equals, count what they say they count, and print what they promise."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

pytestmark = pytest.mark.integration

FOLDER = Path(__file__).parents[1] / "benchmarks"
KEYS = {"case", "ours_s", "reference_s", "speedup", "ours_peak_mb", "reference_peak_mb"}


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts import each other by name, as they do when run from a shell."""
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for script in FOLDER.glob("[!_]*.py"):
        sys.modules.pop(script.stem, None)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("coop", {}),
        ("coop", {"n_ctx": 16}),
        ("kgcoop", {}),
        ("language", {"n_ctx": 2, "options": {"depth": 2}}),
        ("cocoop", {}),
    ],
)
def test_both_sides_of_a_step_compute_the_same(method, options):
    """One step from the same start: equal losses, and equal gradients of all that is learned."""
    import common
    import step

    from simprompt.config import Training
    from simprompt.training.loop import train

    case = step.Case("x", method, base=6, novel=4, batch=3, **options)
    clip = common.random_clip(tiny=True)
    ours, theirs = step.learner_of(case, clip), step.learner_of(case, clip)
    images, labels = step.batch_of(case, clip)
    curves = train(ours, images, labels, Training(epochs=1, batch_size=3), 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "learner_of", lambda case, clip: theirs)
        loss = step.reference(case, clip)[0]()
    assert curves.loss[0] == pytest.approx(loss.item(), rel=1e-5)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert b.grad.abs().max() > 1e-5, name
        assert (a.grad - b.grad).abs().max() < 1e-4 * b.grad.abs().max(), name


def test_one_reference_stands_for_all_of_its_kind():
    """CoOp, KgCoOp and 16 context tokens share CoOp's 77 tokens; rows say what they are
    compared with."""
    import step

    named = {case.name: case for case in step.CASES}
    plain = named["coop"]
    for name in ("coop+sar", "coop, 16 context tokens", "kgcoop"):
        assert step.reference_of(named[name]) == step.reference_of(plain)
    for name in ("maple, text side", "cocoop, batch 4", "coop, 500 classes"):
        assert step.reference_of(named[name]) != step.reference_of(plain)
    assert step.note_of(plain, plain, 1) == ""
    assert step.note_of(named["coop+sar"], plain, 1) == "reference without SAR"
    assert step.note_of(named["kgcoop"], plain, 1) == "reference that of 'coop'"
    large = named["coop, 500 classes"]
    assert step.note_of(large, large, 5.0) == "reference scaled from 100 classes"


def test_needed_operations_are_those_of_the_formula():
    """One class of one token, no prefix, three layers: countable by hand."""
    import roofline

    from simprompt.clip.text import TextConfig

    w, h, e = 8, 32, 4
    c = TextConfig(10, 10, w, 3, 2, e, 0, 1)
    after = 2 * w * w + 4 * w * h
    linear = 3 * after + 1 * 6 * w * w + 6 * w * w + 2 * w * e
    attention = 4 * w * 3
    assert roofline.needed([1], 0, c) == 2 * linear + attention + 2 * 4 * w * 2
    assert roofline.needed([4] * 9, 5, c) > roofline.needed([4] * 8, 5, c)


def test_names_have_the_lengths_that_were_counted():
    import common

    names = common.Names()
    some = common.Names.make(4000)
    mean = sum(len(names.encode(n)) for n in some) / len(some)
    counted = sum((i + 1) * n for i, n in enumerate(common.NAME_TOKENS)) / sum(common.NAME_TOKENS)
    assert mean == pytest.approx(counted, rel=0.05)
    assert sum(common.NAME_TOKENS) == 2200
    assert names.encode("n3.") == [*names.encode("n3"), 269]


def test_a_round_takes_every_call_and_times_are_medians():
    import common

    seen = []
    found = common.interleave({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 3)
    assert seen.count("a") >= 4
    assert set(seen[:2]) == {"a", "b"}
    assert found["a"].quartiles[0] <= found["a"].median <= found["a"].quartiles[1]
    row = common.Row("x", common.Timing([1, 2, 9]), common.Timing([4.0]), reference_scale=5)
    assert row.as_dict()["speedup"] == 10
    assert row.as_dict().keys() >= KEYS


def test_peak_memory_of_a_call_is_found():
    import common

    kept = []
    common.peak_increase_mb(lambda: None)
    peak = common.peak_increase_mb(lambda: kept.append(torch.ones(20 * 2**18)))
    assert 15 < peak < 60


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("step", "maple"),
        ("sweep", "12 x coop, 10"),
        ("roofline", "coop+sar"),
        ("memory", "cocoop"),
        ("classes", "100 classes"),
        ("cocoop", "batch 4"),
        ("end-to-end", "EuroSAT"),
        ("features", "image tower"),
        ("images", "maple"),
        ("checkpoint", "cocoop"),
    ],
)
def test_the_command_prints_one_json_document(name, case, tmp_path):
    from benchmarks.program import app

    if name == "features":
        pytest.importorskip("transformers")
    options = ["--json", "--tiny", "--repeats", "1", "--threads", "1", "--case", case]
    options += ["--device", "cuda", "--out", str(tmp_path)]  # without a GPU it runs all the same
    result = CliRunner().invoke(app, [name, *options])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["rows"]
    for row in document["rows"]:
        assert row.keys() >= KEYS
        assert row["ours_s"] > 0
        assert row["ours_peak_mb"] is not None
        if name != "roofline":
            assert row["speedup"] == pytest.approx(row["reference_s"] / row["ours_s"])
    assert document["machine"]["threads"] == 1
    kept = json.loads((tmp_path / f"{name.replace('-', '_')}.json").read_text(encoding="utf-8"))
    assert kept["rows"] == document["rows"]


def test_what_sar_adds_is_measured_over_coop():
    import common
    import step

    options = common.arguments("").parse_args(["--tiny", "--repeats", "1"])
    cases = [step.Case("a", base=5, novel=6), step.Case("b", base=5, novel=6, sar=True)]
    plain, with_sar = step.measure(cases, options, 1)
    assert "over_coop" not in plain.more
    assert with_sar.more["over_coop"] == with_sar.ours.median / plain.ours.median


def test_more_classes_take_the_reference_of_a_hundred():
    import classes
    import common

    options = common.arguments("").parse_args(["--tiny", "--repeats", "1"])
    options.sizes, options.no_reference = [100, 300], False
    hundred, more = classes.rows(options)
    assert more.reference_s == pytest.approx(3 * hundred.reference_s)
    assert more.note == "reference scaled from 100 classes"
    lengths = [hundred.more["name_tokens"], more.more["name_tokens"]]
    assert 2.5 < lengths[1] / lengths[0] < 3.5
    assert more.more["us_a_token"] == pytest.approx(1e6 * more.ours.median / lengths[1])


def test_precision_goes_on_where_it_stopped(tmp_path, monkeypatch):
    import precision

    made = []

    def measured(task, seed, sar, test, dtype):
        made.append((seed, dtype))
        return {"step_s": 1.0, "base": 90.0 + (dtype == "bfloat16"), "new": 80.0}

    monkeypatch.setattr(precision, "measured", measured)
    first = precision.both("icons/animals", 1, False, None, tmp_path)
    assert precision.both("icons/animals", 1, False, None, tmp_path) == first
    assert made == [(1, "float32"), (1, "bfloat16")]
    precision.both("icons/animals", 2, True, None, tmp_path)
    assert len(made) == 4


def test_an_unknown_benchmark_is_named(capsys):
    from benchmarks.program import bench

    from simprompt.errors import SimpromptError

    with pytest.raises(SimpromptError, match="no benchmark 'warp'"):
        bench("warp")


def test_scripts_take_the_common_options():
    import common

    given = common.arguments("A test.").parse_args(["--json", "--repeats", "2"])
    assert isinstance(given, argparse.Namespace)
    assert (given.json, given.repeats, given.case) == (True, 2, None)
