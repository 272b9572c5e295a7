"""What methods with a learned context share: [SOT][context][rest][name][tail][EOT]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeVar

from torch import Tensor, nn

from simprompt.clip.model import CLIP
from simprompt.methods.base import PromptLearner, SharedPrompt
from simprompt.methods.parts import (
    ContextConfig,
    Wording,
    behind_sot,
    deep_tokens,
    vit,
    wording,
)

P = TypeVar("P", bound=ContextConfig)


class ContextPrompt(PromptLearner[P]):
    """A method that learns context vectors; `initial_wording` says what they start from.

    Attributes:
        ctx: the context, [M, W].
        rest: tokens behind it that are not learned.
    """

    keep_rest: ClassVar[bool] = False  # True: words that the context has no room for stay

    ctx: nn.Parameter
    rest: tuple[int, ...]

    def initial_wording(self, config: P, seed: int) -> Wording:
        """What the prompt says before anything is learned."""
        return wording(self.clip, config, self.template, seed, keep_rest=self.keep_rest)

    def build(self, clip: CLIP, config: P, seed: int) -> None:
        words = self.initial_wording(config, seed)
        self.ctx = nn.Parameter(words.start)
        self.rest, self.tail = words.rest, words.tail


class SharedContext(ContextPrompt[P]):
    """One context in front of all class names, encoded once for all of them."""

    def shared_prompt(self) -> SharedPrompt:
        return behind_sot(self.clip, self.ctx, self.rest), ()


class DeepContext(SharedContext[P]):
    """Layer l < `text_depth` of the text tower takes fresh tokens for those of the context.

    Of the initial words only the first M tokens are learned, and the others stay in the prompt, as
    in the code of MaPLe and of what derives from it: "of a" of "a photo of a" with M = 2.
    """

    keep_rest = True

    deep: nn.Parameter  # [text_depth - 1, M, W]

    def text_depth(self, config: P) -> int:
        """Text layers with tokens of their own, at most those that the tower has."""
        raise NotImplementedError

    def build(self, clip: CLIP, config: P, seed: int) -> None:
        super().build(clip, config, seed)
        fresh_layers = self.text_depth(config) - 1
        self.deep = deep_tokens(clip, "text", config.n_ctx, fresh_layers, seed)

    def shared_prompt(self) -> SharedPrompt:
        return behind_sot(self.clip, self.ctx, self.rest), list(self.deep)


class TwoTowerConfig(ContextConfig):
    """Sizes of the tokens in both towers; each method has its own defaults."""

    n_tokens: int
    text_depth: int
    depth: int


T = TypeVar("T", bound=TwoTowerConfig)


class TwoTowerPrompt(DeepContext[T]):
    """Deep tokens in both towers, each by itself; depths are cut to the layers of the towers.

    text layer l sees  [SOT][v_l1] ... [v_lM][the rest of the words][name][.][EOT]
    image layer l sees [CLS][patches][p_l1] ... [p_lN]
    """

    image_input = "pixels"
    image_tokens = True

    def text_depth(self, config: T) -> int:
        return min(config.text_depth, self.clip.config.text.layers)

    def build(self, clip: CLIP, config: T, seed: int) -> None:
        super().build(clip, config, seed)
        layers = min(config.depth, vit(clip).layers)
        self.tokens = deep_tokens(clip, "image", config.n_tokens, layers, seed)

    def visual_tokens(self) -> Sequence[Tensor]:
        return list(self.tokens)
