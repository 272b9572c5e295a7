"""`learn_folder` does for Python what `simprompt learn` does for the shell."""

from __future__ import annotations

import json

import pytest
import torch

import simprompt
from shell import in_process
from simprompt.errors import SimpromptError
from simprompt.workflow import LearnedFolder, Reporter, learn_folder

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("workflow") / "photos"
    shots = simprompt.load_dataset("icons/food").base.few_shot(6, seed=1)
    names = shots.classnames[:3]
    for row, label in enumerate(shots.labels):
        if shots.classnames[label] in names:
            place = root / shots.classnames[label]
            place.mkdir(parents=True, exist_ok=True)
            shots.load(row).save(place / f"{row}.png")
    return root


QUICK = {"settings": ["training.epochs=2"], "model": "icons", "shots": 4}
WORDS = ("--set", "training.epochs=2", "--model", "icons", "--shots", "4")


def test_it_is_the_command_to_the_bit(photos, tmp_path):
    (tmp_path / "new.txt").write_text("teapot\nwhisk\n", encoding="utf-8")
    done = in_process("learn", str(photos), *WORDS, "--new-classes", str(tmp_path / "new.txt"),
                      "--out", str(tmp_path / "shell"), "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    notes: list[str] = []
    reporter = Reporter(note=notes.append, warning=lambda sentence: None)
    made = learn_folder(
        photos, tmp_path / "python", new_classes=["teapot", "whisk"], reporter=reporter, **QUICK
    )
    by_shell = json.loads(done.stdout)
    places = ("prompt", "seconds")
    shared = {key: value for key, value in made.result.items() if key not in places}
    assert shared == {key: value for key, value in by_shell.items() if key not in places}
    prompts = [simprompt.load_prompt(tmp_path / place / "prompt") for place in ("shell", "python")]
    for key, value in prompts[0].learner.state_dict().items():
        assert torch.equal(value, prompts[1].learner.state_dict()[key])
    assert any("classes" in note for note in notes)
    for name in ("result.json", "report.html", "wrong.csv"):
        assert (tmp_path / "python" / name).is_file()


def test_the_result_is_a_value(photos, tmp_path):
    made = simprompt.learn_folder(photos, tmp_path / "out", calibrated=False, **QUICK)
    assert isinstance(made, LearnedFolder)
    assert made.calibration is None
    assert made.prompt.predict(next(photos.rglob("*.png"))).name in made.prompt.classes
    assert {"coop+sar", "zero-shot"} <= {*made.accuracy["among your classes"]}
    assert made.verdict
    assert "classifier" in made._repr_html_()
    again = simprompt.learn_folder(
        photos, tmp_path / "out", calibrated=False, model="icons", shots=4,
        settings={"training.epochs": 2},
    )  # fmt: skip
    assert again.accuracy == made.accuracy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shotz": 4}, "no option 'shotz'. Did you mean 'shots'"),
        ({"method": "linear-probe", "new_classes": ["x"]}, "no others: leave the new classes out"),
        ({"sar": "both"}, "--sar takes off, on or a weight"),
        ({"model": "nowhere"}, "no model called 'nowhere'"),
        ({"device": "warp"}, "warp"),
    ],
)
def test_what_is_wrong_is_an_error_before_anything_is_learned(photos, tmp_path, options, message):
    with pytest.raises(SimpromptError, match=message):
        learn_folder(photos, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
