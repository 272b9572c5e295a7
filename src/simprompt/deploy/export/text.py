"""The text side of an export: token ids -> text features, for names that are not known yet.

The learned prompt comes in as tokens: its vectors stand behind the vocabulary in the embedding
table, so that the ids of a prompt are [V, V+1, ..., V+P-1][name][.][EOT] for a shared prefix
[SOT][context] of P vectors. Tokens that replace the context in deeper layers are inside the graph.
TCP, whose deeper tokens are made from the hand-crafted feature of each class, takes the ids of the
hand-crafted prompt as a second input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simprompt.clip.text import TextTower, replace_tokens
from simprompt.methods.base import PromptLearner
from simprompt.methods.teacher import Teacher


@dataclass(frozen=True)
class Rule:
    """How the ids of one input are made of a class name: `before`, the template's tokens, EOT."""

    before: tuple[int, ...]
    template: str

    def as_json(self) -> dict[str, Any]:
        """For the card of an exported folder."""
        return {"before": list(self.before), "template": self.template}


def refusal(learner: PromptLearner[Any]) -> str | None:
    """Why this learner has no text side that works by itself; None if it has one."""
    if learner.conditional:
        return "every image has text features of its own, so no name can be encoded without one."
    if not learner.new_classes:
        return "the classifier knows the classes it was trained on and no other."
    if type(learner).class_logits is not PromptLearner.class_logits:
        return (
            "beside the similarity of image and text it has a classifier of the classes it was "
            "learned on, so other names would be judged by another rule."
        )
    if learner.shared_prompt() is None and _fixed(learner) is None and not _makes_tokens(learner):
        return (
            "its classes do not share one prompt: there are several contexts, or the context does "
            "not stand in front of the name."
        )
    return None


class TextSide(nn.Module):
    """Ids [N, L] int64 -> features [N, E] of length 1, read at the first EOT; L up to the context.

    Attributes:
        rules: how the ids of each input are made, in the order of the inputs.
    """

    table: Tensor
    deep: Tensor

    def __init__(self, learner: PromptLearner[Any]) -> None:
        super().__init__()
        clip = learner.clip
        self.tower: TextTower = clip.text
        self.eot = clip.tokenizer.eot
        self.learner: Any = None
        fixed, shared = _fixed(learner), learner.shared_prompt()
        prefix, deep = clip.embed(()), torch.empty(0)
        vocabulary = clip.config.text.vocab_size
        if fixed is not None:
            self.rules: dict[str, Rule] = {"ids": Rule((clip.tokenizer.sot,), fixed)}
        elif shared is not None:
            prefix = shared[0]
            deep = torch.stack(list(shared[1])) if len(shared[1]) else deep
            prefix_ids = tuple(range(vocabulary, vocabulary + len(prefix)))
            self.rules = {"ids": Rule(prefix_ids, "{}" + learner.tail)}
        else:
            self.learner = learner
            holder: Any = learner  # TCP's own, which not every learner has
            context, rest = holder.ctx, holder.rest
            prefix = torch.cat([clip.embed([clip.tokenizer.sot]), context])
            prefix_ids = (*range(vocabulary, vocabulary + len(prefix)), *rest)
            (template,) = learner.teacher.templates
            self.rules = {
                "ids": Rule(prefix_ids, "{}" + learner.tail),
                "hand_crafted_ids": Rule((clip.tokenizer.sot,), template),
            }
        table = torch.cat([self.tower.token_embedding.weight, prefix])
        self.register_buffer("table", table.detach().clone())
        self.register_buffer("deep", deep.detach().clone())

    def forward(self, ids: Tensor, hand_crafted_ids: Tensor | None = None) -> Tensor:
        """Token ids [C, L] -> normalised text features [C, E]."""
        deep = dict(enumerate(self.deep, 1))
        if hand_crafted_ids is not None:
            hand_crafted = F.normalize(self.encode(hand_crafted_ids, {}), dim=-1)
            switch = self.learner.class_tokens(hand_crafted)
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


def _fixed(learner: PromptLearner[Any]) -> str | None:
    """The one sentence, with {} for the name, that a learner whose text cannot move encodes."""
    if learner.text_moves:
        return None
    teacher = getattr(learner, "fixed", learner.teacher)
    assert isinstance(teacher, Teacher)
    return teacher.templates[0] if len(teacher.templates) == 1 else None


def _makes_tokens(learner: PromptLearner[Any]) -> bool:
    """Whether it makes deep tokens from hand-crafted features, as TCP does."""
    return hasattr(learner, "class_tokens")
