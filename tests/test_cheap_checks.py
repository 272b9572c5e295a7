"""What costs nothing to check is checked before images are read and before anything is trained."""

from __future__ import annotations

import pytest
from PIL import Image
from typer.testing import CliRunner

from simprompt.cli.main import app
from simprompt.data.own_images import folder
from simprompt.novel.sources import bundled_list


@pytest.fixture
def shapes(tmp_path):
    for name in ("circle", "square", "star", "heart"):
        for number in range(8):
            path = tmp_path / "shapes" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            colour = (30 * number, len(name) * 20, 90)
            Image.new("RGB", (16, 16), colour).save(path)
    return tmp_path / "shapes"


def call(monkeypatch, *arguments, reads=False):
    """Exit code and all output of the program; with `reads`, images may be opened."""

    def read(*_, **__):
        raise AssertionError("images were read")

    if not reads:
        monkeypatch.setattr(folder, "load", read)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert not isinstance(result.exception, AssertionError), result.exception
    return result.exit_code, result.output + str(result.exception or "")


MISTAKES = [
    (["--model", "no-such-model"], "There is no model called 'no-such-model'"),
    (["--model", "hub:one"], "names no repository"),
    (["--tokenizer", "no/such/file"], "there is no no/such/file"),
    (["--method", "no-such-method"], "no-such-method"),
    (["--recipe", "no-such-recipe"], "no-such-recipe"),
    (["--set", "training.no=1"], "no"),
    (["--dtype", "float8"], "float8"),
    (["--device", "no-such-device"], "no-such-device"),
]


@pytest.mark.parametrize("verb", ["learn", "run", "tune"])
@pytest.mark.parametrize(("mistake", "said"), MISTAKES, ids=lambda value: str(value)[:30])
def test_a_mistake_is_said_once_and_before_images_are_read(
    monkeypatch, tmp_path, shapes, verb, mistake, said
):
    images = [shapes] if verb == "learn" else ["--dataset", shapes]
    grid = ["--grid", "lr=0.1,0.2"] if verb == "tune" else []
    code, output = call(monkeypatch, verb, *images, *grid, "--out", tmp_path / "out", *mistake)
    assert code
    assert said in output
    assert output.count(said) <= 2  # one for the exception itself
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["run", "tune"])
@pytest.mark.parametrize("source", ["bundled", "file:no-such-file.txt", "no-such-source"])
def test_names_that_cannot_be_had_stop_a_run_before_its_first_training(
    monkeypatch, tmp_path, shapes, verb, source
):
    grid = ["--grid", "lr=0.1,0.2"] if verb == "tune" else []
    code, output = call(
        monkeypatch, verb, "--dataset", shapes, *grid, "--out", tmp_path / "out",
        "--set", f"sar.novel={source}",
    )  # fmt: skip
    assert code
    assert "sar.novel" in output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["run", "tune"])
def test_own_images_take_the_novel_names_that_learn_takes(monkeypatch, tmp_path, shapes, verb):
    """No list ships for them, so `learn` draws nouns at random; so do the others."""
    grid = ["--grid", "sar.weight=0.1"] if verb == "tune" else ["--seeds", "1"]
    code, output = call(
        monkeypatch, verb, "--dataset", shapes, *grid, "--out", tmp_path / "out", "--json",
        "--set", "training.max_steps=1", "--set", "training.shots=4", "--set", "sar.novel_count=9",
        reads=True,
    )  # fmt: skip
    assert code == 0, output
    results = [path.read_text("utf-8") for path in (tmp_path / "out").rglob("result.json")]
    assert any('"source": "random-nouns"' in result for result in results)


def test_advice_is_not_the_command_that_just_failed(monkeypatch, tmp_path):
    (tmp_path / "base.txt").write_text("cat\ndog\n", encoding="utf-8")
    code, output = call(
        monkeypatch, "novel-names", "bundled", "--base-classes", tmp_path / "base.txt"
    )
    assert code
    assert "`simprompt novel-names`" not in output
    assert "wordnet" in output
    assert bundled_list("icons/animals")["names"]
