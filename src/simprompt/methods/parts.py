"""What several methods are made of: the words of a learned prompt, contexts, deep tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from simprompt.clip.model import CLIP
from simprompt.clip.same_text import match_names
from simprompt.clip.vision import VisionConfig
from simprompt.config import Neutral, Settings
from simprompt.errors import SimpromptError
from simprompt.utils.seeds import stream

DEFAULT_WORDS = "a photo of a"  # the field's start where a template has no words in front
STD = 0.02  # of random initial tokens, everywhere in the field


class ContextConfig(Settings):
    """How a context starts, and how much of the hand-crafted prompt comes back at the end."""

    n_ctx: int = Field(4, ge=1, le=64, description="M, context tokens")
    init: str = Field(
        "template", description="'template': its first words; 'random': N(0, 0.02); else the words"
    )
    student: str | None = Field(
        None,
        description="the learned prompt's own words, with {} for the name, where they are not "
        "those of the hand-crafted template; or the name of a template set",
    )
    blend: Annotated[float, Neutral(0.0)] = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the hand-crafted prompt that is mixed in after the training",
    )
    blend_in_training: Annotated[bool, Neutral(False)] = Field(
        False, description="mix that share into the text features in training as well"
    )
    average: Annotated[float, Neutral(0.0)] = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the epochs, the last ones, over which what is learned is averaged",
    )


def noise(*shape: int, seed: int, purpose: str) -> Tensor:
    """N(0, 0.02), the same for the same seed and purpose."""
    return torch.randn(*shape, generator=stream(seed, purpose)) * STD


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Layers made in here start the same for the same seed and purpose; the global state is left
    alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, purpose).initial_seed())
        yield


def initial_words(init: str, template: str) -> str:
    """The words a context starts from; an empty string for random."""
    if init == "random":
        return ""
    words = (template.split("{}")[0].strip() or DEFAULT_WORDS) if init == "template" else init
    return words.replace("_", " ")


def initial_context(
    clip: CLIP, n_ctx: int, words: str, seed: int, fill_with: str = "noise", most: int = 64
) -> Tensor:
    """Context vectors [M, W]: embeddings of the first M tokens of some words, at most `most`.

    Words with fewer than M tokens are filled up in front with N(0, 0.02) vectors (or zeros), so
    that the words stand next to the class name.
    """
    reference = clip.logit_scale
    start = noise(n_ctx, clip.config.text.width, seed=seed, purpose="context")
    start = start.to(reference.device, reference.dtype)
    if not words:
        return start
    if fill_with == "zeros":
        start = torch.zeros_like(start)
    tokens = clip.embed_prefix(words)[1 : 1 + min(n_ctx, most)].detach()
    return torch.cat([start[: n_ctx - len(tokens)], tokens])


@dataclass(frozen=True)
class Wording:
    """What a learned prompt says: [SOT][context][rest][name][tail][EOT].

    Attributes:
        start: what the context starts from, [M, W].
        rest: tokens of the words that stay as they are; R of them, mostly none.
        tail: what stands behind the name.
        hand_crafted: whether this is the hand-crafted prompt, word for word.
    """

    start: Tensor
    rest: tuple[int, ...]
    tail: str
    hand_crafted: bool = False


def wording(
    clip: CLIP,
    config: ContextConfig,
    template: str,
    seed: int,
    *,
    keep_rest: bool = False,
    tail: str = ".",
    fill_with: str = "noise",
    by_words: bool = False,
) -> Wording:
    """The words of a learned prompt.

    A student template says them all: of its tokens before the name the context takes the first M,
    the others stay, and its tail stands behind the name. Without one the context starts from
    `init`; words longer than the context are cut off, unless their method keeps them.

    Args:
        keep_rest: whether the words that the context has no room for stay in the prompt. The code
            of MaPLe, IVLP, deep language prompting and PromptSRC keeps them ("of a" in "a photo of
            a" with M = 2). CoOp, CoCoOp and KgCoOp set M from the words, so nothing is left over.
        tail: behind the name where there is no student template.
        fill_with: as for `initial_context`.
        by_words: learn as many tokens as there are words, and keep the others (ProGrad).

    Raises:
        SimpromptError: a student template without a place for the name, or more words than the
            context has tokens where words are counted.
    """
    student = config.student
    if student is not None and "{}" not in student:
        raise SimpromptError(
            "The student template (options.student) needs a place for the class name, such as "
            f"'a photo of a {{}}.', or is the name of a template set; got {student!r}."
        )
    start_words = initial_words(config.init, student or template)
    context_length, words = config.n_ctx, ""
    if student is not None:
        words, _, tail = student.partition("{}")
    elif keep_rest:
        words = start_words
    if by_words and start_words:
        context_length, words = len(start_words.split()), words or start_words
        if context_length > config.n_ctx:
            raise SimpromptError(
                f"{start_words!r} has {context_length} words, more than the {config.n_ctx} "
                "context tokens "
                "(options.n_ctx). Raise n_ctx, or count tokens: options.count=tokens."
            )
    start = initial_context(clip, config.n_ctx, start_words, seed, fill_with, context_length)
    rest = tuple(clip.tokenizer.encode(words.strip())[context_length:])
    front, _, end = template.partition("{}")
    as_template = start_words == front.strip().replace("_", " ") and tail == end
    same_length = config.n_ctx + len(rest) == len(clip.tokenizer.encode(start_words))
    return Wording(start, rest, tail, as_template and same_length)


def own_columns(names: Sequence[str], own: Sequence[str], knows: str, trained: str) -> list[int]:
    """Where `names` stand among a classifier's own classes, by `same_text.match_names`.

    Args:
        knows, trained: how its error begins and goes on, as in "A probe knows", "it was".

    Raises:
        SimpromptError: a name that it has no answer for.
    """
    columns: list[int] = []
    for name, column in zip(names, match_names(names, own), strict=True):
        if column is None:
            raise SimpromptError(
                f"{knows} the {len(own)} classes {trained} trained on, and {name!r} is none of "
                "them. Use a prompt method for other classes."
            )
        columns.append(column)
    return columns


def vit(clip: CLIP) -> VisionConfig:
    """Sizes of the image tower, which has to be one that can take tokens.

    Raises:
        SimpromptError: the tower is convolutional (a ResNet, an EfficientNet) and has no tokens.
    """
    if not isinstance(clip.config.vision, VisionConfig):
        raise SimpromptError(
            f"The image tower of {clip.name} is convolutional, and visual prompts are tokens of a "
            "ViT. Choose a ViT model, or a method that learns the text prompt only."
        )
    return clip.config.vision


def deep_tokens(clip: CLIP, tower: str, n: int, layers: int, seed: int) -> nn.Parameter:
    """Random tokens [layers, n, W] for the tower "text" or "image", on the model's device and in
    its precision."""
    reference = clip.logit_scale
    width = (clip.config.text if tower == "text" else vit(clip)).width
    tokens = noise(max(layers, 0), n, width, seed=seed, purpose=f"{tower} tokens")
    return nn.Parameter(tokens.to(reference.device, reference.dtype))


def like_model(clip: CLIP, module: nn.Module) -> nn.Module:
    """The module on the model's device and in its precision."""
    return module.to(clip.device, clip.logit_scale.dtype)


def behind_sot(clip: CLIP, ctx: Tensor, rest: Sequence[int] = ()) -> Tensor:
    """[SOT][ctx][rest] as embeddings, [1 + M + R, W], of a context and the tokens that stay; a
    batch of them for contexts [B, M, W]."""
    fixed = clip.embed([clip.tokenizer.sot, *rest])
    if ctx.dim() == 3:
        fixed = fixed.expand(ctx.shape[0], -1, -1)
    return torch.cat([fixed[..., :1, :], ctx, fixed[..., 1:, :]], dim=-2)
