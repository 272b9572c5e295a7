"""Pipes, devices, sockets, links to themselves and files of 200 GB: a reason, and no hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from odd_files import ODD
from simprompt.data.image_files import ImageError
from simprompt.data.images import is_image, read_image
from simprompt.data.own_images import folder
from simprompt.data.own_images.check import check_folder
from simprompt.utils.files import regular

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent

posix = pytest.mark.skipif(os.name != "posix", reason="no pipes and devices in the file system")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> list[tuple[str, str, str, str, float, float]]:
    """What every reader makes of every odd file; see `odd_files`."""
    root = tmp_path_factory.mktemp("odd")
    environment = os.environ | {
        "SIMPROMPT_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)]),
    }  # fmt: skip
    ran = subprocess.run(
        [sys.executable, HERE / "odd_files.py", root], capture_output=True, encoding="utf-8",
        timeout=600, env=environment, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    return [tuple(json.loads(line)) for line in ran.stdout.splitlines()]


@posix
def test_no_reader_hangs_or_takes_memory(outcomes):
    assert len({reader for reader, *_ in outcomes}) > 18
    assert {kind for _, _, kind, *_ in outcomes} == set(ODD)
    faults = [row for row in outcomes if row[3] != "read" and not row[3].startswith("refused: ")]
    assert not faults
    assert not [row for row in outcomes if row[4] > 15], "slow"
    assert not [row for row in outcomes if row[5] > 600], "memory"


@posix
def test_readers_of_one_file_say_what_it_is(outcomes):
    words = {"pipe": "a pipe", "device": "a device", "huge": "are read", "folder": "directory"}
    single = ("lists of names", "lists of novel names", "recipes", "indexes of weights", "parquet")
    for reader, name, kind, said, *_ in outcomes:
        if reader in single and kind in words and (kind != "folder" or "list" in reader):
            assert words[kind] in said.lower(), (reader, name, kind, said)
            assert name in said


@posix
def test_each_odd_file_in_a_folder_of_images_is_left_out_with_a_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            pixels = np.full((9, 9), 40 * i + ord(name[0]), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    kinds = [kind for kind in ODD if kind != "folder"]
    for kind in kinds:
        for suffix in (".jpg", ""):
            ODD[kind](tmp_path / "photos" / "cat" / f"{kind}{suffix}")
    own = folder.load(tmp_path / "photos")
    assert len(own.dataset.train) + len(own.dataset.test) == 6
    odd = {f"cat/{kind}{suffix}" for kind in kinds for suffix in (".jpg", "")}
    assert {u.path for u in own.unused} == odd
    report = check_folder(tmp_path / "photos")
    found = {f.item: f.what for f in report.findings if f.kind == "unreadable"}
    assert "a pipe, not a regular file" in found["cat/pipe.jpg"]
    assert "a device, not a regular file" in found["cat/device.jpg"]
    assert "200,000,000,000 bytes, at most" in found["cat/huge.jpg"]
    for path in (tmp_path / "photos" / "cat").iterdir():
        if path.suffix != ".png":
            assert not is_image(path)
            with pytest.raises(ImageError, match=r"regular file|at most|link to something"):
                read_image(path)


@pytest.mark.parametrize("kind", ODD)
@posix
def test_only_regular_files_are_opened(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file"
    ODD[kind](path)
    for read in (
        regular.open_regular,
        regular.read_bytes,
        regular.read_text,
        regular.check_regular,
    ):
        with pytest.raises(OSError, match=r".") as caught:
            read(path)
        assert caught.value.strerror
    assert regular.is_there(path) is (kind != "link to itself")
    assert regular.is_folder(path) is (kind == "folder")


@posix
def test_a_file_that_becomes_a_pipe_before_it_is_opened_is_refused(tmp_path, monkeypatch):
    path, pipe = tmp_path / "file", tmp_path / "pipe"
    path.write_bytes(b"text")
    os.mkfifo(pipe)
    stat = os.stat(path)
    os.replace(pipe, path)
    monkeypatch.setattr(os, "stat", lambda *_, **__: stat)
    with pytest.raises(regular.NotRegularError, match="a pipe"):
        regular.open_regular(path)


def test_files_without_a_stated_size_end_at_the_limit():
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc")
    assert "VmRSS" in regular.read_text("/proc/self/status")
    with pytest.raises(regular.NotRegularError, match="at most 10 are read"):
        regular.read_bytes("/proc/self/status", 10)


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\r\n"), max_size=40),
       st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))  # fmt: skip
def test_text_is_read_as_python_reads_it(text, encoding):
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "text")
        path.write_bytes(text.encode(encoding))
        assert regular.read_text(path, encoding=encoding) == path.read_text(encoding=encoding)


@pytest.fixture
def forbidden(tmp_path, monkeypatch) -> Path:
    """A path that nobody may look at, as for a user without the rights of root."""
    place = tmp_path / "secret" / "thing"
    stat = os.stat

    def refuse(path, *args, **kwargs):
        if isinstance(path, str | os.PathLike) and "secret" in os.fspath(path):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", refuse)
    return place


def test_what_may_not_be_looked_at_is_not_called_missing(forbidden):
    for look in (regular.is_there, regular.is_folder, regular.is_file):
        with pytest.raises(regular.NotRegularError, match="cannot be looked at, Permission denied"):
            look(forbidden)
        assert look(forbidden.parent.parent / "other") is False
        assert look("a\0b") is False
