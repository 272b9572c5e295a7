"""Cross-dataset: learn from all classes of one dataset, test on others with their own names.

The field's form is ImageNet's 1000 classes to the ten other datasets of the base-to-new table;
here also one icon task to the seven others.
"""

from __future__ import annotations

from simprompt.config import RunConfig
from simprompt.data import icons
from simprompt.data.dataset import Dataset
from simprompt.errors import SimpromptError
from simprompt.experiments.protocols import common
from simprompt.experiments.protocols.common import Protocol, Tested
from simprompt.prompt.prompt import Prompt

AFTER_IMAGENET = (
    "caltech101",
    "oxford_pets",
    "stanford_cars",
    "oxford_flowers",
    "food101",
    "fgvc_aircraft",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
)


def targets(config: RunConfig) -> tuple[str, ...]:
    """The datasets to test on: those of the run, or what the field takes for this source.

    Raises:
        SimpromptError: none are known for this source, or the source is among them.
    """
    source = config.dataset
    names = config.targets
    if names is None and source == "imagenet":
        names = AFTER_IMAGENET
    if names is None and source.startswith("icons/"):
        names = tuple(t for t in icons.tasks() if t != source.partition("@")[0])
    if not names or source in names:
        raise SimpromptError(
            f"Cross-dataset from {source} needs other datasets to test on. Name them: "
            "--set targets=[dtd,eurosat]"
        )
    return names


def protocol(config: RunConfig) -> Protocol:
    """What is learned from and how it is tested; raises what `targets` does."""
    chosen = targets(config)

    def test(prompt: Prompt, data: Dataset, config: RunConfig) -> Tested:
        return common.transfer(prompt, data, config, chosen)

    return Protocol(lambda d: d.all, test, chosen)
