"""CLIP weights as others write them -> our `CLIP`, and back.

Three layouts hold the same model under different names:

* OpenAI's ``.pt``: a TorchScript archive, or a plain state dict with the same names;
* open_clip: those names again, in safetensors or a ``.bin``, with ``open_clip_config.json``;
* Hugging Face: a directory with ``config.json`` and ``CLIPModel``'s names.

Nothing in a file is ever run: safetensors, ``torch.load(weights_only=True)``, or the restricted
reader of `torchscript`. What is not CLIP's architecture is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from simprompt.clip.model import CLIP, OPENAI_MEAN, OPENAI_STD, CLIPConfig
from simprompt.clip.resnet import STRIDE, ResNetConfig
from simprompt.clip.text import TextConfig
from simprompt.clip.tokenizer import Tokenizer
from simprompt.clip.torchscript import is_torchscript, read_torchscript
from simprompt.clip.vision import VisionConfig
from simprompt.errors import SimpromptError
from simprompt.files.whole import replacing, write_json

OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
HF_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

Weights = dict[str, Tensor]


class CheckpointError(SimpromptError):
    """A checkpoint that cannot be read as CLIP."""


@dataclass(frozen=True)
class Towers:
    """What a configuration file says, before the tokenizer adds its two marks."""

    embed_dim: int
    text: dict[str, Any]  # arguments of TextConfig
    vision: dict[str, Any]  # arguments of VisionConfig or ResNetConfig
    preprocess: dict[str, Any]  # fields of CLIPConfig

    def config(self, tokenizer: Tokenizer) -> CLIPConfig:
        text = TextConfig(
            **self.text, embed_dim=self.embed_dim, sot=tokenizer.sot, eot=tokenizer.eot
        )
        kind: Callable[..., Any] = VisionConfig if "patch_size" in self.vision else ResNetConfig
        vision = kind(**self.vision, embed_dim=self.embed_dim)
        return CLIPConfig(text, vision, **self.preprocess)


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
            towers = _towers(read, _json(folder / config), str(folder))
            return towers, canonical(read_weights(file), file)
    if (folder / "config.json").is_file():
        # may say what it is
        _towers(towers_of_hugging_face, _json(folder / "config.json"), str(folder))
        if (folder / "model.safetensors.index.json").is_file():
            raise CheckpointError(f"{folder}: weights in several files (an index) are not read.")
    raise CheckpointError(
        f"{folder} holds no CLIP in a layout that is known here: {OPEN_CLIP_CONFIG} with one of "
        f"{', '.join(OPEN_CLIP_WEIGHTS)}, or config.json with one of {', '.join(HF_WEIGHTS)}."
    )


def _read_file(path: Path) -> tuple[Towers, Weights]:
    weights = canonical(read_weights(path), path)
    if (config := path.parent / OPEN_CLIP_CONFIG).is_file():
        return _towers(towers_of_open_clip, _json(config), str(config)), weights
    if (config := path.parent / "config.json").is_file():
        return _towers(towers_of_hugging_face, _json(config), str(config)), weights
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


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is not a JSON object.")
    return values


# ---------------------------------------------------------------------------- weights


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


# OpenAI's and open_clip's names -> ours; tried in order, the first that matches wins.
_FROM_OPENAI = [
    (r"(visual\.)transformer\.resblocks\.(\d+)\.(.+)", r"\1blocks.\2.\3"),
    (r"(?:text\.)?transformer\.resblocks\.(\d+)\.(.+)", r"text.blocks.\1.\2"),
    (r"visual\.conv1\.weight", "visual.patch.weight"),
    (r"visual\.proj", "visual.projection"),
    (r"(?:text\.)?text_projection", "text.projection"),
    (r"(?:text\.)?(token_embedding\.weight|positional_embedding|ln_final\.\w+)", r"text.\1"),
]
_BLOCK_FROM_OPENAI = {
    "attn.in_proj_weight": "qkv.weight",
    "attn.in_proj_bias": "qkv.bias",
    "attn.out_proj": "out",
    "mlp.c_fc": "fc",
    "mlp.c_proj": "proj",
}
_NOT_WEIGHTS = re.compile(
    r"input_resolution|context_length|vocab_size|(text\.)?attn_mask|.*\.position_ids"
    r"|.*\.num_batches_tracked|visual\.attn_mask"
)


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """The name of a tensor that holds NaN or infinity; empty where all are finite."""
    for name, values in tensors.items():
        # a finite sum proves finite terms; finite terms may have an infinite sum
        if not values.sum().isfinite() and not values.isfinite().all():
            return name
    return ""


def canonical(weights: Mapping[str, Tensor], path: str | Path = "") -> Weights:
    """Weights under our names in float32, from any of the three layouts' names.

    Raises:
        CheckpointError: a weight that is not finite, or names that are not a CLIP's.
    """
    if all(key.startswith("module.") for key in weights):  # saved from data-parallel training
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    weights = {k: v.float() for k, v in weights.items() if not _NOT_WEIGHTS.fullmatch(k)}
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
        return _from_hugging_face(weights, path)
    if not any(key.startswith("visual.") for key in weights):
        raise CheckpointError(
            f"{path} holds no image tower under a name that CLIP checkpoints use (visual.* or "
            f"vision_model.*); it begins with {', '.join(list(weights)[:3]) or 'nothing'}."
        )
    resnet = "visual.layer1.0.conv1.weight" in weights
    return {_from_openai(key, resnet): value for key, value in weights.items()}


def _from_openai(key: str, resnet: bool) -> str:
    if resnet and key.startswith("visual."):
        return key  # our ResNet bears OpenAI's names
    for pattern, ours in _FROM_OPENAI:
        match = re.fullmatch(pattern, key)
        if match:
            key = match.expand(ours)
            for theirs, mine in _BLOCK_FROM_OPENAI.items():
                key = key.replace(f".{theirs}", f".{mine}")
            return key
    return key


def _to_openai(key: str, resnet: bool) -> str:
    """The inverse of `_from_openai`."""
    for theirs, mine in _BLOCK_FROM_OPENAI.items():
        key = re.sub(rf"(blocks\.\d+)\.{re.escape(mine)}(?=\.|$)", rf"\1.{theirs}", key)
    key = key.replace("blocks.", "transformer.resblocks.")
    if not (resnet and key.startswith("visual.")):
        key = key.replace("visual.patch.", "visual.conv1.")
        key = key.replace("visual.projection", "visual.proj")
    key = key.replace("text.projection", "text_projection")
    return key.removeprefix("text.")


def _from_hugging_face(weights: Mapping[str, Tensor], path: str | Path) -> Weights:
    out: Weights = {}
    for key, value in weights.items():
        tower = {"text_model": "text", "vision_model": "visual"}.get(key.split(".")[0], "")
        layer = re.fullmatch(r"\w+\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", key)
        if layer:
            number, part, kind = layer.groups()
            block = f"{tower}.blocks.{number}"
            if part == "self_attn.q_proj":
                ours = f"{block}.qkv.{kind}"
                parts = [key.replace("q_proj", p) for p in ("q_proj", "k_proj", "v_proj")]
                if missing := [p for p in parts if p not in weights]:
                    raise CheckpointError(f"{path} lacks {', '.join(missing)}.")
                value = torch.cat([weights[p] for p in parts])
            elif part in ("self_attn.k_proj", "self_attn.v_proj"):
                continue
            else:
                name = {
                    "self_attn.out_proj": "out",
                    "layer_norm1": "ln_1",
                    "layer_norm2": "ln_2",
                    "mlp.fc1": "fc",
                    "mlp.fc2": "proj",
                }.get(part, part)
                ours = f"{block}.{name}.{kind}"
        else:
            ours = _HF_NAMES.get(key, key)
            if ours in ("text.projection", "visual.projection"):
                value = value.T.contiguous()  # theirs is a linear layer's weight
        out[ours] = value
    return out


_HF_NAMES = {
    "text_projection.weight": "text.projection",
    "visual_projection.weight": "visual.projection",
    "text_model.embeddings.token_embedding.weight": "text.token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "text.positional_embedding",
    "text_model.final_layer_norm.weight": "text.ln_final.weight",
    "text_model.final_layer_norm.bias": "text.ln_final.bias",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.patch.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    # theirs is misspelt
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
}


def _fill(clip: CLIP, weights: Weights, path: Path) -> None:
    """Load weights; every name and shape must fit."""
    own = {k: v for k, v in clip.state_dict().items() if not _NOT_WEIGHTS.fullmatch(k)}
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


# ---------------------------------------------------------------------------- configurations


def towers_of_open_clip(values: Mapping[str, Any], where: str) -> Towers:
    """Read ``open_clip_config.json`` (or the bare model configuration inside it)."""
    model = values.get("model_cfg", values)
    try:
        vision, text = dict(model["vision_cfg"]), dict(model["text_cfg"])
        embed_dim = int(model["embed_dim"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where} is not an open_clip configuration: {error}.") from error
    _refuse_open_clip(model, vision, text, where)
    act = "quick_gelu" if model.get("quick_gelu") else "gelu"
    text_width = int(text.get("width", 512))
    texts = {
        "vocab_size": int(text.get("vocab_size", 49408)),
        "context_length": int(text.get("context_length", 77)),
        "width": text_width,
        "layers": int(text.get("layers", 12)),
        "heads": int(text.get("heads", 8)),
        "activation": act,
        "mlp": _mlp(text_width, int(text_width * text.get("mlp_ratio", 4.0))),
    }
    size = vision.get("image_size", 224)
    if isinstance(size, (list, tuple)):
        if size[0] != size[1]:
            raise CheckpointError(f"{where}: images of {size} are not square, CLIP's are.")
        size = size[0]
    width, layers = int(vision.get("width", 768)), vision.get("layers", 12)
    head_width = int(vision.get("head_width", 64))
    images: dict[str, Any]
    if isinstance(layers, (list, tuple)):
        heads = width * 32 // head_width
        images = {"image_size": int(size), "layers": tuple(layers), "width": width, "heads": heads}
    else:
        images = {
            "image_size": int(size),
            "patch_size": int(vision.get("patch_size", 16)),
            "width": width,
            "layers": int(layers),
            "heads": width // head_width,
            "activation": act,
            "mlp": _mlp(width, int(width * vision.get("mlp_ratio", 4.0))),
        }
    return Towers(embed_dim, texts, images, _open_clip_preprocess(values, where))


def _mlp(width: int, hidden: int) -> int:
    """0 (the default) where the hidden layer is four times as wide, else its width."""
    return 0 if hidden == 4 * width else hidden


def _open_clip_preprocess(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    given = values.get("preprocess_cfg") or {}
    out: dict[str, Any] = {
        "mean": tuple(given.get("mean") or OPENAI_MEAN),
        "std": tuple(given.get("std") or OPENAI_STD),
        "interpolation": given.get("interpolation") or "bicubic",
        "resize_mode": given.get("resize_mode") or "shortest",
    }
    if out["interpolation"] == "random":
        out["interpolation"] = "bicubic"  # open_clip's own choice at test time
    if out["interpolation"] not in ("bicubic", "bilinear") or out["resize_mode"] not in (
        "shortest", "squash",
    ):  # fmt: skip
        raise CheckpointError(
            f"{where}: preprocessing with interpolation {out['interpolation']!r} and resize mode "
            f"{out['resize_mode']!r} is not known here (bicubic or bilinear, shortest or squash)."
        )
    return out


def _refuse_open_clip(
    model: Mapping[str, Any], vision: Mapping[str, Any], text: Mapping[str, Any], where: str
) -> None:
    """Say what differs from CLIP, if anything does."""
    plain_text: dict[str, Any] = {
        "embed_cls": False, "final_ln_after_pool": False, "proj_bias": False,
        "proj_type": "linear", "ls_init_value": None, "act_kwargs": None, "norm_kwargs": None,
    }  # fmt: skip
    plain_vision: dict[str, Any] = {
        "attentional_pool": False, "no_ln_pre": False, "pos_embed_type": "learnable",
        "final_ln_after_pool": False, "pool_type": "tok", "ls_init_value": None,
        "act_kwargs": None, "norm_kwargs": None,
    }  # fmt: skip
    for setting in ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner",
                    "scale_attn", "scale_fc"):  # fmt: skip
        plain_text[setting] = plain_vision[setting] = False
    differs = []
    if "init_logit_bias" in model:
        differs.append("it is trained with a sigmoid loss and a logit bias (SigLIP)")
    if text.get("hf_model_name"):
        differs.append(f"its text tower is {text['hf_model_name']}, not CLIP's causal transformer")
    if text.get("no_causal_mask"):
        differs.append("its text tower is not causal")
    if text.get("pool_type", "argmax") != "argmax":
        differs.append(f"its text feature is pooled by {text['pool_type']!r}, not at the end mark")
    if vision.get("timm_model_name"):
        differs.append(f"its image tower is timm's {vision['timm_model_name']}, not CLIP's")
    if "multimodal_cfg" in model:
        differs.append("it has a captioning decoder (CoCa)")
    for kind, given, plain in (("text", text, plain_text), ("image", vision, plain_vision)):
        differs += [
            f"its {kind} tower sets {key} to {given[key]!r}"
            for key, value in plain.items()
            if given.get(key, value) not in (value, None) and given[key] != {}
        ]
    if differs:
        raise CheckpointError(f"{where} is not a CLIP that can be used here: {'; '.join(differs)}.")


# What the hub's other two-tower models differ in, by the model_type of their config.json.
_NOT_CLIP = {
    "siglip": "SigLIP is trained with a sigmoid loss and its text tower is not causal",
    "siglip2": "SigLIP 2 is trained with a sigmoid loss and its text tower is not causal",
    "chinese_clip": "Chinese-CLIP's text tower is a BERT, which is not causal",
    "altclip": "AltCLIP's text tower is XLM-RoBERTa, which is not causal",
    "align": "ALIGN's towers are EfficientNet and BERT",
    "blip": "BLIP's text tower is a BERT, which is not causal",
    "x_clip": "X-CLIP is a video model",
    "xclip": "X-CLIP is a video model",
    "clipseg": "CLIPSeg is a segmentation model",
    "metaclip_2": "MetaCLIP 2's text tower has another, multilingual vocabulary",
}


def towers_of_hugging_face(values: Mapping[str, Any], where: str) -> Towers:
    """Read a ``CLIPModel``'s ``config.json`` (and the ``preprocessor_config.json`` beside it)."""
    kind = values.get("model_type")
    if kind != "clip":
        what = _NOT_CLIP.get(str(kind), f"its config.json is for model type {kind!r}, not 'clip'")
        raise CheckpointError(f"{where} is not a CLIP that can be used here: {what}.")
    text = {**_HF_TEXT, **(values.get("text_config_dict") or {}), **values.get("text_config", {})}
    vision = {
        **_HF_VISION, **(values.get("vision_config_dict") or {}), **values.get("vision_config", {})
    }  # fmt: skip
    for tower, given in (("text", text), ("image", vision)):
        if given["layer_norm_eps"] != 1e-5:
            raise CheckpointError(
                f"{where}: the {tower} tower's layer_norm_eps is {given['layer_norm_eps']}, "
                "CLIP's is 1e-05."
            )
        if given["hidden_act"] not in ("gelu", "quick_gelu"):
            raise CheckpointError(
                f"{where}: the {tower} tower's activation is {given['hidden_act']!r}; gelu and "
                "quick_gelu are known here."
            )
    width = int(text["hidden_size"])
    texts = {
        "vocab_size": int(text["vocab_size"]),
        "context_length": int(text["max_position_embeddings"]),
        "width": width,
        "layers": int(text["num_hidden_layers"]),
        "heads": int(text["num_attention_heads"]),
        "activation": text["hidden_act"],
        "mlp": _mlp(width, int(text["intermediate_size"])),
    }
    width = int(vision["hidden_size"])
    images = {
        "image_size": int(vision["image_size"]),
        "patch_size": int(vision["patch_size"]),
        "width": width,
        "layers": int(vision["num_hidden_layers"]),
        "heads": int(vision["num_attention_heads"]),
        "activation": vision["hidden_act"],
        "mlp": _mlp(width, int(vision["intermediate_size"])),
    }
    embed_dim = int(values.get("projection_dim", 512))
    return Towers(embed_dim, texts, images, _hf_preprocess(Path(where), images["image_size"]))


# transformers leaves out of config.json what equals these
_HF_TEXT = {
    "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 8, "max_position_embeddings": 77, "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}  # fmt: skip
_HF_VISION = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}  # fmt: skip


def _hf_preprocess(folder: Path, size: int) -> dict[str, Any]:
    file = (folder if folder.is_dir() else folder.parent) / "preprocessor_config.json"
    given = _json(file) if file.is_file() else {}
    crop = given.get("crop_size", size)
    crop = crop.get("height", size) if isinstance(crop, dict) else crop
    resample = {None: "bicubic", 2: "bilinear", 3: "bicubic"}.get(given.get("resample"))
    if crop != size or resample is None:
        raise CheckpointError(
            f"{file}: crop size {crop} and resampling {given.get('resample')} do not fit a model "
            f"of {size} pixels; expected {size}, and 2 (bilinear) or 3 (bicubic)."
        )
    return {
        "mean": tuple(given.get("image_mean") or OPENAI_MEAN),
        "std": tuple(given.get("image_std") or OPENAI_STD),
        "interpolation": resample,
    }


@dataclass(frozen=True)
class _Shape:
    """What a bare state dict shows of an architecture."""

    embed_dim: int
    image_size: int
    vision_layers: int | tuple[int, ...]
    vision_width: int
    patch_size: int  # 0 for a ResNet
    context_length: int
    vocab_size: int
    text_width: int
    text_layers: int


OPENAI_MODELS = {
    _Shape(1024, 224, (3, 4, 6, 3), 64, 0, 77, 49408, 512, 12): "RN50",
    _Shape(512, 224, (3, 4, 23, 3), 64, 0, 77, 49408, 512, 12): "RN101",
    _Shape(640, 288, (4, 6, 10, 6), 80, 0, 77, 49408, 640, 12): "RN50x4",
    _Shape(768, 384, (6, 8, 18, 8), 96, 0, 77, 49408, 768, 12): "RN50x16",
    _Shape(1024, 448, (3, 15, 36, 10), 128, 0, 77, 49408, 1024, 12): "RN50x64",
    _Shape(512, 224, 12, 768, 32, 77, 49408, 512, 12): "ViT-B-32",
    _Shape(512, 224, 12, 768, 16, 77, 49408, 512, 12): "ViT-B-16",
    _Shape(768, 224, 24, 1024, 14, 77, 49408, 768, 12): "ViT-L-14",
    _Shape(768, 336, 24, 1024, 14, 77, 49408, 768, 12): "ViT-L-14-336",
}
"""The nine models that OpenAI published, as a bare state dict shows them."""


def towers_of_shapes(weights: Mapping[str, Tensor], path: Path) -> Towers:
    """The architecture of a bare state dict, if it is one of OpenAI's.

    Shapes do not tell the activation, nor every number of heads; OpenAI's nine models are known
    to use QuickGELU and 64 channels a head. Anything else needs a configuration file.
    """
    try:
        shape = _shape_of(weights)
    except (KeyError, StopIteration, ValueError) as error:
        raise CheckpointError(f"{path} lacks the weights of a CLIP: {error}.") from error
    if shape not in OPENAI_MODELS:
        raise CheckpointError(
            f"{path} has shapes of none of OpenAI's models ({shape}). Shapes do not say which "
            f"activation it uses nor how many heads: put its {OPEN_CLIP_CONFIG} or config.json "
            "beside it."
        )
    return openai_towers(shape)


def openai_towers(shape: _Shape) -> Towers:
    """OpenAI's conventions: QuickGELU, 64 channels a head, its own mean and deviation."""
    text = {
        "vocab_size": shape.vocab_size,
        "context_length": shape.context_length,
        "width": shape.text_width,
        "layers": shape.text_layers,
        "heads": shape.text_width // 64,
    }
    vision: dict[str, Any] = {
        "image_size": shape.image_size,
        "layers": shape.vision_layers,
        "width": shape.vision_width,
    }
    if shape.patch_size:
        vision |= {"patch_size": shape.patch_size, "heads": shape.vision_width // 64}
    else:
        vision |= {"heads": shape.vision_width * 32 // 64}
    return Towers(shape.embed_dim, text, vision, {})


def _shape_of(weights: Mapping[str, Tensor]) -> _Shape:
    context, text_width = weights["text.positional_embedding"].shape
    vocab, _ = weights["text.token_embedding.weight"].shape
    layers: int | tuple[int, ...]
    if "visual.patch.weight" in weights:
        width, _, patch, _ = weights["visual.patch.weight"].shape
        layers = _count(weights, r"visual\.blocks\.(\d+)\..*")
        side = round((len(weights["visual.positional_embedding"]) - 1) ** 0.5)
        size = side * patch
    else:
        patch, width = 0, len(weights["visual.conv3.weight"])
        layers = tuple(_count(weights, rf"visual\.layer{i}\.(\d+)\..*") for i in (1, 2, 3, 4))
        side = round((len(weights["visual.attnpool.positional_embedding"]) - 1) ** 0.5)
        size = side * STRIDE
    return _Shape(
        embed_dim=weights["text.projection"].shape[1],
        image_size=size,
        vision_layers=layers,
        vision_width=width,
        patch_size=patch,
        context_length=context,
        vocab_size=vocab,
        text_width=text_width,
        text_layers=_count(weights, r"text\.blocks\.(\d+)\..*"),
    )


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max((int(m[1]) for k in weights if (m := re.fullmatch(pattern, k))), default=-1)


# ---------------------------------------------------------------------------- writing


def save_open_clip(clip: CLIP, folder: str | Path) -> None:
    """Write open_clip's layout: its names, its configuration, the tokenizer if it is a file.

    Raises:
        CheckpointError: an architecture that open_clip does not have (a convolutional stem,
            other heads or activations in the two towers).
    """
    folder = Path(folder)
    c, resnet = clip.config, isinstance(clip.config.vision, ResNetConfig)
    text, vision = c.text, c.vision
    act = text.activation
    images: dict[str, Any] = {"image_size": vision.image_size, "width": vision.width}
    if isinstance(vision, VisionConfig):
        if vision.stem or vision.activation != act:
            raise CheckpointError(
                f"{clip.name} has a convolutional stem or two activations, which open_clip's "
                "layout cannot say."
            )
        images |= {"layers": vision.layers, "patch_size": vision.patch_size}
        images |= {"head_width": vision.width // vision.heads}
        if vision.mlp:
            images["mlp_ratio"] = (vision.mlp + 0.5) / vision.width  # readers round down
    else:
        images |= {"layers": list(vision.layers), "patch_size": None}
        images |= {"head_width": vision.width * 32 // vision.heads}
    sizes = ("context_length", "vocab_size", "width", "heads", "layers")
    texts: dict[str, Any] = {key: getattr(text, key) for key in sizes}
    if text.mlp:
        texts["mlp_ratio"] = (text.mlp + 0.5) / text.width
    model: dict[str, Any] = {"embed_dim": text.embed_dim, "vision_cfg": images, "text_cfg": texts}
    if act == "quick_gelu":
        model["quick_gelu"] = True
    preprocess = {
        "mean": list(c.mean), "std": list(c.std),
        "interpolation": c.interpolation, "resize_mode": c.resize_mode,
    }  # fmt: skip
    config = {"model_cfg": model, "preprocess_cfg": preprocess}
    write_json(folder / OPEN_CLIP_CONFIG, config)
    weights = {_to_openai(k, resnet): v.contiguous() for k, v in clip.state_dict().items()}
    with replacing(folder / OPEN_CLIP_WEIGHTS[0]) as partial:
        save_file(weights, str(partial))
    clip.tokenizer.save(folder)
