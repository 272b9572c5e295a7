"""What was pushed again is what is loaded; without the hub, what was loaded before."""

from __future__ import annotations

import pytest
import torch

from simprompt import learn, load_prompt
from simprompt.clip import hub as models
from simprompt.clip.layouts.open_clip import save_open_clip
from simprompt.config import Training
from simprompt.errors import SimpromptError
from simprompt.utils.files import hub as fetch
from simprompt.utils.files.hub_requests import FetchError
from test_prompt import shots  # noqa: F401 (a fixture)

REPO = "me/mine"


@pytest.fixture
def prompts(tiny_clip, shots, tmp_path) -> list[dict[str, bytes]]:  # noqa: F811
    """The files of two prompts."""
    made = []
    for seed in (1, 2):
        training = Training(lr=0.1, epochs=2, batch_size=2)
        prompt = learn(tiny_clip, shots, training=training, seed=seed, progress=False)
        folder = prompt.save(tmp_path / f"p{seed}")
        made.append({p.name: p.read_bytes() for p in folder.iterdir()})
    return made


def seed_of(clip, place: str = f"hf://{REPO}") -> int:
    return load_prompt(place, clip).card["seed"]


def test_a_prompt_that_is_pushed_again_is_loaded(hub, prompts, tiny_clip, monkeypatch):
    first = hub.push(REPO, prompts[0])
    assert seed_of(tiny_clip) == 1
    second = hub.push(REPO, prompts[1])
    assert seed_of(tiny_clip) == 2
    assert seed_of(tiny_clip, f"hf://{REPO}@main") == 2
    asked = len(hub.log)
    assert seed_of(tiny_clip, f"hf://{REPO}@{first}") == 1
    assert seed_of(tiny_clip, f"hf://{REPO}@{second}") == 2
    assert len(hub.log) == asked, "a commit is what it is"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert seed_of(tiny_clip) == 2
    assert len(hub.log) == asked


def test_of_files_that_did_not_change_none_is_downloaded(hub, prompts, tiny_clip):
    hub.push(REPO, prompts[0])
    load_prompt(f"hf://{REPO}", tiny_clip)
    hub.push(REPO, {**prompts[0], "README.md": b"other words"})
    asked = len(hub.log)
    load_prompt(f"hf://{REPO}", tiny_clip)
    assert {method for method, *_ in hub.log[asked:]} == {"HEAD"}
    asked = len(hub.log)
    load_prompt(f"hf://{REPO}", tiny_clip)
    assert len(hub.log) - asked <= 2, "one question, which the hub may answer by a redirect"


@pytest.mark.parametrize("trouble", ["down", "gone", "busy"])
def test_without_an_answer_the_version_of_before_is_used_and_said(
    hub, prompts, tiny_clip, monkeypatch, trouble
):
    commit = hub.push(REPO, prompts[0])
    assert seed_of(tiny_clip) == 1
    if trouble == "down":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    elif trouble == "gone":
        del hub.repos[REPO]
    else:
        hub.fail_next = 1
    with pytest.warns(UserWarning, match=f"The version {commit[:12]} of {REPO} is used"):
        assert seed_of(tiny_clip) == 1
    with pytest.raises(SimpromptError):
        load_prompt("hf://me/never-seen", tiny_clip)


def test_a_download_that_breaks_leaves_the_version_of_before(hub, prompts, tiny_clip, monkeypatch):
    hub.push(REPO, prompts[0])
    load_prompt(f"hf://{REPO}", tiny_clip)
    commit = hub.push(REPO, prompts[1])
    with monkeypatch.context() as patch:
        patch.setattr(fetch, "download", lambda *_: (_ for _ in ()).throw(FetchError("x")))
        with pytest.raises(SimpromptError):
            load_prompt(f"hf://{REPO}", tiny_clip)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert seed_of(tiny_clip) == 1
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert seed_of(tiny_clip) == 2
    assert fetch._known_commit(fetch.repo_folder(REPO), "main") == commit


def test_a_model_that_is_pushed_again_is_loaded(hub, make_clip, tmp_path, monkeypatch):
    def files(seed: int) -> dict[str, bytes]:
        folder = tmp_path / f"m{seed}"
        save_open_clip(make_clip(seed=seed), folder)
        return {p.name: p.read_bytes() for p in folder.iterdir()}

    def words() -> torch.Tensor:
        return models.load_clip(f"hub:{REPO}").text.token_embedding.weight

    hub.push(REPO, files(0))
    first = words()
    commit = hub.push(REPO, files(1))
    second = words()
    assert not torch.equal(first, second)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.warns(UserWarning, match=f"The version {commit[:12]} of {REPO} is used"):
        assert torch.equal(words(), second)
