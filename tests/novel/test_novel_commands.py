"""`simprompt novel-names` and the lab's commands on a tiny CLIP, with --json and without."""

import json
import os

import pytest
from benchmarks.novel_lab.program import app as lab
from typer.testing import CliRunner

from simprompt.cli.main import app
from simprompt.errors import SimpromptError
from simprompt.novel.names import hash_names

BASE = ["cat", "dog", "fish", "bird", "horse", "cow"]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "base.txt").write_text("\n".join(BASE), encoding="utf-8")
    (tmp_path / "new.txt").write_text("lion\nbear\n", encoding="utf-8")
    (tmp_path / "mine.txt").write_text(
        "lion\nwolf\nfox\nowl\ntree\nCat\nrose\nkitty cat\n", encoding="utf-8"
    )
    return tmp_path


@pytest.fixture
def run(files, tiny_clip, monkeypatch):
    """run(*arguments) -> (stdout, stderr); base and new classes are given."""
    monkeypatch.setattr("simprompt.clip.hub.load_clip", lambda name: tiny_clip)

    def go(*arguments, base=True):
        given = ["--base-classes", str(files / "base.txt")]
        given += ["--new-classes", str(files / "new.txt")]
        result = CliRunner().invoke(
            lab if arguments[0] in ("inspect", "compare", "select") else app,
            [*arguments, *(given if base else [])],
        )
        if result.exception:
            raise result.exception
        return result.stdout, result.stderr

    return go


def test_list_shows_sources_and_bundled_lists(run):
    shown, _ = run("list", "novel-names", base=False)
    assert "wordnet" in shown
    assert "oxford_pets" in shown
    value = json.loads(run("list", "novel-names", "--json", base=False)[0])
    assert {row["dataset"] for row in value["bundled"]} >= {"dtd", "imagenet"}
    names, _ = run("list", "novel-names", "--dataset", "dtd", base=False)
    assert len(names.splitlines()) == 200


def test_generate_prints_names_and_tells_on_stderr(run, files):
    out = files / "list.json"
    shown, told = run("novel-names", str(files / "mine.txt"), "--out", str(out))
    assert shown.split("\n")[:3] == ["wolf", "fox", "owl"]
    assert "1 of the real new classes removed" in told
    value = json.loads(out.read_text(encoding="utf-8"))
    assert value["sha256"] == hash_names(value["names"])
    value = json.loads(run("novel-names", f"file:{out}:3", "--json")[0])
    assert value["names"] == ["wolf", "fox", "owl"]


def test_oracle_is_printed_in_red(run):
    shown, told = run("novel-names", "oracle")
    assert set(shown.split()) == {"lion", "bear"}
    assert "for study only" in " ".join(told.split())


def test_inspect_measures_draws_and_names_the_worst(run, files):
    shown, _ = run("inspect", str(files / "mine.txt"), "--map", str(files / "map.png"))
    assert "coverage" in shown
    assert (files / "map.png").stat().st_size > 5000
    value = json.loads(run("inspect", str(files / "mine.txt"), "--json")[0])
    assert value["count"] == 6
    assert value["exact_overlap"] == 1
    assert set(value) >= {"nearest", "spread", "synonyms", "coverage", "new_reached", "offenders"}


def test_compare_puts_lists_side_by_side(run, files):
    shown, _ = run("compare", str(files / "mine.txt"), "random-nouns:20")
    assert "random-nouns:20" in shown
    value = json.loads(run("compare", str(files / "mine.txt"), "random-nouns:20", "--json")[0])
    assert [column["count"] for column in value.values()] == [6, 20]


@pytest.mark.parametrize("criterion", ["coverage", "k-centre", "random"])
def test_select_chooses_and_writes(run, files, criterion):
    out = files / "few.json"
    value = json.loads(
        run("select", "--from", "random-nouns:60", "--count", "9", "--criterion", criterion,
            "--out", str(out), "--json")[0]
    )  # fmt: skip
    assert len(value["names"]) == 9
    assert value["provenance"]["chosen_by"] == criterion
    assert value["provenance"]["from"] == 60
    assert json.loads(out.read_text(encoding="utf-8")) == value


def test_errors_are_one_paragraph(run, files):
    with pytest.raises(SimpromptError, match="--dataset"):
        run("inspect", "random-nouns", base=False)
    with pytest.raises(SimpromptError, match="not a source"):
        run("novel-names", "missing.txt")


def test_help_is_there_for_every_verb(run):
    for verb in ("list", "novel-names", "inspect", "compare", "select"):
        shown, _ = run(verb, "--help", base=False)
        assert "--json" in shown


def test_the_model_that_is_asked_is_forgotten_afterwards(run, monkeypatch):
    from simprompt.novel import llm
    from simprompt.novel.names import NovelNameError

    def refuse(base, topic, n, ask, folder):
        raise NovelNameError(f"asked {ask.model}")

    monkeypatch.setattr(llm, "generate", refuse)
    monkeypatch.delenv("SIMPROMPT_LLM_MODEL", raising=False)
    with pytest.raises(NovelNameError, match="asked tiny-model"):
        run("novel-names", "llm", "--llm-model", "tiny-model")
    assert "SIMPROMPT_LLM_MODEL" not in os.environ
