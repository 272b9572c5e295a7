"""`simprompt data`: which datasets there are, how to get one, whether it is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simprompt.cli.options import ImageColumn, Json, LabelColumn, Names, SplitColumn, own_images
from simprompt.utils.terminal import say

if TYPE_CHECKING:
    from simprompt.data.own_images.check import Report
    from simprompt.data.own_images.folder import OwnImages

app = typer.Typer(no_args_is_help=True, help="The datasets that can be used.")

Root = Annotated[
    Path | None, typer.Option("--root", help="Data root ($DATA); default $SIMPROMPT_DATA")
]


@app.command("list")
def list_(
    json_: Json = False,
) -> None:
    """Every dataset with its sizes, template, licence and source."""
    from rich.table import Table

    from simprompt.cli.models import print_table
    from simprompt.data import catalogue, coop

    rows: list[dict[str, Any]] = []
    for entry in catalogue.entries().values():
        spec = coop.specs().get(entry.name)
        here = spec is None or coop.find(spec) is not None
        rows.append(
            {"name": entry.name, "classes": entry.n_classes, "train": entry.n_train,
             "test": entry.n_test, "template": entry.templates[0], "source": entry.source,
             "on_disk": here}
        )  # fmt: skip
    if json_:
        say(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("dataset", "classes", "train", "test", "template", "source", "on disk"):
        right = heading in ("classes", "train", "test")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(
            row["name"], f"{row['classes']:,}", f"{row['train']:,}", f"{row['test']:,}",
            row["template"], row["source"], "yes" if row["on_disk"] else "",
        )  # fmt: skip
    print_table(table)
    say(f"\nData root: {coop.data_root()}. Your own images: a folder, or a table of paths.")


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="A dataset of `simprompt data list`")],
    root: Root = None,
    keep_archive: Annotated[bool, typer.Option(help="Keep the downloaded archive")] = False,
) -> None:
    """Get a dataset from the public mirror: resumed, checked, unpacked."""
    from simprompt.data import coop
    from simprompt.errors import SimpromptError

    spec = coop.specs().get(name)
    if spec is None:
        raise SimpromptError(
            f"There is no dataset {name!r} to download; these can be: "
            f"{', '.join(s.name for s in coop.specs().values() if s.archive)}."
        )
    folder = coop.download(spec, root, keep_archive=keep_archive)
    say(f"{name} is in {folder}")


@app.command()
def check(
    name: Annotated[
        str, typer.Argument(help="A dataset of `simprompt data list`, or your own images")
    ],
    root: Root = None,
    most: Annotated[int, typer.Option(help="Lines of each kind; 0 shows all")] = 100,
    names: Names = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    split_column: SplitColumn = None,
    strict: Annotated[bool, typer.Option(help="Stop if a file is not used")] = False,
    json_: Json = False,
) -> None:
    """Decode every image; exit with 1 if any is missing, unreadable or there twice."""
    from simprompt.data import catalogue, coop
    from simprompt.data.images import FileLoader
    from simprompt.data.own_images.check import check_dataset, check_folder
    from simprompt.data.own_images.hf import is_saved
    from simprompt.errors import SimpromptError
    from simprompt.utils.files.regular import expanded

    spec = coop.specs().get(name)
    if spec is None and catalogue.is_own(name):
        reading = own_images(names, image_column, label_column, split_column)
        own = _understood(name, strict, json_, reading)
        if expanded(name).is_dir() and not is_saved(expanded(name)):
            report = check_folder(expanded(name), _progress)
        else:
            if own is None:
                raise typer.Exit(1)
            report = check_dataset(own.dataset, _progress)
        _print(report, most, json_, own)
        if own is None or not report.ok:
            raise typer.Exit(1)
        return
    else:
        if spec is not None and coop.find(spec, root) is None:
            raise SimpromptError(
                f"{name} is not below {root or coop.data_root()}; `simprompt data download {name}` "
                "gets it, --root names another data root."
            )
        dataset = catalogue.load(name, root)
        if not isinstance(dataset.train.loader, FileLoader):
            say(f"{name} has no image files: nothing to check.")
            return
        for note in dataset.notes:
            say(f"note: {note}")
        report = check_dataset(dataset, _progress)
    _print(report, most, json_)
    if not report.ok:
        raise typer.Exit(1)


def _understood(name: str, strict: bool, quiet: bool, reading: dict[str, Any]) -> OwnImages | None:
    """Say how somebody's own images are understood, and what is not used; None: they are not."""
    from simprompt.data.dataset import DatasetError
    from simprompt.data.own_images import folder

    try:
        own = folder.load(name, strict=strict, **reading)
    except DatasetError as error:
        if strict:
            raise
        say(f"cannot be learned from: {error}", err=quiet)
        return None
    if not quiet:
        counts = f"{len(own.dataset.train):,} to learn from, {len(own.dataset.test):,} to test on"
        say(f"{len(own.known)} classes, {counts}")
        for line in own.told():
            say(line)
    return own


def _progress(done: int, total: int) -> None:
    import sys

    if sys.stderr.isatty():
        print(f"\r{done:,} of {total:,} files", end="\n" if done == total else "", file=sys.stderr)


def _print(report: Report, most: int, as_json: bool, own: OwnImages | None = None) -> None:
    from dataclasses import asdict

    if as_json:
        document = asdict(report) | {"ok": report.ok}
        if own is not None:
            document["own"] = own.facts()
        say(json.dumps(document, indent=2))
        return
    counts = ", ".join(f"{n:,} {part}" for part, n in report.counts.items())
    say(f"{counts}; {report.readable:,} files decode")
    for kind in ("missing", "unreadable", "duplicate", "note"):
        problems = report.of_kind(kind)
        if not problems:
            continue
        say(f"\n{kind}: {len(problems):,}")
        folders: dict[str, int] = {}
        for finding in problems[: most or None]:
            say(f"  {finding.item}: {finding.what}")
        for finding in problems[most:] if most else []:
            folder = finding.item.rpartition("/")[0] or "."
            folders[folder] = folders.get(folder, 0) + 1
        for folder, count in folders.items():
            say(f"  {folder}/: {count:,} more (--most 0 names each)")
    if report.ok:
        say("whole: nothing missing, unreadable or double")
