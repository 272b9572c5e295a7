"""The same image twice."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest

from page_cases import case, check, classes, refusal
from shell import in_process


def copy(at: Path, one: str, other: str) -> None:
    (at / other).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(at / one, at / other)


@case("copy-in-test")
def _(at: Path) -> None:
    classes(at, "train/cat", "train/owl", "test/cat", "test/owl")
    copy(at, "train/cat/0.png", "test/cat/again.png")
    own = check(at)
    assert own["tested_and_learned"] == [["test/cat/again.png", "train/cat/0.png"]]
    assert any(
        note.startswith("1 test image is among the training images") for note in own["notes"]
    )
    assert "1 test image is among the training images" in refusal(at)
    done = in_process("learn", str(at), "--strict", "--out", str(at / "out"))
    assert (done.returncode, "1 test image is" in done.stderr) == (2, True)


@case("copy-in-two-classes")
def _(at: Path) -> None:
    classes(at, "cat", "owl", count=4)
    copy(at, "cat/0.png", "owl/stray.png")
    own = check(at)
    assert own["two_classes"] == [["owl/stray.png", "owl", "cat/0.png", "cat"]]
    assert own["tested_and_learned"] == []
    assert "lies under two classes" in refusal(at)


@case("copies-held-out")
def _(at: Path) -> None:
    classes(at, "cat", "owl", count=4)
    for number in range(8):
        copy(at, "cat/0.png", f"cat/copy{number}.png")
        copy(at, "owl/0.png", f"fox/{number}.png")
    (at / "owl" / "0.png").unlink()
    own = check(at)
    assert own["tested_and_learned"] == []
    assert own["untested_classes"] == ["fox"]
    assert sum(own["images"].values()) == 12 + 3 + 8


@case("copies-in-a-table")
def _(at: Path) -> None:
    classes(at, "cat", "owl", count=4)
    files = sorted(at.rglob("*.png"))
    rows = [
        {
            "image": base64.b64encode(path.read_bytes()).decode(),
            "label": path.parent.name,
            "split": "test" if path.stem == "3" else "train",
        }
        for path in files
    ]
    rows.append({**rows[0], "split": "test"})
    table = at / "labels.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    own = check(table)
    assert len(own["tested_and_learned"]) == 1
    assert "1 test image is among the training images" in refusal(table)
    parquet = at / "labels.parquet"
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), parquet)
    assert len(check(parquet)["tested_and_learned"]) == 1
