"""CLIP weights as others write them -> our `CLIP`, and back.

Three layouts hold the same model under different names:

* OpenAI's ``.pt``: a TorchScript archive, or a plain state dict with the same names;
* open_clip: those names again, in safetensors or a ``.bin``, with ``open_clip_config.json``;
* Hugging Face: a directory with ``config.json`` and ``CLIPModel``'s names.

They come with prefixes, in shards, and beside whatever a training program kept with them. What is
not CLIP's architecture is refused by name. Nothing in a file is ever run: it is read as safetensors
or by the restricted reader of `pickled`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from simprompt.clip.layouts.common import (
    HF_WEIGHTS,
    NOT_WEIGHTS,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    CheckpointError,
    Towers,
    Weights,
    not_finite,
    read_json,
)
from simprompt.clip.layouts.hugging_face import from_hugging_face, towers_of_hugging_face
from simprompt.clip.layouts.open_clip import towers_of_open_clip
from simprompt.clip.layouts.openai import from_openai, towers_of_shapes
from simprompt.clip.model import CLIP, CLIPConfig
from simprompt.clip.parts import INDEX, files_of
from simprompt.clip.pickled import read_pickled
from simprompt.clip.positions import _at_size, _interpolate, _positions, _side
from simprompt.clip.tokenizer import Tokenizer
from simprompt.errors import SimpromptError
from simprompt.utils.files.regular import WEIGHTS, check_regular, is_file, is_folder

LARGEST_SCALE = math.log(100)
"""What the logarithm of CLIP's logit scale is clipped to in training, and where OpenAI's ended."""


def load_checkpoint(
    path: str | Path,
    *,
    tokenizer: str | Path | None = None,
    name: str | None = None,
    image_size: int | None = None,
) -> CLIP:
    """Read a CLIP from a file or directory in any of the three layouts.

    Args:
        path: a directory, a weights file, or the index of a weights file in several parts; a
            configuration is looked for beside the file.
        tokenizer: a tokenizer file or directory; default: what lies beside the weights, else the
            vocabulary that comes with the ``tokenizer`` extra.
        name: what the model is called in messages and results; default: the file's name.
        image_size: pixels to use the model at, a multiple of its patch size; default: its own. See
            `build`.

    Returns:
        A frozen CLIP in float32 on the CPU, whatever type the file holds. Its `notes` say what was
        put in or left out.

    Raises:
        CheckpointError: not found, damaged, not finite, not CLIP, or a configuration is missing.
    """
    path = Path(path)
    if is_folder(path):
        folder, (towers, weights, notes) = path, _read_folder(path)
    elif is_file(path):
        folder, (towers, weights, notes) = path.parent, _read_file(path)
    else:
        raise CheckpointError(
            f"There is no checkpoint at {path}. Check the path; `simprompt list models` shows the "
            "models that have a name."
        )
    source = Path(tokenizer) if tokenizer else folder
    words = Tokenizer.find(source, vocab_size=towers.text["vocab_size"])
    name = name or path.stem or path.resolve().name
    return build(towers.config(words, path), words, name, weights, path, image_size, notes)


def build(
    config: CLIPConfig,
    tokenizer: Tokenizer,
    name: str,
    weights: Weights,
    path: Path,
    image_size: int | None = None,
    notes: list[str] | None = None,
) -> CLIP:
    """A CLIP of weights under our names.

    Where `image_size` asks for it, the positional embeddings of the image tower are interpolated
    from the size that they were trained at, as open_clip does (see `interpolated`).

    Args:
        path: where the weights come from, for messages.
        notes: what is already to be said of this model.

    Raises:
        CheckpointError: a weight is missing, unknown or of another shape than `config` says, or an
            image size that does not fit the model.
    """
    notes = list(notes or ())
    if "logit_scale" not in weights:
        weights["logit_scale"] = torch.tensor(LARGEST_SCALE)
        notes.append(
            f"{name} has no logit_scale; the logits are scaled by 100, as those of OpenAI's CLIPs."
        )
    if image_size is not None:
        config = _at_size(config, image_size, path)
        notes += _interpolate(weights, config, name)
    try:
        with _Uninitialised(sum(value.numel() for value in weights.values())):
            clip = CLIP(config, tokenizer, name)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"The configuration of {path} is not one of a CLIP: {error}. Download it again."
        ) from error
    _fill(clip, weights, path)
    clip.notes = tuple(notes)
    return clip


class _Uninitialised(TorchFunctionMode):
    """Modules made in here draw no random weights, which take longer than reading the real ones.

    (The meta device would save the memory too, but its first use imports for seconds.)

    Args:
        given: how many numbers the weights have. A configuration that wants many times as many, or
            as many tensors, is refused with a ValueError before they take memory.
    """

    MANY, SMALLEST = 8, 256

    def __init__(self, given: float = math.inf) -> None:
        super().__init__()
        self.left = self.MANY * given + 1e6

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("kaiming_uniform_", "uniform_", "normal_"):
            return args[0] if args else kwargs["tensor"]
        if name in ("empty", "zeros", "ones", "randn") and args:
            shape = args if isinstance(args[0], int) else args[0]
            self.left -= max(math.prod(shape), self.SMALLEST)
            if self.left < 0:
                raise ValueError("it asks for many times as many weights as there are")
        return func(*args, **(kwargs or {}))


def _read_folder(folder: Path) -> tuple[Towers, Weights, list[str]]:
    """The layout whose weights are there; open_clip's first, for some repositories hold both."""
    for config, names, reader in (
        (OPEN_CLIP_CONFIG, (*OPEN_CLIP_WEIGHTS, *HF_WEIGHTS), towers_of_open_clip),
        ("config.json", HF_WEIGHTS, towers_of_hugging_face),
    ):
        files = (folder / (n + end) for n in names for end in ("", INDEX))
        file = next((f for f in files if is_file(f)), None)
        if is_file(folder / config) and file:
            towers = _towers(reader, read_json(folder / config), str(folder))
            return towers, *canonical(read_weights(file), file)
    if is_file(adapter := folder / "adapter_config.json"):
        base = str(read_json(adapter).get("base_model_name_or_path") or "")
        raise CheckpointError(_adapter(folder, adapter.name, base))
    if is_file(folder / "config.json"):
        # may say what it is
        _towers(towers_of_hugging_face, read_json(folder / "config.json"), str(folder))
    raise CheckpointError(
        f"{folder} holds no CLIP in a layout that is known here: {OPEN_CLIP_CONFIG} with one of "
        f"{', '.join(OPEN_CLIP_WEIGHTS)}, or config.json with one of {', '.join(HF_WEIGHTS)}; or "
        f"the {INDEX} of such a file and its parts."
    )


def _read_file(path: Path) -> tuple[Towers, Weights, list[str]]:
    weights, notes = canonical(read_weights(path), path)
    if is_file(config := path.parent / OPEN_CLIP_CONFIG):
        return _towers(towers_of_open_clip, read_json(config), str(config)), weights, notes
    if is_file(config := path.parent / "config.json"):
        return _towers(towers_of_hugging_face, read_json(config), str(config)), weights, notes
    return towers_of_shapes(weights, path), weights, notes


def _towers(
    read: Callable[[Mapping[str, Any], str], Towers], values: dict[str, Any], where: str
) -> Towers:
    """What `read` makes of a configuration; a value of another kind than it should be is named."""
    try:
        return read(values, where)
    except (ArithmeticError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, SimpromptError):
            raise
        raise CheckpointError(
            f"The configuration of {where} is not one of a CLIP: {type(error).__name__}, {error}. "
            "Download it again."
        ) from error


def read_weights(path: Path) -> Weights:
    """The tensors of a safetensors, PyTorch or TorchScript file by name, or of all files that an
    index names; runs no code.

    Raises:
        CheckpointError: it cannot be read, whatever the reason.
    """
    if path.name.endswith(INDEX):
        return _read_parts(path)
    if re.search(r"-\d{5}-of-\d{5}\.\w+$", path.name):
        raise CheckpointError(
            f"{path} is one part of a checkpoint in several files: name their folder, or the "
            f"file that ends in {INDEX}."
        )
    return _read_one(path)


def _read_one(path: Path) -> Weights:
    if path.suffix != ".safetensors":
        return read_pickled(path)
    try:
        check_regular(path, WEIGHTS)
        return load_file(str(path))
    except Exception as error:  # the library has many, one for each kind of damage
        first_line = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise CheckpointError(f"{path} is not a readable weights file: {first_line}") from error


def _read_parts(index: Path) -> Weights:
    """The tensors that an index names, each from the file beside it that it says.

    Raises:
        SimpromptError: see `parts.files_of`; or a file or a tensor that is not there.
    """
    weights: Weights = {}
    for name, tensors in files_of(index).items():
        if not is_file(index.parent / name):
            raise CheckpointError(f"{index} says that weights are in {name}, which is not there.")
        shard = _read_one(index.parent / name)
        if missing := [t for t in tensors if t not in shard]:
            raise CheckpointError(f"{index} says that {missing[0]} is in {name}, which lacks it.")
        weights |= {t: shard[t] for t in tensors}
    return weights


# What wraps a module: PyTorch's data-parallel, compiled, sharded and checkpointed ones; and the
# attributes that training programs keep a CLIP in.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_HOLDERS = {"model", "clip", "clip_model"}

_OF_A_CLIP = re.compile(
    r"(text|visual|vision|text_model|vision_model|transformer|token_embedding|ln_final)\..*"
    r"|positional_embedding|(text|visual)_projection(\..*)?|logit_scale|logit_bias"
)
"""Names of weights, in any layout, that an image or text tower has."""

_OF_AN_ADAPTER = re.compile(
    r"(.*\.)?(lora_\w+|ia3_\w+|hada_\w+|oft_\w+|adapters?|base_layer)(\..*)?"
)


def _bare(key: str) -> str:
    """A name without what a training program wrapped the model in."""
    segments = [segment for segment in key.split(".") if segment not in _WRAPPERS]
    while len(segments) > 1 and segments[0] in _HOLDERS:
        del segments[0]
    return ".".join(segments)


def _without_wrappers(weights: Mapping[str, Tensor], path: str | Path) -> Weights:
    bare: Weights = {}
    came: dict[str, str] = {}
    for key, value in weights.items():
        name = _bare(key)
        if name in bare and not torch.equal(bare[name], value):
            raise CheckpointError(
                f"{path} holds two models: {came[name]} and {key} differ. Save the state dict of "
                "the one that you mean."
            )
        bare[name], came[name] = value, key
    return bare


def _adapter(path: str | Path, sign: str, base: str = "") -> str:
    return (
        f"{path} is a LoRA or another adapter (by its {sign}): it holds changes to a model, not "
        "the model. Merge them first: `PeftModel.from_pretrained(CLIPModel.from_pretrained("
        f"{base or 'BASE'!r}), ADAPTER).merge_and_unload().save_pretrained(FOLDER)` with the "
        "packages peft and transformers, and name FOLDER."
    )


def canonical(weights: Mapping[str, Tensor], path: str | Path = "") -> tuple[Weights, list[str]]:
    """Weights under our names in float32, from any of the three layouts' names.

    Returns:
        The weights of the towers and the logit scale, and a note where there are others.

    Raises:
        CheckpointError: a weight that is not finite, names that are not a CLIP's, two models, or an
            adapter.
    """
    if sign := next((key for key in weights if _OF_AN_ADAPTER.fullmatch(key)), None):
        raise CheckpointError(_adapter(path, f"tensor {sign}"))
    bare = _without_wrappers(weights, path)
    bare = {key: value for key, value in bare.items() if not NOT_WEIGHTS.fullmatch(key)}
    tensors = {key: value for key, value in bare.items() if _OF_A_CLIP.fullmatch(key)}
    beside = [key for key in bare if key not in tensors]
    if wrong := not_finite(tensors):
        raise CheckpointError(
            f"{path}: the tensor {wrong} holds NaN or infinity, so no feature would be a number. "
            "The file is damaged, or its training diverged or overflowed half precision."
        )
    tensors = {key: value.float() for key, value in tensors.items()}
    if "logit_bias" in tensors:
        raise CheckpointError(
            f"{path} has a logit bias: it was trained with a sigmoid loss (SigLIP), not with "
            "CLIP's softmax over the batch, so its similarities mean something else here."
        )
    notes = []
    if beside:
        ellipsis = ", ..." if len(beside) > 3 else ""
        notes.append(
            f"{path} has {len(beside)} tensors beside those of a CLIP, which are not used: "
            f"{', '.join(sorted(beside)[:3])}{ellipsis}."
        )
    if any(key.startswith("vision_model.") for key in tensors):
        return from_hugging_face(tensors, path), notes
    if not any(key.startswith("visual.") for key in tensors):
        raise CheckpointError(
            f"{path} holds no image tower under a name that CLIP checkpoints use (visual.* or "
            f"vision_model.*); it begins with {', '.join(list(weights)[:3]) or 'nothing'}."
        )
    resnet = "visual.layer1.0.conv1.weight" in tensors
    return {from_openai(key, resnet): value for key, value in tensors.items()}, notes


# ------------------------------------------------------------------------------- image size


# ------------------------------------------------------------------------------- into the model


def _fill(clip: CLIP, weights: Weights, path: Path) -> None:
    """Load weights; every name and shape must fit."""
    tensors = {k: v for k, v in clip.state_dict().items() if not NOT_WEIGHTS.fullmatch(k)}
    weights = {k: v for k, v in weights.items() if not NOT_WEIGHTS.fullmatch(k)}
    if weights["logit_scale"].numel() == 1:  # some files have it as a vector of one number
        weights["logit_scale"] = weights["logit_scale"].reshape(())
    missing, extra = sorted(tensors.keys() - weights), sorted(weights.keys() - tensors)
    if missing or extra:
        raise CheckpointError(
            f"{path} does not fit the architecture that its configuration describes: "
            + (
                f"{len(missing)} tensors are missing ({', '.join(missing[:3])}, ...)"
                if missing
                else f"{len(extra)} tensors are unknown ({', '.join(extra[:3])}, ...)"
            )
            + ". It is damaged, or an architecture that is not CLIP's."
        )
    for key, value in tensors.items():
        if weights[key].shape != value.shape:
            raise CheckpointError(
                f"{path}: {key} has shape {list(weights[key].shape)}, the configuration says "
                f"{list(value.shape)}.{_other_size(clip.config, key, weights[key])}"
            )
    # copied, not assigned: tensors of a mapped file lie at odd addresses, where matrix products
    # round differently
    clip.load_state_dict(weights, strict=False)
    clip.config = replace(clip.config, logit_scale=float(weights["logit_scale"]))


def _other_size(config: CLIPConfig, key: str, value: Tensor) -> str:
    """What to do where a positional embedding is one of another image size."""
    name, side = _positions(config)
    found = _side(value)
    if key != name or not found:
        return ""
    pixels = config.vision.image_size
    return (
        f" It was trained on images of {found * (pixels // side)} pixels, not {pixels}: choose "
        "with --image-size; at another size than its own the embedding is interpolated."
    )
