"""A checkpoint with NaN or infinity in a weight is refused by the tensor's name, in all layouts."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from oracles import foreign
from simprompt.clip import hub
from simprompt.clip.checkpoints import load_checkpoint
from simprompt.clip.layouts.common import not_finite
from simprompt.clip.layouts.open_clip import save_open_clip
from simprompt.errors import SimpromptError

WRONG = [math.nan, math.inf, -math.inf]


def spoil(path: Path, name: str, value: float) -> None:
    weights = load_file(path)
    weights[name].view(-1)[-1] = value
    save_file(weights, path)


@pytest.mark.parametrize("value", WRONG)
def test_open_clip_and_a_bare_file(tiny_clip, tmp_path, value):
    save_open_clip(tiny_clip, tmp_path)
    file = tmp_path / "open_clip_model.safetensors"
    assert load_checkpoint(tmp_path).scale == tiny_clip.scale
    for name in ("text_projection", "visual.transformer.resblocks.1.attn.in_proj_weight"):
        good = file.read_bytes()
        spoil(file, name, value)
        for path in (tmp_path, file):
            with pytest.raises(SimpromptError, match=f"the tensor {name} holds NaN or infinity"):
                load_checkpoint(path)
        bare = {k: v for k, v in load_file(file).items()}
        torch.save({"state_dict": {f"module.{k}": v for k, v in bare.items()}}, tmp_path / "e.pt")
        with pytest.raises(SimpromptError, match=f"the tensor {name} holds"):
            load_checkpoint(tmp_path / "e.pt")
        file.write_bytes(good)


@pytest.mark.parametrize("value", WRONG)
def test_our_own_layout(tiny_clip, tiny_tokenizer, tmp_path, value):
    hub.save(tiny_clip, tmp_path)
    shutil.copy(tiny_tokenizer, tmp_path / "tokenizer.json")
    hub.load_clip(tmp_path)
    spoil(tmp_path / "model.safetensors", "visual.blocks.0.fc.bias", value)
    with pytest.raises(SimpromptError, match=r"the tensor visual\.blocks\.0\.fc\.bias holds NaN"):
        hub.load_clip(tmp_path)


def test_hugging_face_and_an_overflow_of_half_precision(tmp_path):
    pytest.importorskip("transformers")
    vocabulary = foreign.write_vocabulary(tmp_path)
    model = foreign.hf_model(len(vocabulary))
    model.save_pretrained(tmp_path)
    load_checkpoint(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = "text_projection.weight"
    weights[name] = (weights[name] * 1e9).half()  # above 65,504
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(SimpromptError, match=rf"the tensor {name} holds NaN or infinity"):
        load_checkpoint(tmp_path)


def test_large_finite_weights_are_no_fault():
    """Their sum is infinite, they are not; integers and empty tensors are finite."""
    large = torch.full((4,), 3e38)
    assert not_finite({"a": large, "b": torch.arange(3), "c": torch.empty(0)}) == ""
    assert not_finite({"a": large, "b": torch.cat([large, torch.tensor([math.nan])])}) == "b"
