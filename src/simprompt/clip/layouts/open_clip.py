"""open_clip's layout: OpenAI's names, with a configuration beside them; read and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from simprompt.clip.efficientnet import EfficientNetConfig
from simprompt.clip.layouts.common import (
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    CheckpointError,
    Towers,
    hidden_width,
)
from simprompt.clip.layouts.openai import to_openai
from simprompt.clip.model import CLIP, OPENAI_MEAN, OPENAI_STD
from simprompt.clip.resnet import ResNetConfig
from simprompt.clip.vision import VisionConfig
from simprompt.utils.files.atomic import replacing, write_json


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
        "mlp": hidden_width(text_width, int(text_width * text.get("mlp_ratio", 4.0))),
    }
    size = vision.get("image_size", 224)
    if isinstance(size, (list, tuple)):
        if len(size) != 2 or size[0] != size[1]:
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
            "mlp": hidden_width(width, int(width * vision.get("mlp_ratio", 4.0))),
        }
    return Towers(embed_dim, texts, images, _open_clip_preprocess(values, where))


def _open_clip_preprocess(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    preprocess = values.get("preprocess_cfg") or {}
    out: dict[str, Any] = {
        "mean": tuple(preprocess.get("mean") or OPENAI_MEAN),
        "std": tuple(preprocess.get("std") or OPENAI_STD),
        "interpolation": preprocess.get("interpolation") or "bicubic",
        "resize_mode": preprocess.get("resize_mode") or "shortest",
    }
    if out["interpolation"] == "random":
        out["interpolation"] = "bicubic"  # open_clip's own choice at test time
    if out["interpolation"] not in ("bicubic", "bilinear") or out["resize_mode"] not in (
        "shortest",
        "squash",
    ):
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
        "embed_cls": False,
        "final_ln_after_pool": False,
        "proj_bias": False,
        "proj_type": "linear",
        "ls_init_value": None,
        "act_kwargs": None,
        "norm_kwargs": None,
    }
    plain_vision: dict[str, Any] = {
        "attentional_pool": False,
        "no_ln_pre": False,
        "pos_embed_type": "learnable",
        "final_ln_after_pool": False,
        "pool_type": "tok",
        "ls_init_value": None,
        "act_kwargs": None,
        "norm_kwargs": None,
    }
    for setting in (
        "qk_norm",
        "scaled_cosine_attn",
        "scale_heads",
        "scale_attn_inner",
        "scale_attn",
        "scale_fc",
    ):
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
    for kind, tower_config, plain in (("text", text, plain_text), ("image", vision, plain_vision)):
        differs += [
            f"its {kind} tower sets {key} to {tower_config[key]!r}"
            for key, value in plain.items()
            if tower_config.get(key, value) not in (value, None) and tower_config[key] != {}
        ]
    if differs:
        raise CheckpointError(f"{where} is not a CLIP that can be used here: {'; '.join(differs)}.")


def save_open_clip(clip: CLIP, folder: str | Path) -> None:
    """Write open_clip's layout: its names, its configuration, the tokenizer if it is a file.

    Raises:
        CheckpointError: an architecture that open_clip does not have (an EfficientNet, a
            convolutional stem, other heads or activations in the two towers).
    """
    folder = Path(folder)
    c, resnet = clip.config, isinstance(clip.config.vision, ResNetConfig)
    text, vision = c.text, c.vision
    if isinstance(vision, EfficientNetConfig):
        raise CheckpointError(
            f"{clip.name} has an EfficientNet as its image tower, which open_clip's layout cannot "
            "say."
        )
    if ":" in c.resize_mode:
        raise CheckpointError(
            f"{clip.name} scales images to {c.resize_mode.partition(':')[2]} pixels and cuts "
            f"{vision.image_size} out of that, which open_clip's layout cannot express."
        )
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
        "mean": list(c.mean),
        "std": list(c.std),
        "interpolation": c.interpolation,
        "resize_mode": c.resize_mode,
    }
    config = {"model_cfg": model, "preprocess_cfg": preprocess}
    write_json(folder / OPEN_CLIP_CONFIG, config)
    weights = {to_openai(k, resnet): v.contiguous() for k, v in clip.state_dict().items()}
    with replacing(folder / OPEN_CLIP_WEIGHTS[0]) as partial:
        save_file(weights, str(partial))
    clip.tokenizer.save(folder)
