"""Domain shift: learn from one visual domain, test the same classes in others.

The field's form is ImageNet to ImageNet-V2, -Sketch, -A and -R, the last two over their own 200
classes alone; here also colour icons to filled, outline and strongly restyled ones.
"""

from __future__ import annotations

from simprompt.clip.same_text import new_names
from simprompt.config import RunConfig
from simprompt.data import icons
from simprompt.data.dataset import Dataset
from simprompt.errors import SimpromptError
from simprompt.experiments import inputs
from simprompt.experiments.protocols import common
from simprompt.experiments.protocols.common import Protocol, Tested
from simprompt.prompt.prompt import Prompt

IMAGENET_VARIANTS = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
# duotone drawings are too few to be a target of their own; see data/icons.py
ICON_DOMAINS = ("colour", "filled", "outline")


def targets(config: RunConfig) -> tuple[str, ...]:
    """The domains to test on: those of the run, or what there is for this source.

    Raises:
        SimpromptError: none are known for this source, or the source is among them.
    """
    source = config.dataset
    names = config.targets
    task, _, domain = source.partition("@")
    if names is None and source == "imagenet":
        names = IMAGENET_VARIANTS
    if names is None and task.startswith("icons/") and domain in icons.DOMAINS:
        other_domains = [d for d in ICON_DOMAINS if d != domain]
        names = (*(f"{task}@{d}" for d in other_domains), f"{source}@strong")
    if not names or source in names:
        raise SimpromptError(
            f"Domain shift from {source} needs other domains to test on. Start from a domain such "
            "as icons/animals@colour, or name targets: --set targets=[imagenet_sketch]"
        )
    return names


def protocol(config: RunConfig) -> Protocol:
    """What is learned from and how it is tested; raises what `targets` does.

    The test raises SimpromptError for a target with a class that the source does not have.
    """
    chosen = targets(config)

    def test(prompt: Prompt, data: Dataset, config: RunConfig) -> Tested:
        for name in chosen:
            strange = new_names(inputs.cached_dataset(name).classnames, data.classnames)
            if strange:
                raise SimpromptError(
                    f"{name} has classes that {data.name} does not have ({sorted(strange)[0]!r}), "
                    "so it is no other domain of it. Use the protocol cross-dataset."
                )
        return common.transfer(prompt, data, config, chosen)

    return Protocol(lambda d: d.all, test, chosen)
