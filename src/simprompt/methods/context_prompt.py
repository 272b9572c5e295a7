"""What methods with a learned context share: [SOT][context][rest][name][tail][EOT]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simprompt.clip.model import CLIP
from simprompt.clip.suffixes import Suffixes
from simprompt.methods.base import PromptLearner, SharedPrompt, TextForm
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
        crafted_share: the share of the hand-crafted prompt in the text features, where `blend`
            cannot be in the context; 0 while the prompt is trained, but for `blend_in_training`.
        mean_parameters: by name, the part of the mean over epochs that is there so far.
    """

    keep_rest: ClassVar[bool] = False  # True: words that the context has no room for stay

    ctx: nn.Parameter
    rest: tuple[int, ...]
    crafted_share: Tensor | None

    def __init__(
        self, clip: CLIP, classnames: Sequence[str], template: str, config: P, seed: int = 0
    ) -> None:
        super().__init__(clip, classnames, template, config, seed)
        in_text = bool(config.blend) and not self.blends_context
        share = clip.logit_scale.new_zeros(()) if in_text else None
        if share is not None and config.blend_in_training:
            share.fill_(config.blend)
        self.register_buffer("crafted_share", share)
        self.mean_parameters: dict[str, Tensor] = {}

    def initial_wording(self, config: P, seed: int) -> Wording:
        """What the prompt says before anything is learned."""
        return wording(self.clip, config, self.template, seed, keep_rest=self.keep_rest)

    def build(self, clip: CLIP, config: P, seed: int) -> None:
        words = self.initial_wording(config, seed)
        self.ctx = nn.Parameter(words.start)
        self.rest, self.tail = words.rest, words.tail
        self._start = words.start.clone() if words.hand_crafted else None

    @property
    def blends_context(self) -> bool:
        """Whether a share of the hand-crafted prompt can be mixed in as one prompt: the context
        starts as that prompt, nothing else is learned, and it was learned without that share."""
        alone = all(p is self.ctx for p in self.parameters())
        return self._start is not None and alone and not self.config.blend_in_training

    def epoch_weights(self, epochs: int) -> Sequence[float]:
        """What each epoch counts in the mean of what is learned; empty: the last one is taken."""
        counted = math.ceil(self.config.average * epochs)
        return [0.0] * (epochs - counted) + [1 / counted] * counted if counted else ()

    @torch.no_grad()
    def after_epoch(self, done: int, epochs: int) -> None:
        weights = self.epoch_weights(epochs)
        if not weights:
            return
        means = self.mean_parameters
        for name, value in self.named_parameters():
            means[name] = means.get(name, 0) + weights[done - 1] * value
            if done == epochs:
                value.copy_(means[name])
        if done == epochs:
            means.clear()

    def averages(self) -> Sequence[dict[str, Tensor]]:
        return (self.mean_parameters,)

    def after_training(self) -> None:
        self.mix(self.config.blend)

    @torch.no_grad()
    def mix(self, share: float) -> None:
        """Mix a share of the hand-crafted prompt into what was learned: 0 changes nothing, 1 is
        that prompt."""
        if not share:
            return
        if self.blends_context:
            assert self._start is not None
            self.ctx.lerp_(self._start.to(self.ctx), share)
        else:
            assert self.crafted_share is not None
            self.crafted_share.fill_(share)

    def text_features(self, prompts: Suffixes) -> Tensor:
        return self._blended(super().text_features(prompts), prompts)

    def conditional_text(self, prompts: Suffixes, image: Tensor) -> Tensor:
        return self._blended(super().conditional_text(prompts, image), prompts)

    def _blended(self, text: Tensor, prompts: Suffixes) -> Tensor:
        """Text features [..., C, E] with their share of the hand-crafted ones."""
        if self.crafted_share is None or not self.crafted_share:
            return text
        crafted = self.teacher(prompts.names).to(text)
        return F.normalize(text.lerp(crafted.expand_as(text), self.crafted_share.to(text)), dim=-1)

    def text_form(self) -> TextForm | str:
        if self.crafted_share is not None:
            return "its text features are a mean of two prompts, the learned and the hand-crafted."
        return super().text_form()


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
