"""Hugging Face's layout: `config.json` and the names of `CLIPModel`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simprompt.clip.layouts.common import (
    CheckpointError,
    Towers,
    Weights,
    hidden_width,
    read_json,
)
from simprompt.clip.model import OPENAI_MEAN, OPENAI_STD

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


def from_hugging_face(weights: Mapping[str, Tensor], path: str | Path) -> Weights:
    """Weights by transformers' names -> by ours; `path` is for messages."""
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
                    raise CheckpointError(
                        f"{path} lacks {', '.join(missing)}. Take the config.json that belongs to "
                        "the weights."
                    )
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
        "mlp": hidden_width(width, int(text["intermediate_size"])),
    }
    width = int(vision["hidden_size"])
    images = {
        "image_size": int(vision["image_size"]),
        "patch_size": int(vision["patch_size"]),
        "width": width,
        "layers": int(vision["num_hidden_layers"]),
        "heads": int(vision["num_attention_heads"]),
        "activation": vision["hidden_act"],
        "mlp": hidden_width(width, int(vision["intermediate_size"])),
    }
    embed_dim = int(values.get("projection_dim", 512))
    return Towers(embed_dim, texts, images, _hf_preprocess(Path(where), images["image_size"]))


def _hf_preprocess(folder: Path, size: int) -> dict[str, Any]:
    file = (folder if folder.is_dir() else folder.parent) / "preprocessor_config.json"
    given = read_json(file) if file.is_file() else {}
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
