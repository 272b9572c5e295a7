"""`simprompt run`: methods with and without SAR on a dataset, base classes to new ones."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simprompt.commands.options import (
    BatchRuns,
    Json,
    Model,
    RayAddress,
    Recipe,
    TokenizerFile,
    Workers,
)

if TYPE_CHECKING:
    from simprompt.config import RunConfig
    from simprompt.runs import Result


def run(
    dataset: Annotated[str, typer.Option(help="Datasets, comma-separated: icons/animals,dtd")],
    model: Model = "icons",
    method: Annotated[
        str | None,
        typer.Option(help="Methods, comma-separated, or 'all'; default: the recipe's, or coop"),
    ] = None,
    sar: Annotated[str, typer.Option(help="off, on, both, or a weight such as 0.4")] = "both",
    shots: Annotated[int | None, typer.Option(help="Training images a class")] = None,
    seeds: Annotated[str, typer.Option(help="Comma-separated")] = "1,2,3",
    tokenizer: TokenizerFile = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, such as training.lr=0.01")
    ] = None,
    recipe: Recipe = None,
    out: Annotated[Path, typer.Option(help="Where the runs are kept")] = Path("runs"),
    max_test_per_class: Annotated[
        int | None, typer.Option(help="Test on at most this many images a class")
    ] = None,
    workers: Workers = 1,
    batch_runs: BatchRuns = "off",
    ray: RayAddress = None,
    json_: Json = False,
) -> None:
    """Train on base classes, test on base and new; finished runs are kept and reused."""
    started = time.perf_counter()
    if method is None:
        from simprompt import recipes

        method = recipes.load(recipe).get("method", "coop") if recipe else "coop"
    configs = plan(
        dataset.split(","), model, method, sar, whole_numbers(seeds, "--seeds"), shots, set_ or [],
        recipe, max_test_per_class, tokenizer,
    )  # fmt: skip
    results = make(configs, out, workers, json_, ray, batch_runs)
    emit(results, configs, started, json_, out)


def whole_numbers(text: str, option: str) -> list[int]:
    """ "1,2,3" -> [1, 2, 3]."""
    from simprompt.errors import SimpromptError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise SimpromptError(
            f"{option} takes whole numbers with commas, such as 1,2,3; got {text!r}."
        ) from None


def plan(
    datasets: list[str],
    model: str,
    method: str,
    sar: str,
    seeds: list[int],
    shots: int | None = None,
    assignments: list[str] | None = None,
    recipe: str | None = None,
    max_test_per_class: int | None = None,
    tokenizer: Path | None = None,
) -> list[RunConfig]:
    """Every run that the options ask for.

    Without `--recipe` the recipe `METHOD@MODEL` is taken if there is one, so that the embedded
    CLIP trains with the settings chosen for it.
    """
    from simprompt import methods, recipes

    if sar in ("off", "on", "both"):
        choices = {"off": [False], "on": [True], "both": [False, True]}[sar]
        weight = []
    else:
        choices, weight = [True], [f"sar.weight={_number(sar)}"]
    assignments = [*(assignments or []), *weight]
    if shots is not None:
        assignments.append(f"training.shots={shots}")
    configs = []
    names = methods.names() if method == "all" else method.split(",")
    for name in names:
        learner = methods.find(name)
        values = recipes.assign(recipes.of_run(name, model, recipe), assignments)
        wanted = [w for w in choices if learner.text_moves or not w]
        if choices == [True] and not wanted:
            wanted = [True]  # learn() says why it cannot be
        for dataset in datasets:
            for seed in seeds:
                for with_sar in wanted:
                    configs.append(
                        recipes.build(
                            values,
                            with_sar,
                            method=name,
                            dataset=dataset,
                            model=model,
                            seed=seed,
                            max_test_per_class=max_test_per_class,
                            tokenizer=str(tokenizer.resolve()) if tokenizer else None,
                        )
                    )
    return configs


def _number(text: str) -> float:
    from simprompt.errors import SimpromptError

    try:
        return float(text)
    except ValueError:
        raise SimpromptError(f"--sar takes off, on, both or a number; got {text!r}.") from None


def make(
    configs: list[RunConfig],
    out: Path,
    workers: int,
    quiet: bool,
    ray: str | None = None,
    batch_runs: str = "off",
) -> list[Result]:
    """The runs' results, made or read back; those that failed before are tried again."""
    from simprompt.sweep import make_runs

    return make_runs(configs, out, workers, quiet=quiet, ray=ray, batch_runs=batch_runs)


def settings_of(configs: list[RunConfig]) -> dict[str, Any]:
    """What each method was run with, once: the settings that do not differ between its runs."""
    return {
        c.label: c.model_dump(mode="json", exclude={"dataset", "seed", "protocol"})
        for c in reversed(configs)
    }


def emit(
    results: list[Result], configs: list[RunConfig], started: float, as_json: bool, out: Path
) -> None:
    """The table, or one JSON document and nothing else."""
    from simprompt.commands import warn
    from simprompt.report import tables
    from simprompt.summary import finite, summarise

    if as_json:
        document = summarise(results)
        document["settings"] = settings_of(configs)
        document["seconds"] = time.perf_counter() - started
        typer.echo(json.dumps(finite(document), indent=1, ensure_ascii=False))
    else:
        typer.echo(tables.text(results))
        for line in overlaps(results):
            typer.echo(line)
        typer.echo(f"{len(results)} runs in {out}")
        warn.show(results)


def overlaps(results: list[Result]) -> list[str]:
    """One line a dataset: how many novel names SAR had, and which were real new classes."""
    lines = {}
    for r in results:
        if r["novel"]:
            found = r["novel"]["overlap"]
            kept = "kept" if r["config"]["sar"]["keep_overlap"] else "left out"
            lines[r["dataset"]] = (
                f"{r['dataset']}: {r['novel']['count']} novel names ({r['novel']['source']}); "
                f"{len(found)} that are real new classes were {kept}"
            )
    return list(lines.values())
