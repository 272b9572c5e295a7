"""`simprompt download`: a model or a dataset, before a run needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simprompt.utils.terminal import say


def download(
    name: Annotated[
        str, typer.Argument(help="A name from `simprompt list models` or `list datasets`")
    ],
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of datasets. Default: $SIMPROMPT_DATA")
    ] = None,
    keep_archive: Annotated[
        bool, typer.Option("--keep-archive", help="Keep a dataset's archive once unpacked")
    ] = False,
) -> None:
    """Download a model or a dataset: resumed, checked, unpacked."""
    from simprompt.clip import catalogue
    from simprompt.data import coop
    from simprompt.errors import SimpromptError, did_you_mean
    from simprompt.utils.files.hub import stated_hash

    if spec := coop.specs().get(name):
        say(f"{name} is in {coop.download(spec, data_root, keep_archive=keep_archive)}")
        return
    entry = catalogue.find(name)
    if entry is None:
        downloadable = [spec.name for spec in coop.specs().values() if spec.archive]
        models = [model.name for model in catalogue.models()]
        raise SimpromptError(
            f"There is no dataset and no model {name!r} to download. "
            f"{did_you_mean(name, [*downloadable, *models], 0.4)}Datasets: "
            f"{', '.join(downloadable)}; models: see `simprompt list models`."
        )
    folder = catalogue.download(entry.repo, entry.layout, entry.revision, entry.sha256)
    say(f"{entry.name} is in {folder}")
    for file in sorted(folder.iterdir()):
        if digest := stated_hash(file):
            say(f"  {file.name}  SHA-256 {digest}, as the hub states it")
