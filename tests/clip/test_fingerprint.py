"""The digest of a model in memory is that of what it holds now; half precision is no way round."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch

from simprompt import learn, load_clip, load_prompt
from simprompt.clip import hub
from simprompt.config import Training
from simprompt.errors import SimpromptError
from simprompt.features import digests
from test_prompt import shots  # noqa: F401 (a fixture)

QUICK = Training(max_steps=2, epochs=2, lr=0.1, batch_size=2)


def in_place(clip) -> None:
    with torch.no_grad():
        clip.visual.ln_post.weight[0] += 1


def loaded(clip) -> None:
    state = {name: value.clone() for name, value in clip.state_dict().items()}
    state["visual.ln_post.weight"][0] += 1
    clip.load_state_dict(state)


def replaced(clip) -> None:
    weight = clip.visual.ln_post.weight
    clip.visual.ln_post.weight = torch.nn.Parameter(weight.detach() + 1, requires_grad=False)


def by_data(clip) -> None:
    clip.visual.ln_post.weight.data = clip.visual.ln_post.weight.detach() + 1


def by_array(clip) -> None:
    """PyTorch counts no such change."""
    clip.visual.ln_post.weight.numpy()[0] += 1


def swapped(clip) -> None:
    """The same numbers, two of them in each other's place."""
    weight = clip.visual.ln_post.weight.numpy()
    weight[:2] = (2, 3) if weight[0] != 2 else (3, 2)


EDITS = (in_place, loaded, replaced, by_data, by_array, swapped)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_weights_that_change_in_memory_are_another_model(make_clip, edit, inference):
    with torch.inference_mode(inference):
        clip, other = make_clip(), make_clip()
        before = digests.of_model(clip), digests.of_image_tower(clip)
        edit(clip)
        edit(other)
        after = digests.of_model(clip), digests.of_image_tower(clip)
        assert after == (digests.of_model(other), digests.of_image_tower(other))
    assert not {*before} & {*after}


@pytest.mark.parametrize("edit", EDITS[:4], ids=lambda edit: edit.__name__)
def test_a_glance_sees_what_pytorch_counts(make_clip, edit):
    clip = make_clip()
    before = digests.of_model(clip, glance=True)
    edit(clip)
    assert digests.of_model(clip, glance=True) != before


def test_a_glance_hashes_nothing(make_clip, monkeypatch):
    clip = make_clip()
    before = digests.of_model(clip)
    monkeypatch.setattr("zlib.crc32", lambda *_: pytest.fail("the weights were read"))
    assert digests.of_model(clip, glance=True) == before


@pytest.fixture
def models(make_clip, tiny_tokenizer: Path, tmp_path: Path) -> list[Path]:
    """Two models of the same sizes and other weights."""
    folders = [tmp_path / "right", tmp_path / "wrong"]
    for seed, folder in enumerate(folders):
        hub.save(make_clip(seed=seed), folder)
        (folder / "tokenizer.json").write_bytes(tiny_tokenizer.read_bytes())
    return folders


TYPES = ("float32", "float16", "bfloat16")


@pytest.mark.parametrize("learned_in", TYPES)
@pytest.mark.parametrize("loaded_in", TYPES)
def test_a_prompt_takes_its_own_model_in_any_type_and_no_other(
    models,
    shots,  # noqa: F811
    tmp_path,
    learned_in,
    loaded_in,
):
    right, wrong = models
    clip = load_clip(right, dtype=learned_in)
    learn(clip, shots, training=QUICK, progress=False).save(tmp_path / "p")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_prompt(tmp_path / "p", load_clip(right, dtype=loaded_in))
        with pytest.raises(SimpromptError, match="other weights"):
            load_prompt(tmp_path / "p", load_clip(wrong, dtype=loaded_in))


def test_a_card_without_the_digest_in_float32_is_checked_in_float32(
    models,
    shots,  # noqa: F811
    tmp_path,
):
    """Cards of before, and of a model that was rounded by hand."""
    right, wrong = models
    for rounded in (load_clip(right, dtype="float16"), load_clip(right).half()):
        learn(rounded, shots, training=QUICK, progress=False).save(tmp_path / "p")
        path = tmp_path / "p" / "card.json"
        card = json.loads(path.read_text(encoding="utf-8"))
        card.pop("model_origin")
        path.write_text(json.dumps(card), encoding="utf-8")
        load_prompt(tmp_path / "p", load_clip(right))
        with pytest.raises(SimpromptError, match="other weights"):
            load_prompt(tmp_path / "p", load_clip(wrong))
        with pytest.warns(UserWarning, match="so they cannot be compared"):
            load_prompt(tmp_path / "p", load_clip(right, dtype="bfloat16"))


def test_a_rounded_model_that_is_changed_is_no_longer_the_one_that_was_loaded(
    models,
    shots,  # noqa: F811
    tmp_path,
):
    clip = load_clip(models[0])
    learn(clip, shots, training=QUICK, progress=False).save(tmp_path / "p")
    changed = load_clip(models[0], dtype="float16")
    with torch.no_grad():
        changed.text.ln_final.weight += 1
    with pytest.warns(UserWarning, match="cannot be compared"):
        load_prompt(tmp_path / "p", changed)
