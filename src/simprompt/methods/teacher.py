"""Text features of hand-crafted prompts, computed once; SAR and several methods pull towards them.

`Teacher` remembers every name it has encoded, so KgCoOp's distance, PromptSRC's text term, TCP's
class tokens and SAR's target cost one pass over the names together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from simprompt.clip.model import CLIP
from simprompt.clip.same_text import spelled
from simprompt.clip.transformer import overflow
from simprompt.devices import moved
from simprompt.errors import SimpromptError

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


def fill(template: str, name: str) -> str:
    """The template with the class name in it, as `same_text.spelled` has it."""
    return template.replace("{}", spelled(name))


class Teacher:
    """Features of class names behind a set of templates.

    Args:
        templates: sentences with `{}` for the name.
        natural: average the templates' features at the length the tower gives them (PromptSRC)
            instead of normalising each first (CLIP's own ensembles). One template's always are.

    Raises:
        SimpromptError: no templates, or one without `{}`.
    """

    def __init__(self, clip: CLIP, templates: Sequence[str], natural: bool = False) -> None:
        wrong = [t for t in templates if "{}" not in t]
        if wrong or not templates:
            raise SimpromptError(
                "A hand-crafted prompt needs a place for the class name, such as "
                f"'a photo of a {{}}.'; got {wrong[0] if wrong else list(templates)!r}."
            )
        self.clip, self.templates = clip, tuple(templates)
        self.averages_natural = natural or len(self.templates) == 1
        self.row: dict[str, int] = {}
        self.table = torch.empty(0)

    def __call__(self, names: Sequence[str]) -> Tensor:
        """Normalised features [N, E]; only names that were never asked for are encoded."""
        return F.normalize(self.natural(names), dim=-1)

    @torch.no_grad()
    def natural(self, names: Sequence[str]) -> Tensor:
        """Features [N, E], not normalised: of one template as they leave the tower."""
        missing = [name for name in dict.fromkeys(names) if name not in self.row]
        if missing:
            fresh = torch.stack([self._encode(t, missing) for t in self.templates]).mean(0)
            self.table = torch.cat([self.table, fresh]) if self.row else fresh
            self.row.update({name: len(self.row) + i for i, name in enumerate(missing)})
        rows = torch.tensor([self.row[name] for name in names], dtype=torch.long)
        return self.table[moved(rows, self.table.device)]

    def _encode(self, template: str, names: Sequence[str]) -> Tensor:
        texts = [fill(template, name) for name in names]
        features = self.clip.encode_texts(texts, natural=self.averages_natural)
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
