"""Sweeps that train runs together: the same results, and no run that takes others along."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from safetensors.torch import load_file

from protocols.test_protocols import QUICK, live_in_it
from simprompt.config import SAR, RunConfig, Training
from simprompt.experiments import runner
from simprompt.experiments.failures import failure
from simprompt.experiments.protocols import base_to_new
from simprompt.experiments.runner import identify
from simprompt.experiments.store import finished, run_folder
from simprompt.experiments.sweep import make as sweep
from simprompt.experiments.sweep import pieces
from simprompt.experiments.sweep import workers as processes
from simprompt.prompt import learn
from simprompt.training import joint as batched
from simprompt.utils import signals
from simprompt.utils.options import Execution

pytestmark = pytest.mark.integration

TOGETHER = Execution(train_together=True)
MEASURES = ("base", "new", "h", "ece_base", "ece_new")
TIMES = {"seconds", "train_seconds", "peak_mb", "when"}


@pytest.fixture
def world(monkeypatch, make_clip, tmp_path: Path) -> None:
    live_in_it(monkeypatch, make_clip, tmp_path)


def sar(weight: float, **more) -> SAR:
    return SAR(**{"weight": weight, "novel": "random-nouns", "novel_count": 4, "sample": 5, **more})


def grid(method: str = "coop", **more) -> list[RunConfig]:
    """Two seeds; plain, and SAR with two weights."""
    return [
        RunConfig(dataset="colours", method=method, seed=seed, sar=plug, training=QUICK, **more)
        for seed in (1, 2)
        for plug in (None, sar(0.4), sar(2.0))
    ]


def made(configs, out: Path, **how) -> dict[str, dict]:
    found = sweep.sweep(configs, out, **how)
    assert not found.failed
    return found.results


def distance(one: Path, other: Path) -> float:
    """The largest difference of two runs' learned prompts."""
    a, b = (load_file(folder / "prompt.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a if a[name].numel())


def bits(out: Path, config: RunConfig) -> list[object]:
    """A run without what a clock or the memory says."""
    folder = run_folder(out, identify(config))
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    kept = {k: v for k, v in result.items() if k not in TIMES}
    kept["curves"].pop("seconds")
    return [json.dumps(kept, sort_keys=True), (folder / "prompt.safetensors").read_bytes()]


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("method", ["coop", "kgcoop", "language"])
def test_together_gives_the_results_of_one_by_one(tmp_path, method):
    configs = grid(method)
    alone = made(configs, tmp_path / "off")
    both = made(configs, tmp_path / "auto", execution=TOGETHER)
    assert both.keys() == alone.keys() == {c.handle for c in configs}
    for config in configs:
        one, other = alone[config.handle], both[config.handle]
        assert one.keys() == other.keys()
        assert (one["together"], other["together"]) == (0, len(configs) - 1)
        assert [other[m] for m in MEASURES] == pytest.approx([one[m] for m in MEASURES], abs=1e-3)
        for curve in ("loss", "sar", "lr"):
            assert other["curves"][curve] == pytest.approx(one["curves"][curve], rel=1e-3, abs=1e-5)
        assert other["steps"] == one["steps"]
        assert 0 < other["train_seconds"] < other["seconds"]
        folders = [run_folder(tmp_path / place, identify(config)) for place in ("off", "auto")]
        assert {p.name for p in folders[0].iterdir()} == {p.name for p in folders[1].iterdir()}
        assert distance(*folders) < 2e-4
        others = [run_folder(tmp_path / "off", identify(c)) for c in configs if c != config]
        assert min(distance(folders[1], o) for o in others) > 100 * distance(*folders)
        cards = [json.loads((f / "prompt.json").read_text(encoding="utf-8")) for f in folders]
        assert [c.pop("checksum") for c in cards] != ["", ""]
        assert cards[0] == cards[1]


@pytest.mark.usefixtures("world")
def test_a_run_alone_takes_no_result_that_was_trained_with_others(tmp_path):
    """Its key would stand for other bits."""
    configs = grid()[:3]
    joint = made(configs, tmp_path / "a", execution=TOGETHER)
    assert {result["together"] for result in joint.values()} == {2}
    with pytest.warns(UserWarning, match="3 finished runs were trained in one batch with others"):
        alone = made(configs, tmp_path / "a")
    made(configs, tmp_path / "b")
    for config in configs:
        assert bits(tmp_path / "a", config) == bits(tmp_path / "b", config)
    again = made(configs, tmp_path / "a", execution=TOGETHER)
    assert all(again[handle]["when"] == result["when"] for handle, result in alone.items())


@pytest.mark.usefixtures("world")
def test_what_cannot_be_batched_gives_the_same_bits_by_itself(tmp_path):
    configs = [
        *grid("maple")[:2], *grid("cocoop")[:2], *grid("zero-shot")[::3],
        *grid(options={"position": "middle"}),  # of a method that can
    ]  # fmt: skip
    made(configs, tmp_path / "off")
    made(configs, tmp_path / "auto", execution=TOGETHER)
    for config in configs:
        assert bits(tmp_path / "auto", config) == bits(tmp_path / "off", config)


@pytest.mark.usefixtures("world")
def test_a_batch_takes_as_many_runs_as_pay(tmp_path, monkeypatch):
    configs = [c for c in grid() if not c.sar] + [
        RunConfig(dataset="colours", seed=seed, training=QUICK) for seed in (3, 4, 5)
    ]
    one = batched._tokens(runner.prepare(configs[0]).untrained.run)
    monkeypatch.setattr(batched, "TOKENS", 2 * one)
    results = made(configs, tmp_path, execution=TOGETHER)
    assert sorted(r["together"] for r in results.values()) == [0, 1, 1, 1, 1]


@pytest.mark.usefixtures("world")
def test_a_failing_run_takes_no_other_along(tmp_path, monkeypatch):
    bad = RunConfig(dataset="colours", sar=sar(1, novel="no-such-source"), training=QUICK)
    configs = [*grid(), bad]
    test = base_to_new.test

    def fails_for_seed_2(prompt, data, config):
        if config.seed == 2 and config.sar is None:
            raise ZeroDivisionError("by zero")
        return test(prompt, data, config)

    monkeypatch.setattr(base_to_new, "test", fails_for_seed_2)
    found = sweep.sweep(configs, tmp_path, execution=TOGETHER)
    untested = next(c for c in configs if c.seed == 2 and c.sar is None)
    assert found.failed.keys() == {bad.handle, untested.handle}
    assert found.failed[untested.handle] == "ZeroDivisionError: by zero"
    assert "no-such-source" in found.failed[bad.handle]
    assert "Traceback" in failure(tmp_path, identify(untested))["traceback"]
    assert {r["together"] for r in found.results.values()} == {5}, "it failed after the training"
    monkeypatch.setattr(base_to_new, "test", test)
    again = sweep.sweep(configs[:-1], tmp_path, execution=TOGETHER, retry_failed=True)
    assert not again.failed
    assert again.results[untested.handle]["together"] == 0


@pytest.mark.usefixtures("world")
def test_a_batch_that_fails_is_made_one_by_one(tmp_path, monkeypatch):
    def fails(runs, settings):
        raise RuntimeError("not enough memory")

    configs = grid()
    made(configs, tmp_path / "off")
    monkeypatch.setattr(learn, "train_together", fails)
    made(configs, tmp_path / "auto", execution=TOGETHER)
    for config in configs:
        assert bits(tmp_path / "auto", config) == bits(tmp_path / "off", config)


@pytest.mark.usefixtures("world")
def test_a_run_that_diverges_takes_no_other_along(tmp_path):
    """It fails alone, with the reason; the others give the bits of one by one."""
    configs = grid()[:3]
    wild = RunConfig(dataset="colours", seed=1, sar=sar(1e30), training=QUICK)
    made(configs, tmp_path / "off")
    found = sweep.sweep([configs[0], wild, *configs[1:]], tmp_path / "auto", execution=TOGETHER)
    assert found.failed.keys() == {wild.handle}
    record = failure(tmp_path / "auto", identify(wild))
    assert "diverged" in record["error"]
    assert "epoch" in record["error"]
    assert record["traceback"] == ""
    assert finished(tmp_path / "auto", identify(wild)) is None
    for config in configs:
        assert bits(tmp_path / "auto", config) == bits(tmp_path / "off", config)


@pytest.mark.usefixtures("world")
def test_what_is_finished_is_not_made_again(tmp_path):
    """As after a kill: some runs of a piece are there when it is tried once more."""
    configs = grid()
    first = pieces.make_one(configs[0], tmp_path)
    stamp = (run_folder(tmp_path, identify(configs[0])) / "result.json").stat().st_mtime_ns
    outcomes = pieces.make_piece(tuple(configs), tmp_path)
    assert json.dumps(outcomes[0]) == json.dumps(first)
    assert (run_folder(tmp_path, identify(configs[0])) / "result.json").stat().st_mtime_ns == stamp
    assert [o["together"] for o in outcomes] == [0, 4, 4, 4, 4, 4]
    assert [o["key"] for o in outcomes] == [identify(c).key for c in configs]


def test_pieces_hold_each_run_once_and_leave_no_worker_idle():
    rng = random.Random(0)
    for _ in range(50):
        configs = [
            RunConfig(dataset=d, method=m, seed=s, sar=plug, training=Training(lr=lr))
            for d in ("a", "b")
            for m in ("coop", "maple", "no-such-method")
            for lr in (0.1, 0.2)
            for s in range(rng.randrange(1, 9))
            for plug in (None, SAR())
        ]
        rng.shuffle(configs)
        workers = rng.randrange(1, 20)
        handles = [c.handle for c in configs]
        cut = pieces.pieces_of(configs, handles, workers, together=True)
        assert sorted(c.handle for p in cut for c in p) == sorted(c.handle for c in configs)
        assert len(cut) >= min(workers, len(configs))
        assert all(len(p) <= pieces.MOST for p in cut)
        for piece in cut:
            same = {(c.dataset, c.method, c.training.lr) for c in piece}
            assert len(same) == 1
            assert len(piece) == 1 or piece[0].method == "coop"
        assert pieces.pieces_of(configs, handles, workers) == [(c,) for c in configs]
        waiting = rng.sample(handles, rng.randrange(len(handles)))
        later = pieces.pieces_of(configs, waiting, workers, together=True)
        assert later == [p for p in cut if {c.handle for c in p} & set(waiting)]
    many = [RunConfig(dataset="a", seed=s) for s in range(pieces.MOST + 1)]
    handles = [c.handle for c in many]
    assert [len(p) for p in pieces.pieces_of(many, handles, 1, together=True)] == [6, 7]


def test_a_piece_whose_worker_dies_is_made_again_and_then_one_by_one(tmp_path, monkeypatch):
    """Of two pieces the first loses its worker once, the second loses it twice."""
    training = Training(max_steps=3, lr=0.01, shots=1)
    configs = [
        RunConfig(dataset="icons/places", seed=s, training=training, max_test_per_class=1)
        for s in (1, 2, 3, 4)
    ]
    left: dict[tuple[str, ...], int] = {}  # how often a piece's worker is still to die

    class Watched(processes.Worker):
        def send(self, piece) -> None:
            super().send(piece)
            handles = tuple(c.handle for c in piece)
            if len(piece) > 1 and left.setdefault(handles, len(left) + 1):
                left[handles] -= 1
                os.kill(self.process.pid, signal.SIGKILL)

    monkeypatch.setattr(processes, "Worker", Watched)
    results = made(configs, tmp_path, execution=Execution(workers=2, train_together=True))
    again, one_by_one = left
    assert [*left.values()] == [0, 0]
    assert {results[handle]["together"] for handle in again} == {1}
    assert {results[handle]["together"] for handle in one_by_one} == {0}
    assert {*again, *one_by_one} == {c.handle for c in configs}
    files = {c.handle: run_folder(tmp_path, identify(c)) / "result.json" for c in configs}
    stamps = {handle: path.stat().st_mtime_ns for handle, path in files.items()}
    assert made(configs, tmp_path, execution=TOGETHER).keys() == stamps.keys()
    for config in configs:
        assert files[config.handle].stat().st_mtime_ns == stamps[config.handle]


def test_runs_that_were_trained_together_stay_together_when_some_are_finished(
    tmp_path, monkeypatch
):
    """Stopped between two results of one training, the second comes out as it would have."""
    training = Training(max_steps=3, lr=0.05, shots=2)
    configs = [
        RunConfig(dataset="icons/places", seed=s, training=training, max_test_per_class=1)
        for s in (1, 2, 3)
    ]
    whole = made(configs, tmp_path / "whole", execution=TOGETHER)
    assert [r["together"] for r in whole.values()] == [2, 2, 2]
    finish, calls = runner.finish, []

    def stopping_at_the_second(making, out):
        calls.append(making)
        if len(calls) == 2:
            raise signals.Stopped(15)
        return finish(making, out)

    monkeypatch.setattr(runner, "finish", stopping_at_the_second)
    with pytest.raises(signals.Stopped) as stop:
        made(configs, tmp_path / "broken", execution=TOGETHER)
    assert "0 of 3 runs" in stop.value.kept
    assert len(list((tmp_path / "broken" / "unfinished").iterdir())) == 1
    later = made(configs, tmp_path / "broken", execution=TOGETHER)
    assert not (tmp_path / "broken" / "unfinished").exists()
    for config in configs:
        folders = [run_folder(tmp_path / o, identify(config)) for o in ("whole", "broken")]
        prompts = [(folder / "prompt.safetensors").read_bytes() for folder in folders]
        assert prompts[0] == prompts[1]
        assert later[config.handle]["together"] == 2


@pytest.mark.usefixtures("world")
def test_on_ray_a_piece_is_a_task_and_a_lost_one_is_made_run_by_run(tmp_path, monkeypatch):
    """A stand-in for Ray, which loses every task of several runs on one of its nodes."""
    names: list[str] = []
    outcomes: list[object] = []  # of each task, None for a lost one; a task's number is its place

    class RayError(Exception):
        pass

    def remote(**options):
        def task(function):
            def placed(num_cpus, num_gpus, name):
                assert num_gpus == 0  # these runs are computed on the CPU

                def submit(piece, place):
                    names.append(name)
                    lost = len(piece) > 1 and piece[0].seed == 1
                    outcomes.append(None if lost else function(piece, place))
                    return len(outcomes) - 1

                return SimpleNamespace(remote=submit)

            return SimpleNamespace(options=placed)

        return task

    def get(task):
        if outcomes[task] is None:
            raise RayError("the node died")
        return outcomes[task]

    ray = ModuleType("ray")
    ray.is_initialized = lambda: True
    ray.cluster_resources = lambda: {"CPU": 2.0}
    ray.nodes = lambda: [{"Alive": True, "Resources": {"CPU": cores}} for cores in (1.0, 1.0)]
    ray.remote, ray.get = remote, get
    ray.wait = lambda refs, num_returns: (refs[:1], refs[1:])
    ray.exceptions = SimpleNamespace(RayError=RayError)
    monkeypatch.setitem(sys.modules, "ray", ray)
    configs = grid()
    results = made(configs, tmp_path, execution=Execution(ray="auto", train_together=True))
    assert results.keys() == {c.handle for c in configs}
    assert len(names) == 2 + 1 + 3, "two pieces, the lost one again, and each of its runs"
    assert sum("and 2 more" in name for name in names) == 3
    assert sorted(r["together"] for r in results.values()) == [0, 0, 0, 2, 2, 2]
    assert all(finished(tmp_path, identify(c)) for c in configs)
    large = [c.model_copy(update={"threads": 4, "seed": 9}) for c in configs[:1]]
    with pytest.warns(UserWarning, match="4 threads.*more than 1 cores"):
        made(large, tmp_path, execution=Execution(ray="auto"))
