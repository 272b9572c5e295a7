"""A classifier of images and text in one set of answers, for names with images and without (ours).

    logit of a class with images = a (s x w_c + b_c + q s z t_c)
    logit of any other name      = b s z t_n + c          (x for z without `map_new`)

x is the unit feature of an image and z the same behind an image map (`image-map`), or x itself; t
is the text of a host, by default the hand-crafted prompt; s is the model's scale. w and b are a
softmax classifier fitted to the images with a penalty on w (`known: probe`), or w the class means
and b = 0 (`means`); with `text` they are 0 and q is 1. So text says what the images leave open:
the sum is the blend of a linear probe and text of LP++ (Huang et al., CVPR 2024) with one weight q
for all classes.

a, b and c make the two kinds of logits comparable. They are fitted on the training images alone:
halves of the base classes play the new ones, and everything is fitted without their images, also
the map, since a map that has seen images of a class makes its text look too good. After Chao et
al. (ECCV 2016), who calibrate seen against unseen classes by one constant.

The features of the training images are kept with what was computed from them, rounded to 16 bits,
so that images and classes can be added later (`extended`): all is computed again, nothing trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from simprompt.clip.model import CLIP
from simprompt.clip.same_text import match_names
from simprompt.config import Settings, Training
from simprompt.errors import SimpromptError
from simprompt.features.pixels import Images
from simprompt.methods.base import Batch
from simprompt.methods.closed_form import Fit, Form, calibrated, mean_of_views
from simprompt.methods.hosted import HostedLearner, text_host
from simprompt.utils.devices import to_device
from simprompt.utils.optimizers import SGD


class ImagesWithTextConfig(Settings):
    """What is put together, and how."""

    known: Literal["probe", "means", "text"] = Field(
        "probe", description="what tells classes with images apart beside text"
    )
    share: float = Field(0.3, ge=0, description="q: text in the logits of classes with images")
    ridge: float | None = Field(
        0.1, gt=0, description="l of an image map in front of text; null: no map"
    )
    map_new: bool = Field(
        True, description="whether the map stands in front of names without images as well"
    )
    penalty: float = Field(0.01, gt=0, description="of the probe's squared weights")
    host: str = Field("zero-shot", description="the method whose text it takes")
    host_options: dict[str, Any] | None = Field(None, description="the host's settings")

    @property
    def form(self) -> Form:
        """The settings that `closed_form` takes."""
        return Form(self.known, self.share, self.ridge, self.map_new)


class ImagesWithText(HostedLearner[ImagesWithTextConfig]):
    """A classifier of the base classes' images, joined with a host's text."""

    schedule = Training(epochs=1, batch_size=256)
    summary = "a classifier of images joined with text, in closed form, beside what its host learns"
    text_moves = False  # of its usual host
    source = "ours: LP++ (Huang et al., CVPR 2024) joined with other names as in Chao et al. (2016)"

    mean: Tensor
    map: Tensor
    bias: Tensor
    rates: Tensor
    shots: Tensor  # unit features [N, E] of the training images
    shot_labels: Tensor  # [N]

    def build(self, clip: CLIP, config: ImagesWithTextConfig, seed: int) -> None:
        kind = text_host("images+text", config.host)
        self.take_host(kind, config.host_options or {}, f"Settings of the host {config.host}")
        reference = clip.logit_scale
        width, classes = clip.embed_dim, len(self.classnames)
        self.weight = nn.Parameter(reference.new_zeros(classes, width))
        self.register_buffer("bias", reference.new_zeros(classes))
        self.register_buffer("mean", reference.new_zeros(width))
        mapped = width if config.ridge is not None else 0
        self.register_buffer("map", reference.new_zeros(mapped, mapped))
        one, zero = reference.new_ones(()), reference.new_zeros(())
        self.register_buffer("rates", torch.stack([one, one, zero]))
        self.register_buffer("shots", reference.new_zeros(0, width, dtype=torch.float16))
        self.register_buffer("shot_labels", reference.new_zeros(0, dtype=torch.long))

    def loss(self, batch: Batch, text: Tensor | None = None) -> Tensor:
        """The host's; the classifier has no gradient."""
        return self.host.loss(batch, text) + 0 * self.weight.sum()

    def optimiser(self, settings: Training) -> torch.optim.Optimizer:
        if self.host.parameter_count():
            return self.host.optimiser(settings)
        return SGD([self.weight], lr=settings.lr)  # its gradient is zero

    def prepare(self, images: Images, labels: Tensor) -> None:
        assert isinstance(images, Tensor)
        super().prepare(images, labels)
        if images.device.type == "meta":  # only the sizes are asked for
            return
        self.shots = to_device(mean_of_views(images).half(), self.clip.device)
        self.shot_labels = to_device(labels.cpu(), self.clip.device)

    def after_training(self) -> None:
        super().after_training()
        self.fit()

    @torch.no_grad()
    def fit(self) -> None:
        """Compute everything from the training images and the host's text of this moment."""
        form, scale, penalty = self.config.form, self.clip.scale, self.config.penalty
        images = F.normalize(self.shots.cpu().double(), dim=-1)
        labels = self.shot_labels.cpu()
        text = self.host.text_features(self.base).cpu().double()
        # learned text has seen images of all classes, pseudo-new ones as well
        crafted = self.teacher(self.classnames).cpu().double()
        whole = Fit(images, labels, text, scale, penalty)
        found = whole.classifier(form.known)
        mean, weight = whole.map(form.ridge)
        before = Fit(images, labels, crafted, scale, penalty)
        values = (
            (self.weight, found[:, :-1]),
            (self.bias, found[:, -1]),
            (self.mean, mean),
            (self.map, weight if self.map.numel() else self.map),
            (self.rates, calibrated(form, before, self.seed)),
        )
        for tensor, value in values:
            tensor.copy_(to_device(value.to(tensor.dtype), tensor.device))

    def extended(self, classnames: Sequence[str], images: Tensor, labels: Tensor) -> ImagesWithText:
        """The same with more images, computed anew; what the host learned stays as it is.

        Args:
            classnames: those of this learner, then others.
            images: features [N, E], of which those that are here already, with the same label,
                count once.
            labels: [N], rows of `classnames`.

        Raises:
            SimpromptError: the host's prompt is one for each class.
        """
        larger = type(self)(self.clip, classnames, self.template, self.config, self.seed)
        try:
            larger.host.load_state_dict(self.host.state_dict())
        except RuntimeError:
            raise SimpromptError(
                f"Images of other classes cannot be added: the host {self.config.host} has learned "
                "something for each class. Learn again from all images."
            ) from None
        larger.set_training(self.schedule)
        features = mean_of_views(images[:, None]).half().cpu()
        both = torch.cat([self.shots.cpu(), features])
        everyone = torch.cat([self.shot_labels.cpu(), labels.cpu()])
        first = {
            (int(label), bytes(row.numpy().tobytes())): number
            for number, (row, label) in reversed([*enumerate(zip(both, everyone, strict=True))])
        }
        rows = sorted(first.values())
        larger.shots = to_device(both[rows], self.clip.device)
        larger.shot_labels = to_device(everyone[rows], self.clip.device)
        larger.fit()
        return larger

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """As many images as there are in what is loaded."""
        shots, labels = (state_dict.get(prefix + name) for name in ("shots", "shot_labels"))
        if (
            isinstance(shots, Tensor)
            and isinstance(labels, Tensor)
            and shots.shape == (len(labels), self.clip.embed_dim)
            and labels.dtype == torch.long
            and bool(((labels >= 0) & (labels < len(self.classnames))).all())
        ):
            self.shots = self.shots.new_zeros(shots.shape)
            self.shot_labels = self.shot_labels.new_zeros(labels.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def class_logits(self, unnormalized: Tensor, text: Tensor, names: Sequence[str]) -> Tensor:
        image = F.normalize(unnormalized, dim=-1)
        moved = image
        if self.map.numel():
            moved = F.normalize(image + (image - self.mean) @ self.map, dim=-1)
        by_text = self.clip.scaled(moved) @ text.T
        a, b, offset = self.rates
        other = by_text if self.config.map_new else self.clip.scaled(image) @ text.T
        logits: Tensor = b * other + offset
        rows = match_names(names, self.classnames)
        columns = [column for column, row in enumerate(rows) if row is not None]
        if not columns:
            return logits
        own = [row for row in rows if row is not None]
        known = self.clip.scaled(image) @ self.weight[own].T + self.bias[own]
        share = 1.0 if self.config.known == "text" else self.config.share
        known = a * (known + share * by_text[:, columns])
        where = torch.tensor(columns, device=logits.device)
        joined: Tensor = logits.index_copy(1, where, known.to(logits.dtype))
        return joined

    def no_text_graph(self) -> str:
        return (
            "beside the similarity of image and text it has a classifier of the classes it was "
            "learned on, so other names would be judged by another rule."
        )

    def no_linear_head(self, names: Sequence[str]) -> str | None:
        if self.map.numel():
            return (
                "images are normalised again after its map, which is not a linear function of them"
            )
        return super().no_linear_head(names)


LEARNER = ImagesWithText
