"""What makes novel names good: sources and choices on the icon tasks, CoOp+SAR, paired.

    python benchmarks/novel_sources.py run --out runs/novel --workers 2 [--set key=value ...]
    python benchmarks/novel_sources.py report --out runs/novel --csv docs/studies-novel.csv

`run` makes what is missing and can be stopped at any moment; `report` needs finished runs only. A
source is a row; its gain is New (or H) minus that of `none`, SAR on the base classes alone, or of
another row (`--against`), on the same tasks and seeds. H is that of the mean Base and New.
Intervals are from `simprompt.experiments.summary.paired`; correlations have percentile bootstraps
over tasks.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simprompt.config import RunConfig
from simprompt.data import catalogue, icons
from simprompt.experiments.summary import averages, dataset_means, paired
from simprompt.recipes import plan
from simprompt.utils.options import MethodOptions, ModelOptions
from simprompt.utils.statistics import mean

SEEDS = [1, 2, 3]  # the outermost loop: a run that is stopped has every arm and task of a seed
SOURCES = ("none", "bundled", "wordnet", "vocabulary", "random-nouns", "oracle")
BIG = "bundled+wordnet:200+vocabulary:200"
CHOSEN = 100
CRITERIA = ("random", "coverage", "k-centre")
MEASURES = ("nearest", "offset", "spread", "synonyms", "repeats", "reached", "coverage",
            "new_reached", "new_coverage")  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One way to get novel names; `novel` is what a run's `sar.novel` says."""

    name: str
    novel: Callable[[str, int, Path], str]
    count: int = 200


def fixed(source: str) -> Callable[[str, int, Path], str]:
    return lambda dataset, seed, out: source


def chosen(criterion: str | None) -> Callable[[str, int, Path], str]:
    """A file with the names chosen for a task, made when it is first needed."""

    def novel(dataset: str, seed: int, out: Path) -> str:
        kind = criterion or "full"
        suffix = f"-{seed}" if criterion == "random" else ""
        path = out / "lists" / f"{dataset.replace('/', '-')}-{kind}{suffix}.json"
        if not path.exists():
            from benchmarks.novel_lab.choose import select

            from simprompt.clip.hub import load_clip
            from simprompt.methods.teacher import teacher_features
            from simprompt.novel import NovelList, novel_names

            data = catalogue.load(dataset)
            clip = load_clip("icons")

            def encode(names: Sequence[str]) -> Any:
                return teacher_features(clip, [data.templates[0]], names)

            base, new = data.base.classnames, data.new.classnames
            big = novel_names(BIG, base, n=600, dataset=dataset, new=new, encode=encode)
            names = list(big.names)
            if criterion:
                names = select(names, base, encode, CHOSEN, criterion, seed)
            NovelList(tuple(names), f"{kind} of {BIG}", big.provenance).save(path)
        return f"file:{path}"

    return novel


SOURCE_ARMS = tuple(Arm(source, fixed(source)) for source in SOURCES)
CHOICE_ARMS = (
    Arm("big list", chosen(None), 600),
    *(Arm(f"{CHOSEN} by {criterion}", chosen(criterion), CHOSEN) for criterion in CRITERIA),
)


def configs(
    arms: Sequence[Arm], out: Path, tasks: Sequence[str], settings: list[str], seed: int
) -> list[tuple[str, RunConfig]]:
    """(arm, run) for every task, all arms of a task together."""
    made = []
    for dataset in tasks:
        for arm in arms:
            names = [
                f"sar.novel='{arm.novel(dataset, seed, out)}'",
                f"sar.novel_count={arm.count}",
            ]
            method = MethodOptions(method="coop", sar="on", settings=settings + names)
            (config,) = plan.plan([dataset], [seed], ModelOptions("icons"), method)
            made.append((arm.name, config))
    return made


def reference(tasks: Sequence[str], settings: list[str], seed: int) -> list[tuple[str, RunConfig]]:
    """CoOp without SAR, and zero-shot, for the same tasks and seed."""
    plain = [text for text in settings if not text.startswith("sar.")]
    method = MethodOptions(method="zero-shot,coop", sar="off", settings=plain)
    made = plan.plan(tasks, [seed], ModelOptions("icons"), method)
    return [("zero-shot" if c.method == "zero-shot" else "coop, no SAR", c) for c in made]


def run(arguments: argparse.Namespace) -> None:
    from simprompt.experiments.sweep.make import make_runs
    from simprompt.utils.options import Execution

    out, tasks = arguments.out, arguments.tasks
    out.mkdir(parents=True, exist_ok=True)
    arms = (*SOURCE_ARMS, *CHOICE_ARMS) if arguments.choices else SOURCE_ARMS
    wanted = [pair for seed in arguments.seeds for pair in (
        *reference(tasks, arguments.set, seed), *configs(arms, out, tasks, arguments.set, seed)
    )]  # fmt: skip
    _index(out, wanted)
    execution = Execution(workers=arguments.workers)
    make_runs([config for _, config in wanted], out, execution)


def _index(out: Path, wanted: list[tuple[str, RunConfig]]) -> None:
    """Which run is which arm: a run's key does not say it."""
    from simprompt.experiments.runner import identify

    rows = {identify(config).key: {"arm": arm, "dataset": config.dataset, "seed": config.seed}
            for arm, config in wanted}  # fmt: skip
    (out / "arms.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


# ------------------------------------------------------------------------------- report

Cell = dict[str, float]  # what was measured for one arm on one task, means over seeds


def report(arguments: argparse.Namespace) -> None:
    cells = read(arguments.out, arguments.seeds)
    order = ["zero-shot", "coop, no SAR", *(arm.name for arm in (*SOURCE_ARMS, *CHOICE_ARMS))]
    arms = sorted({arm for arm, _ in cells}, key=order.index)
    tasks = sorted({task for _, task in cells if all((arm, task) in cells for arm in arms)})
    print(f"{len(tasks)} tasks with every arm: {', '.join(tasks)}\n")
    print(table(cells, arms, tasks, arguments.against))
    listed = [arm for arm in arms if arm in SOURCES and arm != "none"]
    for group, what in (
        (listed, "all sources"),
        ([a for a in listed if a != "oracle"], "without the oracle"),
    ):
        print(f"\nCorrelation with the gain in New over `none`, within tasks, {what}:\n")
        print(correlations(cells, group, tasks))
    if arguments.csv:
        write_csv(arguments.csv, cells)


def read(out: Path, seeds: Sequence[int]) -> dict[tuple[str, str], Cell]:
    """Means over seeds, for arms and tasks with all of these seeds finished."""
    arms = json.loads((out / "arms.json").read_text(encoding="utf-8"))
    found: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    results: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(out.glob("**/result.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        row = arms.get(result["key"])
        if row is None or row["seed"] not in seeds:
            continue
        results[row["arm"], result["dataset"]].append(result)
        cell: Cell = {}
        card = path.parent / "prompt.json"
        names = json.loads(card.read_text(encoding="utf-8"))["novel"] if card.exists() else []
        if names:
            cell |= measures(result["dataset"], names)
        found[row["arm"], result["dataset"]].append(cell)
    return {
        where: dataset_means(results[where])[where[1]]
        | {name: mean([cell[name] for cell in cells]) for name in cells[0]}
        for where, cells in found.items()
        if len(cells) == len(seeds)
    }


_ENCODERS: dict[str, Any] = {}


def measures(dataset: str, names: Sequence[str]) -> Cell:
    from benchmarks.novel_lab.relation import relate

    from simprompt.clip.hub import load_clip
    from simprompt.methods.teacher import teacher_features

    if dataset not in _ENCODERS:
        _ENCODERS[dataset] = catalogue.load(dataset)
        _ENCODERS.setdefault("clip", load_clip("icons"))
    data, clip = _ENCODERS[dataset], _ENCODERS["clip"]
    relation = relate(
        names, data.base.classnames,
        lambda n: teacher_features(clip, [data.templates[0]], n), data.new.classnames,
    )  # fmt: skip
    values = {name: float(getattr(relation, name)) for name in MEASURES}
    return {"count": float(len(names)), **values}


def table(
    cells: dict[tuple[str, str], Cell], arms: Sequence[str], tasks: Sequence[str], against: str
) -> str:
    """Markdown: means over tasks, and differences to one arm with 95% intervals."""
    results = [
        {"method": arm, "dataset": task, "seed": 0, **cells[arm, task]}
        for arm in arms
        for task in tasks
    ]
    lines = [f"| names | number | Base | New | H | New - {against} | H - {against} |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for arm in arms:
        rows = [cells[arm, task] for task in tasks]
        of_arm = averages([r for r in results if r["method"] == arm])
        means = [f"{of_arm[name]:.1f}" for name in ("base", "new", "h_of_means")]
        counts = [row["count"] for row in rows if "count" in row]
        number = f"{mean(counts):.0f}" if counts else "-"
        compared = paired(results, arm, against)
        gains = [
            "-" if arm == against else with_interval(compared[name])
            for name in ("new", "h_of_means")
        ]
        lines.append(f"| {arm} | {number} | {' | '.join(means)} | {' | '.join(gains)} |")
    return "\n".join(lines)


def with_interval(gain: dict[str, Any]) -> str:
    ends = "" if gain["ci95"] is None else " [{:+.2f}, {:+.2f}]".format(*gain["ci95"])
    return f"{gain['diff']:+.2f}{ends}"


def correlations(
    cells: dict[tuple[str, str], Cell], arms: Sequence[str], tasks: Sequence[str]
) -> str:
    """Markdown: Pearson's r of each measure with the gain, both centred within their task."""
    lines = ["| measure | r | 95% |", "|---|---|---|"]
    for measure in MEASURES:
        points = {
            task: centred([
                (cells[arm, task][measure], cells[arm, task]["new"] - cells["none", task]["new"])
                for arm in arms
            ])
            for task in tasks
        }  # fmt: skip
        r = pearson([p for task in tasks for p in points[task]])
        rng = random.Random(0)
        drawn = sorted(
            pearson([p for task in rng.choices(list(tasks), k=len(tasks)) for p in points[task]])
            for _ in range(2000)
        )
        lines.append(f"| {measure} | {r:+.2f} | [{drawn[50]:+.2f}, {drawn[1949]:+.2f}] |")
    return "\n".join(lines)


def centred(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    x, y = mean([p[0] for p in points]), mean([p[1] for p in points])
    return [(a - x, b - y) for a, b in points]


def pearson(points: Sequence[tuple[float, float]]) -> float:
    try:
        return statistics.correlation([p[0] for p in points], [p[1] for p in points])
    except statistics.StatisticsError:
        return 0.0


def write_csv(path: Path, cells: dict[tuple[str, str], Cell]) -> None:
    fields = ["base", "new", "h", "count", *MEASURES]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["names", "dataset", *fields])
        for (arm, task), cell in sorted(cells.items()):
            writer.writerow([arm, task, *(f"{cell[f]:.4g}" if f in cell else "" for f in fields)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--tasks", nargs="+", default=list(icons.tasks()))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--choices", action="store_true", help="also choose from a big list")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--against", default="none", help="the row that others are compared with")
    arguments = parser.parse_args()
    {"run": run, "report": report}[arguments.what](arguments)


if __name__ == "__main__":
    sys.exit(main())
