"""What every method is: something that turns class names into text features.

A method knows nothing of SAR, of protocols or of files. The training loop asks it for the text
features of some classes and for its loss on a batch; SAR looks at the same text features.

A learner with one context before all names is a `context_prompt.SharedContext`; another defines
`shared_prompt`, or `unnormalized_text` where classes do not share their prompt, and no more.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args, get_origin

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simprompt.clip.model import CLIP
from simprompt.clip.same_text import prompt_text
from simprompt.clip.suffixes import Suffixes
from simprompt.clip.text import ClassTokens
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

    `images` is what the learner's `image_input` says: features [B, E] or pixels [B, 3, S, S];
    `labels` [B] count base classes from 0. `rows` and `views` [B] say which training image and
    which of its views each one is, for what `prepare` has computed. A learner takes a batch on its
    model's device.
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

# [SOT][context][rest] as embeddings [P, W], and the tokens [M, W] of deeper layers
SharedPrompt = tuple[Tensor, Sequence[Tensor]]

ImageInput = Literal["features", "unnormalized", "pixels"]
"""What a learner takes of an image: its feature [E] from the frozen tower at length 1, the same at
the length that the tower gave it, or pixels [3, S, S] for a tower that is learned."""

# in methods written for earlier releases: a word that was True -> what `image_input` is
FORMER_INPUTS: dict[str, ImageInput] = {"unnormalized": "unnormalized", "live_images": "pixels"}


@dataclass(frozen=True)
class TextForm:
    """How the text features of any class name are made of tokens: [prefix][template][EOT], with the
    name in the template.

    Attributes:
        template: the words around a name; "{}" stands for it.
        prefix: embeddings [P, W] of what stands in front of them; None: the start mark alone.
        rest: tokens between prefix and template.
        deep: tokens [M, W] that replace the context before layers 1, 2, ...
        class_tokens: makes tokens of the class that replace the context before one layer of
            normalised hand-crafted features [C, E]; None: there are none.
        hand_crafted: the template of these features.
    """

    template: str
    prefix: Tensor | None = None
    rest: tuple[int, ...] = ()
    deep: Sequence[Tensor] = ()
    class_tokens: Callable[[Tensor], ClassTokens] | None = None
    hand_crafted: str = ""


class PromptLearner(nn.Module, Generic[C]):
    """Learnable prompts over a frozen CLIP.

    A method says what its settings are, `class CoOp(ContextPrompt[CoOpConfig])`, makes what it
    learns in `build`, and gives what differs from the defaults here:

    - words on the class: `schedule`, `summary`, `source`, `image_input` and the others below;
    - text: `shared_prompt`, or `unnormalized_text`; `unnormalized_conditional_text` if each image
      has text features of its own; `fixed_text` if nothing that is learned moves it;
    - images: `visual_tokens` of the image tower, or `unnormalized_images`;
    - training: `prepare`, `extra_loss` or the whole `loss`, `regularised_text`, `optimiser`,
      `after_epoch`, `after_training`, `averages`;
    - answers: `class_logits`, for more than the similarity of image and text;
    - exports: `text_form`, `no_text_graph` and `no_linear_head`, which say what cannot be exported
      and why.

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
    image_input: ImageInput = "features"  # what it takes of an image
    image_tokens: ClassVar[bool] = False  # True: needs an image tower of tokens, a ViT
    conditional: bool = False  # True: every image has its own text features
    new_classes: bool = True  # False: a classifier of the base classes and nothing else
    joint_answers: bool = True  # False: a name's logit depends on which other names there are
    sar_note: str = ""  # what a reader should know when this learner is trained with SAR

    clip: CLIP
    tail: str = "."  # behind the class name
    temperature: float = 1.0  # of the probabilities that `classifier` gives; not of training

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        _read_former_inputs(cls, cls.__name__)
        if cls.image_input not in get_args(ImageInput):
            raise ValueError(
                f"{cls.__name__}.image_input is one of {', '.join(get_args(ImageInput))}; got "
                f"{cls.image_input!r}"
            )
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
        _read_former_inputs(self, type(self).__name__)

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
        if self.fixed_text is not None:
            return self.fixed_text.unnormalized(prompts.names)
        shared = self.shared_prompt()
        if shared is None:
            raise NotImplementedError("a method defines shared_prompt or unnormalized_text")
        prefix, deep = shared
        return self.clip.text.encode(prefix, prompts, deep)

    @property
    def fixed_text(self) -> Teacher | None:
        """The hand-crafted prompt whose features are the text, where nothing learned moves it."""
        return None if self.text_moves else self.teacher

    def visual_tokens(self) -> Sequence[Tensor]:
        """Tokens [N, W] for the first layers of the image tower, of a learner that takes pixels."""
        return ()

    def unnormalized_images(self, images: Tensor) -> Tensor:
        """Image features [B, E] of any length; cached features pass through unchanged."""
        if self.image_input != "pixels":
            return images
        features: Tensor = self.clip.visual(images, self.visual_tokens())
        return features

    def unnormalized_conditional_text(self, prompts: Suffixes, image: Tensor) -> Tensor:
        """Text features [B, C, E], not normalised, for normalised image features [B, E], of a
        `conditional` learner."""
        raise NotImplementedError

    def extra_loss(self, batch: Batch, image: Tensor, text: Tensor, logits: Tensor) -> Tensor:
        """What the method adds to the cross-entropy, given all that the step has computed."""
        return logits.new_zeros(())

    # ---- what an export asks for

    def text_form(self) -> TextForm | str:
        """How the text features of any name are made; or, as a sentence, why they are not made of
        its tokens alone."""
        if self.conditional:
            return (
                "every image has text features of its own, so no name can be encoded without one."
            )
        if self.fixed_text is not None:
            templates = self.fixed_text.templates
            if len(templates) > 1:
                return f"the text of a class is the mean of {len(templates)} hand-crafted prompts."
            return TextForm(templates[0])
        shared = self.shared_prompt()
        if shared is None:
            return "its classes do not share their prompt."
        return TextForm("{}" + self.tail, shared[0], deep=shared[1])

    def no_text_graph(self) -> str | None:
        """Why its text features alone, however they are made, do not answer for names that are not
        known yet, as a sentence; None if they do."""
        if not self.new_classes:
            return "the classifier knows the classes it was trained on and no other."
        if type(self).class_logits is not PromptLearner.class_logits:
            return (
                "it does not judge by the similarity of image and text alone, so other names would "
                "be judged by another rule."
            )
        return None

    def no_linear_head(self, names: Sequence[str]) -> str | None:
        """Why its answers over these names are no linear function of normalised features of the
        frozen image tower, as the end of a sentence; None if it knows no reason."""
        if self.image_tokens:
            return "its image tower has learned tokens inside, which no other library knows"
        if self.image_input == "pixels":
            return "its image tower is part of what is learned, and no other library knows it"
        if self.conditional:
            return "every image has text features of its own"
        return None

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
        """Over all that is learned; a group's `lr_multiplier` multiplies the schedule's rate."""
        return SGD(
            [p for p in self.parameters() if p.requires_grad],
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )

    def after_epoch(self, done: int, epochs: int) -> None:
        """Called after each epoch, `done` counting from 1."""

    def after_training(self) -> None:
        """Called once, behind the last `after_epoch`: what is done to what was learned."""

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
        return F.normalize(self.unnormalized_conditional_text(prompts, image), dim=-1)

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
        if chunk is None:
            chunk = 64 if self.image_input == "pixels" or self.conditional else 1024
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


def _read_former_inputs(method: Any, name: str) -> None:
    """Take `image_input` from the words of earlier releases, where a class or a learner has them of
    its own."""
    for word, image_input in FORMER_INPUTS.items():
        value = vars(method).get(word)
        if not isinstance(value, bool):
            continue
        if value:
            method.image_input = image_input
        advice = f'write image_input = "{image_input}"' if value else "leave it out"
        warnings.warn(
            f"The method {name} says {word} = {value}, which a later release will not read: "
            f"{advice}.",
            FutureWarning,
            stacklevel=3,
        )
