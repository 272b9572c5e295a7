"""`make test-matrix`: which Pythons and tests it takes, and what it makes of what pytest says."""

from __future__ import annotations

import sys

import pytest

import matrix

CRASH = """ImportError while loading conftest 'tests/conftest.py'.
tests/conftest.py:16: in <module>
    import torch
E   ModuleNotFoundError: No module named 'torch'
"""


def test_the_pythons_are_those_that_the_package_admits():
    assert matrix.admitted()[0] == "3.10"
    assert len(matrix.admitted()) >= 5


def test_what_it_names_is_there():
    for name in (*matrix.QUICK, *matrix.OF_THE_SOURCE):
        path, _, test = name.partition("::")
        assert (matrix.ROOT / path).exists(), name
        assert not test or f"def {test}(" in (matrix.ROOT / path).read_text(encoding="utf-8"), name


def test_an_interpreter_by_its_path():
    version, path = matrix.interpreter(sys.executable)
    assert version == sys.version.split()[0]
    assert path.samefile(sys.executable)
    assert matrix.interpreter("nowhere/python") is None


@pytest.mark.parametrize(("output", "said", "fine"), [
    ("....\n12 passed in 3.45s\n", "12 passed", True),
    ("SKIPPED [3] a.py:1: 4 failed before\n9 passed, 3 skipped, 1 warning in 61.20s (0:01:01)",
     "9 passed, 3 skipped", True),
    ("FAILED tests/a.py::test_b - assert 1 == 2\n1 failed, 9 passed in 1.0s",
     "1 failed, 9 passed: tests/a.py::test_b - assert 1 == 2", False),
    ("ERROR tests/a.py - ImportError: no\n!!! Interrupted !!!\n2 errors in 0.3s",
     "2 error: tests/a.py - ImportError: no", False),
    ("no tests ran in 0.01s", "no tests ran in 0.01s", False),
    (CRASH, "ModuleNotFoundError: No module named 'torch'", False),
    ("3 skipped in 0.1s", "3 skipped: 3 skipped in 0.1s", False),
])  # fmt: skip
def test_what_pytest_says(output, said, fine):
    assert matrix.counted(output) == (said, fine)


def test_the_table():
    rows = [
        matrix.Row("3.10.1", "lowest", {"torch": "2.4.0", "idna": "3"}, "9 passed", 61.2, True),
        matrix.Row("3.11.1", "newest", {}, "no\nwheel | here", None, False),
    ]
    assert matrix.table(rows).splitlines()[2:] == [
        "| 3.10.1 | lowest: torch 2.4.0 | 9 passed | 61 |",
        "| 3.11.1 | newest | no wheel \\| here |  |",
    ]


def test_the_copy_of_the_checkout_has_no_source(tmp_path, monkeypatch):
    root = tmp_path / "root"
    for name in ("src/a.py", "tests/src/b.py", "tests/__pycache__/b.pyc", ".venv-x/c", ".git/d"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("", encoding="utf-8")
    monkeypatch.setattr(matrix, "ROOT", root)
    tree = matrix.copied(tmp_path)
    assert [path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()] == [
        "tests/src/b.py"
    ]


def test_why_a_step_failed():
    code = "print('error: No solution\\n  cause: Because a needs b'); raise SystemExit(2)"
    with pytest.raises(matrix.StepError, match="cause: Because a needs b"):
        matrix.done([sys.executable, "-c", code])
    with pytest.raises(matrix.StepError, match="exit status 3"):
        matrix.done([sys.executable, "-c", "raise SystemExit(3)"])
