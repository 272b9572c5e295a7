"""`simprompt explain`: the numbers on the page, and that no name is obeyed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import simprompt
from shell import in_process
from simprompt.clip.hub import load_clip
from simprompt.errors import SimpromptError
from simprompt.report.explain import explanation, write


@pytest.fixture(scope="module")
def data():
    return simprompt.load_dataset("icons/food")


@pytest.fixture(scope="module")
def prompt(data):
    return simprompt.learn(load_clip("icons"), data.base.few_shot(2, seed=1),
                           training={"max_steps": 10})  # fmt: skip


def test_numbers_are_those_of_the_definitions(prompt):
    names = ["pizza", "bread", "teapot"]
    made = explanation(prompt, names)
    before, after = prompt.learner.teacher(names), prompt.text_features(names)
    torch.testing.assert_close(made.after, after @ after.T)
    for name, cosine in made.moved:
        i = names.index(name)
        assert cosine == pytest.approx(float(before[i] @ after[i]), abs=1e-5)
    assert [c for _, c in made.moved] == sorted(c for _, c in made.moved)
    rises = [later - earlier for _, _, earlier, later in made.nearer]
    assert rises == sorted(rises, reverse=True)
    assert len(made.nearer) == 3


def test_the_words_of_a_context_that_is_words_are_these(prompt):
    table = prompt.clip.text.token_embedding.weight
    ids = prompt.clip.tokenizer.encode("icon of a")
    kept = prompt.learner.ctx.detach().clone()
    with torch.no_grad():
        prompt.learner.ctx[: len(ids)] = table[ids]
    made = explanation(prompt, ["pizza", "bread"])
    with torch.no_grad():
        prompt.learner.ctx.copy_(kept)
    for row, token in zip(made.words, ids, strict=False):
        word, distance = row[0]
        assert word == prompt.clip.tokenizer.decode([token])
        assert distance == pytest.approx(0, abs=1e-3)


def test_the_page_is_made_on_the_command_line(prompt, data, tmp_path: Path):
    prompt.save(tmp_path / "p")
    test = data.base.test
    for label, rows in list(test.rows_by_label().items())[:3]:
        for row in rows[:3]:
            place = tmp_path / "held" / test.classnames[label]
            place.mkdir(parents=True, exist_ok=True)
            test.load(row).save(place / f"{row}.png")
    out = tmp_path / "page.html"
    result = in_process("explain", str(tmp_path / "p"), "--images", str(tmp_path / "held"),
                        "--out", str(out))  # fmt: skip
    assert result.returncode == 0, result.stderr
    text = out.read_text(encoding="utf-8")
    assert text.count("<svg") == 3
    assert "of 9 images are right" in text
    small = in_process("explain", str(tmp_path / "p"), "--out", str(out))
    assert small.returncode == 0
    assert in_process("explain", str(tmp_path / "p"), "--out", str(tmp_path)).returncode == 2


def test_no_name_is_obeyed(prompt, tmp_path: Path):
    evil = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "pizza"]
    prompt.card["template"] = "a </p><script>x</script> {}."
    write(prompt, evil, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img src=x" not in text


def test_what_has_no_text_is_said(data):
    shots = data.base.few_shot(2, seed=1)
    probe = simprompt.learn(load_clip("icons"), shots, "linear-probe", training={"max_steps": 2})
    with pytest.raises(SimpromptError, match="classifier of images"):
        explanation(probe, ["a", "b"])
