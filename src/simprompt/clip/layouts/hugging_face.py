"""Hugging Face's layout: `config.json` and the names of `CLIPModel`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from simprompt.clip.layouts.common import (
    CheckpointError,
    Towers,
    Weights,
    hidden_width,
    read_json,
)
from simprompt.clip.model import MOST_PIXELS, OPENAI_MEAN, OPENAI_STD
from simprompt.clip.preprocess import RESAMPLING
from simprompt.utils.files.regular import is_file

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
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_HF_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}


def from_hugging_face(weights: Mapping[str, Tensor], path: str | Path) -> Weights:
    """Weights by transformers' names -> by ours; `path` is for messages."""
    out: Weights = {}
    for key, value in weights.items():
        tower = {"text_model": "text", "vision_model": "visual"}.get(key.split(".")[0], "")
        layer = re.fullmatch(r"\w+\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", key)
        if layer:
            number, side, kind = layer.groups()
            block = f"{tower}.blocks.{number}"
            if side == "self_attn.q_proj":
                ours = f"{block}.qkv.{kind}"
                projections = [key.replace("q_proj", p) for p in ("q_proj", "k_proj", "v_proj")]
                if missing := [p for p in projections if p not in weights]:
                    raise CheckpointError(
                        f"{path} lacks {', '.join(missing)}. Take the config.json that belongs to "
                        "the weights."
                    )
                value = torch.cat([weights[p] for p in projections])
            elif side in ("self_attn.k_proj", "self_attn.v_proj"):
                continue
            else:
                name = {
                    "self_attn.out_proj": "out",
                    "layer_norm1": "ln_1",
                    "layer_norm2": "ln_2",
                    "mlp.fc1": "fc",
                    "mlp.fc2": "proj",
                }.get(side, side)
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
        kind_text = _NOT_CLIP.get(
            str(kind), f"its config.json is for model type {kind!r}, not 'clip'"
        )
        raise CheckpointError(f"{where} is not a CLIP that can be used here: {kind_text}.")
    text = {**_HF_TEXT, **(values.get("text_config_dict") or {}), **values.get("text_config", {})}
    vision = {
        **_HF_VISION,
        **(values.get("vision_config_dict") or {}),
        **values.get("vision_config", {}),
    }
    for tower, tower_config in (("text", text), ("image", vision)):
        if tower_config["layer_norm_eps"] != 1e-5:
            raise CheckpointError(
                f"{where}: the {tower} tower's layer_norm_eps is {tower_config['layer_norm_eps']}, "
                "CLIP's is 1e-05."
            )
        if tower_config["hidden_act"] not in ("gelu", "quick_gelu"):
            raise CheckpointError(
                f"{where}: the {tower} tower's activation is {tower_config['hidden_act']!r}; "
                "gelu and "
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


_PROCESSOR = {"do_resize": True, "do_center_crop": True, "do_rescale": True, "do_normalize": True}
"""What a `CLIPImageProcessor` does where its file says nothing."""
_EXACT = ("do_convert_rgb", "do_pad")  # RGB is what images are here; padding never happens


def _hf_preprocess(folder: Path, size: int) -> dict[str, Any]:
    """Fields of `CLIPConfig` from the ``preprocessor_config.json`` beside a checkpoint.

    Where the file, or a key of it, is missing, the value is that of CLIP at the model's size.

    Args:
        size: pixels a side of the model's images.

    Raises:
        CheckpointError: a step that is not done here, or a result of another size.
    """
    file = (folder if folder.is_dir() else folder.parent) / "preprocessor_config.json"
    values_of_file = read_json(file) if is_file(file) else {}
    nested = values_of_file.get("image_processor")  # a processor of images and texts in one file
    if isinstance(nested, dict):
        values_of_file = nested

    def refuse(why: str) -> CheckpointError:
        return CheckpointError(
            f"{file}: {why}, which is not supported. Correct the file if it belongs to another "
            "model, or delete it to use CLIP's own preprocessing."
        )

    clip = "CLIP" in str(
        values_of_file.get("image_processor_type")
        or values_of_file.get("feature_extractor_type")
        or "CLIP"
    )
    does = {**_PROCESSOR, "do_center_crop": clip or "crop_size" in values_of_file}
    for key, value in values_of_file.items():
        if key.startswith("do_") and value is not None:
            if not isinstance(value, bool):
                raise refuse(f"{key} is {value!r:.80}, not true or false")
            if value and key not in (*_PROCESSOR, *_EXACT):
                raise refuse(f"it has a step {key}")
            does[key] = value
    if not does["do_resize"]:
        raise refuse("do_resize is false, so images would keep their size")
    values: dict[str, Any] = {
        "resize_mode": _resize_mode(values_of_file, size, does, not clip, refuse)
    }
    resample = values_of_file.get("resample")
    resample = resample if resample is not None or clip else 2  # of ViT's processors
    if resample is not None:
        if isinstance(resample, bool) or resample not in range(len(RESAMPLING)):
            raise refuse(f"resample is {resample!r:.80}, not one of Pillow's filters 0 to 5")
        values["interpolation"] = Image.Resampling(int(resample)).name.lower()
    mean, std = (_colours(values_of_file, key, refuse) for key in ("image_mean", "image_std"))
    if not clip and does["do_normalize"] and None in (mean, std):
        raise refuse("it is not of a CLIPImageProcessor and lacks image_mean or image_std")
    factor = values_of_file.get("rescale_factor")
    if factor is not None and not _is_positive(factor):
        raise refuse(f"rescale_factor is {factor!r:.80}, not a positive number")
    # (v f - mean) / std, as (v / 255 - mean / (255 f)) / (std / (255 f)), v being 0 to 255
    times = 1.0 if factor is None else 255 * float(factor)
    if not does["do_rescale"]:
        times = 255.0
    times = 1.0 if math.isclose(times, 1.0, rel_tol=1e-6) else times
    if not does["do_normalize"]:
        mean, std = (0.0,) * 3, (1.0,) * 3
    mean, std = mean or OPENAI_MEAN, std or OPENAI_STD
    values["mean"] = mean if times == 1 else tuple(value / times for value in mean)
    values["std"] = std if times == 1 else tuple(value / times for value in std)
    return values


def _resize_mode(
    given: Mapping[str, Any],
    size: int,
    does: Mapping[str, bool],
    square: bool,
    refuse: Callable[[str], CheckpointError],
) -> str:
    """`Preprocess.resize_mode` of what a file says of sizes.

    Args:
        square: whether a size that is a number alone means both sides, not the short one.
    """
    crop = given.get("crop_size") if does["do_center_crop"] else None
    crop_side = _square(crop, ("height", "width")) if crop is not None else size
    if crop_side != size:
        raise refuse(
            f"its crop_size is {crop!r:.80} and the images of this model have {size} pixels"
        )
    scale = given.get("size")
    if scale is None:
        scale = size
    to = _square(scale, ("height", "width"))
    mode = "squash" if isinstance(scale, dict) or square else "shortest"
    if isinstance(scale, dict) and "shortest_edge" in scale:
        mode, to = "shortest", _square(scale, ("shortest_edge",))
    if to is None or (to != size and not size <= to <= 2 * MOST_PIXELS):
        raise refuse(f"its size is {scale!r:.80} and the images of this model have {size} pixels")
    if not does["do_center_crop"] and (mode == "shortest" or to != size):
        raise refuse(f"its size is {scale!r:.80} without a centre crop to {size} pixels")
    return mode if to == size else f"{mode}:{to}"


def _square(value: Any, keys: Sequence[str]) -> int | None:
    """A whole number, or the one that an object has under each of exactly these keys; else None."""
    if isinstance(value, dict) and set(value) != set(keys):
        return None
    sizes = list(value.values()) if isinstance(value, dict) else [value]
    if any(isinstance(side_size, bool) or not isinstance(side_size, int) for side_size in sizes):
        return None
    return sizes[0] if len(set(sizes)) == 1 else None


def _colours(
    given: Mapping[str, Any], key: str, refuse: Callable[[str], CheckpointError]
) -> tuple[float, ...] | None:
    """Three numbers, or one for all three channels; None where the file has none."""
    value = given.get(key)
    if value is None:
        return None
    numbers = value if isinstance(value, list) else [value] * 3
    if len(numbers) != 3 or not all(
        isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers
    ):
        raise refuse(f"{key} is {value!r:.80}, not three numbers")
    return tuple(float(n) for n in numbers)


def _is_positive(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0
