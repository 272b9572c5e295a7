"""simprompt: prompt learning for CLIP that keeps working on classes it never saw.

    clip = simprompt.load_clip("icons")
    data = simprompt.load_dataset("icons/animals")
    prompt = simprompt.learn(clip, data.base.few_shot(16, seed=1), sar=True)
    prompt.accuracy(data.new.test)

Importing this does not import torch; the first use of a name does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from simprompt._version import __version__ as __version__

if TYPE_CHECKING:
    from simprompt.clip.hub import load_clip as load_clip
    from simprompt.config import SAR as SAR
    from simprompt.config import SARPlus as SARPlus
    from simprompt.config import Training as Training
    from simprompt.data.catalogue import load as load_dataset
    from simprompt.errors import SimpromptError as SimpromptError
    from simprompt.prompt.added import with_images as with_images
    from simprompt.prompt.added import with_names as with_names
    from simprompt.prompt.learn import learn as learn
    from simprompt.prompt.loading import load_prompt as load_prompt
    from simprompt.prompt.prompt import Prompt as Prompt
    from simprompt.prompt.sklearn import PromptClassifier as PromptClassifier
    from simprompt.workflow import learn_folder as learn_folder

_HOME = {
    "SAR": ("config", "SAR"),
    "SARPlus": ("config", "SARPlus"),
    "Prompt": ("prompt.prompt", "Prompt"),
    "PromptClassifier": ("prompt.sklearn", "PromptClassifier"),
    "SimpromptError": ("errors", "SimpromptError"),
    "Training": ("config", "Training"),
    "learn": ("prompt.learn", "learn"),
    "learn_folder": ("workflow", "learn_folder"),
    "load_clip": ("clip.hub", "load_clip"),
    "load_dataset": ("data.catalogue", "load"),
    "load_prompt": ("prompt.loading", "load_prompt"),
    "with_images": ("prompt.added", "with_images"),
    "with_names": ("prompt.added", "with_names"),
}

__all__ = [
    "SAR",
    "Prompt",
    "PromptClassifier",
    "SARPlus",
    "SimpromptError",
    "Training",
    "learn",
    "learn_folder",
    "load_clip",
    "load_dataset",
    "load_prompt",
    "with_images",
    "with_names",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        module, attribute = _HOME[name]
        return getattr(import_module(f"simprompt.{module}"), attribute)
    raise AttributeError(f"module 'simprompt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
