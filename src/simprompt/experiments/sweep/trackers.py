"""Finished runs in TensorBoard or MLflow, for those who look there; off unless asked for.

A tracker sees a run's result when it is finished, in the process that started the sweep, so it
works the same for local workers and on a cluster and cannot slow a training step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simprompt.config import flat
from simprompt.errors import SimpromptError, install
from simprompt.experiments.result_file import RunResult
from simprompt.experiments.run_key import folder_name

Tracker = Callable[[RunResult], None]


def tracker(name: str, out: str | Path) -> Tracker:
    """`tensorboard` (event files in OUT/tensorboard) or `mlflow` (where its environment says).

    Raises:
        SimpromptError: another name, or the package is not installed.
    """
    makers = {"tensorboard": _tensorboard, "mlflow": _mlflow}
    if name not in makers:
        raise SimpromptError(f"--log takes {' or '.join(makers)}; got {name!r}.")
    try:
        return makers[name](out)
    except ImportError:
        raise SimpromptError(f"--log {name} needs it: {install(name)}.") from None


def numbers(result: RunResult) -> dict[str, float]:
    """A run's measures that are finite numbers, those of targets and mechanism with their names."""
    measures: dict[str, float] = {}

    def gather(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                gather(f"{prefix}{key}/", inner)
        elif isinstance(value, int | float) and math.isfinite(value):
            measures[prefix[:-1]] = float(value)

    skipped = {
        "seed",
        "curves",
        "config",
        "classes",
        "environment",
        "novel",
        "warnings",
        "format",
        "identity",
        "files",
        "by_class",
    }
    gather("", {k: v for k, v in result.items() if k not in skipped})
    return measures


def curves(result: RunResult) -> list[tuple[str, int, float]]:
    """(name, epoch from 1, value) of the losses and the learning rate."""
    return [
        (f"train/{name}", epoch, value)
        for name in ("loss", "sar", "lr")
        for epoch, value in enumerate(result["curves"][name], 1)
    ]


def _tensorboard(out: str | Path) -> Tracker:
    from torch.utils.tensorboard import SummaryWriter

    def track(result: RunResult) -> None:
        name = folder_name(result["dataset"], result["method"], result["seed"], result["key"])
        with SummaryWriter(f"{out}/tensorboard/{name}") as writer:
            for curve, epoch, value in curves(result):
                writer.add_scalar(curve, value, epoch)
            for measure, value in numbers(result).items():
                writer.add_scalar(measure, value)

    return track


def _mlflow(out: str | Path) -> Tracker:
    import mlflow

    mlflow.set_experiment("simprompt")

    def track(result: RunResult) -> None:
        name = f"{result['dataset']} {result['method']} seed {result['seed']}"
        with mlflow.start_run(run_name=name, tags={"key": result["key"]}):
            settings = flat(result["config"])
            mlflow.log_params({name: str(value) for name, value in settings.items()})
            mlflow.log_metrics({k.replace("@", "_"): v for k, v in numbers(result).items()})
            for curve, epoch, value in curves(result):
                mlflow.log_metric(curve, value, step=epoch)

    return track
