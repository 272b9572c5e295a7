"""What every method is: something that turns class names into text features.

A method knows nothing of SAR, of protocols or of files. The training loop asks it for the text
features of some classes and for its loss on a batch; SAR looks at the same text features.

A prompt learner usually defines `shared_prompt`, or `unnormalized_text` where classes do not share
their prompt, and no more. The rest has defaults: CE on cached image features, SGD, a teacher from
the hand-crafted prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simprompt.clip.model import CLIP
from simprompt.clip.same_text import prompt_text
from simprompt.clip.text import Suffixes
from simprompt.config import Settings, Training
from simprompt.errors import check_count
from simprompt.features.pixels import Images
from simprompt.methods.parts import vit
from simprompt.methods.teacher import Teacher, fill
from simprompt.utils.devices import to_device
from simprompt.utils.gradients import make_usable, training_mode
from simprompt.utils.memory import OOMRetry, advice
from simprompt.utils.optimizers import SGD


@dataclass(frozen=True)
class Batch:
    """One training step's images.

    `images` is [B, E] normalised features (for an `unnormalized` learner: as encoded), or
    [B, 3, S, S] pixels for a learner whose image tower is live; `labels` [B] count base classes
    from 0. `rows` and `views` [B] say which training image and which of its views each one is,
    for what `prepare` has computed. A learner takes a batch on its model's device.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor | None = None
    views: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on a device; the CPU does not wait for it."""
        tensors = (self.images, self.labels, self.rows, self.views)
        return Batch(*(x if x is None else to_device(x, device) for x in tensors))  # type: ignore[arg-type]


C = TypeVar("C", bound=Settings)

# [SOT][context][rest] as embeddings [P, W], and tokens [M, W] that replace the context in deeper
# layers
SharedPrompt = tuple[Tensor, Sequence[Tensor]]


class PromptLearner(nn.Module, Generic[C]):
    """Learnable prompts over a frozen CLIP.

    A method says what its settings are, `class CoOp(PromptLearner[CoOpConfig])`, and makes what it
    learns in `build`.

    Args:
        clip: the frozen model; never part of the state dict.
        classnames: the base classes, in label order.
        template: the hand-crafted prompt, such as "a photo of a {}.".
        config: the method's own settings, an instance of `Config`.
        seed: of random initialisations.
    """

    Config: type[C]  # the method's settings, from the type parameter
    schedule: ClassVar[Training] = Training()  # the published training settings
    summary: ClassVar[str]  # what is learned, for `simprompt list methods`
    source: ClassVar[str]  # where the method was published
    text_moves: bool = True  # False: SAR would have no gradient
    live_images: bool = False  # True: the image tower is part of what is learned
    image_tokens: ClassVar[bool] = False  # True: needs an image tower of tokens, a ViT
    unnormalized: bool = False  # True: cached image features come at the length the tower gave them
    conditional: bool = False  # True: every image has its own text features
    new_classes: bool = True  # False: a classifier of the base classes and nothing else
    joint_answers: bool = True  # False: a name's logit depends on which other names there are
    sar_note: str = ""  # what a reader should know when this learner is trained with SAR

    clip: CLIP
    tail: str = "."  # behind the class name
    temperature: float = 1.0  # of the probabilities that `classifier` gives; not of training

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        for base in getattr(cls, "__orig_bases__", ()):
            origin, settings = get_origin(base), get_args(base)
            if isinstance(origin, type) and issubclass(origin, PromptLearner):
                (cls.Config,) = settings

    def __init__(
        self, clip: CLIP, classnames: Sequence[str], template: str, config: C, seed: int = 0
    ) -> None:
        super().__init__()
        assert isinstance(config, self.Config)
        object.__setattr__(self, "clip", clip)  # kept out of parameters() and state_dict()
        self.classnames, self.template, self.config = tuple(classnames), template, config
        self.seed = seed
        make_usable(clip)
        with training_mode():
            self.build(clip, config, seed)

    @classmethod
    def check_model(cls, clip: CLIP) -> None:
        """Whether the method can be had with this model at all.

        Raises:
            SimpromptError: it learns tokens of the image tower, and the tower is convolutional.
        """
        if cls.image_tokens:
            vit(clip)

    # ---- what a method defines

    def build(self, clip: CLIP, config: C, seed: int) -> None:
        """Make what is learned; class names and template are there already."""

    def prompts(self, names: Sequence[str]) -> Suffixes:
        """What `text_features` needs to know of class names, tokenised once per run."""
        spelt = self.clip.suffixes([prompt_text(name) for name in names], self.tail)
        return Suffixes(tuple(names), spelt.ids)

    def shared_prompt(self) -> SharedPrompt | None:
        """What stands before every class name, if it is the same for all and that is all."""
        return None

    def unnormalized_text(self, prompts: Suffixes) -> Tensor:
        """Text features [C, E] of the classes as they leave the tower, not normalised;
        differentiable in what is learned."""
        shared = self.shared_prompt()
        if shared is None:
            raise NotImplementedError("a method defines shared_prompt or unnormalized_text")
        prefix, deep = shared
        return self.clip.text.encode(prefix, prompts, deep)

    def unnormalized_images(self, images: Tensor) -> Tensor:
        """Image features [B, E] of any length; cached features pass through unchanged."""
        return images

    def natural_conditional_text(self, prompts: Suffixes, image: Tensor) -> Tensor:
        """Text features [B, C, E], not normalised, for normalised image features [B, E], of a
        `conditional` learner."""
        raise NotImplementedError

    def extra_loss(self, batch: Batch, image: Tensor, text: Tensor, logits: Tensor) -> Tensor:
        """What the method adds to the cross-entropy, given all that the step has computed."""
        return logits.new_zeros(())

    # ---- what the training loop asks for

    def set_training(self, settings: Training) -> None:
        """The settings that it is trained with; a wrapper passes them to its host."""
        self.schedule = settings  # type: ignore[misc]

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The classification loss, a scalar, of logits [B, C] and labels [B]. Every method uses it,
        so that a training setting reaches all of them."""
        return F.cross_entropy(logits, labels, label_smoothing=self.schedule.label_smoothing)

    def prepare(self, images: Images, labels: Tensor) -> None:
        """Called once before training with all views [N, M, ...] and labels [N], on the CPU."""

    def loss(self, batch: Batch, text: Tensor | None = None) -> Tensor:
        """The method's training loss.

        Args:
            text: its text features of all base classes [C, E], from `regularised_text`; None
                computes them here, which is the only way for a `conditional` learner.
        """
        image = self.image_features(batch.images)
        text = self.text_of_base(image) if text is None else text
        logits = self.logits(image, text)
        ce = self.cross_entropy(logits, batch.labels)
        return ce + self.extra_loss(batch, image, text, logits)

    def regularised_text(self, prompts: Suffixes, batch: Batch) -> Tensor:
        """The text features [C, E] of this step, for `loss` and for a regulariser, which
        normalises them."""
        return self.text_features(prompts)

    def optimiser(self, settings: Training) -> torch.optim.Optimizer:
        """Over all that is learned; a group's rate is the schedule's times its "times"."""
        return SGD(
            [p for p in self.parameters() if p.requires_grad],
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )

    def after_epoch(self, done: int, epochs: int) -> None:
        """Called after each epoch, `done` counting from 1."""

    def averages(self) -> Sequence[dict[str, Tensor]]:
        """What is averaged over epochs beside what is learned, which a checkpoint holds too."""
        return ()

    # ---- what all methods share

    def text_features(self, prompts: Suffixes) -> Tensor:
        """Normalised text features [C, E] of the classes."""
        return F.normalize(self.unnormalized_text(prompts), dim=-1)

    def image_features(self, images: Tensor) -> Tensor:
        """Normalised image features [B, E] of images as in `Batch`."""
        return F.normalize(self.unnormalized_images(images), dim=-1)

    def conditional_text(self, prompts: Suffixes, image: Tensor) -> Tensor:
        """Normalised text features [B, C, E] for normalised image features [B, E]."""
        return F.normalize(self.natural_conditional_text(prompts, image), dim=-1)

    @cached_property
    def teacher(self) -> Teacher:
        """Features of the hand-crafted prompt; one object a run, so nothing is encoded twice."""
        return Teacher(self.clip, [self.template], names=self.classnames)

    @cached_property
    def base(self) -> Suffixes:
        """The prompts of the base classes."""
        return self.prompts(self.classnames)

    def text_of_base(self, image: Tensor) -> Tensor:
        """Normalised text features of the base classes: [C, E], or [B, C, E] of a `conditional`
        learner.
        """
        if self.conditional:
            return self.conditional_text(self.base, image)
        return self.text_features(self.base)

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        """scale * cos, [B, C], of image features [B, E] and text [C, E] (or [B, C, E])."""
        if text.dim() == 2:
            return self.clip.scaled(image) @ text.T
        return self.clip.scaled(torch.einsum("be,bce->bc", image, text))

    def class_logits(self, unnormalized: Tensor, text: Tensor, names: Sequence[str]) -> Tensor:
        """Test-time logits [B, C] over `names`, for methods with a second classifier.

        Args:
            unnormalized: image features [B, E] from `unnormalized_images`.
            text: normalised text features of the names.
        """
        return self.logits(F.normalize(unnormalized, dim=-1), text)

    @torch.no_grad()
    def classifier(
        self, names: Sequence[str], chunk: int | None = None
    ) -> Callable[[Tensor], Tensor]:
        """Takes images (as in `Batch`) [N, ...] to probabilities [N, C] over these names.

        The names are encoded here, once (a `conditional` learner: once an image, in the call);
        `chunk` images are on the model's device at a time. Images may lie anywhere; probabilities
        come on the CPU. The function that is returned is thread-safe and keeps the temperature of
        this moment.
        """
        temperature = self.temperature
        chunk = (64 if self.live_images or self.conditional else 1024) if chunk is None else chunk
        check_count(chunk, "chunk")
        prompts = self.prompts(names)
        spared = OOMRetry("Encoding the class names", advice(self.clip.device.type))
        shared = None if self.conditional else spared(lambda: self.text_features(prompts))

        def answer(part: Tensor) -> Tensor:
            unnormalized = self.unnormalized_images(to_device(part, self.clip.device))
            text = shared
            if text is None:
                text = self.conditional_text(prompts, F.normalize(unnormalized, dim=-1))
            logits = self.class_logits(unnormalized, text, names) / temperature
            return logits.softmax(-1).cpu()

        @torch.no_grad()
        def probabilities(images: Tensor) -> Tensor:
            retry = OOMRetry("Classifying images", advice(self.clip.device.type))
            chunks = [retry(partial(answer, part)) for part in images.split(chunk)]
            return torch.cat(chunks) if chunks else torch.zeros(0, len(names))

        return probabilities

    def predict(self, images: Tensor, names: Sequence[str], chunk: int | None = None) -> Tensor:
        """Probabilities [N, C] of images (as in `Batch`) over class names; see `classifier`."""
        return self.classifier(names, chunk)(images)

    @property
    def prefix_length(self) -> int:
        """Positions of the text tower that a prompt takes besides the class name, its tail and the
        end mark: the start mark, the context and what is not learned of the template."""
        shared = self.shared_prompt()
        if shared is not None:
            return int(shared[0].shape[-2])
        context, tail = getattr(self, "ctx", None), getattr(self, "rest", ())
        return 1 + (context.shape[-2] if isinstance(context, Tensor) else 0) + len(tail)

    def prompt_tokens(self, name: str) -> int:
        """Tokens of the longest prompt with a class name, of the learned one and those of the
        teacher. The text tower reads `context_length`."""
        learned_tokens = self.prefix_length + len(
            self.clip.suffixes([prompt_text(name)], self.tail).ids[0]
        )
        return max(learned_tokens, self._sentence_tokens(fill(self._longest_template, name)))

    @cached_property
    def _longest_template(self) -> str:
        templates = (self.template, *self.teacher.templates)
        return max(templates, key=lambda one: self._sentence_tokens(fill(one, "cat")))

    def _sentence_tokens(self, sentence: str) -> int:
        """With start and end marks."""
        return 1 + len(self.clip.suffixes([sentence], "").ids[0])

    def fits(self, name: str) -> bool:
        """Whether the model's context has room for the prompts with a class name."""
        return self.prompt_tokens(name) <= self.clip.config.text.context_length

    def parameter_count(self) -> int:
        """Learnable numbers."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
