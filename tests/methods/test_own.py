"""A method in somebody's own folder is a method like ours."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from shell import in_process
from simprompt import learn, load_prompt, methods
from simprompt.config import RunConfig, Training
from simprompt.errors import SimpromptError
from simprompt.experiments.runner import identify
from simprompt.prompt.learn import prepare
from simprompt.utils import plugins
from test_prompt import shots  # noqa: F401 (a fixture)

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The method that docs/methods.md shows, in a folder."""
    (code,) = re.findall(
        r'```python\n("""my_methods.*?)```', PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    file = tmp_path / "my_methods" / "mine.py"
    file.parent.mkdir()
    file.write_text(code, encoding="utf-8")
    return file


@pytest.fixture
def named(mine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(mine.parent)])
    return mine


def test_it_learns_with_sar_and_is_read_again(named: Path, tiny_clip, shots, tmp_path: Path):  # noqa: F811
    assert "mine" in methods.names()
    training = Training(lr=0.1, epochs=3, batch_size=2)
    made = [learn(tiny_clip, shots, "mine", sar=sar, training=training, novel=["red car"] if sar
                  else None) for sar in (False, True)]  # fmt: skip
    texts = [prompt.text_features(["cat", "tree"]) for prompt in made]
    assert not torch.equal(*texts)
    made[1].save(tmp_path / "p")
    again = load_prompt(tmp_path / "p", tiny_clip)
    torch.testing.assert_close(again.text_features(["cat", "tree"]), texts[1])


def edited(file: Path) -> None:
    """Another number in its code."""
    text = file.read_text(encoding="utf-8")
    file.write_text(f"{text}\nOTHER = 1\n", encoding="utf-8")


def test_a_run_is_another_when_the_file_has_changed(named: Path):
    config = RunConfig(dataset="icons/places", model="icons", method="mine", training=Training())
    before = identify(config)
    assert identify(config).key == before.key
    edited(named)
    after = identify(config)
    assert {p for p in after.parts if after.parts[p] != before.parts[p]} == {"method"}


def test_an_edited_file_is_what_computes_and_another_folder_s_is_not(named: Path, monkeypatch):
    """In one process, as in a notebook, and where two folders have a method of one name."""
    first = methods.find("mine")
    assert methods.find("mine") is first, "nothing changed"
    text = named.read_text(encoding="utf-8")
    named.write_text(text.replace("LEARNER = ", "LEARNER = None or ", 1), encoding="utf-8")
    second = methods.find("mine")
    assert second is not first
    other = named.parent.with_name("others") / "mine.py"
    other.parent.mkdir()
    other.write_text("from simprompt.methods.coop import LEARNER", encoding="utf-8")
    ours, *_ = methods.__path__
    monkeypatch.setattr(methods, "__path__", [ours, str(other.parent)])
    assert methods.find("mine") is methods.find("coop")


def test_what_it_imports_from_its_folder_counts_as_well(named: Path):
    helper = named.with_name("helper.py")
    helper.write_text("FACTOR = 1", encoding="utf-8")
    text = named.read_text(encoding="utf-8")
    named.write_text(f"{text}\nfrom simprompt.methods.helper import FACTOR\n", encoding="utf-8")
    before, module = methods.code_of("mine"), methods.find("mine").__module__
    assert sys.modules[module].FACTOR == 1
    helper.write_text("FACTOR = 2", encoding="utf-8")
    assert methods.code_of("mine") != before
    methods.find("mine")
    assert sys.modules[module].FACTOR == 2


def test_as_a_host_it_counts_in_key_card_and_training(named: Path, tiny_clip, shots):  # noqa: F811
    host = "from simprompt.methods.coop import CoOp\nclass Mine(CoOp): ...\nLEARNER = Mine\n"
    named.write_text(host, encoding="utf-8")
    options = {"host": "mine"}

    def ready():
        training = Training(lr=0.1, epochs=2, batch_size=2)
        return prepare(tiny_clip, shots, "dept", options=options, training=training)

    config = RunConfig(dataset="icons/places", method="dept", options=options)
    old, before = identify(config), ready()
    assert before.card["method_code"].keys() == {"dept", "mine"}
    edited(named)
    new, after = identify(config), ready()
    assert {p for p in new.parts if new.parts[p] != old.parts[p]} == {"method"}
    assert after.card["method_code"]["mine"] != before.card["method_code"]["mine"]
    assert after.card["method_code"]["dept"] == before.card["method_code"]["dept"]
    assert after.key() != before.key()


def test_a_prompt_says_that_its_method_s_code_changed(named: Path, tiny_clip, shots, tmp_path):  # noqa: F811
    training = Training(lr=0.1, epochs=2, batch_size=2)
    learn(tiny_clip, shots, "mine", training=training, progress=False).save(tmp_path / "p")
    load_prompt(tmp_path / "p", tiny_clip)
    edited(named)
    with pytest.warns(UserWarning, match="learned with other code of the method mine"):
        load_prompt(tmp_path / "p", tiny_clip)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's own methods, as somebody has them who edits a checkout."""
    folder = tmp_path / "methods"
    shutil.copytree(methods.__path__[0], folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(methods, "__path__", [str(folder)])
    return folder


def test_one_of_ours_that_is_edited_is_another(copy: Path):
    def code(name: str) -> str:
        plugins._of_package.cache_clear()  # as a process that begins now
        return methods.code_of(name)

    before = {name: code(name) for name in ("coop", "kgcoop", "dept")}
    assert code("coop") == plugins.digest_of("simprompt.methods", "coop", [str(copy)])
    file = copy / "coop.py"
    text = file.read_text(encoding="utf-8")
    words = text.replace('"""', '"""More words.\n\n', 1) + "\n\n# a comment\n"
    assert words != text
    file.write_bytes(words.replace("\n", "\r\n").encode())
    assert {name: code(name) for name in before} == before, "words are no code"
    file.write_text(text + "\nOTHER = 1\n", encoding="utf-8")
    after = {name: code(name) for name in before}
    assert {name for name in before if before[name] != after[name]} == {"coop"}
    base = copy / "base.py"
    base.write_text(base.read_text(encoding="utf-8") + "\nOTHER = 1\n", encoding="utf-8")
    assert all(code(name) != after[name] for name in before), "they are built from it"


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("x = 1", "x = 1  # one", True),
        ("x = 1\n\n\ny = 2", "x = 1\ny = 2\n", True),
        ('def f():\n    "é"; return 1', 'def f():\n    "what it does"; return 1', True),
        ('class A:\n    """Of\n    lines."""\n    x = 1', "class A:\n    x = 1", True),
        ("x = '# no comment'", "x = '# none'", False),
        ("x = 'a'", "x = 'b'", False),
        ("def f():\n    x = 'a'", "def f():\n    x = 'b'", False),
        ("if a:\n    b\nc", "if a:\n    b\n    c", False),
        ("not python (", "not python [", False),
    ],
)
def test_words_do_not_count_and_all_else_does(tmp_path: Path, a: str, b: str, same: bool):
    digests = []
    for text in (a, b):
        (tmp_path / "m.py").write_text(text, encoding="utf-8")
        digests.append(plugins.digest_of("simprompt.methods", "m", ["nowhere", str(tmp_path)]))
    assert (digests[0] == digests[1]) is same


def test_ours_are_not_replaced(named: Path):
    own = methods.find("coop")
    named.with_name("coop.py").write_text("LEARNER = 3", encoding="utf-8")
    assert methods.find("coop") is own
    assert methods.own_file("coop") is None
    assert methods.own_file("mine") == named
    assert methods.own_file("nobodys") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [("LEARNER = 3", "TypeError"), ("x = 3", "LEARNER"), ("def", "SyntaxError"),
     ("1 / 0", "ZeroDivisionError: division by zero"), ("LEARNER = int", "no PromptLearner")],
)  # fmt: skip
def test_a_file_that_is_no_method_is_named(named: Path, text: str, why: str):
    named.write_text(text, encoding="utf-8")
    with pytest.raises(
        SimpromptError, match=rf"The method mine cannot be used: .*mine\.py .*{why}"
    ):
        methods.find("mine")


def test_workers_and_the_list_know_it(named: Path, tmp_path: Path, monkeypatch):
    """The variable is read where the package is loaded, as it is in every worker."""
    monkeypatch.chdir(tmp_path)
    unknown = in_process("run", "--dataset", "icons/places", "--method", "nobodys")
    assert unknown.returncode == 2
    assert "the folder that SIMPROMPT_METHODS names" in unknown.stderr
    monkeypatch.setenv("SIMPROMPT_METHODS", f"{tmp_path / 'none'}{os.pathsep}{named.parent}")
    rows = json.loads(in_process("list", "methods", "--json").stdout)
    assert {row["method"]: row["source"] for row in rows}["mine"] == "ours"
    done = in_process(
        "run", "--dataset", "icons/places", "--method", "mine", "--sar", "both", "--seeds", "1",
        "--workers", "2", "--set", "training.max_steps=2", "--shots", "2",
        "--max-test-per-class", "1", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["methods"]) == ["mine", "mine+sar"]
