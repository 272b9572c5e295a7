"""What all protocols share: learn on some shots, let the protocol test, write one run.

A protocol says what is learned from and how what was learned is tested. A run is made in three
steps, `prepare`, `train` and `finish`: `run` takes them for one run, and a sweep may train several
prepared runs together between the first step and the last.
"""

from __future__ import annotations

import math
import platform
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from simprompt._version import __version__
from simprompt.clip.hub import load_clip
from simprompt.clip.model import CLIP
from simprompt.config import COMPUTED, SAR, RunConfig, without_defaults
from simprompt.data import catalogue
from simprompt.data.dataset import Dataset, Split, View, check_learnable
from simprompt.errors import SimpromptError
from simprompt.experiments import run_key
from simprompt.experiments.run_key import RunKey
from simprompt.experiments.store import RunResult, checkpoint_place, stamped, write_run
from simprompt.features import digests
from simprompt.methods.teacher import teacher_features
from simprompt.metrics import (
    accuracy,
    calibration_error,
    class_accuracies,
    harmonic_mean,
    macro_accuracy,
)
from simprompt.novel.names import NovelNameError
from simprompt.novel.sources import novel_names
from simprompt.prompt import diagnostics
from simprompt.prompt import prompt as prompts
from simprompt.prompt.prompt import PreparedPrompt, Prompt
from simprompt.recipes import plan
from simprompt.sar import relations
from simprompt.utils.checkpoint import Checkpoint
from simprompt.utils.devices import describe_device
from simprompt.utils.files.atomic import replacing
from simprompt.utils.memory import peak_mb, reset_peak
from simprompt.utils.progress import report_progress

T = TypeVar("T")


def _clip(
    name: str,
    tokenizer: str | None = None,
    stamp: str = "",
    image_size: int | None = None,
    device: str = "cpu",
    dtype: str = "float32",
) -> CLIP:
    """A model; a process that makes many runs loads it once, and anew when its `stamp` changes."""
    return load_clip(name, tokenizer=tokenizer, image_size=image_size, device=device, dtype=dtype)


# two models at a time, and two on a GPU: a run there is known by the model's copy on the CPU
cached_clip = lru_cache(maxsize=2)(_clip)
cached_clip_on_gpu = lru_cache(maxsize=2)(_clip)


def clip_on_cpu(config: RunConfig) -> CLIP:
    """A run's model on the CPU: what the run is does not depend on a GPU being at hand."""
    return clip_of(config.model_copy(update={"device": "cpu"}))


def clip_of(config: RunConfig) -> CLIP:
    """A run's model, where the run is computed."""
    given: dict[str, Any] = {"tokenizer": config.tokenizer} if config.tokenizer else {}
    stamps = map(digests.stamp_of, (config.model, *given.values()))
    if config.image_size is not None:
        given["image_size"] = config.image_size
    if stamp := "".join(stamps):
        given["stamp"] = stamp
    own = {"device": config.device, "dtype": config.dtype}
    given |= without_defaults(own, COMPUTED)
    cached = cached_clip_on_gpu if "device" in given else cached_clip
    return cached(config.model, **given)


# a rehearsal's dataset is made of this one's, so the images' names are read once
cached_dataset = lru_cache(maxsize=16)(catalogue.load)


def dataset_of(config: RunConfig) -> Dataset:
    """A run's dataset, or the rehearsal inside its base classes (see `catalogue.rehearsal`)."""
    data = cached_dataset(catalogue.without_rehearsal(config.dataset), **config.own)
    check_learnable(data.classnames, len(data.train), config.dataset)
    return catalogue.rehearsal(data, config.dataset, config.training.shots, config.seed)


@dataclass
class Tested:
    """What a protocol found out about a prompt.

    Attributes:
        groups: class names by group; their relations to the hand-crafted ones are measured. The
            first group is what was learned from.
        measures: numbers for the result: accuracies and calibration errors in percent, and
            whatever else the protocol knows.
        predictions: what `predictions.safetensors` holds.
    """

    groups: dict[str, tuple[str, ...]]
    measures: dict[str, Any] = field(default_factory=dict)
    predictions: dict[str, Tensor] = field(default_factory=dict)

    def add(self, side: str, probabilities: Tensor, labels: Tensor) -> None:
        """Accuracy, calibration error and predictions of one side's images: [N, C] and [N].

        The accuracy is over images (micro); `macro_SIDE` is over classes, each counted alike, and
        `by_class` has [images, images that are right] of each of the C names.
        """
        self.measures[side] = accuracy(probabilities, labels)
        self.measures[f"macro_{side}"] = macro_accuracy(probabilities, labels)
        self.measures[f"ece_{side}"] = calibration_error(probabilities, labels)
        self.measures.setdefault("by_class", {})[side] = [
            [count, round(own * count / 100) if count else 0]
            for own, count in class_accuracies(probabilities, labels)
        ]
        self.predictions[f"{side}_labels"] = labels.short()
        self.predictions[f"{side}_predicted"] = probabilities.argmax(-1).short()

    def add_nothing(self, side: str) -> None:
        """A side that this method or protocol has no answer for."""
        for name in (side, f"macro_{side}", f"ece_{side}"):
            self.measures[name] = math.nan


@dataclass(frozen=True)
class Protocol:
    """What a protocol is.

    Attributes:
        learn_from: the classes whose few-shot draw is learned from.
        test: measures what was learned.
        targets: names of the datasets it is tested on besides its own. A rehearsal takes no such
            protocol: what is to be tested may not be seen while settings are chosen.
    """

    learn_from: Callable[[Dataset], View]
    test: Callable[[Prompt, Dataset, RunConfig], Tested]
    targets: tuple[str, ...] = ()


def identify(config: RunConfig, protocol: Protocol | None, data: Dataset | None = None) -> RunKey:
    """What a run is, by the content of all it depends on.

    Never fails: what cannot be opened is missing in it, and the run says why when it is made.

    Args:
        protocol: None where the settings name none that can be used.
        data: the dataset, if it is not one of the catalogue's.
    """
    dataset = data or _if_there(dataset_of, config)
    names = protocol.targets if protocol else ()
    targets = [(name, _if_there(cached_dataset, name)) for name in names]
    view = protocol.learn_from(dataset) if protocol and dataset else None
    base, shots = (view.classnames if view else ()), None
    if view and digests.is_large(view.train):
        shots = _if_there(lambda c: view.few_shot(c.training.shots, c.seed), config)
    template = _if_there(plan.template_of, config)
    if template is None and dataset is not None:
        template = dataset.templates[0]
    clip = _if_there(clip_on_cpu, config)
    return run_key.of_run(config, clip, dataset, targets, base, template, shots)


def _if_there(open_: Callable[[Any], T], name: Any) -> T | None:
    with suppress(Exception):  # whatever is wrong, the run itself fails of it and is recorded
        return open_(name)
    return None


def look_again() -> None:
    """Forget what is known of datasets, as their files may have changed."""
    digests.look_again()
    if forget := getattr(cached_dataset, "cache_clear", None):
        forget()


@dataclass
class PreparedRun:
    """A run on its way from `prepare` over `train` to `finish`.

    Attributes:
        identity: what the run is, looked at when its images and names were read.
        seconds: what it has taken so far.
        prompt: what was learned; None before the training.
        together: how many other runs were trained in the same batch.
    """

    config: RunConfig
    protocol: Protocol
    dataset: Dataset
    identity: RunKey
    untrained: PreparedPrompt
    seconds: float
    prompt: Prompt | None = None
    together: int = 0


def run(
    config: RunConfig, out: str | Path, protocol: Protocol, data: Dataset | None = None
) -> RunResult:
    """Make one run and write it below `out`; returns its result.

    Args:
        data: the dataset, if it is not one of the catalogue's.
    """
    making = prepare(config, protocol, data)
    train([making], out)
    result = finish(making, out)
    forget([making], out)
    return result


def prepare(config: RunConfig, protocol: Protocol, data: Dataset | None = None) -> PreparedRun:
    """A run with its images, class names and learner, ready to be trained."""
    clip = clip_of(config)
    dataset = data or dataset_of(config)
    if dataset.hidden and protocol.targets:
        raise SimpromptError(
            f"{config.dataset} is for choosing settings, and the protocol {config.protocol} would "
            "show the datasets that are to be tested with them. Choose with the protocol "
            "base-to-new, generalised or few-shot, which stay inside the base classes."
        )
    reset_peak()
    started = time.perf_counter()
    with _threads(config.threads):
        untrained = prompts.prepare(
            clip,
            protocol.learn_from(dataset).few_shot(config.training.shots, config.seed),
            config.method,
            config.sar,
            options=config.options,
            training=config.training,
            template=plan.template_of(config),
            seed=config.seed,
        )
    seconds = time.perf_counter() - started
    return PreparedRun(
        config, protocol, dataset, identify(config, protocol, dataset), untrained, seconds
    )


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """Torch computes on `n` threads in here: their number decides the order of sums, so the bits.
    The caller's own number holds again afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit(runs: Sequence[PreparedRun]) -> bool:
    """Whether these runs can be trained together, and gain by it."""
    return prompts.fit([making.untrained for making in runs])


def train(runs: Sequence[PreparedRun], out: str | Path) -> None:
    """Train prepared runs that `fit` together; one alone gives the same bits as ever.

    What they are trained to is kept below `out` until `forget` is told that they are finished.
    """
    first = runs[0].config
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    what = f"epochs of {first.dataset} {first.label}, seed {first.seed}{more}"
    with _threads(first.threads):  # runs of one task have one number
        learned = prompts.train_many(
            [making.untrained for making in runs], partial(report_progress, what), _kept(runs, out)
        )
    for making, prompt in zip(runs, learned, strict=True):
        assert prompt.curves is not None
        making.prompt, making.together = prompt, len(runs) - 1
        making.seconds += prompt.curves.seconds


def finish(making: PreparedRun, out: str | Path) -> RunResult:
    """Test what a run has learned and write the run below `out`; returns its result."""
    with _threads(making.config.threads):
        return write_run(out, making.identity, lambda folder: _test(making, folder))


def forget(runs: Sequence[PreparedRun], out: str | Path) -> None:
    """The runs that were trained together are finished, and their training need not be kept."""
    _kept(runs, out).remove()


def _kept(runs: Sequence[PreparedRun], out: str | Path) -> Checkpoint:
    """Where a training is kept: under the name of the first of its runs."""
    place = checkpoint_place(out, runs[0].identity)
    return Checkpoint(place, [making.identity.key for making in runs])


def _test(making: PreparedRun, folder: Path) -> RunResult:
    """Test a trained run and write its files; returns its result.

    `together` is the number of other runs that were trained in one batch with it. Where it is not
    0, `train_seconds` is a share of the batch's time (see `loop.train_together`) and `peak_mb`
    the memory of all.
    """
    config, dataset, prompt = making.config, making.dataset, making.prompt
    assert prompt is not None
    assert prompt.curves is not None
    started = time.perf_counter()
    tested = making.protocol.test(prompt, dataset, config)
    with replacing(folder / "predictions.safetensors") as file:
        save_file(tested.predictions, str(file))
    prompt.write_files(folder / "prompt")
    novel = prompt.novel
    return {
        **stamped(making.identity),
        "protocol": config.protocol,
        "dataset": config.dataset,
        "method": config.label,
        "seed": config.seed,
        **tested.measures,
        "parameters": prompt.learner.parameter_count(),
        "steps": prompt.curves.steps,
        "together": making.together,
        "train_seconds": prompt.curves.seconds,
        "seconds": making.seconds + time.perf_counter() - started,
        "peak_mb": peak_mb(),
        "mechanism": _mechanism(prompt, dataset, tested.groups, folder),
        "curves": asdict(prompt.curves),
        "novel": None
        if novel is None
        else {
            "source": novel.source,
            "count": len(novel),
            "overlap": list(novel.overlap),
            "sha256": novel.sha256,
        },
        "unused": [list(one) for one in dataset.unused],
        "warnings": [*dataset.notes, *prompt.clip.notes, *diagnostics.of_run(prompt, peak_mb())],
        "classes": {group: list(names) for group, names in tested.groups.items()},
        "config": config.model_dump(mode="json"),
        "environment": environment(prompt.clip.device),
    }


def _mechanism(
    prompt: Prompt, dataset: Dataset, groups: dict[str, tuple[str, ...]], folder: Path
) -> dict[str, dict[str, float]]:
    """Similarity of learned to hand-crafted relations in each group and on novel classes.

    The novel classes are those SAR was given; a run without SAR is measured on the dataset's
    bundled names, so that it can be compared with one that has it.
    """
    groups = dict(groups)
    kept = list(groups)
    novel = tuple(prompt.card["novel"]) or bundled_names(
        prompt.card["dataset"], groups, dataset.hidden
    )
    # a list is made for all methods, and some have a longer prompt than others
    if novel := tuple(name for name in novel if prompt.learner.fits(name)):
        groups["novel"] = novel
    learned = {g: prompt.text_features(names) for g, names in groups.items()}
    template = [prompt.card["template"]]
    with replacing(folder / "text.safetensors") as file:
        save_file({g: learned[g].half().contiguous() for g in kept}, str(file))
    return {
        g: relations(learned[g], teacher_features(prompt.clip, template, names))
        for g, names in groups.items()
    }


def bundled_names(
    dataset: str | None, groups: dict[str, tuple[str, ...]], hidden: Sequence[str] = ()
) -> tuple[str, ...]:
    """SAR's default novel names for a dataset, none of them a class; empty where no list ships."""
    base, *others = groups.values()
    try:
        return novel_names(
            SAR().novel, base, n=SAR().novel_count, dataset=dataset or "", new=sum(others, ()),
            hidden=hidden,
        ).names  # fmt: skip
    except NovelNameError:
        return ()


def transfer(prompt: Prompt, data: Dataset, config: RunConfig, targets: tuple[str, ...]) -> Tested:
    """Test on the dataset's own images, then on each target's among the target's class names.

    `base` is the accuracy on the source, `targets` that on each target, `new` the mean over the
    targets, as published tables average.
    """
    if not prompt.learner.new_classes:
        raise SimpromptError(
            f"{config.method} is a classifier of the classes it was trained on; the protocol "
            f"{config.protocol} asks for other names. Use a prompt method."
        )
    tested = Tested({"base": data.all.classnames})
    test_side(tested, "base", prompt, data.all.test, config)
    accuracies: dict[str, float] = {}
    errors: dict[str, float] = {}
    macros: dict[str, float] = {}
    for name in targets:
        target = cached_dataset(name)
        test_side(tested, name, prompt, target.all.test, config)
        accuracies[name] = tested.measures.pop(name)
        errors[name] = tested.measures.pop(f"ece_{name}")
        macros[name] = tested.measures.pop(f"macro_{name}")
    tested.measures["new"] = math.fsum(accuracies.values()) / len(accuracies)
    tested.measures["ece_new"] = math.fsum(errors.values()) / len(errors)
    tested.measures["h"] = harmonic_mean(tested.measures["base"], tested.measures["new"])
    tested.measures |= {"targets": accuracies, "ece_targets": errors, "macro_targets": macros}
    return tested


def test_side(tested: Tested, side: str, prompt: Prompt, split: Split, config: RunConfig) -> None:
    """Test a prompt on a split among the split's class names."""
    split = limit(split, config.max_test_per_class)
    tested.add(side, prompt.probabilities(split), torch.tensor(split.labels))


def limit(split: Split, per_class: int | None) -> Split:
    """At most `per_class` images of each class, a fixed random choice; all of them for None."""
    if per_class is None:
        return split
    rng = random.Random(0)
    rows = [
        row
        for rows in split.rows_by_label().values()
        for row in (rng.sample(rows, per_class) if len(rows) > per_class else rows)
    ]
    return split.take(sorted(rows))


def environment(device: torch.device) -> dict[str, str]:
    """Versions that a result depends on, and what it was computed by."""
    return {
        "simprompt": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": describe_device(device),
    }
