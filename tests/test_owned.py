"""A folder's other files survive every write, and a write that fails or is killed leaves the old
version readable."""

from __future__ import annotations

import json
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from faults import Disk, failing
from simprompt.errors import SimpromptError
from simprompt.prompt import storage
from simprompt.utils.files.atomic import checksum
from simprompt.utils.files.owned import CHECKSUMS, FORMER, check_owned, current, replacing_owned

pytestmark = pytest.mark.integration

CARD = {
    "method": "coop", "options": {}, "model": "icons", "classnames": ["cat", "dog"],
    "template": "a photo of a {}.", "seed": 1,
}  # fmt: skip
OWN = {"prompt.safetensors", "card.json", "README.md"}


def save(folder: Path, number: int) -> None:
    storage.write(folder, {"context": torch.full((2,), float(number))}, {**CARD, "number": number})


def number_in(folder: Path) -> int:
    """Which version is read; an error if its weights are another's."""
    state, card, _ = storage.read(folder)
    assert state["context"].tolist() == [card["number"]] * 2
    return int(card["number"])


def export(folder: Path, names: list[str], number: int) -> None:
    """What an export writes, in small: files that come and go, some in a folder."""
    check_owned(folder, "export.json", "export")
    with replacing_owned(folder, "export.json") as partial:
        for name in names:
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_text(f"{name} {number}", encoding="utf-8")
        (partial / "export.json").write_text(json.dumps({"number": number}), encoding="utf-8")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


NAMES = st.sampled_from(
    ["notes.txt", "my_app.py", "data/a.jpg", "card.json.old", ".git/HEAD", "runtime/mine.py",
     "README.txt", ".hidden", "prompt.safetensors.txt", "deep/er/still"]
)  # fmt: skip
EXPORTED = st.lists(
    st.sampled_from(["image.onnx", "text.onnx", "predict.py", "runtime/bpe.py", "runtime/a.py"]),
    min_size=1, unique=True,
)  # fmt: skip


@settings(max_examples=60)
@given(st.dictionaries(NAMES, st.binary(max_size=8)), st.lists(EXPORTED, min_size=1, max_size=4))
def test_other_files_survive_any_sequence_of_writes(tmp_path_factory, others, exports):
    root = tmp_path_factory.mktemp("folder")
    save(root / "p", 0)
    export(root / "e", exports[0], 0)
    for folder in (root / "p", root / "e"):
        for name, data in others.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    for number, names in enumerate(exports, start=1):
        save(root / "p", number)
        export(root / "e", names, number)
        assert number_in(root / "p") == number
        assert contents(root / "p").keys() == {*others, *OWN}
        assert contents(root / "e").keys() == {*others, *names, "export.json"}
        assert all((root / "e" / n).read_text(encoding="utf-8") == f"{n} {number}" for n in names)
        for folder in (root / "p", root / "e"):
            assert {name: (folder / name).read_bytes() for name in others} == others


@pytest.mark.parametrize("name", sorted(OWN))
def test_a_file_of_ours_that_the_user_changed_is_kept(tmp_path, name):
    save(tmp_path / "p", 1)
    (tmp_path / "p" / name).write_text("mine", encoding="utf-8")
    for number in (2, 3):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            save(tmp_path / "p", number)
        assert number_in(tmp_path / "p") == number
        assert (tmp_path / "p" / f"{name}.bak").read_text(encoding="utf-8") == "mine"
        told = [str(one.message) for one in said if "is kept as" in str(one.message)]
        if name == "card.json" and number == 2:  # without its record nothing is known to be ours
            assert len(told) == 2  # the page is what it would be replaced by
        else:
            assert [f"{name}.bak" in text for text in told] == [True] * (number == 2)


def test_an_exported_file_that_the_user_changed_stays_though_it_is_not_exported_again(tmp_path):
    export(tmp_path, ["predict.py", "image.onnx"], 1)
    (tmp_path / "predict.py").write_text("mine", encoding="utf-8")
    export(tmp_path, ["image.onnx"], 2)
    assert (tmp_path / "predict.py").read_text(encoding="utf-8") == "mine"


def test_what_python_compiled_of_ours_goes_with_it(tmp_path):
    export(tmp_path / "e", ["runtime/bpe.py"], 1)
    (tmp_path / "e/runtime/__pycache__").mkdir()
    (tmp_path / "e/runtime/__pycache__/bpe.cpython-311.pyc").write_bytes(b"x")
    export(tmp_path / "e", ["image.onnx"], 2)
    assert contents(tmp_path / "e").keys() == {"image.onnx", "export.json"}
    assert not (tmp_path / "e/runtime").exists()


def test_a_card_that_names_files_elsewhere_deletes_none(tmp_path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    export(tmp_path / "e", ["image.onnx"], 1)
    card = json.loads((tmp_path / "e/export.json").read_text(encoding="utf-8"))
    mine = checksum(b"mine")
    card[CHECKSUMS] |= {
        "../mine.txt": mine,
        str(tmp_path / "mine.txt"): mine,
        "a/../../mine.txt": mine,
    }
    (tmp_path / "e/export.json").write_text(json.dumps(card), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(tmp_path / "e", ["text.onnx"], 2)
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "mine"


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    save(tmp_path / "disk" / "p", 1)
    (tmp_path / "disk" / "p" / "notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "p").symlink_to(tmp_path / "disk" / "p")
    (tmp_path / "new").symlink_to(tmp_path / "disk" / "not there yet")
    save(tmp_path / "p", 2)
    save(tmp_path / "new", 3)
    assert (tmp_path / "p").is_symlink()
    assert (tmp_path / "new").is_symlink()
    assert number_in(tmp_path / "disk" / "p") == 2
    assert (tmp_path / "disk" / "p" / "notes.txt").exists()
    assert number_in(tmp_path / "disk" / "not there yet") == 3


def test_the_folder_itself_stays(tmp_path, monkeypatch):
    """A mount or somebody's working folder is not renamed; empty ones are filled."""
    for name in ("p", "empty"):
        (tmp_path / name).mkdir()
    save(tmp_path / "p", 1)
    before = {name: (tmp_path / name).stat().st_ino for name in ("p", "empty")}
    monkeypatch.chdir(tmp_path / "p")
    save(Path(), 2)
    save(tmp_path / "empty", 3)
    assert number_in(Path()) == 2
    assert {name: (tmp_path / name).stat().st_ino for name in before} == before


def test_a_read_only_file_or_a_folder_in_its_place_stops_the_save(tmp_path):
    save(tmp_path / "p", 1)
    (tmp_path / "p" / "README.md").chmod(0o444)
    with pytest.raises(SimpromptError, match=r"README\.md cannot be written: Permission denied"):
        save(tmp_path / "p", 2)
    assert stat.S_IMODE((tmp_path / "p" / "README.md").stat().st_mode) == 0o444
    assert number_in(tmp_path / "p") == 1
    (tmp_path / "p" / "README.md").unlink()
    (tmp_path / "p" / "README.md").mkdir()
    with pytest.raises(SimpromptError, match=r"README\.md cannot be written: Is a directory"):
        save(tmp_path / "p", 2)
    assert number_in(tmp_path / "p") == 1


# ---- a disk that refuses, a process that is killed


class Killed(BaseException):
    """Nothing that follows it changes the disk, as after SIGKILL."""


@contextmanager
def killed(at: int) -> Iterator[list[int]]:
    """The process dies before the change of this number, counted from 1; 0 only counts."""
    count = [0]

    def guarded(real: Callable) -> Callable:
        def call(*args, **more):
            count[0] += 1
            if at and count[0] >= at:
                raise Killed
            return real(*args, **more)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "rename", "mkdir", "rmdir", "unlink", "link", "remove"):
            patch.setattr(os, name, guarded(getattr(os, name)))
        patch.setattr("shutil.rmtree", guarded(__import__("shutil").rmtree))
        with suppress(Killed):
            yield count


def prepared(folder: Path) -> None:
    save(folder, 1)
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    (folder / "README.md").write_text("my page", encoding="utf-8")


@pytest.mark.filterwarnings("ignore:.*is kept as")
def test_killed_at_any_change_it_is_the_old_prompt_or_the_new(tmp_path):
    prepared(tmp_path / "0")
    with killed(0) as count:
        save(tmp_path / "0", 2)
    assert count[0] > 10
    seen = set()
    for at in range(1, count[0] + 1):
        folder = tmp_path / str(at)
        prepared(folder)
        with killed(at):
            save(folder, 2)
        seen.add(number_in(folder))
        assert (folder / "notes.txt").read_text(encoding="utf-8") == "mine"
        storage.read(folder / "card.json" if (folder / "card.json").exists() else folder)
        with killed(at):  # the next one dies as well
            save(folder, 3)
        assert number_in(folder) in (1, 2, 3)
        save(folder, 4)
        assert number_in(folder) == 4
        assert (folder / "notes.txt").read_text(encoding="utf-8") == "mine"
        backups = [p.read_text(encoding="utf-8") for p in folder.glob("README.md.bak*")]
        assert "my page" in backups
        assert not (folder / FORMER).exists()
    assert seen == {1, 2}


@pytest.mark.filterwarnings("ignore:.*is kept as")
def test_refused_at_any_change_it_is_the_old_prompt_and_all_files_are_there(tmp_path):
    prepared(tmp_path / "0")
    with failing(Disk(tmp_path / "0")) as disk:
        save(tmp_path / "0", 2)
    for at in range(1, disk.count + 1):
        folder = tmp_path / str(at)
        prepared(folder)
        before = contents(folder)
        with failing(Disk(folder, at)), suppress(SimpromptError):
            save(folder, 2)
        now = contents(folder)
        if number_in(folder) == 1:
            assert now == before, at
        assert now["notes.txt"] == b"mine"
        assert b"my page" in now.values()
        assert not [name for name in now if name.startswith(".")], at


def test_a_reader_never_sees_two_versions(tmp_path):
    save(tmp_path / "p", 0)
    (tmp_path / "p" / "notes.txt").write_text("mine", encoding="utf-8")
    stop, wrong, reads = threading.Event(), [], [0]

    def reader() -> None:
        while not stop.is_set():
            try:
                number_in(tmp_path / "p")
                reads[0] += 1
            except BaseException as error:
                wrong.append(error)
                return

    threads = [threading.Thread(target=reader) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, 60):
        save(tmp_path / "p", number)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]
    assert reads[0] > 10


def test_several_writers_leave_one_whole_version(tmp_path):
    def writer(number: int) -> None:
        for _ in range(5):
            save(tmp_path / "p", number)

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert number_in(tmp_path / "p") in range(4)
    assert contents(tmp_path / "p").keys() == OWN


def test_the_old_files_are_found_where_the_card_is_not(tmp_path):
    save(tmp_path / "p", 1)
    assert current(tmp_path / "p", "card.json") == tmp_path / "p"
    (tmp_path / "p" / FORMER).mkdir()
    for name in OWN:
        (tmp_path / "p" / name).rename(tmp_path / "p" / FORMER / name)
    assert current(tmp_path / "p", "card.json") == tmp_path / "p" / FORMER
    assert load((tmp_path / "p" / FORMER / "prompt.safetensors").read_bytes())
    assert number_in(tmp_path / "p") == 1
