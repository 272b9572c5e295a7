"""What tests of exports share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import write_vocabulary
from torch import nn

from simprompt.clip.model import CLIP, CLIPConfig
from simprompt.clip.text import TextConfig
from simprompt.clip.tokenizer import Tokenizer
from simprompt.clip.vision import VisionConfig
from simprompt.deploy.export import graph


@pytest.fixture(scope="session")
def one_registry() -> Iterator[None]:
    """PyTorch reads the source of all its ONNX operators for each graph; with this, once."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:  # it is no part of PyTorch's interface
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        once = functools.cache(ONNXRegistry.from_torchlib)
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(once))
        yield


@pytest.fixture
def one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch takes seconds for a graph; with this, the graph of the same weights is written once."""
    write, known = graph.write, {}

    def write_once(module: nn.Module, inputs: Any, axes: Any, outputs: Any, path: Path) -> float:
        key = (path.name, b"".join(x.numpy().tobytes() for x in module.state_dict().values()))
        if key in known:
            content, difference = known[key]
            path.write_bytes(content)
            return difference
        difference = write(module, inputs, axes, outputs, path)
        known[key] = path.read_bytes(), difference
        return difference

    monkeypatch.setattr(graph, "write", write_once)


@pytest.fixture(scope="session")
def byte_pairs(tmp_path_factory) -> Tokenizer:
    """A tokenizer in OpenAI's form: 120 merges."""
    folder = tmp_path_factory.mktemp("byte-pairs")
    write_vocabulary(folder)
    return Tokenizer(folder / "vocab.json")


@pytest.fixture(scope="session")
def clip_of() -> Callable[..., CLIP]:
    """clip_of(tokenizer, name, layers, vision): a CLIP of random weights."""
    return random_clip


def random_clip(tokenizer: Tokenizer, name: str, layers: int, vision: object = None) -> CLIP:
    """With so many layers in each tower."""
    text = TextConfig(
        vocab_size=tokenizer.fast.get_vocab_size(), context_length=40, width=32, layers=layers,
        heads=4, embed_dim=24, sot=tokenizer.sot, eot=tokenizer.eot,
    )  # fmt: skip
    vision = vision or VisionConfig(
        image_size=16, patch_size=8, width=40, layers=layers, heads=4, embed_dim=24
    )
    torch.manual_seed(0)
    return CLIP(CLIPConfig(text, vision, logit_scale=3.0), tokenizer, name)


@pytest.fixture(scope="session")
def small(byte_pairs) -> CLIP:
    """A CLIP whose tokenizer is CLIP's kind."""
    return random_clip(byte_pairs, "small", 2)


@pytest.fixture(scope="session")
def shallow(byte_pairs) -> CLIP:
    """The same with one layer, for graphs to which depth adds nothing but time."""
    return random_clip(byte_pairs, "shallow", 1)
