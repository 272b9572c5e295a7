"""The state of a training: all that changes while it goes on, and what a checkpoint holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from simprompt.config import Training
from simprompt.training.divergence import DivergenceGuard, check_losses
from simprompt.training.joint import TrainingJob
from simprompt.training.schedule import epochs_and_steps
from simprompt.utils.checkpoint import Checkpoint, State
from simprompt.utils.devices import to_device
from simprompt.utils.memory import MemoryShortError, OOMRetry, advice
from simprompt.utils.seeds import stream
from simprompt.utils.signals import raise_if_stopped, stop_requested

T = TypeVar("T")


@dataclass
class Curves:
    """Means over each epoch, for plots: the method's own loss, the SAR loss, the rate."""

    loss: list[float] = field(default_factory=list)
    sar: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    pieces: int = 1  # that steps are cut into; more than 1 after memory ran out (see `memory`)


class TrainState:
    """How far a training is: all that changes while it goes on, and is kept in a checkpoint.

    Attributes:
        epoch, step: the next step to take.
        curves, tokens: of each run; tokens are those it had encoded.
    """

    def __init__(self, runs: Sequence[TrainingJob], settings: Training) -> None:
        self.runs, self.settings = runs, settings
        self.epochs, self.steps = epochs_and_steps(len(runs[0].images), settings)
        self.epoch = self.step = 0
        self.curves = [Curves() for _ in runs]
        self.tokens = [0.0] * len(runs)
        # of the batches alone: SAR has a stream of its own, so a run with it sees the same images
        self._streams = [stream(run.seed, "images") for run in runs]
        self._drawn: list[Tensor] = []  # the streams' states before this epoch's draws
        self._before, self._since = 0.0, time.perf_counter()
        ways = ["a smaller batch (`--set training.batch_size=N`)"]
        if len(runs) > 1:
            ways.append("training each run alone, without `--train-together`")
        self.spared = OOMRetry("A training step", advice(runs[0].learner.clip.device.type, *ways))

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Make optimisers and watches, the learners being prepared, and take up what was kept."""
        state = checkpoint.read() if checkpoint else None
        if state:  # before the optimisers: a learner may put other parameters in place
            for run, stored in zip(self.runs, state["runs"], strict=True):
                run.learner.load_state_dict(stored["learner"])
        settings = self.settings
        self.optimisers = [run.learner.optimiser(settings) for run in self.runs]
        self.watches = [
            DivergenceGuard(run.learner, settings, self.epochs, self.steps) for run in self.runs
        ]
        if state:
            self._take_up(state)

    def open_epoch(self) -> Sequence[torch.Generator]:
        """The streams that this epoch's batches are drawn from."""
        self._drawn = [generator.get_state() for generator in self._streams]
        return self._streams

    def close_epoch(self) -> None:
        """All steps of this epoch are done."""
        self.epoch, self.step = self.epoch + 1, 0
        self._drawn = [generator.get_state() for generator in self._streams]

    def attempt(self, step: Callable[[], T], checkpoint: Checkpoint | None) -> T:
        """A step up to its gradients; in smaller pieces if memory runs out, and from then on.

        Raises:
            SimpromptError: memory runs out even so; the steps before are kept.
        """
        before = [run.sar and run.sar[0].state_dict() for run in self.runs]

        def undo() -> None:
            """Rewind SAR's draws, and put back the averages that its losses move."""
            for run, stored in zip(self.runs, before, strict=True):
                if run.sar:
                    run.sar[0].load_state_dict(stored or {})

        try:
            return self.spared(step, undo)
        except MemoryShortError as error:
            for optimiser in self.optimisers:
                optimiser.zero_grad(set_to_none=True)
            if checkpoint and (self.epoch or self.step):  # before the first step nothing is learned
                check_losses(self.watches)
                if checkpoint.write(self._kept()):
                    location = f"{checkpoint.place}: the same training goes on from there"
                    text = f"{error} What it had learned is kept in {location}."
                    raise MemoryShortError(text, error.why) from None
            raise

    def seconds(self) -> float:
        """What the training took so far, in this process and in those before."""
        return self._before + time.perf_counter() - self._since

    def keep(self, checkpoint: Checkpoint | None, at_the_end: bool = False) -> None:
        """Write a checkpoint if it is time, and end if a signal asks for that.

        Raises:
            Stopped: it does.
        """
        saved = ""
        if checkpoint and (at_the_end or stop_requested() or checkpoint.due()):
            if self.step:
                check_losses(self.watches)
            if checkpoint.write(self._kept()):
                steps_done = self.epoch * self.steps + self.step
                saved = f"{steps_done} of {self.epochs * self.steps} steps in {checkpoint.place}"
        raise_if_stopped(saved)

    def _kept(self) -> State:
        for curves in self.curves:
            curves.pieces = self.spared.pieces
        rows_of_runs = zip(
            self.runs, self.optimisers, self.watches, self.curves, self._drawn, strict=True
        )
        return {
            "at": [self.epoch, self.step, self.seconds(), self.tokens],
            "runs": [
                {
                    "learner": dict(run.learner.state_dict()),
                    "averages": [dict(average) for average in run.learner.averages()],
                    "sar": run.sar and run.sar[0].state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "watch": watch.state_dict(),
                    "curves": asdict(curves),
                    "stream": order,
                }
                for run, optimiser, watch, curves, order in rows_of_runs
            ],
        }

    def _take_up(self, state: State) -> None:
        self.epoch, self.step, self._before, self.tokens = state["at"]
        self.curves = [Curves(**stored["curves"]) for stored in state["runs"]]
        self.spared.pieces = self.curves[0].pieces
        for stored, run, optimiser, watch, generator in zip(
            state["runs"], self.runs, self.optimisers, self.watches, self._streams, strict=True
        ):
            for average, values in zip(run.learner.averages(), stored["averages"], strict=True):
                average.update(
                    {k: to_device(v, run.learner.clip.device) for k, v in values.items()}
                )
            if run.sar:
                run.sar[0].load_state_dict(stored["sar"])
            optimiser.load_state_dict(stored["optimiser"])
            watch.load_state_dict(stored["watch"])
            generator.set_state(stored["stream"])
