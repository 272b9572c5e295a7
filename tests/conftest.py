"""Fixtures for all tests: a CLIP small enough to train in a test, with random weights."""

from __future__ import annotations

import gc
import os
import string
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

# Before torch is imported, here and in what tests start: the models are too small for two threads,
# and two workers of pytest-xdist would fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import settings

import hostile
from loopback import Hub
from simprompt.clip.model import CLIP, CLIPConfig
from simprompt.clip.text import TextConfig
from simprompt.clip.tokenizer import EOT, SOT, Tokenizer
from simprompt.clip.vision import VisionConfig

WORDS = """a an the of photo icon picture type with and in on cat dog fish bird horse cow lion tiger
    bear wolf fox owl tree palm leaf flower rose house home car truck bus boat ship plane train red
    blue green black white small big old new apple pear bread cheese cake pizza sushi texture pet
    food animal chair table lamp door window book pen cup fork spoon knife hand eye"""

# a busy machine makes no test fail
settings.register_profile("default", deadline=None)

FOREIGN = ("SIMPROMPT_DATA", "SIMPROMPT_LLM_MODEL", "SIMPROMPT_LLM_BASE_URL", "OPENAI_API_KEY",
           "HF_ENDPOINT", "HF_HUB_CACHE", "HF_HUB_OFFLINE")  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Empty caches, one of each for each process of the suite, and none of the user's settings.

    What tests start does not warn of text files without an encoding: torch has some, and some tests
    look at all that is printed.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in (*FOREIGN, "PYTHONWARNDEFAULTENCODING"):
            patch.delenv(name, raising=False)
        patch.setenv("SIMPROMPT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        yield


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `tokenizer.json`: common words are one token, other words are spelt letter by letter."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, pre_tokenizers

    signs = [*string.ascii_lowercase, *string.digits, *".,'-&/()"]
    whole = dict.fromkeys([*WORDS.split(), *signs])
    pieces = ["[UNK]", SOT, *whole, *(f"##{s}" for s in signs), EOT]
    fast = Fast(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    fast.save(str(path))
    return path


@pytest.fixture(scope="session")
def make_clip(tiny_tokenizer: Path) -> Callable[..., CLIP]:
    """make_clip(seed=0, text={...}, vision={...}): a random CLIP, settings changed at will.

    Text and image widths differ from each other and from the joint space, so that a mix-up of
    sizes fails.
    """

    def make(seed: int = 0, text: dict | None = None, vision: dict | None = None) -> CLIP:
        tokenizer = Tokenizer(tiny_tokenizer)
        texts = TextConfig(
            vocab_size=tokenizer.fast.get_vocab_size(),
            context_length=40,
            width=32,
            layers=3,
            heads=4,
            embed_dim=24,
            sot=tokenizer.sot,
            eot=tokenizer.eot,
        )
        images = VisionConfig(
            image_size=16, patch_size=8, width=40, layers=3, heads=4, embed_dim=24
        )
        config = CLIPConfig(replace(texts, **(text or {})), replace(images, **(vision or {})))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return CLIP(config, tokenizer, name="tiny")

    return make


@pytest.fixture
def tiny_clip(make_clip: Callable[..., CLIP]) -> CLIP:
    """A CLIP of 3 text and 3 image layers on 16-pixel images, random weights, float32."""
    return make_clip()


@pytest.fixture(scope="module")
def under_limits() -> Iterator[Callable[[str, Path], dict]]:
    """`hostile.limited`: the reader of checkpoints with 400 MB and 20 seconds more than it has."""
    if not sys.platform.startswith("linux"):
        pytest.skip("limits are set as Linux has them")
    with hostile.limited() as call:
        yield call


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A model hub on loopback that the environment points to, with an empty cache."""
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.close()


def pytest_collection_finish() -> None:
    """What was imported stays: nobody looks through it for what can be freed."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_method_of_another_test() -> Iterator[None]:
    """A method in a folder of one test is imported under a name that another test may use."""
    yield
    if loader := sys.modules.get("simprompt.utils.plugins"):
        for module in loader._loaded:
            sys.modules.pop(module, None)
        loader._loaded.clear()
