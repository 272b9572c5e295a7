"""A method in somebody's own folder is a method like ours."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch

from shell import in_process
from simprompt import learn, load_prompt, methods
from simprompt.config import RunConfig, Training
from simprompt.errors import SimpromptError
from simprompt.protocols import identify
from test_prompt import shots  # noqa: F401 (a fixture)

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
    monkeypatch.delitem(sys.modules, "simprompt.methods.mine", raising=False)
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


def test_a_run_is_another_when_the_file_has_changed(named: Path):
    config = RunConfig(dataset="icons/places", model="icons", method="mine", training=Training())
    before = identify(config).key
    assert identify(config).key == before
    named.write_text(named.read_text(encoding="utf-8") + "# other\n", encoding="utf-8")
    assert identify(config).key != before


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
    rows = json.loads(in_process("methods", "list", "--json").stdout)
    assert {row["method"]: row["source"] for row in rows}["mine"] == "ours"
    done = in_process(
        "run", "--dataset", "icons/places", "--method", "mine", "--sar", "both", "--seeds", "1",
        "--workers", "2", "--set", "training.max_steps=2", "--shots", "2",
        "--max-test-per-class", "1", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["methods"]) == ["mine", "mine+sar"]
