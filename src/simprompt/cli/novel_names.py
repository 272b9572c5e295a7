"""`simprompt novel-names`: a list of novel names, the extra class names that SAR takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simprompt.cli.options import Json, with_options
from simprompt.utils.environ import variable
from simprompt.utils.options import NovelOptions
from simprompt.utils.terminal import say

if TYPE_CHECKING:
    from torch import Tensor

    from simprompt.novel import NovelList

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


@with_options
def novel_names_(
    source: Annotated[str, typer.Argument(help=SPEC)],
    options: NovelOptions,
    topic: Annotated[str, typer.Option(help="Topic of the classes, for the source llm")] = "",
    keep_overlap: Annotated[
        bool, typer.Option("--keep-overlap", help="Keep exact matches with real new classes")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Output file")] = None,
    json_: Json = False,
) -> None:
    """Make a list of novel names; answers of a language model are cached."""
    novel = names_from(source, task_of(options), options, topic, keep_overlap)
    if out:
        novel.save(out)
    if json_:
        print_json(novel.to_json())
        return
    say("\n".join(novel.names))
    print_summary(novel)
    if out:
        say(f"Written to {out}. Use it with file:{out}.", err=True)


def task_of(options: NovelOptions) -> Task:
    """Base and new classes from a dataset or from files."""
    from simprompt.config import DEFAULT_TEMPLATE
    from simprompt.errors import SimpromptError
    from simprompt.novel.names import clean_name
    from simprompt.novel.sources import read_file

    dataset, template = options.dataset, options.template
    if options.base:
        names = tuple(clean_name(name) for name in read_file(options.base))
        unseen = tuple(clean_name(name) for name in read_file(options.new)) if options.new else None
        return Task(dataset or "", names, unseen, template or DEFAULT_TEMPLATE)
    if not dataset:
        raise SimpromptError(
            "No base classes to work with. Name a dataset with --dataset, such as icons/animals, "
            "or a file of class names with --base-classes."
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


def names_from(
    source: str, task: Task, options: NovelOptions, topic: str = "", keep_overlap: bool = False
) -> NovelList:
    """The names that a source offers for a task, cleaned."""
    from simprompt.novel import novel_names
    from simprompt.utils.files.regular import is_file

    if is_file(source):
        source = f"file:{source}"
    asked = options.llm_model
    with variable("SIMPROMPT_LLM_MODEL", asked) if asked else nullcontext():
        return novel_names(
            source,
            task.base,
            topic=topic,
            n=options.count,
            seed=options.seed,
            dataset=task.dataset,
            new=task.new,
            keep_overlap=keep_overlap,
            encode=text_encoder(options.model, task.template) if "vocabulary" in source else None,
        )


def text_encoder(model: str, template: str) -> Callable[[Sequence[str]], Tensor]:
    """The teacher: names in the hand-crafted prompt to L2-normalised text embeddings `[n, E]`."""
    from simprompt.clip.hub import load_clip
    from simprompt.methods.teacher import teacher_features

    clip = load_clip(model)
    return lambda names: teacher_features(clip, [template], names)


def print_summary(made: NovelList) -> None:
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


def print_json(value: object) -> None:
    """Print a value as JSON."""
    say(json.dumps(value, ensure_ascii=False, indent=1))


def print_rows(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    from simprompt.utils.terminal import markup

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in header:
        table.add_column(markup(column), overflow="fold")
    for row in rows:
        table.add_row(*(markup(str(cell)) for cell in row))
    Console(highlight=False).print(table)
