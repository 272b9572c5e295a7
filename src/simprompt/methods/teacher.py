"""Text features of hand-crafted prompts, computed once; SAR and several methods pull towards them.

Training asks for the same names at every step: a `Teacher` encodes its learner's classes and SAR's
names once and keeps them, so KgCoOp's distance, PromptSRC's text term, TCP's class tokens and SAR's
target cost one pass over the names together. Any other name is encoded for the call that asks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from simprompt.clip.model import CLIP
from simprompt.clip.same_text import prompt_text
from simprompt.clip.transformer import overflow
from simprompt.errors import SimpromptError
from simprompt.utils.cache import Lock, Memo
from simprompt.utils.devices import to_device
from simprompt.utils.gradients import frozen_mode

# From OpenAI's CLIP notebook for ImageNet; PromptSRC's teacher averages these.
_NOTEBOOK = """
a photo of a {}.; a bad photo of a {}.; a photo of many {}.; a sculpture of a {}.;
a photo of the hard to see {}.; a low resolution photo of the {}.; a rendering of a {}.;
graffiti of a {}.; a bad photo of the {}.; a cropped photo of the {}.; a tattoo of a {}.;
the embroidered {}.; a photo of a hard to see {}.; a bright photo of a {}.;
a photo of a clean {}.; a photo of a dirty {}.; a dark photo of the {}.; a drawing of a {}.;
a photo of my {}.; the plastic {}.; a photo of the cool {}.; a close-up photo of a {}.;
a black and white photo of the {}.; a painting of the {}.; a painting of a {}.;
a pixelated photo of the {}.; a sculpture of the {}.; a bright photo of the {}.;
a cropped photo of a {}.; a plastic {}.; a photo of the dirty {}.;
a jpeg corrupted photo of a {}.; a blurry photo of the {}.; a photo of the {}.;
a good photo of the {}.; a rendering of the {}.; a {} in a video game.; a photo of one {}.;
a doodle of a {}.; a close-up photo of the {}.; the origami {}.; the {} in a video game.;
a sketch of a {}.; a doodle of the {}.; a origami {}.; a low resolution photo of a {}.;
the toy {}.; a rendition of the {}.; a photo of the clean {}.; a photo of a large {}.;
a rendition of a {}.; a photo of a nice {}.; a photo of a weird {}.; a blurry photo of a {}.;
a cartoon {}.; art of a {}.; a sketch of the {}.; a embroidered {}.;
a pixelated photo of a {}.; itap of the {}.
"""
IMAGENET_60 = tuple(" ".join(part.split()) for part in _NOTEBOOK.split(";"))


MOST_LISTS, MOST_ROWS = 16, 1 << 13
"""Lists asked for last whose names are not kept, and names in all of them: an own method may ask
for one list at every step."""


def fill(template: str, name: str) -> str:
    """The template with the class name in it, as `same_text.prompt_text` has it."""
    return template.replace("{}", prompt_text(name))


class Teacher:
    """Features of class names behind a set of templates.

    Thread-safe: features depend on the names of a call and on the names that are kept, not on
    earlier calls or on other threads. Memory grows with the kept names only.

    Args:
        templates: sentences with `{}` for the name.
        unnormalized: average the templates' features at the length the tower gives them (PromptSRC)
            instead of normalising each first (CLIP's own ensembles). One template's always are.
        names: class names that are encoded together when the first of them is asked for, and
            kept.

    Raises:
        SimpromptError: no templates, or one without `{}`.
    """

    def __init__(
        self,
        clip: CLIP,
        templates: Sequence[str],
        unnormalized: bool = False,
        names: Sequence[str] = (),
    ) -> None:
        wrong = [t for t in templates if "{}" not in t]
        if wrong or not templates:
            raise SimpromptError(
                "A hand-crafted prompt needs a place for the class name, such as "
                f"'a photo of a {{}}.'; got {wrong[0] if wrong else list(templates)!r}."
            )
        self.clip, self.templates = clip, tuple(templates)
        self.averages_unnormalized = unnormalized or len(self.templates) == 1
        self._own = dict.fromkeys(names)
        # replaced as a whole, so that a thread that looks sees rows and features of one moment
        self._kept: tuple[dict[str, int], Tensor] = {}, torch.empty(0)
        self._lock = Lock()
        self._lists: Memo[tuple[str, ...], Tensor] = Memo(MOST_ROWS)

    def __call__(self, names: Sequence[str]) -> Tensor:
        """Normalised features [N, E], float32 at least; see `unnormalized`."""
        unnormalized = self.unnormalized(names)
        with frozen_mode():
            return F.normalize(unnormalized, dim=-1)

    def keep(self, names: Sequence[str]) -> None:
        """Encode these names together, those that are kept already left out, and keep them.

        Raises:
            SimpromptError: a feature is not finite.
        """
        with self._lock:
            row, table = self._kept
            missing = [name for name in dict.fromkeys(names) if name not in row]
            if missing:
                fresh = self._encoded(missing)
                table = torch.cat([table, fresh]) if row else fresh
                added_rows = {name: len(row) + i for i, name in enumerate(missing)}
                self._kept = {**row, **added_rows}, table

    def unnormalized(self, names: Sequence[str]) -> Tensor:
        """Features [N, E], not normalised: of one template as they leave the tower.

        Names that are not kept are encoded together.

        Raises:
            SimpromptError: a feature is not finite.
        """
        if any(name in self._own and name not in self._kept[0] for name in names):
            self.keep([*self._own])
        row, table = self._kept
        other_names = tuple(name for name in dict.fromkeys(names) if name not in row)
        if other_names:
            weight = max(len(other_names), MOST_ROWS // MOST_LISTS)
            fresh = self._lists.get(other_names, lambda: self._encoded(other_names), weight)
            table = torch.cat([table, fresh]) if row else fresh
            row = {**row, **{name: len(row) + i for i, name in enumerate(other_names)}}
        with frozen_mode():
            rows = torch.tensor([row[name] for name in names], dtype=torch.long)
            return table[to_device(rows, table.device)]

    def _encoded(self, names: Sequence[str]) -> Tensor:
        """Features [N, E] of different names, the mean over the templates."""
        with frozen_mode():
            return torch.stack([self._encode(t, names) for t in self.templates]).mean(0)

    def _encode(self, template: str, names: Sequence[str]) -> Tensor:
        texts = [fill(template, name) for name in names]
        features = self.clip.encode_texts(texts, unnormalized=self.averages_unnormalized)
        wrong = (~features.isfinite()).any(-1).cpu()
        if wrong.any():
            text = texts[int(wrong.nonzero()[0])]
            raise SimpromptError(
                f"The features of the text {text!r} hold NaN or infinity, as the text tower of "
                f"{self.clip.name} gives them{overflow('it', self.clip.text.dtype)}."
            )
        return features


def teacher_features(clip: CLIP, templates: Sequence[str], names: Sequence[str]) -> Tensor:
    """Normalised features [N, E] of the names: the mean over templates, normalised again."""
    return Teacher(clip, templates)(names)
