"""CoOp: learn the context vectors of the prompt (Zhou et al., IJCV 2022).

    prompt of class i = [SOT][v_1] ... [v_M][name of i][.][EOT],   loss = CE(scale * cos)

What is learned is v [M, W], shared by all classes (or one set a class, `class_specific`), started
from the first M tokens of the hand-crafted template's words (the authors set M from the words, so
none is left over). The name stands at the `end`, in the `middle` of the context or in `front` of
it.

A shared context at the end is encoded once for all classes; the other forms share no prefix and
take the plain path, still cut off behind the longest prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from simprompt.clip.model import CLIP
from simprompt.clip.same_text import match_names, prompt_text
from simprompt.clip.suffixes import Suffixes
from simprompt.config import Training
from simprompt.errors import SimpromptError
from simprompt.methods.base import SharedPrompt, TextForm
from simprompt.methods.context_prompt import ContextPrompt
from simprompt.methods.parts import ContextConfig, behind_sot
from simprompt.utils.devices import to_device


class CoOpConfig(ContextConfig):
    """CoOp's settings; the defaults are those of CoOp's base-to-new runs in the CoCoOp paper, but
    for `init`: those start from "a photo of a" on every dataset (recipe coop@cocoop-paper)."""

    class_specific: bool = Field(
        False, description="a context for every class; a class not trained on takes their mean"
    )
    position: Literal["end", "middle", "front"] = Field("end", description="of the class name")


class CoOp(ContextPrompt[CoOpConfig]):
    """One context for all classes; `position`, `class_specific` give the other forms."""

    schedule = Training(lr=2e-3, epochs=200, batch_size=32)
    summary = "M context vectors, shared by all classes"
    source = "Zhou et al., IJCV 2022; base-to-new settings of the CoCoOp paper (CVPR 2022)"

    def build(self, clip: CLIP, config: CoOpConfig, seed: int) -> None:
        super().build(clip, config, seed)
        self.position, self.class_specific = config.position, config.class_specific
        if config.class_specific:
            self.ctx = nn.Parameter(
                self.ctx.detach().repeat(len(self.classnames), 1, 1)
            )  # [C, M, W]
        self.name_length: dict[str, int] = {}

    @property
    def blends_context(self) -> bool:
        return self.position == "end" and super().blends_context

    def shared_prompt(self) -> SharedPrompt | None:
        if self.class_specific or self.position != "end":
            return None
        return behind_sot(self.clip, self.ctx, self.rest), ()

    def text_form(self) -> TextForm | str:
        if self.class_specific:
            return "its classes do not share their prompt: each has a context of its own."
        if self.position != "end":
            return (
                "its classes do not share their prompt: the context does not stand in front of the "
                "name."
            )
        return super().text_form()

    def unnormalized_text(self, prompts: Suffixes) -> Tensor:
        if self.shared_prompt():
            return super().unnormalized_text(prompts)
        sot, tail = self.clip.embed_prefix(), self.clip.embed(self.rest)
        flat = to_device(torch.tensor([i for ids in prompts.ids for i in ids]), self.clip.device)
        embedded = self.clip.text.token_embedding(flat).split([len(ids) for ids in prompts.ids])
        contexts = self.contexts_of(prompts.names)
        rows, ends = [], []
        for name, ctx, tokens in zip(prompts.names, contexts, embedded, strict=True):
            name_length = self.length_of(name)
            boundary = {"end": len(ctx), "middle": len(ctx) // 2, "front": 0}[self.position]
            pieces = [ctx[:boundary], tokens[:name_length], ctx[boundary:]]
            pieces.insert(1 if self.position == "end" else 3, tail)
            row = torch.cat([sot, *pieces, tokens[name_length:]])
            self.check_length(name, len(row))
            rows.append(row)
            ends.append(len(row) - 1)
        padded = pad_sequence(rows, batch_first=True)  # [C, L, W]
        return self.clip.text.forward_embedded(padded, to_device(torch.tensor(ends), padded.device))

    def contexts_of(self, names: Sequence[str]) -> list[Tensor]:
        """The context [M, W] of each class."""
        if not self.class_specific:
            return [self.ctx] * len(names)
        matches = match_names(names, self.classnames)
        return [self.ctx.mean(0) if row is None else self.ctx[row] for row in matches]

    def length_of(self, name: str) -> int:
        """Tokens of the class name alone; the context goes on behind them."""
        if name not in self.name_length:
            self.name_length[name] = len(self.clip.tokenizer.encode(prompt_text(name)))
        return self.name_length[name]

    def check_length(self, name: str, tokens: int) -> None:
        """Raise SimpromptError for a class name that has no room beside the context."""
        if tokens > self.clip.text.config.context_length:
            raise SimpromptError(
                f"The prompt of the class {name!r} takes {tokens} tokens, but this model reads "
                f"{self.clip.text.config.context_length}. Shorten the name or lower n_ctx."
            )


LEARNER = CoOp
