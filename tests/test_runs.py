"""Run directories are whole or absent; summaries average the way they say."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from simprompt.config import RunConfig
from simprompt.errors import SimpromptError
from simprompt.experiments.failures import failure, forget_failure, record_failure
from simprompt.experiments.result_file import FORMAT, file_of
from simprompt.experiments.run_key import RunKey
from simprompt.experiments.store import (
    check_out,
    finished,
    read_runs,
    remove_remains,
    run_folder,
    write_run,
)
from simprompt.experiments.summary import averages, paired, summarise
from simprompt.metrics import harmonic_mean
from simprompt.utils.files import remote


def result(dataset, method, seed, base, new):
    return {
        "dataset": dataset, "method": method, "seed": seed, "base": base, "new": new,
        "h": harmonic_mean(base, new), "seconds": 1.0, "peak_mb": 300.0, "parameters": 768,
        "protocol": "base-to-new", "steps": 20, "train_seconds": 0.5, "curves": {}, "classes": {},
        "environment": {},
        "config": {"model": "icons", "training": {"shots": 4, "epochs": 5, "max_steps": None}},
    }  # fmt: skip


GRID = [
    result("a", "coop", 1, 80, 40), result("a", "coop", 2, 90, 50),
    result("b", "coop", 1, 60, 60), result("b", "coop", 2, 70, 70),
    result("a", "coop+sar", 1, 78, 46), result("a", "coop+sar", 2, 86, 54),
    result("b", "coop+sar", 1, 60, 66), result("b", "coop+sar", 2, 68, 72),
    result("a", "zero-shot", 1, 50, 50), result("b", "zero-shot", 1, 50, 60),
]  # fmt: skip


def run_of(key: str = "a", **more) -> RunKey:
    return RunKey(RunConfig(**{"dataset": "d", **more}), {"settings": key})


def whole(run: RunKey, **more) -> dict:
    """A result as every run has it."""
    c = run.config
    return {**result(c.dataset, c.label, c.seed, 80, 40), "key": run.key, **more}


def keep(out, run: RunKey, **more) -> dict:
    return write_run(out, run, lambda _: whole(run, **more))


def test_a_run_is_there_whole_or_not_at_all(tmp_path):
    run = run_of()

    def broken(folder):
        (folder / "half").write_text("written", encoding="utf-8")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_run(tmp_path, run, broken)
    assert finished(tmp_path, run) is None
    assert list(tmp_path.rglob("half")) == []

    def good(folder):
        assert not run_folder(tmp_path, run).exists(), "nothing is visible while it is made"
        (folder / "prompt").write_text("p", encoding="utf-8")
        return whole(run)

    written = write_run(tmp_path, run, good)
    assert finished(tmp_path, run) == written
    assert written["format"] == FORMAT
    assert written["files"].keys() == {"prompt"}
    assert (run_folder(tmp_path, run) / "prompt").read_text(encoding="utf-8") == "p"


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def newer(path):
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**value, "format": FORMAT + 1}), encoding="utf-8")


def lacking(path):
    value = json.loads(path.read_text(encoding="utf-8"))
    del value["base"]
    path.write_text(json.dumps(value), encoding="utf-8")


def a_folder(path):
    path.unlink()
    path.mkdir()


def no_object(path):
    path.write_text("[]", encoding="utf-8")


def no_text(path):
    path.write_bytes(b"\xff\xfe\x00")


def empty(path):
    path.write_bytes(b"")


def no_permission(path):
    path.chmod(0)


BAD = [half, newer, lacking, a_folder, no_object, no_text, empty]
if hasattr(os, "geteuid") and os.geteuid():
    BAD.append(no_permission)


@pytest.mark.parametrize("bad", BAD, ids=lambda f: f.__name__)
def test_a_bad_result_is_named_and_made_again(tmp_path, bad):
    run, other = run_of(), run_of(seed=2)
    keep(tmp_path, run)
    keep(tmp_path, other)
    folder = run_folder(tmp_path, run)
    bad(folder / "result.json")
    with pytest.warns(UserWarning, match=f"{folder.name}: .*made again"):
        assert finished(tmp_path, run) is None
    with pytest.warns(UserWarning, match=f"{folder.name}: .*left out"):
        assert [r["seed"] for r in read_runs([tmp_path])] == [2]
    with pytest.warns(UserWarning, match="made again"):
        keep(tmp_path, run, parameters=1)
    assert finished(tmp_path, run)["parameters"] == 1
    assert len(read_runs([tmp_path])) == 2
    assert sorted(p.name for p in folder.parent.iterdir()) == sorted(
        run_folder(tmp_path, r).name for r in (run, other)
    )


@pytest.mark.parametrize("bad", [half, newer, lacking, no_object, no_text, empty])
@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_a_bad_result_at_a_url_is_named_and_made_again(tmp_path, bad, scheme):
    out = f"{scheme}://{tmp_path}/{bad.__name__}"
    run, other = run_of(), run_of(seed=2)
    local = tmp_path / "result.json"
    for one in (run, other):
        keep(out, one)
    local.write_bytes(remote.read(f"{out}/{run.folder}/result.json"))
    bad(local)
    remote.write(f"{out}/{run.folder}/result.json", local.read_bytes())
    with pytest.warns(UserWarning, match="made again"):
        assert finished(out, run) is None
    with pytest.warns(UserWarning, match="left out"):
        assert [r["seed"] for r in read_runs([out])] == [2]
    with pytest.warns(UserWarning, match="made again"):
        keep(out, run)
    assert len(read_runs([out])) == 2


def test_a_url_that_cannot_be_read_is_named(tmp_path):
    out, run = f"file://{tmp_path}", run_of()
    keep(out, run)
    a_folder(tmp_path / run.folder / "result.json")
    with pytest.warns(UserWarning, match="cannot be read"):
        assert finished(out, run) is None


def test_a_user_s_notes_in_a_damaged_run_folder_stay(tmp_path):
    run = run_of()
    keep(tmp_path, run)
    place = run_folder(tmp_path, run)
    (place / "notes.txt").write_text("mine", encoding="utf-8")
    (place / "result.json").write_text("{", encoding="utf-8")
    with pytest.warns(UserWarning, match="made again"):
        keep(tmp_path, run)
    assert (place / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert finished(tmp_path, run)


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_run_whose_arrays_are_damaged_is_made_again(tmp_path, damage):
    run = run_of()

    def fill(folder):
        (folder / "prompt.safetensors").write_bytes(b"0123456789")
        return whole(run)

    write_run(tmp_path, run, fill)
    (read,) = read_runs([tmp_path])
    assert file_of(read, "prompt.safetensors") == b"0123456789"
    path = run_folder(tmp_path, run) / "prompt.safetensors"
    if damage == "flipped":
        path.write_bytes(b"0123456788")
        with pytest.warns(UserWarning, match=r"prompt.safetensors is not what was written"):
            assert file_of(read, "prompt.safetensors") is None
    else:
        path.unlink()
        assert file_of(read, "prompt.safetensors") is None
    with pytest.warns(UserWarning, match=r"prompt.safetensors .*made again"):
        assert finished(tmp_path, run) is None
    with pytest.warns(UserWarning, match="made again"):
        write_run(tmp_path, run, fill)
    assert finished(tmp_path, run)


@pytest.mark.parametrize("bad", [half, newer, no_object, no_text, empty, a_folder])
def test_a_bad_record_of_a_failure_is_named_and_the_run_tried_again(tmp_path, bad):
    run = run_of()
    record_failure(tmp_path, run, "no images")
    assert failure(tmp_path, run)["error"] == "no images"
    (path,) = (tmp_path / "failed").iterdir()
    bad(path)
    with pytest.warns(UserWarning, match="tried again"):
        assert failure(tmp_path, run) is None
    if bad is not a_folder:
        forget_failure(tmp_path, run)
        assert failure(tmp_path, run) is None


def test_a_failure_that_cannot_be_recorded_stops_nothing(tmp_path):
    (tmp_path / "failed").write_text("a file is in the way", encoding="utf-8")
    with pytest.warns(UserWarning, match="cannot be written .*: no images"):
        record_failure(tmp_path, run_of(), "no images")
    with pytest.warns(UserWarning, match="cannot be written"):
        record_failure(f"file://{tmp_path}", run_of(), "no images")


def test_a_results_directory_that_cannot_be_is_said_before_the_work(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SimpromptError, match="No runs can be kept in"):
            check_out(out)


def test_results_of_other_content_and_of_older_code_do_not_mix(tmp_path):
    def made(content, when, code, seed=1):
        run = RunKey(
            RunConfig(dataset="d", seed=seed), {"dataset": content, "code": code, "model": "m"}
        )
        config = run.config.model_dump(mode="json")
        keep(tmp_path, run, identity=run.parts, config=config, when=when)
        return run.key

    made("old photos", "2026-01-01", 2)
    last = made("new photos", "2026-01-03", 2)
    made("older photos", "2026-01-02", 2)
    made("new photos", "2026-01-04", 1, seed=2)
    with pytest.warns(UserWarning, match="left out") as told:
        (kept,) = read_runs([tmp_path])
    assert kept["key"] == last
    said = [str(w.message) for w in told]
    assert len([s for s in said if s.startswith("2 results") and "content (dataset)" in s]) == 1
    assert len([s for s in said if s.startswith("1 results") and "older version" in s]) == 1


def test_what_a_killed_process_left_is_not_read(tmp_path):
    done = tmp_path / "a" / "coop" / "seed1-x"
    left = tmp_path / "a" / "coop" / ".seed2-y-partial"
    for folder, row in ((done, GRID[0]), (left, GRID[1])):
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(row), encoding="utf-8")
    assert [r["seed"] for r in read_runs([tmp_path])] == [1]


# ------------------------------------------------------------------------- twins

TWIN = """
import sys
from pathlib import Path
from simprompt.config import RunConfig
from simprompt.experiments.run_key import RunKey
from simprompt.experiments.store import write_run
out, name, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for i in range(n):
    run = RunKey(RunConfig(dataset="d", seed=i), {})
    def fill(folder):
        (folder / "prompt").write_text(name, encoding="utf-8")
        return {"dataset": "d", "method": "coop", "seed": i, "base": 1, "new": 1, "h": 1,
                "maker": name, "protocol": "base-to-new", "parameters": 1, "steps": 1, "seconds": 1,
                "train_seconds": 1, "peak_mb": None, "curves": {}, "classes": {},
                "environment": {},
                "config": {"model": "icons", "training": dict(shots=4, epochs=1, max_steps=None)}}
    result = write_run(out, run, fill)
    kept = (Path(out) / run.folder / "prompt").read_text(encoding="utf-8")
    print(result["maker"], kept, flush=True)
"""


def collide_in_processes(out, n: int, twins: int = 3) -> int:
    """How many of `n` runs, each written by several processes at once, all took as one result."""
    commands = [[sys.executable, "-c", TWIN, str(out), str(i), str(n)] for i in range(twins)]
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(c, encoding="utf-8", **pipe) for c in commands]
    for p in processes:
        assert p.stdout.readline() == "ready\n"
    for p in processes:
        p.stdin.write("go\n")
        p.stdin.flush()
    said = [p.communicate() for p in processes]
    assert [p.returncode for p in processes] == [0] * twins, said
    answers = [out.splitlines() for out, _ in said]
    return sum(
        len({line for lines in per_run for line in lines.split()}) == 1
        for per_run in zip(*answers, strict=True)
    )


def collide_in_threads(out, n: int, twins: int = 3, broken: bool = False) -> int:
    """As above, all threads meeting when their folders are filled and none is moved."""
    good = 0
    with ThreadPoolExecutor(twins) as pool:
        for i in range(n):
            run, barrier = run_of(seed=i), Barrier(twins)
            if broken:  # something that is no result is in the way
                run_folder(out, run).mkdir(parents=True)
                (run_folder(out, run) / "half").write_text("a", encoding="utf-8")

            def write(name, run=run, barrier=barrier):
                def fill(folder):
                    (folder / "prompt").write_text(str(name), encoding="utf-8")
                    barrier.wait()
                    return whole(run, maker=name)

                return write_run(out, run, fill)["maker"]

            makers = set(pool.map(write, range(twins)))
            kept = finished(out, run)
            good += makers == {kept["maker"]}
    return good


def leavings(out) -> list[str]:
    """Files and folders that are neither a run nor part of one."""
    runs = {p.parent for p in out.rglob("result.json")}
    inside = {p for run in runs for p in (run, *run.iterdir(), *run.parents)}
    return [str(p) for p in out.rglob("*") if p not in inside]


@pytest.mark.parametrize("broken", [False, True])
def test_twins_in_threads_take_the_first_one_s_result(tmp_path, broken):
    assert collide_in_threads(tmp_path, 50, broken=broken) == 50
    assert leavings(tmp_path) == []


def test_twins_in_processes_take_the_first_one_s_result(tmp_path):
    assert collide_in_processes(tmp_path, 100) == 100
    assert leavings(tmp_path) == []


@pytest.mark.slow
def test_600_of_600_collisions_end_well(tmp_path):
    good = {
        "threads": collide_in_threads(tmp_path / "threads", 200),
        "threads, something in the way": collide_in_threads(tmp_path / "way", 200, broken=True),
        "processes": collide_in_processes(tmp_path / "processes", 200),
    }
    print(f"\n{sum(good.values())} of 600 collisions ended well: {good}")
    assert sum(good.values()) == 600
    assert leavings(tmp_path) == []


KILLED = """
import os, signal, sys
from simprompt.config import RunConfig
from simprompt.experiments.run_key import RunKey
from simprompt.experiments.store import write_run
run = RunKey(RunConfig(dataset="d"), {})
write_run(sys.argv[1], run, lambda _: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.skipif(os.name != "posix", reason="nothing can be asked of a process id")
def test_what_a_killed_process_left_is_removed_and_a_living_one_keeps_its_own(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    (left,) = tmp_path.rglob(".seed*")
    other = run_of(seed=2)

    def fill(folder):
        assert remove_remains(tmp_path) == 1
        assert folder.is_dir()
        assert not left.exists()
        return whole(other)

    write_run(tmp_path, other, fill)
    assert remove_remains(tmp_path) == 0
    assert finished(tmp_path, other)


def test_what_a_process_elsewhere_left_is_removed_after_a_week(tmp_path):
    folder = tmp_path / "a" / "coop"
    young = folder / f".seed1-x-{os.getpid()}@0123abcd-pq"
    old = folder / f".seed2-x-{os.getpid()}@0123abcd-pq"
    now = time.time()
    for path, days in ((young, 6), (old, 8)):
        path.mkdir(parents=True)
        os.utime(path, (now, now - days * 24 * 3600))
    assert remove_remains(tmp_path) == 1
    assert list(folder.iterdir()) == [young]


def test_no_runs_is_a_clear_error(tmp_path):
    with pytest.raises(SimpromptError, match="No finished run"):
        read_runs([tmp_path])
    with pytest.raises(SimpromptError, match="There is no directory"):
        read_runs([tmp_path / "nowhere"])


def test_averages_both_ways():
    rows = [r for r in GRID if r["method"] == "coop"]
    found = averages(rows)
    assert found["base"] == 75
    assert found["new"] == 55
    assert found["h_of_means"] == harmonic_mean(75, 55)
    assert found["mean_h"] == (harmonic_mean(85, 45) + harmonic_mean(65, 65)) / 2
    assert found["mean_h"] <= found["h_of_means"]


def test_paired_differences_average_seeds_then_tasks():
    found = paired(GRID, "coop+sar", "coop")
    assert found["new"]["per_dataset"] == {"a": 5, "b": 4}
    assert found["new"]["diff"] == 4.5
    # deviation of (5, 4) is sqrt(1/2); t(1) = 12.706; half width = 12.706 / 2
    low, high = found["new"]["ci95"]
    assert math.isclose(high - 4.5, 12.7062 / 2, rel_tol=1e-4)
    assert math.isclose(4.5 - low, 12.7062 / 2, rel_tol=1e-4)
    assert found["base"]["diff"] == -2


def test_one_task_has_no_interval():
    found = paired([r for r in GRID if r["dataset"] == "a"], "coop+sar", "coop")
    assert found["new"]["diff"] == 5
    assert found["new"]["ci95"] is None


def test_summary_has_the_documented_shape():
    document = json.loads(json.dumps(summarise(GRID)))
    assert list(document["methods"]) == ["zero-shot", "coop", "coop+sar"]
    assert set(document["methods"]["coop"]) == {"base", "new", "h_of_means", "mean_h"}
    assert set(document["paired"]) == {"over", *document["methods"]["coop"]}
    assert document["to_zero_shot"]["coop+sar"]["base"]["diff"] == pytest.approx(19)
    assert set(document["runs"][0]) == {
        "dataset", "method", "seed", "base", "new", "h", "seconds", "peak_mb", "parameters",
    }  # fmt: skip


def test_results_are_printed_in_one_line(tmp_path):
    from simprompt.experiments.store import Results

    made = Results(
        [
            {
                "dataset": "<b>x</b>",
                "method": "coop",
                "seed": 1,
                "base": 61.25,
                "new": 50.0,
                "h": 55.0,
            }
        ]
    )
    assert repr(made) == "<Results: 1 runs of 1 methods on 1 datasets>"
    assert "<td>61.2</td>" in made._repr_html_()
    assert "<b>x" not in made._repr_html_()
