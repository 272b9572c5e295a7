"""What this installation has, and what is wrong with it: versions, cores, memory, GPU, places on
the disk, models, extras, environment variables. Nothing is downloaded.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from simprompt.errors import EXTRAS, SimpromptError, did_you_mean, install
from simprompt.utils import memory
from simprompt.utils.checkpoint import interval
from simprompt.utils.files.atomic import WriteError, check_folder
from simprompt.utils.files.cache_folders import cache_dir, hub_cache, is_nowhere
from simprompt.utils.files.hub_requests import endpoint, offline

LEAST_SPACE = 1e9
"""Bytes. The features of ImageNet's test images and a ViT-B/16 are about as much."""
LEAST_MEMORY = 4000
"""MB. A ViT-B/16 and 500 classes take two thousand."""
PACKAGES = ("torch", "numpy", "pillow", "pydantic", "safetensors", "tokenizers")
PURPOSES: Mapping[str, str] = {
    "tokenizer": "a bare checkpoint of OpenAI",
    "datasets": "hf:NAME and Parquet tables",
    "heif": "HEIC photos",
    "llm": "novel names from a language model",
    "app": "serve",
    "hub": "push",
    "onnx": "export --to onnx",
    "ray": "sweeps on a cluster",
    "tensorboard": "--tracker tensorboard",
    "mlflow": "--tracker mlflow",
    "photos": "a CLIP for photographs",
    "sentence": "sar.teacher=sentence",
}
"""What each of `errors.EXTRAS` is for."""
VARIABLES = (
    "SIMPROMPT_CACHE",
    "SIMPROMPT_DATA",
    "SIMPROMPT_CHECKPOINT_EVERY",
    "SIMPROMPT_DEBUG",
    "SIMPROMPT_METHODS",
    "SIMPROMPT_LLM_BASE_URL",
    "SIMPROMPT_LLM_MODEL",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "OMP_NUM_THREADS",
)


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's page.

    Attributes:
        group: what it belongs to: "versions", "machine", ...
        name, value: what was looked at, and what was found.
        problem: what is wrong, and how to mend it; empty where nothing is.
    """

    group: str
    name: str
    value: str
    problem: str = ""


def examine() -> list[Finding]:
    """All findings, in the order of the page."""
    return [*_versions(), *_machine(), *_places(), *_models(), *_extras(), *_variables()]


def _versions() -> Iterator[Finding]:
    from simprompt._version import __version__

    yield Finding("versions", "simprompt", __version__)
    yield Finding("versions", "Python", f"{platform.python_version()}, {sys.executable}")
    for name in PACKAGES:
        yield Finding("versions", name, _version(name) or "not installed", _too_old(name))


def _too_old(name: str) -> str:
    """What is wrong where `simprompt` asks for a newer package than there is."""
    from packaging.requirements import Requirement

    installed = _version(name)
    for line in metadata.requires("simprompt") or ():
        requirement = Requirement(line)
        if requirement.name.lower() == name and not requirement.marker and installed is not None:
            fits = requirement.specifier.contains(installed, prereleases=True)
            return (
                ""
                if fits
                else f"simprompt needs {requirement}: pip install --upgrade '{requirement}'"
            )
    return "" if installed else f"pip install {name}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> Iterator[Finding]:
    import torch

    from simprompt.utils.devices import describe_device, resolve_device

    yield Finding("machine", "system", platform.platform())
    cores = os.cpu_count() or 1
    threads = torch.get_num_threads()
    thread_advice = ""
    if threads == 1 and cores > 1:
        thread_advice = "torch computes with one thread; unset OMP_NUM_THREADS to use all cores"
    yield Finding("machine", "cores", f"{cores}, torch takes {threads}", thread_advice)
    limit = memory.limit_mb()
    limit_text = f"{limit / 1024:.0f} GiB" if limit == limit else "the system does not say"
    short = limit < LEAST_MEMORY
    yield Finding(
        "machine",
        "memory",
        limit_text,
        "models such as ViT-B/16 may not fit; the icon CLIP does" if short else "",
    )
    device = resolve_device("auto")
    if device == "cpu":
        why = "CPU only" if torch.version.cuda is None else "none is seen"
        if Path("/proc/driver/nvidia").exists():
            problem = (
                "there is a GPU that torch cannot use: install the build of torch for its CUDA, "
                'see PyTorch\'s page "Get Started"'
            )
            yield Finding("machine", "GPU", why, problem)
        else:
            yield Finding("machine", "GPU", f"none ({why})")
    else:
        yield Finding("machine", "GPU", f"{device}, {describe_device(torch.device(device))}")


def _places() -> Iterator[Finding]:
    from simprompt.data.coop import data_root

    for name, path, variable in (
        ("cache", cache_dir(), "SIMPROMPT_CACHE"),
        ("hub's files", hub_cache(), "HF_HOME"),
    ):
        yield _place(name, path, variable)
    root = data_root()
    folders = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    value = f"{root}: {', '.join(folders) or 'nothing yet'}"
    if is_nowhere(root):
        value = "none: there is no home folder"
    problem = ""
    if os.environ.get("SIMPROMPT_DATA") and not root.is_dir():
        problem = "SIMPROMPT_DATA names a folder that is not there: make it, or name another"
    yield Finding("places", "datasets", value, problem)


def _place(name: str, place: Path, variable: str) -> Finding:
    """Whether it can be written to, and what room is there."""
    if is_nowhere(place):
        return Finding(
            "places",
            name,
            "none: there is no home folder",
            f"what is kept there is made or downloaded again each time: set HOME, or {variable}",
        )
    existing = next(p for p in (place, *place.absolute().parents) if p.exists())
    problem = ""
    try:
        if existing == place:
            check_folder(place)
        elif not os.access(existing, os.W_OK):
            raise WriteError
        free = shutil.disk_usage(existing).free
        if free < LEAST_SPACE:
            problem = f"little room: make some, or let {variable} name a place on another disk"
    except (OSError, SimpromptError):
        free = 0
        problem = f"it cannot be written to, which costs time: let {variable} name another place"
    size = sum(f.stat().st_size for f in place.rglob("*") if f.is_file() and not f.is_symlink())
    return Finding(
        "places", name, f"{place}: {size / 1e6:,.0f} MB, {free / 1e9:,.0f} GB free", problem
    )


def _models() -> Iterator[Finding]:
    from simprompt.clip import catalogue

    for entry in catalogue.EMBEDDED.values():
        value, problem = "ships with the package", ""
        if not (entry.folder / "model.safetensors").is_file():
            value = "missing"
            problem = "the package is damaged: pip install --force-reinstall simprompt"
        elif not entry.installed:
            value = f"for photographs: {install(entry.extra)}"
        yield Finding("models", entry.name, value, problem)
    downloaded = [entry.name for entry in catalogue.models() if entry.on_disk()]
    yield Finding(
        "models", "on disk", ", ".join(downloaded) or "none; `simprompt download NAME` gets one"
    )
    yield Finding(
        "models",
        "hub",
        f"{endpoint()}{', not asked' if offline() else ''}",
        "HF_HUB_OFFLINE forbids downloads" if offline() and not downloaded else "",
    )


def _extras() -> Iterator[Finding]:
    for extra, purpose in PURPOSES.items():
        packages = [re.split("[<>=]", name)[0] for name in EXTRAS[extra]]
        missing = [name for name in packages if _version(name) is None]
        value = "installed" if not missing else install(extra)
        yield Finding("extras", extra, f"{value}: {purpose}")


def _variables() -> Iterator[Finding]:
    for name in sorted(os.environ):
        recognised = name in VARIABLES
        if not recognised and not name.startswith("SIMPROMPT_"):
            continue
        wrong = (
            "" if recognised else f"nothing reads it. {did_you_mean(name, VARIABLES, 0.85)}".strip()
        )
        if name == "SIMPROMPT_CHECKPOINT_EVERY":
            try:
                interval()
            except SimpromptError as error:
                wrong = str(error)
        yield Finding("environment", name, os.environ[name], wrong)
