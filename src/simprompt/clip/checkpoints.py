"""CLIP weights as others write them -> our `CLIP`, and back.

Three layouts hold the same model under different names:

* OpenAI's ``.pt``: a TorchScript archive, or a plain state dict with the same names;
* open_clip: those names again, in safetensors or a ``.bin``, with ``open_clip_config.json``;
* Hugging Face: a directory with ``config.json`` and ``CLIPModel``'s names.

Nothing in a file is ever run: safetensors, ``torch.load(weights_only=True)``, or the restricted
reader of `torchscript`. What is not CLIP's architecture is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
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
from simprompt.clip.model import CLIP
from simprompt.clip.tokenizer import Tokenizer
from simprompt.clip.torchscript import is_torchscript, read_torchscript
from simprompt.errors import SimpromptError


def load_checkpoint(
    path: str | Path, *, tokenizer: str | Path | None = None, name: str | None = None
) -> CLIP:
    """Read a CLIP from a file or directory in any of the three layouts.

    Args:
        path: a directory, or a weights file; a configuration is looked for beside the file.
        tokenizer: a tokenizer file or directory; default: what lies beside the weights, else the
            vocabulary that comes with the ``tokenizer`` extra.
        name: what the model is called in messages and results; default: the file's name.

    Returns:
        A frozen CLIP in float32 on the CPU, whatever type the file holds.

    Raises:
        CheckpointError: not found, damaged, not finite, not CLIP, or a configuration is missing.
    """
    path = Path(path)
    if path.is_dir():
        folder, towers, weights = path, *_read_folder(path)
    elif path.is_file():
        folder, towers, weights = path.parent, *_read_file(path)
    else:
        raise CheckpointError(f"There is no checkpoint at {path}.")
    source = Path(tokenizer) if tokenizer else folder
    words = Tokenizer.find(source, vocab_size=towers.text["vocab_size"])
    with _Uninitialised():
        clip = CLIP(towers.config(words), words, name or path.stem or path.resolve().name)
    _fill(clip, weights, path)
    return clip


class _Uninitialised(TorchFunctionMode):
    """Modules made in here draw no random weights, which take longer than reading the real ones.

    (The meta device would save the memory too, but its first use imports for seconds.)
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("kaiming_uniform_", "uniform_", "normal_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _read_folder(folder: Path) -> tuple[Towers, Weights]:
    """The layout whose weights are there; open_clip's first, for some repositories hold both."""
    for config, names, read in (
        (OPEN_CLIP_CONFIG, (*OPEN_CLIP_WEIGHTS, *HF_WEIGHTS), towers_of_open_clip),
        ("config.json", HF_WEIGHTS, towers_of_hugging_face),
    ):
        file = next((folder / n for n in names if (folder / n).is_file()), None)
        if (folder / config).is_file() and file:
            towers = _towers(read, read_json(folder / config), str(folder))
            return towers, canonical(read_weights(file), file)
    if (folder / "config.json").is_file():
        # may say what it is
        _towers(towers_of_hugging_face, read_json(folder / "config.json"), str(folder))
        if (folder / "model.safetensors.index.json").is_file():
            raise CheckpointError(f"{folder}: weights in several files (an index) are not read.")
    raise CheckpointError(
        f"{folder} holds no CLIP in a layout that is known here: {OPEN_CLIP_CONFIG} with one of "
        f"{', '.join(OPEN_CLIP_WEIGHTS)}, or config.json with one of {', '.join(HF_WEIGHTS)}."
    )


def _read_file(path: Path) -> tuple[Towers, Weights]:
    weights = canonical(read_weights(path), path)
    if (config := path.parent / OPEN_CLIP_CONFIG).is_file():
        return _towers(towers_of_open_clip, read_json(config), str(config)), weights
    if (config := path.parent / "config.json").is_file():
        return _towers(towers_of_hugging_face, read_json(config), str(config)), weights
    return towers_of_shapes(weights, path), weights


def _towers(
    read: Callable[[Mapping[str, Any], str], Towers], values: dict[str, Any], where: str
) -> Towers:
    """What `read` makes of a configuration; a value of another kind than it should be is named."""
    try:
        return read(values, where)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, SimpromptError):
            raise
        raise CheckpointError(
            f"The configuration of {where} is not one of a CLIP: {type(error).__name__}, {error}."
        ) from error


def read_weights(path: Path) -> Weights:
    """The tensors of a safetensors, PyTorch or TorchScript file by name; runs no code."""
    try:
        if path.suffix == ".safetensors":
            return load_file(str(path))
        if is_torchscript(path):
            return read_torchscript(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except SimpromptError:
        raise
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} is not a readable weights file: {first}") from error
    except Exception as error:  # pickle.UnpicklingError and what a damaged pickle can raise
        raise CheckpointError(
            f"{path} holds more than weights, or is damaged, and was not loaded: running code "
            "from a checkpoint is never allowed here. Convert it to safetensors where you trust it."
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):  # as training programs save it
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict.")
    return {str(k): v for k, v in content.items() if isinstance(v, Tensor)}


def canonical(weights: Mapping[str, Tensor], path: str | Path = "") -> Weights:
    """Weights under our names in float32, from any of the three layouts' names.

    Raises:
        CheckpointError: a weight that is not finite, or names that are not a CLIP's.
    """
    if all(key.startswith("module.") for key in weights):  # saved from data-parallel training
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    weights = {k: v.float() for k, v in weights.items() if not NOT_WEIGHTS.fullmatch(k)}
    if name := not_finite(weights):
        raise CheckpointError(
            f"{path}: the tensor {name} holds NaN or infinity, so no feature would be a number. "
            "The file is damaged, or its training diverged or overflowed half precision."
        )
    if "logit_bias" in weights:
        raise CheckpointError(
            f"{path} has a logit bias: it was trained with a sigmoid loss (SigLIP), not with "
            "CLIP's softmax over the batch, so its similarities mean something else here."
        )
    if any(key.startswith("vision_model.") for key in weights):
        return from_hugging_face(weights, path)
    if not any(key.startswith("visual.") for key in weights):
        raise CheckpointError(
            f"{path} holds no image tower under a name that CLIP checkpoints use (visual.* or "
            f"vision_model.*); it begins with {', '.join(list(weights)[:3]) or 'nothing'}."
        )
    resnet = "visual.layer1.0.conv1.weight" in weights
    return {from_openai(key, resnet): value for key, value in weights.items()}


def _fill(clip: CLIP, weights: Weights, path: Path) -> None:
    """Load weights; every name and shape must fit."""
    own = {k: v for k, v in clip.state_dict().items() if not NOT_WEIGHTS.fullmatch(k)}
    if "logit_scale" in weights:
        weights["logit_scale"] = weights["logit_scale"].reshape(())
    missing, extra = sorted(own.keys() - weights), sorted(weights.keys() - own)
    if missing or extra:
        raise CheckpointError(
            f"{path} does not fit the architecture that its configuration describes: "
            + (f"{len(missing)} tensors are missing ({', '.join(missing[:3])}, ...)"
               if missing else f"{len(extra)} tensors are unknown ({', '.join(extra[:3])}, ...)")
            + ". It is damaged, or an architecture that is not CLIP's."
        )  # fmt: skip
    for key, value in own.items():
        if weights[key].shape != value.shape:
            raise CheckpointError(
                f"{path}: {key} has shape {list(weights[key].shape)}, the configuration says "
                f"{list(value.shape)}."
            )
    # copied, not assigned: tensors of a mapped file lie at odd addresses, where matrix products
    # round differently
    clip.load_state_dict(weights, strict=False)
    clip.config = replace(clip.config, logit_scale=float(weights["logit_scale"]))
