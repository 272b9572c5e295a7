"""Several runs trained together: seeds and weights of one task as one bigger text batch.

With ten classes a step of one run is some fifty tokens, too few to keep a machine busy: most of
the time goes into reading the tower's weights and starting small operations. Runs of the same
method on the same model share the frozen tower, so their classes are encoded in one pass, each
behind its own run's prompt (`TextTower.encode_each`). Random numbers, batches, draws, losses,
optimisers and schedules stay each run's own, so the outcome equals separate training up to the
order of floating-point sums.

The gain shrinks as a run's own tokens grow. Measured with the icon CLIP on one thread, the time of
separate steps over that of joint ones: 1.8 for eight runs of 53 tokens, 1.5 for six of 110, 1.3 for
four of 210. Beyond some 1000 tokens a step no number of runs gained more than a few percent, and
twelve runs of 254 tokens gained less (1.2) than four (1.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from simprompt.clip.suffixes import Suffixes
from simprompt.config import Training
from simprompt.features.pixels import Images
from simprompt.methods.base import PromptLearner
from simprompt.sar import Regulariser
from simprompt.training.schedule import epochs_and_steps

TOKENS = 1024  # in a step of all runs together; see above


@dataclass
class TrainingJob:
    """What is trained: a learner, what it learns from, its seed, and SAR if it has it.

    See `training.loop.train` for the shapes.
    """

    learner: PromptLearner[Any]
    images: Images  # [N, M, E] features of M views an image, or their pixels
    labels: Tensor  # [N]
    seed: int
    sar: tuple[Regulariser, Suffixes] | None = None


def takes(method: type[PromptLearner[Any]]) -> bool:
    """Whether runs of a method can be trained together, if their settings allow it."""
    return (
        method.image_input != "pixels"
        and method.loss is PromptLearner.loss
        and method.regularised_text is PromptLearner.regularised_text
        and method.shared_prompt is not PromptLearner.shared_prompt
    )


def shared_prompt(learner: PromptLearner[Any]) -> tuple[Tensor, list[Tensor]] | None:
    """The prefix [P, W] and deep tokens [M, W] that make up all a learner's text features.

    None for learners whose text features are made in another way.
    """
    if not takes(type(learner)) or isinstance(learner.text_form(), str):
        return None
    shared = learner.shared_prompt()
    return None if shared is None else (shared[0], list(shared[1]))


def fit_together(runs: Sequence[TrainingJob], settings: Training) -> bool:
    """Whether `train_together` takes these runs: one method and model, as many steps in each."""
    first_job = runs[0]
    return all(
        type(run.learner) is type(first_job.learner)
        and run.learner.clip is first_job.learner.clip
        and (prompt := shared_prompt(run.learner)) is not None
        and (other_prompt := shared_prompt(first_job.learner)) is not None
        and prompt[0].shape == other_prompt[0].shape
        and len(prompt[1]) == len(other_prompt[1])
        and epochs_and_steps(len(run.images), settings)
        == epochs_and_steps(len(first_job.images), settings)
        for run in runs
    )


def pays(runs: Sequence[TrainingJob]) -> bool:
    """Whether a step of these runs has few enough tokens to gain by being one; also what bounds
    the memory of a batch."""
    return sum(map(_tokens, runs)) <= TOKENS


def _tokens(run: TrainingJob) -> float:
    """Text tokens that a step of this run encodes, on average over SAR's draws."""
    total = prefix_length(run) + length(run.learner.base)
    if run.sar is None:
        return total
    regulariser, prompts = run.sar
    novel = length(prompts) - length(run.learner.base)
    return total + novel * regulariser.share()


def prefix_length(run: TrainingJob) -> int:
    """Tokens before every class name of a run, if all names share them."""
    shared = shared_prompt(run.learner)
    return len(shared[0]) if shared else 0


def length(prompts: Suffixes) -> float:
    """Tokens of all names."""
    return sum(map(len, prompts.ids))


def encode(learners: Sequence[PromptLearner[Any]], prompts: Sequence[Suffixes]) -> list[Tensor]:
    """Normalised text features [C_r, E] of each run, in one pass."""
    made = [shared for learner in learners if (shared := shared_prompt(learner)) is not None]
    prefixes = torch.stack([prefix for prefix, _ in made])  # [R, P, W]
    layers = zip(*(deep for _, deep in made), strict=True)
    deep = [torch.stack(tokens) for tokens in layers]  # [R, M, W] each
    texts = learners[0].clip.text.encode_each(prefixes, prompts, deep)
    return [F.normalize(text, dim=-1) for text in texts]
