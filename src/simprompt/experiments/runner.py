"""One run: prepared, trained, tested by its protocol, written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file

from simprompt.config import SAR, RunConfig
from simprompt.data.dataset import Dataset
from simprompt.errors import SimpromptError
from simprompt.experiments import inputs, run_key
from simprompt.experiments.environment import environment
from simprompt.experiments.protocols import find
from simprompt.experiments.protocols.common import Protocol
from simprompt.experiments.result_file import RunResult
from simprompt.experiments.run_key import RunKey
from simprompt.experiments.store import checkpoint_place, stamped, write_run
from simprompt.features import digests
from simprompt.methods.teacher import teacher_features
from simprompt.novel.names import NovelNameError
from simprompt.novel.sources import novel_names
from simprompt.prompt import diagnostics, learn
from simprompt.prompt.learn import PreparedPrompt
from simprompt.prompt.prompt import Prompt
from simprompt.recipes import plan
from simprompt.sar import relations
from simprompt.utils.checkpoint import Checkpoint
from simprompt.utils.files.atomic import replacing
from simprompt.utils.memory import peak_mb, reset_peak
from simprompt.utils.progress import report_progress

T = TypeVar("T")


def identify(config: RunConfig, data: Dataset | None = None) -> RunKey:
    """What a run is, by the content of all it depends on.

    Never fails: what cannot be opened is missing in it, and the run says why when it is made.

    Args:
        data: the dataset, if it is not one of the catalogue's.
    """
    protocol = _if_there(find, config)
    dataset = data or _if_there(inputs.dataset_of, config)
    names = protocol.targets if protocol else ()
    targets = [(name, _if_there(inputs.cached_dataset, name)) for name in names]
    view = protocol.learn_from(dataset) if protocol and dataset else None
    base, shots = (view.classnames if view else ()), None
    if view and digests.is_large(view.train):
        shots = _if_there(lambda c: view.few_shot(c.training.shots, c.seed), config)
    template = _if_there(plan.template_of, config)
    if template is None and dataset is not None:
        template = dataset.templates[0]
    clip = _if_there(inputs.clip_on_cpu, config)
    return run_key.of_run(config, clip, dataset, targets, base, template, shots)


def _if_there(open_: Callable[[Any], T], name: Any) -> T | None:
    with suppress(Exception):  # whatever is wrong, the run itself fails of it and is recorded
        return open_(name)
    return None


def look_again() -> None:
    """Forget what is known of datasets, as their files may have changed."""
    digests.look_again()
    if forget := getattr(inputs.cached_dataset, "cache_clear", None):
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


def run(config: RunConfig, out: str | Path, data: Dataset | None = None) -> RunResult:
    """Make one run by the protocol its settings name and write it below `out`; returns its result.

    Args:
        data: the dataset, if it is not one of the catalogue's.
    """
    making = prepare(config, data)
    train([making], out)
    result = finish(making, out)
    forget([making], out)
    return result


def prepare(config: RunConfig, data: Dataset | None = None) -> PreparedRun:
    """A run with its images, class names and learner, ready to be trained."""
    protocol = find(config)
    clip = inputs.clip_of(config)
    dataset = data or inputs.dataset_of(config)
    if dataset.hidden and protocol.targets:
        raise SimpromptError(
            f"{config.dataset} is for choosing settings, and the protocol {config.protocol} would "
            "show the datasets that are to be tested with them. Choose with the protocol "
            "base-to-new, generalised or few-shot, which stay inside the base classes."
        )
    reset_peak()
    started = time.perf_counter()
    with _threads(config.threads):
        shots = protocol.learn_from(dataset).few_shot(config.training.shots, config.seed)
        untrained = learn.prepare_run(clip, shots, config)
    seconds = time.perf_counter() - started
    return PreparedRun(config, protocol, dataset, identify(config, dataset), untrained, seconds)


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
    return learn.fit([making.untrained for making in runs])


def train(runs: Sequence[PreparedRun], out: str | Path) -> None:
    """Train prepared runs that `fit` together; one alone gives the same bits as ever.

    What they are trained to is kept below `out` until `forget` is told that they are finished.
    """
    first_config = runs[0].config
    suffix = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    task_name = (
        f"epochs of {first_config.dataset} {first_config.label}, seed {first_config.seed}{suffix}"
    )
    with _threads(first_config.threads):  # runs of one task have one number
        prompts = learn.train_many(
            [making.untrained for making in runs],
            partial(report_progress, task_name),
            _kept(runs, out),
        )
    for making, prompt in zip(runs, prompts, strict=True):
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
    checkpoint = checkpoint_place(out, runs[0].identity)
    return Checkpoint(checkpoint, [making.identity.key for making in runs])


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
        "unused": [list(entry) for entry in dataset.unused],
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
    group_names = list(groups)
    novel = tuple(prompt.card["novel"]) or bundled_names(
        prompt.card["dataset"], groups, dataset.hidden
    )
    # a list is made for all methods, and some have a longer prompt than others
    if novel := tuple(name for name in novel if prompt.learner.fits(name)):
        groups["novel"] = novel
    features_of = {g: prompt.text_features(names) for g, names in groups.items()}
    template = [prompt.card["template"]]
    with replacing(folder / "text.safetensors") as file:
        save_file({g: features_of[g].half().contiguous() for g in group_names}, str(file))
    return {
        g: relations(features_of[g], teacher_features(prompt.clip, template, names))
        for g, names in groups.items()
    }


def bundled_names(
    dataset: str | None, groups: dict[str, tuple[str, ...]], hidden: Sequence[str] = ()
) -> tuple[str, ...]:
    """SAR's default novel names for a dataset, none of them a class; empty where no list ships."""
    base, *other_groups = groups.values()
    try:
        return novel_names(
            SAR().novel,
            base,
            n=SAR().novel_count,
            dataset=dataset or "",
            new=sum(other_groups, ()),
            hidden=hidden,
        ).names
    except NovelNameError:
        return ()
