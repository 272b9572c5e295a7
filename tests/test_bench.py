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

FOLDER = Path(__file__).parents[1] / "benchmarks"
KEYS = {"case", "ours_s", "reference_s", "speedup", "ours_peak_mb", "reference_peak_mb"}


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts import each other by name, as they do when run from a shell."""
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for name in ("common", "reference", "step", "roofline", "memory", "classes", "sweep"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("method", ["coop", "kgcoop", "language", "cocoop"])
def test_both_sides_of_a_step_compute_the_same(method):
    """One step from the same start: equal losses and equal learned tokens."""
    import common
    import step

    from simprompt.config import Training
    from simprompt.train import train

    options = {"depth": 2} if method == "language" else {}
    case = step.Case("x", method, base=6, novel=4, batch=3, options=options)
    clip = common.random_clip(tiny=True)
    ours, theirs = step.learner_of(case, clip), step.learner_of(case, clip)
    images, labels = step.batch_of(case, clip)
    curves = train(ours, images, labels, Training(epochs=1, batch_size=3, warmup_lr=2e-3), 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "learner_of", lambda case, clip: theirs)
        loss = step.reference(case, clip)[0]()
    assert curves.loss[0] == pytest.approx(loss.item(), rel=1e-5)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (a - b).abs().max() < 1e-6, name


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
    ("name", "case"), [("step", "coop"), ("sweep", "12 x coop, 10"), ("roofline", "coop")]
)
def test_the_command_prints_one_json_document(name, case):
    from simprompt.cli import app

    options = ["--json", "--tiny", "--repeats", "1", "--threads", "1", "--case", case]
    if name == "step":
        options[-1] = "maple, text"
    result = CliRunner().invoke(app, ["bench", name, *options])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["rows"]
    assert all(row.keys() >= KEYS for row in document["rows"])
    assert document["machine"]["threads"] == 1


def test_an_unknown_benchmark_is_named(capsys):
    from simprompt.commands.bench import bench
    from simprompt.errors import SimpromptError

    with pytest.raises(SimpromptError, match="no benchmark 'warp'"):
        bench("warp")


def test_scripts_take_the_common_options():
    import common

    given = common.arguments("A test.").parse_args(["--json", "--repeats", "2"])
    assert isinstance(given, argparse.Namespace)
    assert (given.json, given.repeats, given.case) == (True, 2, None)
