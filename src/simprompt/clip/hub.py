"""A model's name -> a CLIP: embedded in the package, a local path, or the hub."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from simprompt.clip import catalogue, efficientnet, fingerprint
from simprompt.clip.catalogue import EMBEDDED
from simprompt.clip.checkpoints import build, load_checkpoint
from simprompt.clip.efficientnet import EfficientNetConfig
from simprompt.clip.layouts.common import not_finite
from simprompt.clip.model import CLIP, CLIPConfig, ImageConfig
from simprompt.clip.resnet import ResNetConfig
from simprompt.clip.text import TextConfig
from simprompt.clip.tokenizer import Tokenizer
from simprompt.clip.vision import VisionConfig
from simprompt.errors import SimpromptError, check_argument
from simprompt.utils.devices import DTYPES, resolve_device
from simprompt.utils.files.atomic import replacing, write_json
from simprompt.utils.files.cache_folders import cache_dir
from simprompt.utils.files.parsing import json_value
from simprompt.utils.files.regular import WEIGHTS, check_regular, expanded, is_there, read_text
from simprompt.utils.gradients import frozen_mode


def config_from_dict(values: dict[str, Any]) -> CLIPConfig:
    """The inverse of `dataclasses.asdict` for a `CLIPConfig` that went through JSON."""
    vision_values = dict(values["vision"])
    vision: ImageConfig
    if "stages" in vision_values:
        vision_values["stages"] = tuple(tuple(row) for row in vision_values["stages"])
        vision = EfficientNetConfig(**vision_values)
    elif "patch_size" in vision_values:
        vision_values["stem"] = tuple((int(c), int(s)) for c, s in vision_values.get("stem", ()))
        vision = VisionConfig(**vision_values)
    else:
        vision_values["layers"] = tuple(vision_values["layers"])
        vision = ResNetConfig(**vision_values)
    fields = {k: v for k, v in values.items() if k not in ("text", "vision")}
    for key in ("mean", "std"):
        if key in fields:
            fields[key] = tuple(fields[key])
    return CLIPConfig(TextConfig(**values["text"]), vision, **fields)


def save(clip: CLIP, folder: str | Path, stem: str = "model") -> None:
    """Write our own layout: `{stem}.safetensors`, `{stem}.json`; the tokenizer is not copied."""
    folder = Path(folder)
    with replacing(folder / f"{stem}.safetensors") as partial:
        save_file(clip.state_dict(), str(partial))
    write_json(folder / f"{stem}.json", asdict(clip.config))


def load(
    folder: str | Path,
    stem: str = "model",
    name: str | None = None,
    tokenizer: str | Path | None = None,
    image_size: int | None = None,
) -> CLIP:
    """Read our own layout; weights of any float type become float32.

    Args:
        image_size: as `load_clip` takes it.

    Raises:
        SimpromptError: damaged, incomplete, or weights that are not finite or do not fit the
            configuration.
    """
    folder = Path(folder)
    try:
        config = config_from_dict(json_value(read_text(folder / f"{stem}.json")))
        vocabulary = Path(tokenizer) if tokenizer else folder / "tokenizer.json"
        words = Tokenizer.find(vocabulary, config.text.vocab_size)
        check_regular(folder / f"{stem}.safetensors", WEIGHTS)
        weights = load_file(str(folder / f"{stem}.safetensors"))
        weights = {key: value.float() for key, value in weights.items()}
        if isinstance(config.vision, EfficientNetConfig) and "visual.stem.weight" not in weights:
            weights |= efficientnet.backbone()  # what the package does not ship
        if wrong := not_finite(weights):
            raise ValueError(f"the tensor {wrong} holds NaN or infinity")
        return build(config, words, name or stem, weights, folder, image_size)
    except SimpromptError:
        raise
    except Exception as error:  # JSON, dataclasses, safetensors and torch each have their own
        first_line = str(error).strip().splitlines()[0]
        raise SimpromptError(
            f"{folder} is not a CLIP in simprompt's own layout ({stem}.json, {stem}.safetensors, "
            f"tokenizer.json): {type(error).__name__}, {first_line}"
        ) from error


def load_clip(
    name: str | Path,
    *,
    tokenizer: str | Path | None = None,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    image_size: int | None = None,
) -> CLIP:
    """A CLIP by name or path, frozen.

    Args:
        name: ``"icons"``; a name of ``simprompt list models`` such as ``"ViT-B-16/openai"`` (or
            OpenAI's own, ``"ViT-B/16"``); ``"hub:org/repository[@revision]"`` for any CLIP on
            the hub; or the path of a checkpoint file or directory (see `load_checkpoint`).
        tokenizer: a tokenizer file or directory instead of the model's own.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``: the towers' weights and sums.
            Features and learned prompts are float32 always.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, ``"auto"`` for what there is; or any
            `torch.device`.
        image_size: pixels to use the model at, a multiple of its patch size; default: its own.
            Its positional embeddings are interpolated where they were trained at another size.

    Raises:
        SimpromptError: no model of that name, a download that failed, not a CLIP, or no such device
            or dtype.

    On a GPU, convolutions then keep the whole of float32, for the whole process: PyTorch would cut
    it to TF32's 10 bits, and an image feature would not be that of a CPU.
    """
    for value, kind, takes in (
        (name, str | Path, 'a name or a path, such as "icons"'),
        (tokenizer, str | Path | None, "tokenizer=None or a file or folder"),
        (dtype, str, 'a dtype by its name, such as dtype="float32"'),
        (device, str | torch.device, 'a device, such as device="cuda:0"'),
        (image_size, int | None, "image_size=None or a whole number of pixels"),
    ):
        check_argument(value, kind, "load_clip()", takes)
    if dtype not in DTYPES:
        raise SimpromptError(f"There is no dtype {dtype!r} here; choose {', '.join(DTYPES)}.")
    torch_device = torch.device(resolve_device(device) if isinstance(device, str) else device)
    with frozen_mode():  # a prompt can be learned on the model, whatever mode the caller is in
        clip = _placed(_find(str(name), tokenizer, image_size), torch_device, dtype)
    if tokenizer is not None:
        clip.source["tokenizer"] = str(Path(tokenizer).resolve())
    if image_size is not None:
        clip.source["image_size"] = image_size
    return clip


def _placed(clip: CLIP, place: torch.device, dtype: str) -> CLIP:
    """The model on a device and in a type.

    Raises:
        SimpromptError: it does not fit there.
    """
    number = getattr(torch, dtype)
    origin = fingerprint.of_clip(clip) if number != torch.float32 else ""
    try:
        if place.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False
        # the logit scale stays float32: rounding it changes every logit
        clip.text.to(number)
        clip.visual.to(number)
        clip = clip.to(place)
    except (RuntimeError, AssertionError, TypeError) as error:  # a full GPU, a type it has not
        raise SimpromptError(
            f"{clip.name} cannot be put on the device {str(place)!r} in {dtype}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if origin:
        fingerprint.remember_origin(clip, origin)
    return clip


def _find(name: str, tokenizer: str | Path | None, image_size: int | None) -> CLIP:
    catalogue.check_name(name)
    arguments: dict[str, Any] = {"tokenizer": tokenizer, "image_size": image_size}
    if name in EMBEDDED:
        with resources.as_file(EMBEDDED[name].folder) as folder:
            return load(folder, name=name, **arguments)
    if entry := catalogue.find(name):
        folder = catalogue.download(entry.repo, entry.layout, entry.revision, entry.sha256)
        return load_checkpoint(folder, name=entry.name, **arguments)
    if name.startswith("hub:"):
        repo, _, revision = name.removeprefix("hub:").partition("@")
        folder = _any_layout(repo, revision or "main")
        return load_checkpoint(folder, name=name, **arguments)
    path = expanded(name)
    is_ours = path.is_dir() and (path / "model.json").is_file()
    clip = (
        load(path, name=path.resolve().name, **arguments)
        if is_ours
        else load_checkpoint(path, **arguments)
    )
    clip.source["name"] = str(path.resolve())
    return clip


def is_named(model: str) -> bool:
    """Whether a model's name means the same on every computer: shipped, in the catalogue, or of the
    hub. Everything else is a path, or the last part of one."""
    return model in EMBEDDED or model.startswith("hub:") or catalogue.find(model) is not None


def public_name(model: str) -> str:
    """A model's name for files that are shared: of a path its last part.

    >>> public_name("icons"), public_name("/home/jane/clips/ViT-B-16.pt")
    ('icons', 'ViT-B-16.pt')
    """
    return model if is_named(model) else re.split(r"[\\/]", model.rstrip("\\/"))[-1]


def remember(digest: str, clip: CLIP) -> None:
    """Note in the user's cache where the model of this digest was loaded from, if it was a path or
    took a tokenizer file. Prompts name such a model by its digest alone."""
    name, tokenizer = clip.source["name"], clip.source.get("tokenizer")
    with suppress(OSError):  # the user can name the model each time
        if tokenizer is None and (is_named(name) or not is_there(name)):
            return
        entry = {"model": name, "tokenizer": tokenizer}
        if remembered(digest) != entry:
            write_json(_entry(digest), entry)


def remembered(digest: str) -> dict[str, Any] | None:
    """``{"model": ..., "tokenizer": ...}`` that this user had a model of this digest from, and
    where its files still are; None if that is not known."""
    try:
        entry = json_value(read_text(_entry(digest)))
        model, tokenizer = str(entry["model"]), entry["tokenizer"]
        findable = is_named(model) or is_there(model)
        findable = findable and (tokenizer is None or is_there(str(tokenizer)))
    except (OSError, SimpromptError, ValueError, LookupError, TypeError):
        return None
    return {"model": model, "tokenizer": tokenizer} if findable else None


def _entry(digest: str) -> Path:
    if not re.fullmatch("[0-9a-f]{64}", digest):  # a card may say anything
        raise ValueError(f"{digest!r} is not a digest")
    return cache_dir() / "checkpoints" / f"{digest}.json"


def _any_layout(repo: str, revision: str) -> Path:
    from simprompt.utils.files.hub import on_disk
    from simprompt.utils.files.hub_requests import FetchError, MissingError

    ours, theirs = (catalogue.FILES[layout][0][0] for layout in ("open_clip", "hugging_face"))
    try:
        return catalogue.download(repo, "open_clip", revision)
    except FetchError as error:
        # without a connection nobody says that the other file is not there
        is_stored = on_disk(repo, theirs, revision) and not on_disk(repo, ours, revision)
        if not isinstance(error, MissingError) and not is_stored:
            raise
    return catalogue.download(repo, "hugging_face", revision)
