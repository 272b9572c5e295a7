"""`simprompt novel`: list, generate, inspect, compare and select names of novel classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simprompt.cli.options import Json
from simprompt.utils.environ import variable
from simprompt.utils.terminal import say

if TYPE_CHECKING:
    from torch import Tensor

    from simprompt.novel import NovelList
    from simprompt.novel.relation import Relation

app = typer.Typer(no_args_is_help=True, help="Names of novel classes: where from, how good, which.")

DatasetOption = Annotated[
    str | None, typer.Option("--dataset", help="Whose base classes, such as icons/animals")
]
BaseOption = Annotated[
    Path | None, typer.Option("--base", help="Base classes in a file, one a line or JSON")
]
NewOption = Annotated[
    Path | None, typer.Option("--new", help="Real new classes in a file, where they are known")
]
CountOption = Annotated[int | None, typer.Option("--n", help="How many names; 200 by default")]
SeedOption = Annotated[int, typer.Option("--seed", help="For sources that draw")]
ModelOption = Annotated[str, typer.Option("--model", help="The CLIP to measure with")]
TemplateOption = Annotated[
    str | None, typer.Option("--template", help="Hand-crafted prompt; by default the dataset's")
]
LLMModelOption = Annotated[
    str | None, typer.Option("--llm-model", help="For the source llm; else SIMPROMPT_LLM_MODEL")
]
SPEC = (
    "bundled, llm, wordnet, vocabulary, random-nouns, oracle, file:PATH, with counts and joined "
    "by +: bundled:150+wordnet:50; or the path of a list"
)


@dataclass(frozen=True)
class Task:
    """The classes a list is for; `new` is None where the new classes are not known."""

    dataset: str
    base: tuple[str, ...]
    new: tuple[str, ...] | None
    template: str


@app.command("list")
def list_(
    dataset: DatasetOption = None,
    json_: Json = False,
) -> None:
    """The sources and the bundled lists; with --dataset the names of one list."""
    from simprompt.novel.sources import SOURCES, bundled_datasets, bundled_list

    if dataset:
        value = bundled_list(dataset)
        _print_json(value) if json_ else say("\n".join(value["names"]))
        return
    lists = []
    for name in bundled_datasets():
        value = bundled_list(name)
        lists.append({
            "dataset": name, "topic": value["topic"], "names": len(value["names"]),
            "date": value["date"], "exact_overlap": value["exact_overlap"]["count"],
            "provenance": value["provenance"],
        })  # fmt: skip
    if json_:
        _print_json({"sources": sorted(SOURCES), "bundled": lists})
        return
    say(f"Sources: {', '.join(sorted(SOURCES))}\n")
    rows = [
        [row["dataset"], row["names"], row["exact_overlap"], row["date"], row["topic"]]
        for row in lists
    ]
    _print_table(["bundled for", "names", "of them real new", "date", "topic"], rows)


@app.command()
def generate(
    source: Annotated[str, typer.Argument(help=SPEC)],
    dataset: DatasetOption = None,
    base: BaseOption = None,
    new: NewOption = None,
    topic: Annotated[str, typer.Option(help="What the classes are, for the source llm")] = "",
    n: CountOption = None,
    seed: SeedOption = 0,
    llm_model: LLMModelOption = None,
    model: ModelOption = "icons",
    template: TemplateOption = None,
    keep_overlap: Annotated[
        bool, typer.Option("--keep-overlap", help="Keep exact matches with real new classes")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the list here")] = None,
    json_: Json = False,
) -> None:
    """Make a list of names; what a language model gives is kept and never asked for twice."""
    task = _task(dataset, base, new, template)
    made = _names(source, task, n, seed, model, topic, llm_model, keep_overlap)
    if out:
        made.save(out)
    if json_:
        _print_json(made.to_json())
        return
    say("\n".join(made.names))
    _tell(made)
    if out:
        say(f"Written to {out}. Use it with file:{out}.", err=True)


@app.command()
def inspect(
    source: Annotated[str, typer.Argument(help=SPEC)],
    dataset: DatasetOption = None,
    base: BaseOption = None,
    new: NewOption = None,
    n: CountOption = None,
    seed: SeedOption = 0,
    llm_model: LLMModelOption = None,
    model: ModelOption = "icons",
    template: TemplateOption = None,
    map_: Annotated[
        Path | None, typer.Option("--map", help="Draw base, novel and new here (svg, png, pdf)")
    ] = None,
    json_: Json = False,
) -> None:
    """How a list relates to the base classes in the teacher's text space, and its worst names."""
    from simprompt.novel.map import draw_map, image_format

    if map_:
        image_format(map_)
    task = _task(dataset, base, new, template)
    made = _names(source, task, n, seed, model, "", llm_model)
    encode = _encoder(model, task.template)
    relation = _relate(made, task, encode)
    if map_:
        names: dict[str, Sequence[str]] = {"base": task.base, "novel": made.names}
        if task.new:
            names["new"] = task.new
        groups = {group: encode(members) for group, members in names.items()}
        draw_map(map_, groups, names, title=f"{made.source} for {task.dataset or 'your classes'}")
    if json_:
        _print_json({**relation.to_json(), "list": made.to_json(), "map": str(map_ or "") or None})
        return
    _tell(made)
    _print_table(["measure", "value", "meaning"], [
        [name, _figure(value), MEANING[name]] for name, value in _figures(relation).items()
    ])  # fmt: skip
    if relation.offenders:
        _print_table(["worst names", "problem", "nearest", "cosine"], [
            [o.name, o.problem, o.other, _figure(o.cosine)] for o in relation.offenders
        ])  # fmt: skip
    if map_:
        say(f"Map in {map_}.")


@app.command()
def compare(
    sources: Annotated[list[str], typer.Argument(help=f"Two or more of: {SPEC}")],
    dataset: DatasetOption = None,
    base: BaseOption = None,
    new: NewOption = None,
    n: CountOption = None,
    seed: SeedOption = 0,
    llm_model: LLMModelOption = None,
    model: ModelOption = "icons",
    template: TemplateOption = None,
    json_: Json = False,
) -> None:
    """Several lists for the same classes, side by side."""
    task = _task(dataset, base, new, template)
    encode = _encoder(model, task.template)
    columns = {}
    for source in dict.fromkeys(sources):
        made = _names(source, task, n, seed, model, "", llm_model)
        columns[source] = (made, _relate(made, task, encode))
        if not json_:
            _tell(made)
    if json_:
        _print_json({
            source: {**relation.to_json(), "sha256": made.sha256, "leaks": made.leaks}
            for source, (made, relation) in columns.items()
        })  # fmt: skip
        return
    figures = {source: _figures(relation) for source, (_, relation) in columns.items()}
    _print_table(["measure", *figures], [
        [name, *(_figure(column[name]) for column in figures.values())]
        for name in next(iter(figures.values()))
    ])  # fmt: skip


@app.command()
def select(
    from_: Annotated[str, typer.Option("--from", help=f"The names to choose from: {SPEC}")],
    n: Annotated[int, typer.Option("--n", help="How many to choose")] = 200,
    dataset: DatasetOption = None,
    base: BaseOption = None,
    new: NewOption = None,
    criterion: Annotated[
        str, typer.Option(help="coverage, k-centre, or random to compare with")
    ] = "coverage",
    seed: SeedOption = 0,
    llm_model: LLMModelOption = None,
    model: ModelOption = "icons",
    template: TemplateOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the list here")] = None,
    json_: Json = False,
) -> None:
    """Choose names from a larger list, without looking at the new classes."""
    from dataclasses import replace

    from simprompt.novel.choose import select as choose

    task = _task(dataset, base, new, template)
    large = _names(from_, task, max(1000, 5 * n), seed, model, "", llm_model)
    encode = _encoder(model, task.template)
    chosen = choose(large.names, task.base, encode, n, criterion, seed)
    provenance = {
        "chosen_by": criterion, "from": len(large), "model": model, "template": task.template,
        "seed": seed, "origin": large.provenance,
    }  # fmt: skip
    made = replace(
        large, names=tuple(chosen), provenance=provenance, requested=n,
        source=f"{criterion} of {large.source}",
    )  # fmt: skip
    if out:
        made.save(out)
    if json_:
        _print_json(made.to_json())
        return
    say("\n".join(made.names))
    _tell(made)


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


def _task(dataset: str | None, base: Path | None, new: Path | None, template: str | None) -> Task:
    """Base and new classes from a dataset or from files."""
    from simprompt.config import DEFAULT_TEMPLATE
    from simprompt.errors import SimpromptError
    from simprompt.novel.names import clean_name
    from simprompt.novel.sources import read_file

    if base:
        names = tuple(clean_name(name) for name in read_file(base))
        unseen = tuple(clean_name(name) for name in read_file(new)) if new else None
        return Task(dataset or "", names, unseen, template or DEFAULT_TEMPLATE)
    if not dataset:
        raise SimpromptError(
            "No base classes to work with. Name a dataset with --dataset, such as icons/animals, "
            "or a file of class names with --base."
        )
    from simprompt.data import catalogue, coop

    name = dataset.partition("@")[0]
    if name in coop.specs():  # the class names ship with the package; the images are not needed
        names = coop.class_names(name)
        middle = (len(names) + 1) // 2
        prompt = template or coop.template(name)
        return Task(dataset, names[:middle], names[middle:], prompt)
    data = catalogue.load(dataset)
    return Task(dataset, data.base.classnames, data.new.classnames, template or data.templates[0])


def _names(
    source: str,
    task: Task,
    n: int | None,
    seed: int,
    model: str,
    topic: str,
    llm_model: str | None,
    keep_overlap: bool = False,
) -> NovelList:
    from simprompt.novel import novel_names
    from simprompt.utils.files.regular import is_file

    if is_file(source):
        source = f"file:{source}"
    with variable("SIMPROMPT_LLM_MODEL", llm_model) if llm_model else nullcontext():
        return novel_names(
            source, task.base, topic=topic, n=n, seed=seed, dataset=task.dataset, new=task.new,
            keep_overlap=keep_overlap,
            encode=_encoder(model, task.template) if "vocabulary" in source else None,
        )  # fmt: skip


def _relate(made: NovelList, task: Task, encode: Callable[[Sequence[str]], Tensor]) -> Relation:
    from dataclasses import replace

    from simprompt.novel.relation import relate

    relation = relate(made.names, task.base, encode, task.new)
    # Matches that were taken out count as well: they tell about the source.
    return relation if task.new is None else replace(relation, exact_overlap=len(made.overlap))


def _encoder(model: str, template: str) -> Callable[[Sequence[str]], Tensor]:
    """The teacher: names in the hand-crafted prompt to L2-normalised text embeddings `[n, E]`."""
    from simprompt.clip.hub import load_clip
    from simprompt.methods.teacher import teacher_features

    clip = load_clip(model)
    return lambda names: teacher_features(clip, [template], names)


def _tell(made: NovelList) -> None:
    """The list's summary on stderr; a list that saw the new classes in red."""
    from rich.console import Console

    from simprompt.utils.terminal import markup

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(markup(made.summary()))
    if made.sees_new:
        console.print(markup(made.sees_new), style="bold red")
    refused = [item for item in made.dropped if item.refused]
    for item in refused[:10]:
        console.print(markup(f"left out: {item.reason}"), style="yellow")


def _print_json(value: object) -> None:
    say(json.dumps(value, ensure_ascii=False, indent=1))


def _print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from simprompt.utils.terminal import markup

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in header:
        table.add_column(markup(column), overflow="fold")
    for row in rows:
        table.add_row(*(markup(str(cell)) for cell in row))
    Console(highlight=False).print(table)
