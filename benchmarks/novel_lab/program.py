"""What was tried to judge and choose novel names; docs/studies-novel.md says what came of it.

python -m benchmarks.novel_lab inspect bundled --dataset icons/animals --map map.svg
python -m benchmarks.novel_lab compare bundled wordnet --dataset icons/animals
python -m benchmarks.novel_lab select --from bundled --count 50 --dataset icons/animals
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simprompt.cli.novel_names import (
    SPEC,
    names_from,
    print_json,
    print_rows,
    print_summary,
    task_of,
    text_encoder,
)
from simprompt.cli.options import Json, with_options
from simprompt.utils.options import NovelOptions
from simprompt.utils.terminal import say

if TYPE_CHECKING:
    from benchmarks.novel_lab.relation import Relation
    from torch import Tensor

    from simprompt.cli.novel_names import Task
    from simprompt.novel import NovelList

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
@with_options
def inspect(
    source: Annotated[str, typer.Argument(help=SPEC)],
    options: NovelOptions,
    map_: Annotated[
        Path | None, typer.Option("--map", help="Draw base, novel and new here (svg, png, pdf)")
    ] = None,
    json_: Json = False,
) -> None:
    """How a list relates to the base classes in the teacher's text space, and its worst names."""
    from benchmarks.novel_lab.map import draw_map, image_format

    if map_:
        image_format(map_)
    task = task_of(options)
    made = names_from(source, task, options)
    encode = text_encoder(options.model, task.template)
    relation = _relate(made, task, encode)
    if map_:
        names: dict[str, Sequence[str]] = {"base": task.base, "novel": made.names}
        if task.new:
            names["new"] = task.new
        groups = {group: encode(members) for group, members in names.items()}
        draw_map(map_, groups, names, title=f"{made.source} for {task.dataset or 'your classes'}")
    if json_:
        print_json({**relation.to_json(), "list": made.to_json(), "map": str(map_ or "") or None})
        return
    print_summary(made)
    print_rows(["measure", "value", "meaning"], [
        [name, _figure(value), MEANING[name]] for name, value in _figures(relation).items()
    ])  # fmt: skip
    if relation.offenders:
        print_rows(["worst names", "problem", "nearest", "cosine"], [
            [o.name, o.problem, o.other, _figure(o.cosine)] for o in relation.offenders
        ])  # fmt: skip
    if map_:
        say(f"Map in {map_}.")


@app.command()
@with_options
def compare(
    sources: Annotated[list[str], typer.Argument(help=f"Two or more of: {SPEC}")],
    options: NovelOptions,
    json_: Json = False,
) -> None:
    """Several lists for the same classes, side by side."""
    task = task_of(options)
    encode = text_encoder(options.model, task.template)
    columns = {}
    for source in dict.fromkeys(sources):
        made = names_from(source, task, options)
        columns[source] = (made, _relate(made, task, encode))
        if not json_:
            print_summary(made)
    if json_:
        print_json({
            source: {**relation.to_json(), "sha256": made.sha256, "leaks": made.leaks}
            for source, (made, relation) in columns.items()
        })  # fmt: skip
        return
    figures = {source: _figures(relation) for source, (_, relation) in columns.items()}
    print_rows(["measure", *figures], [
        [name, *(_figure(column[name]) for column in figures.values())]
        for name in next(iter(figures.values()))
    ])  # fmt: skip


@app.command()
@with_options
def select(
    from_: Annotated[str, typer.Option("--from", help=f"The names to choose from: {SPEC}")],
    options: NovelOptions,
    criterion: Annotated[
        str, typer.Option(help="coverage, k-centre, or random to compare with")
    ] = "coverage",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the list here")] = None,
    json_: Json = False,
) -> None:
    """Choose names from a larger list, without looking at the new classes."""
    from benchmarks.novel_lab.choose import select as choose

    from simprompt.novel.sources import DEFAULT_COUNT

    task = task_of(options)
    count = DEFAULT_COUNT if options.count is None else options.count
    large = names_from(from_, task, replace(options, count=max(1000, 5 * count)))
    encode = text_encoder(options.model, task.template)
    chosen = choose(large.names, task.base, encode, count, criterion, options.seed)
    provenance = {
        "chosen_by": criterion, "from": len(large), "model": options.model,
        "template": task.template, "seed": options.seed, "origin": large.provenance,
    }  # fmt: skip
    made = replace(
        large, names=tuple(chosen), provenance=provenance, requested=count,
        source=f"{criterion} of {large.source}",
    )  # fmt: skip
    if out:
        made.save(out)
    if json_:
        print_json(made.to_json())
        return
    say("\n".join(made.names))
    print_summary(made)


MEANING = {
    "count": "names",
    "nearest": "mean cosine to the nearest base class",
    "nearest_low": "its 10% quantile",
    "nearest_high": "its 90% quantile",
    "base_nearest": "the same mean among the base classes",
    "offset": "nearest - base_nearest; far below 0: about something else",
    "spread": "effective number of different names / count",
    "synonyms": "share closer to a base class than those are to each other",
    "repeats": "share that close to a name before them",
    "reached": "share of base classes with a near name",
    "coverage": "base-novel similarities like base-base ones, 0 to 1",
    "exact_overlap": "names that are real new classes",
    "new_reached": "mean cosine of a real new class to its nearest name",
    "new_coverage": "base-novel similarities like base-new ones, 0 to 1",
}


def _figures(relation: Relation) -> dict[str, Any]:
    return {name: getattr(relation, name) for name in MEANING}


def _figure(value: float | int | None) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _relate(made: NovelList, task: Task, encode: Callable[[Sequence[str]], Tensor]) -> Relation:
    from benchmarks.novel_lab.relation import relate

    relation = relate(made.names, task.base, encode, task.new)
    # Matches that were taken out count as well: they tell about the source.
    return relation if task.new is None else replace(relation, exact_overlap=len(made.overlap))
