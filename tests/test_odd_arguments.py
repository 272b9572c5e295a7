"""Odd arguments to everything that `import simprompt` offers: it works or raises SimpromptError.

Each call is tried with each odd value in the place of each of its arguments. Whether a value is
refused is not asked: 0 images or a huge seed may be fine. That no other error comes out is.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import simprompt
from simprompt.cli.main import app
from simprompt.errors import SimpromptError
from simprompt.experiments.sweep import make

pytestmark = pytest.mark.integration

ODD: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "empty text": lambda: "",
    "a null byte": lambda: "\0",
    "half a surrogate": lambda: "\ud800",
    "a long text": lambda: "a" * 5000,
    "bytes": lambda: b"cat",
    "NaN": lambda: math.nan,
    "-1": lambda: -1,
    "0": lambda: 0,
    "a huge number": lambda: 10**30,
    "0.5": lambda: 0.5,
    "an empty list": list,
    "a dictionary": lambda: {"a": None},
    "a list of None": lambda: [None],
    "two equal names": lambda: ["cat", "cat"],
    "a generator": lambda: (name for name in ("cat", "dog")),
    "an object": object,
    "an array": lambda: np.zeros((2, 2)),
    "a tensor": lambda: torch.full((3, 4, 4), math.nan),
    "a path that is none": lambda: Path("no/such\0path"),
}  # fmt: skip


@cache
def clip():
    return simprompt.load_clip("icons")


@cache
def data():
    return simprompt.load_dataset("icons/animals")


@cache
def shots():
    return data().base.few_shot(1).take(range(4))


@cache
def prompt():
    return simprompt.learn(clip(), shots(), training={"max_steps": 1}, progress=False)


PICTURES = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]


def learn(**arguments):
    values = {"clip": clip(), "shots": shots(), "training": {"max_steps": 1}, "progress": False}
    return simprompt.learn(**(values | arguments))


def fitted(**arguments):
    values = {"sar": False, "training": {"max_steps": 1}}
    return simprompt.PromptClassifier(**(values | arguments)).fit(PICTURES, ["cat", "dog"])


CALLS: dict[str, Callable[[Any, Path], Any]] = {
    "load_clip": lambda odd, _: simprompt.load_clip(odd),
    **{
        f"load_clip {name}": lambda odd, _, name=name: simprompt.load_clip("icons", **{name: odd})
        for name in ("tokenizer", "dtype", "device")
    },
    "load_dataset": lambda odd, _: simprompt.load_dataset(odd),
    "load_dataset root": lambda odd, _: simprompt.load_dataset("dtd", odd),
    "load_prompt": lambda odd, _: simprompt.load_prompt(odd),
    "load_prompt clip": lambda odd, at: simprompt.load_prompt(prompt().save(at / "p"), odd),
    **{
        f"learn {name}": lambda odd, _, name=name: learn(**{name: odd})
        for name in ("clip", "shots", "method", "recipe", "options")
    },
    "few_shot": lambda odd, _: data().base.few_shot(odd),
    "few_shot seed": lambda odd, _: data().base.few_shot(1, odd),
    "Prompt.predict": lambda odd, _: prompt().predict(odd),
    "Prompt.predict many": lambda odd, _: prompt().predict([odd]),
    "Prompt.predict classes": lambda odd, _: prompt().predict(PICTURES, odd),
    "Prompt.stream": lambda odd, _: list(prompt().stream(odd)),
    "Prompt.stream batch": lambda odd, _: list(prompt().stream(PICTURES, batch=odd)),
    "Prompt.text_features": lambda odd, _: prompt().text_features(odd),
    "Prompt.probabilities": lambda odd, _: prompt().probabilities(odd),
    "Prompt.probabilities names": lambda odd, _: prompt().probabilities(shots(), odd),
    "Prompt.accuracy": lambda odd, _: prompt().accuracy(odd),
    "Prompt.classifier": lambda odd, _: prompt().classifier(odd),
    "Prompt.save": lambda odd, at: prompt().save(at / odd if isinstance(odd, str) else odd),
    "PromptClassifier method": lambda odd, _: fitted(method=odd),
}  # fmt: skip


TEXTS = ("", " ", "nan", "-1", "0", "1e999", "9" * 400, "{}", "../x", "a" * 3000, "a,b", "\u202e",
         "é=1", "lr=nan", "/dev/null")  # fmt: skip
OPTIONS = ("--model", "--method", "--sar", "--shots", "--seeds", "--tokenizer", "--image-size",
           "--device", "--dtype", "--set", "--recipe", "--max-test-per-class", "--workers",
           "--batch-runs", "--tracker", "--dataset", "--grid", "--metric", "--rename", "--template",
           "--seed", "--new-classes", "--new-test-images")  # fmt: skip


def outcome(call: Callable[[Any, Path], Any], odd: Any, folder: Path) -> str:
    """What came out besides an answer or a SimpromptError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call(odd, folder)
        except SimpromptError as error:
            return "" if str(error) else "a SimpromptError that says nothing"
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:120]}"
    return ""


@pytest.mark.parametrize("name", CALLS)
def test_an_odd_argument_is_taken_or_refused_with_a_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # relative paths and empty ones lie there
    made = {what: outcome(CALLS[name], odd(), tmp_path) for what, odd in ODD.items()}
    assert not {what: wrong for what, wrong in made.items() if wrong}


@pytest.mark.parametrize("verb", ["learn", "run", "tune"])
@pytest.mark.parametrize("option", OPTIONS)
def test_an_odd_option_is_taken_or_refused_with_a_sentence(verb, option, tmp_path, monkeypatch):
    """Nothing is trained: what would be is stopped there."""

    def stop(*_: object, **__: object) -> None:
        raise SimpromptError("far enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(make, "make_runs", stop)
    monkeypatch.setattr("simprompt.data.own_images.folder.load", stop)
    needed = {"learn": ["images"], "run": ["--dataset", "icons/animals"],
              "tune": ["--dataset", "icons/animals", "--grid", "lr=0.1,0.2"]}[verb]  # fmt: skip
    for text in TEXTS:
        result = CliRunner().invoke(app, [verb, *needed, f"{option}={text}"])
        error = result.exception
        assert isinstance(error, SimpromptError | SystemExit), (text[:50], error)
        assert result.exit_code, text[:50]
