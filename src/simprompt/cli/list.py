"""`simprompt list`: what there is to use: methods, models, datasets, studies, novel names."""

from __future__ import annotations

import json
import sys
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simprompt.cli.novel_names import print_json, print_rows
from simprompt.cli.options import Json
from simprompt.utils.terminal import say

if TYPE_CHECKING:
    from rich.table import Table


class What(str, Enum):
    """What `simprompt list` lists."""

    methods = "methods"
    models = "models"
    regularisers = "regularisers"
    datasets = "datasets"
    studies = "studies"
    novel_names = "novel-names"


def list_(
    what: Annotated[What, typer.Argument(help="What to list")],
    dataset: Annotated[
        str | None, typer.Option(help="Of novel names: the dataset, such as icons/animals")
    ] = None,
    json_: Json = False,
) -> None:
    """List methods, regularisers, models, datasets, studies, or sources of novel names.

    `novel-names --dataset NAME` prints the bundled list of a dataset.
    """
    if what is What.novel_names:
        _novel_names(dataset, json_)
        return
    {
        What.methods: _methods,
        What.models: _models,
        What.datasets: _datasets,
        What.studies: _studies,
        What.regularisers: _regularisers,
    }[what](json_)


def _methods(json_: bool) -> None:
    """Every method: what is learned, parameters on ViT-B/16, source, recipes."""
    from simprompt.cli.described import CLASSES, SHOTS, described

    rows = described()
    if json_:
        say(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_lines=True)
    table.add_column("Method", no_wrap=True)
    table.add_column("Learned, source", ratio=1)
    table.add_column("Numbers", no_wrap=True, justify="right")
    table.add_column("SAR")
    table.add_column("Recipes", no_wrap=True)
    for row in rows:
        number = row["parameters"]
        count = "-" if number is None else f"{number:,}" + ("*" if row["per_class"] else "")
        sar = "yes" if row["sar"] else "no"
        description = f"{row['learned']}. {row['source']}"
        table.add_row(row["method"], description, count, sar, "\n".join(row["recipes"]))
    Console().print(table)
    say(
        f"Numbers: how many are learned on ViT-B/16. * of {CLASSES} classes with {SHOTS} images "
        "each."
    )


def _models(json_: bool) -> None:
    """Every model with its size, licence, hub repository, and whether it is on disk."""
    from rich.table import Table

    from simprompt.clip import catalogue

    rows: list[dict[str, Any]] = [
        {
            "name": m.name,
            "parameters": m.parameters,
            "image_size": m.image_size,
            "licence": m.licence,
            "repository": None,
            "revision": None,
            "extra": m.extra or None,
            "on_disk": m.installed,
            "tried": True,
        }
        for m in catalogue.EMBEDDED.values()
    ]
    rows += [
        {
            "name": m.name,
            "parameters": m.parameters,
            "image_size": m.image_size,
            "licence": m.licence,
            "repository": m.repo,
            "revision": m.revision,
            "extra": None,
            "on_disk": m.on_disk() is not None,
            "tried": False,
        }
        for m in catalogue.models()
    ]
    if json_:
        say(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "parameters", "pixels", "licence", "hub repository", "on disk"):
        right = heading in ("parameters", "pixels")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in rows:
        count = row["parameters"]
        table.add_row(
            str(row["name"]),
            f"{count / 1e6:,.0f} M",
            str(row["image_size"]),
            str(row["licence"]),
            str(row["repository"] or _where(row["extra"])),
            "yes" if row["on_disk"] else "",
        )
    print_table(table)
    say(
        "\nOnly icons and photos were run with their real weights by those who made this package. "
        "The other architectures were run with random weights."
    )
    say("Any other CLIP: hub:org/repository, or the path of a checkpoint.")


def _where(extra: str | None) -> str:
    return rf"pip install 'simprompt\[{extra}]'" if extra else "ships with simprompt"


def _datasets(json_: bool) -> None:
    """Every dataset with its sizes, template, licence and source."""
    from rich.table import Table

    from simprompt.data import catalogue, coop

    rows: list[dict[str, Any]] = []
    for entry in catalogue.entries().values():
        spec = coop.specs().get(entry.name)
        on_disk = spec is None or coop.find(spec) is not None
        rows.append(
            {
                "name": entry.name,
                "classes": entry.n_classes,
                "train": entry.n_train,
                "test": entry.n_test,
                "template": entry.templates[0],
                "source": entry.source,
                "on_disk": on_disk,
            }
        )
    if json_:
        say(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("dataset", "classes", "train", "test", "template", "source", "on disk"):
        right = heading in ("classes", "train", "test")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['classes']:,}",
            f"{row['train']:,}",
            f"{row['test']:,}",
            row["template"],
            row["source"],
            "yes" if row["on_disk"] else "",
        )
    print_table(table)
    say(f"\nData root: {coop.data_root()}. Your own images: a folder, or a table of paths.")


def _regularisers(json_: bool) -> None:
    """Every regulariser with its settings and where it comes from."""
    import inspect

    from simprompt import regularisers

    rows = []
    for name in regularisers.names():
        kind = regularisers.find(name)
        about = (inspect.getdoc(kind) or "").partition("\n")[0]
        keys = [key for key in kind.Config.model_fields if key != "regulariser"]
        rows.append({"name": name, "about": about, "settings": keys})
    if json_:
        say(json.dumps(rows, indent=1))
        return
    for row in rows:
        say(f"{row['name']:14} {row['about']}\n{'':14} sar.{', sar.'.join(row['settings'])}")


def _studies(json_: bool) -> None:
    from simprompt.studies import studies

    all_studies = list(studies().values())
    if json_:
        rows = [
            {"name": s.name, "about": s.about, "points": len(s.points), "protocol": s.protocol}
            for s in all_studies
        ]
        say(json.dumps(rows, indent=1))
        return
    for s in all_studies:
        say(f"{s.name:14} {len(s.points):3} configurations  {s.about}")


def _novel_names(dataset: str | None, json_: bool) -> None:
    """The sources and the bundled lists; with a dataset the names of one list."""
    from simprompt.novel.sources import SOURCES, bundled_datasets, bundled_list

    if dataset:
        value = bundled_list(dataset)
        print_json(value) if json_ else say("\n".join(value["names"]))
        return
    lists = []
    for name in bundled_datasets():
        value = bundled_list(name)
        lists.append(
            {
                "dataset": name,
                "topic": value["topic"],
                "names": len(value["names"]),
                "date": value["date"],
                "exact_overlap": value["exact_overlap"]["count"],
                "provenance": value["provenance"],
            }
        )
    if json_:
        print_json({"sources": sorted(SOURCES), "bundled": lists})
        return
    say(f"Sources: {', '.join(sorted(SOURCES))}\n")
    rows = [
        [row["dataset"], row["names"], row["exact_overlap"], row["date"], row["topic"]]
        for row in lists
    ]
    print_rows(["bundled for", "names", "of them real new", "date", "topic"], rows)


def print_table(table: Table) -> None:
    """As wide as the terminal; into a pipe, every row on one line."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 250).print(table)
