"""Tables of thousands of runs in seconds."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shell import printed


def write_runs(out: Path, n: int) -> None:
    """`n` results as large as real ones: 60 + 60 class names, 50 epochs of curves."""
    rng = random.Random(0)
    methods = ("zero-shot", "coop", "coop+sar", "kgcoop", "kgcoop+sar")
    names = [f"the name of class {i}" for i in range(60)]
    for i in range(n):
        method, seed, task = methods[i % 5], i // 5 % 25, f"icons/task{i // 125}"
        base, new = rng.uniform(60, 90), rng.uniform(40, 70)
        result = {
            "key": f"{i:012x}", "protocol": "base-to-new", "dataset": task, "method": method,
            "seed": seed, "base": base, "new": new, "h": 2 * base * new / (base + new),
            "ece_base": 1.0, "ece_new": 2.0, "parameters": 768, "steps": 300,
            "train_seconds": 9.0, "seconds": 10.0, "peak_mb": 400.0,
            "curves": {k: [rng.random() for _ in range(50)] for k in ("loss", "sar", "lr")},
            "classes": {"base": names, "new": names}, "warnings": [],
            "config": {"model": "icons", "protocol": "base-to-new", "training": {"shots": 16},
                       "max_test_per_class": None},
        }  # fmt: skip
        folder = out / task / method / f"seed{seed}-{i:012x}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        for name in ("prompt.json", "prompt.safetensors", "text.safetensors"):
            (folder / name).write_bytes(b"-")


@pytest.mark.slow
def test_a_table_of_5000_runs_takes_less_than_5_seconds(tmp_path):
    write_runs(tmp_path, 5000)
    before, started = os.times(), time.perf_counter()
    found = subprocess.run(
        [sys.executable, "-m", "simprompt", "table", str(tmp_path), "--format", "csv"],
        capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    after, took = os.times(), time.perf_counter() - started
    # its own processor time, so that a busy machine does not fail the test
    used = sum(after[2:4]) - sum(before[2:4])
    print(f"\n5,000 runs: {used:.1f} s of processor time, {took:.1f} s on the clock")
    rows = csv.DictReader(found.stdout.splitlines())
    assert sum(row["row"] == "dataset" for row in rows) == 200
    assert used < 5, f"{used:.1f} s of processor time"


def test_tables_do_not_wait_for_torch():
    modules = "simprompt.experiments.store, simprompt.report.tables"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    assert printed(code) == "False"
