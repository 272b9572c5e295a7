"""The models and datasets of runs, each loaded once in a process that makes many."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from simprompt.clip.hub import load_clip
from simprompt.clip.model import CLIP
from simprompt.config import COMPUTED, RunConfig, without_defaults
from simprompt.data import catalogue
from simprompt.data.dataset import Dataset
from simprompt.data.split import check_learnable
from simprompt.features import digests


def _clip(
    name: str,
    tokenizer: str | None = None,
    stamp: str = "",
    image_size: int | None = None,
    device: str = "cpu",
    dtype: str = "float32",
) -> CLIP:
    """A model; a process that makes many runs loads it once, and anew when its `stamp` changes."""
    return load_clip(name, tokenizer=tokenizer, image_size=image_size, device=device, dtype=dtype)


# two models at a time, and two on a GPU: a run there is known by the model's copy on the CPU
cached_clip = lru_cache(maxsize=2)(_clip)


cached_clip_on_gpu = lru_cache(maxsize=2)(_clip)


def clip_on_cpu(config: RunConfig) -> CLIP:
    """A run's model on the CPU: what the run is does not depend on a GPU being at hand."""
    return clip_of(config.model_copy(update={"device": "cpu"}))


def clip_of(config: RunConfig) -> CLIP:
    """A run's model, where the run is computed."""
    arguments: dict[str, Any] = {"tokenizer": config.tokenizer} if config.tokenizer else {}
    stamps = map(digests.stamp_of, (config.model, *arguments.values()))
    if config.image_size is not None:
        arguments["image_size"] = config.image_size
    if stamp := "".join(stamps):
        arguments["stamp"] = stamp
    placement = {"device": config.device, "dtype": config.dtype}
    arguments |= without_defaults(placement, COMPUTED)
    cached = cached_clip_on_gpu if "device" in arguments else cached_clip
    return cached(config.model, **arguments)


# a rehearsal's dataset is made of this one's, so the images' names are read once
cached_dataset = lru_cache(maxsize=16)(catalogue.load)


def dataset_of(config: RunConfig) -> Dataset:
    """A run's dataset, or the rehearsal inside its base classes (see `catalogue.rehearsal`)."""
    data = cached_dataset(catalogue.without_rehearsal(config.dataset), **config.own)
    check_learnable(data.classnames, len(data.train), config.dataset)
    return catalogue.rehearsal(data, config.dataset, config.training.shots, config.seed)
