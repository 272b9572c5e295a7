"""The text side of an export: token ids -> text features, for names that are not known yet.

A method says how its text is made, `PromptLearner.text_form`. The learned prompt comes in as
tokens: its vectors stand behind the vocabulary in the embedding table, so that the ids of a prompt
are [V, V+1, ..., V+P-1][name][.][EOT] for a shared prefix [SOT][context] of P vectors. Tokens that
replace the context in deeper layers are inside the graph. Where deeper tokens are made from the
hand-crafted feature of each class (TCP), the ids of the hand-crafted prompt are a second input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simprompt.clip.text import TextTower, replace_tokens
from simprompt.methods.base import PromptLearner, TextForm


@dataclass(frozen=True)
class Rule:
    """How the ids of one input are made of a class name: `before`, the template's tokens, EOT."""

    before: tuple[int, ...]
    template: str

    def as_json(self) -> dict[str, Any]:
        """For the card of an exported folder."""
        return {"before": list(self.before), "template": self.template}


class TextSide(nn.Module):
    """Ids [N, L] int64 -> features [N, E] of length 1, read at the first EOT; L up to the context.

    Attributes:
        rules: how the ids of each input are made, in the order of the inputs.
    """

    table: Tensor
    deep: Tensor

    def __init__(self, learner: PromptLearner[Any], form: TextForm) -> None:
        super().__init__()
        clip = learner.clip
        self.tower: TextTower = clip.text
        self.eot = clip.tokenizer.eot
        # registered where it makes tokens, so that the exporter knows its weights
        self.learner = learner if form.class_tokens else None
        self.class_tokens = form.class_tokens
        vocabulary, sot = clip.config.text.vocab_size, (clip.tokenizer.sot,)
        prefix = clip.embed(()) if form.prefix is None else form.prefix
        prefix_ids = tuple(range(vocabulary, vocabulary + len(prefix))) or sot
        self.rules = {"ids": Rule((*prefix_ids, *form.rest), form.template)}
        if form.class_tokens:
            self.rules["hand_crafted_ids"] = Rule(sot, form.hand_crafted)
        deep = torch.stack(list(form.deep)) if len(form.deep) else torch.empty(0)
        table = torch.cat([self.tower.token_embedding.weight, prefix])
        self.register_buffer("table", table.detach().clone())
        self.register_buffer("deep", deep.detach().clone())

    def forward(self, ids: Tensor, hand_crafted_ids: Tensor | None = None) -> Tensor:
        """Token ids [C, L] -> normalised text features [C, E]."""
        deep = dict(enumerate(self.deep, 1))
        if hand_crafted_ids is not None and self.class_tokens is not None:
            hand_crafted = F.normalize(self.encode(hand_crafted_ids, {}), dim=-1)
            switch = self.class_tokens(hand_crafted)
            deep = {switch.layer: switch.tokens}
        return F.normalize(self.encode(ids, deep), dim=-1)

    def encode(self, ids: Tensor, deep: dict[int, Tensor]) -> Tensor:
        """Features [N, E] as they leave the tower; before layer l the tokens deep[l] ([M, W] or
        [N, M, W]) replace the positions 1..M."""
        x = F.embedding(ids, self.table) + self.tower.positional_embedding[: ids.shape[1]]
        for layer, block in enumerate(self.tower.blocks):
            if layer in deep:
                x = replace_tokens(x, deep[layer], 1)
            x = block(x, causal=True)
        end = (ids == self.eot).int().argmax(dim=1)
        return self.tower.project(x[torch.arange(x.shape[0]), end])
