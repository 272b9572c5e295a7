"""What methods around another method, their host, have in common: names, prompts and text are the
host's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from simprompt import methods
from simprompt.clip.suffixes import Suffixes
from simprompt.config import Training, parse
from simprompt.errors import SimpromptError
from simprompt.features.pixels import Images
from simprompt.methods.base import Batch, C, PromptLearner, SharedPrompt, TextForm
from simprompt.methods.teacher import Teacher


class HostedLearner(PromptLearner[C]):
    """A method whose class names and text come from its host; `build` calls `take_host`."""

    host: PromptLearner[Any]

    def take_host(
        self, kind: type[PromptLearner[Any]], options: dict[str, Any], where: str
    ) -> None:
        """Make the host, and take over what others ask a learner about its text and images.

        Args:
            where: what the options are, for an error.

        Raises:
            SimpromptError: options that are none of the host's.
        """
        config = parse(kind.Config, options, where)
        self.host = kind(self.clip, self.classnames, self.template, config, self.seed)
        for name in ("text_moves", "conditional", "sar_note", "tail"):
            setattr(self, name, getattr(self.host, name))
        if self.host.image_input == "pixels":
            self.image_input = "pixels"

    def set_training(self, settings: Training) -> None:
        super().set_training(settings)
        self.host.set_training(settings)

    @property
    def teacher(self) -> Teacher:
        return self.host.teacher

    def prompts(self, names: Sequence[str]) -> Suffixes:
        return self.host.prompts(names)

    def shared_prompt(self) -> SharedPrompt | None:
        return self.host.shared_prompt()

    @property
    def prefix_length(self) -> int:
        return self.host.prefix_length

    def unnormalized_text(self, prompts: Suffixes) -> Tensor:
        return self.host.unnormalized_text(prompts)

    def text_features(self, prompts: Suffixes) -> Tensor:
        return self.host.text_features(prompts)

    def conditional_text(self, prompts: Suffixes, image: Tensor) -> Tensor:
        return self.host.conditional_text(prompts, image)

    def regularised_text(self, prompts: Suffixes, batch: Batch) -> Tensor:
        return self.host.regularised_text(prompts, batch)

    def text_form(self) -> TextForm | str:
        return self.host.text_form()

    def no_linear_head(self, names: Sequence[str]) -> str | None:
        return self.host.no_linear_head(names)

    def prepare(self, images: Images, labels: Tensor) -> None:
        self.host.prepare(images, labels)

    def after_epoch(self, done: int, epochs: int) -> None:
        self.host.after_epoch(done, epochs)

    def after_training(self) -> None:
        self.host.after_training()

    def averages(self) -> Sequence[dict[str, Tensor]]:
        return self.host.averages()


def text_host(method: str, name: str) -> type[PromptLearner[Any]]:
    """The class of a host whose text features are all that is taken of it.

    Raises:
        SimpromptError: it has a second classifier, a live image tower, text that depends on the
            image, or no answer for other names.
    """
    kind = methods.find(name)
    own_classifier = kind.class_logits is not PromptLearner.class_logits
    pixels = kind.image_input == "pixels"
    if own_classifier or pixels or kind.conditional or not kind.new_classes:
        raise SimpromptError(
            f"{method} cannot have {name!r} as its host: it takes methods with one text feature "
            "per class and a frozen image tower, such as zero-shot, coop, kgcoop, prograd or tcp."
        )
    return kind
