"""A prompt's folder: whole, honest, and the same from the hub."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch

from loopback import Hub
from shell import in_process
from simprompt.config import SAR, Training
from simprompt.errors import SimpromptError
from simprompt.novel.run_names import filled_up
from simprompt.prompt import storage
from simprompt.prompt.learn import learn
from simprompt.prompt.loading import load_prompt
from simprompt.prompt.prompt import Prompt
from test_prompt import shots  # noqa: F401 (a fixture)

FILES = {"prompt.safetensors", "card.json", "README.md"}


@pytest.fixture
def prompt(tiny_clip, shots) -> Prompt:  # noqa: F811
    return learn(tiny_clip, shots, training=Training(lr=0.2, epochs=2, batch_size=6))


def test_a_folder_of_three_files_with_the_users_rights(prompt, tmp_path: Path):
    before = os.umask(0o027)
    try:
        place = prompt.save(tmp_path / "mine")
    finally:
        os.umask(before)
    assert place == tmp_path / "mine"
    assert {path.name for path in place.iterdir()} == FILES
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {0o640}
    assert stat.S_IMODE(place.stat().st_mode) == 0o750
    assert {path.name for path in tmp_path.iterdir()} == {"mine"}


def test_the_folder_that_learn_wrote_is_its_prompt(prompt, tmp_path: Path):
    prompt.save(tmp_path / "learned" / "prompt")
    (tmp_path / "learned" / "result.json").write_text("{}", encoding="utf-8")
    assert storage.read(tmp_path / "learned")[1] == storage.read(tmp_path / "learned" / "prompt")[1]
    with pytest.raises(SimpromptError, match="There is no saved prompt"):
        storage.read(tmp_path / "learnt")


def test_the_card_says_what_the_prompt_depends_on(tiny_clip, shots, tmp_path: Path):  # noqa: F811
    sar = SAR(weight=0.1, classes_per_step=5, novel="random-nouns", novel_count=12)
    novel = filled_up(["lion", "tiger"], sar, tiny_clip, shots.classnames, None)
    from simprompt.prompt.learn import prepare, train_alone

    made = train_alone(prepare(tiny_clip, shots, "coop", sar, novel=novel))
    card = json.loads((made.save(tmp_path / "p") / "card.json").read_text(encoding="utf-8"))
    assert card["format"] == storage.FORMAT
    assert card["novel"][:2] == ["lion", "tiger"]
    assert card["novel_digest"] == novel.sha256
    given, filled = card["novel_provenance"]["parts"]
    assert (given["source"], given["got"]) == ("given by the caller", 2)
    assert (filled["source"], filled["got"]) == ("random-nouns", len(novel) - 2)
    assert {"simprompt", "model_digest", "shots", "classnames", "options", "training"} <= set(card)


def test_the_page_has_the_hubs_metadata_and_obeys_no_name(prompt, tmp_path: Path):
    import yaml

    prompt.card["classnames"] = ["cat](http://x)<script>", "`dog`\n# title"]
    prompt.card["metrics"] = {"among your classes": {"learned": 91.25}}
    text = (prompt.save(tmp_path / "p") / "README.md").read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "simprompt"
    assert "<script>" not in body.replace("\\<script\\>", "")
    assert "\n# title" not in body
    assert "learned 91.2 %" in body


def test_a_prompt_takes_the_place_of_a_prompt_and_of_nothing_else(prompt, tmp_path: Path):
    prompt.save(tmp_path / "p")
    prompt.card["note"] = "second"
    prompt.save(tmp_path / "p")
    assert load_prompt(tmp_path / "p", prompt.clip).card["note"] == "second"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"mine")
    with pytest.raises(SimpromptError, match="holds other files"):
        prompt.save(tmp_path / "photos")
    with pytest.raises(SimpromptError, match="is a file"):
        prompt.save(tmp_path / "photos" / "a.jpg")
    assert (tmp_path / "photos" / "a.jpg").read_bytes() == b"mine"


def test_a_users_files_beside_a_prompt_stay(prompt, tmp_path: Path):
    """`tests/test_owned.py` has all of this rule; this is it through `Prompt.save`."""
    prompt.save(tmp_path / "p")
    (tmp_path / "p" / "data").mkdir()
    for name in ("my_app.py", "data/a.jpg"):
        (tmp_path / "p" / name).write_text("mine", encoding="utf-8")
    (tmp_path / "p" / "README.md").write_text("my page", encoding="utf-8")
    with pytest.warns(UserWarning, match=r"kept as README\.md\.bak"):
        prompt.save(tmp_path / "p")
    found = {p.relative_to(tmp_path / "p").as_posix() for p in (tmp_path / "p").rglob("*.*")}
    assert found == {*FILES, "README.md.bak", "my_app.py", "data/a.jpg"}
    assert (tmp_path / "p" / "README.md.bak").read_text(encoding="utf-8") == "my page"


def test_a_save_that_fails_leaves_the_old_prompt(prompt, tmp_path: Path):
    prompt.save(tmp_path / "p")
    before = {path.name: path.read_bytes() for path in (tmp_path / "p").iterdir()}
    prompt.card["note"] = "second"
    for name in ("write_text", "write_json", "save_file"):
        with (
            mock.patch.object(storage, name, side_effect=OSError(28, "No space left on device")),
            pytest.raises(SimpromptError, match="No space left"),
        ):
            prompt.save(tmp_path / "p")
        assert {path.name: path.read_bytes() for path in (tmp_path / "p").iterdir()} == before
        assert {path.name for path in tmp_path.iterdir()} == {"p"}


def test_older_and_newer_formats_and_damage(prompt, tmp_path: Path):
    place = prompt.save(tmp_path / "p")
    stem = tmp_path / "old"
    prompt.write_files(stem)  # two files side by side, as format 1 was
    card = json.loads((tmp_path / "old.json").read_text(encoding="utf-8"))
    for key in ("format", "model_digest", "model_dtype", "checksum", "novel_digest", "shots"):
        card.pop(key)
    (tmp_path / "old.json").write_text(json.dumps(card), encoding="utf-8")
    old = load_prompt(stem, prompt.clip)
    assert torch.equal(old.text_features(["cat"]), prompt.text_features(["cat"]))
    for path in (place, place / "card.json", place / "prompt.safetensors"):
        load_prompt(path, prompt.clip)
    new = json.loads((place / "card.json").read_text(encoding="utf-8"))
    (place / "card.json").write_text(json.dumps(new | {"format": 99}), encoding="utf-8")
    with pytest.raises(SimpromptError, match=r"format 99.*Update simprompt"):
        load_prompt(place, prompt.clip)
    for text in ("[]", "{}", "not json", json.dumps({**new, "method": None})):
        (place / "card.json").write_text(text, encoding="utf-8")
        with pytest.raises(SimpromptError):
            load_prompt(place, prompt.clip)
    (place / "card.json").write_text(json.dumps(new), encoding="utf-8")
    data = bytearray((place / "prompt.safetensors").read_bytes())
    data[-1] ^= 1
    (place / "prompt.safetensors").write_bytes(data)
    with pytest.raises(SimpromptError, match="not those that the card was written with"):
        load_prompt(place, prompt.clip)


# ---- the hub


@pytest.fixture(params=[10_000_000, 1000], ids=["in the commit", "in the storage"])
def uploads(request, monkeypatch) -> Iterator[Hub]:
    """A hub that the official client uploads to."""
    pytest.importorskip("huggingface_hub")
    hub = Hub(large=request.param)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    # both are read once, at import; with huggingface_hub 0.36 an answer may name no other hub
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield hub
    hub.close()


def test_pushed_and_read_back_from_the_hub(prompt, uploads, tmp_path: Path, monkeypatch):
    place = prompt.save(tmp_path / "p")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    result = in_process("export", str(place), "--to", "hub", "--out", "me/mine", "--private")
    assert (result.returncode, "rror" in result.stderr) == (0, False)
    assert "private" in (uploads.created[0].get("visibility"), *uploads.created[0])
    assert set(uploads.repos["me/mine"]) == FILES
    again = load_prompt("hf://me/mine", prompt.clip)
    assert torch.equal(again.text_features(["cat"]), prompt.text_features(["cat"]))
    load_prompt("hf://me/mine@main", prompt.clip)
    with pytest.raises(SimpromptError, match="no repository"):
        load_prompt("hf://mine", prompt.clip)
    with pytest.raises(SimpromptError):
        load_prompt("hf://me/other", prompt.clip)


def test_push_takes_what_load_prompt_takes(prompt, uploads, tmp_path: Path, monkeypatch):
    prompt.save(tmp_path / "learned" / "prompt")
    prompt.write_files(tmp_path / "run" / "prompt")
    (tmp_path / "learned" / "prompt" / "README.md").write_text("my page", encoding="utf-8")
    for place in ("learned", "learned/prompt", "learned/prompt/card.json", "run", "run/prompt"):
        load_prompt(tmp_path / place, prompt.clip)
        uploads.repos.clear()
        result = in_process("export", str(tmp_path / place), "--to", "hub", "--out", "me/mine")
        assert (result.returncode, "rror" in result.stderr) == (0, False), place
        sent = uploads.repos["me/mine"]
        assert set(sent) == FILES
        assert (sent["README.md"] == b"my page") == place.startswith("learned")


def test_no_path_of_this_computer_is_saved_or_pushed(prompt, uploads, tmp_path: Path, monkeypatch):
    prompt.card |= {
        "model": "/home/jane/clip", "tokenizer": "C:\\Users\\jane\\words.json",
        "sar": {"novel": "file:/home/jane/names.txt"}, "notes": ["~/jane/x is odd"],
        "new_classes": ["/home/jane"],
    }  # fmt: skip
    place = prompt.save(tmp_path / "p")
    written = json.loads((place / "card.json").read_text(encoding="utf-8"))
    assert [written[key] for key in ("model", "tokenizer", "sar", "notes", "new_classes")] == [
        "clip", "words.json", {"novel": "file:names.txt"}, ["x is odd"], ["/home/jane"],
    ]  # fmt: skip
    assert "jane" not in (place / "README.md").read_text(encoding="utf-8").replace("home/jane", "")
    for key, path in (("model", "/home/jane/clip"), ("sar", {"novel": "file:/home/jane/names"})):
        (place / "card.json").write_text(json.dumps({**written, key: path}), encoding="utf-8")
        result = in_process("export", str(place), "--to", "hub", "--out", "me/mine")
        assert result.returncode == 2
        assert "a path of this computer" in result.stderr
        assert not uploads.repos


def test_what_is_no_prompt_is_not_pushed(prompt, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(SimpromptError, match="no saved prompt"):
        storage.push(tmp_path / "nothing", "me/mine")
    with pytest.raises(SimpromptError, match="not a saved prompt"):
        storage.push(tmp_path / "photos", "me/mine")
