"""Small CLIPs written by others, in three layouts, with a tokenizer; for the oracle tests."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import torch
from torch import Tensor, nn

CORPUS = """a photo of a cat . a satellite photo of the annual crop land . highway or road ,
a texture of braided hair ; the industrial buildings and a river near the sea or lake . 0 1 2 3 4
5 6 7 8 9 a person doing apply eye makeup , a type of pet . café naïve façade"""


def train_merges(count: int = 120) -> list[tuple[str, str]]:
    """Byte-pair merges learned from a few lines, in the form of OpenAI's file."""
    from simprompt.clip.tokenizer import _byte_letters

    order = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order += [b for b in range(256) if b not in order]
    letter = dict(zip(order, _byte_letters(), strict=True))
    words = []
    for word in re.findall(r"[^\W\d]+|\d|[^\s\w]+", CORPUS):
        letters = [letter[b] for b in word.encode()]
        words.append([*letters[:-1], letters[-1] + "</w>"])
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: dict[tuple[str, str], int] = {}
        for w in words:
            for pair in itertools.pairwise(w):
                pairs[pair] = pairs.get(pair, 0) + 1
        if not pairs:
            break
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        for w in words:
            i = 0
            while i < len(w) - 1:
                if (w[i], w[i + 1]) == best:
                    w[i : i + 2] = ["".join(best)]
                i += 1
    return merges


def write_vocabulary(folder: Path) -> dict[str, int]:
    """``vocab.json`` and ``merges.txt``: 512 byte letters, merges, two marks."""
    from simprompt.clip.tokenizer import _byte_letters

    letters, merges = _byte_letters(), train_merges()
    tokens = [*letters, *(x + "</w>" for x in letters), *("".join(m) for m in merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {t: i for i, t in enumerate(tokens)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(m) for m in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return vocabulary


def hf_model(vocab_size: int, act: str = "quick_gelu", seed: int = 0, **sizes):
    """A random `transformers` CLIPModel; weights spread so that errors show."""
    from transformers import CLIPConfig, CLIPModel

    s = {"text": 32, "vision": 48, "heads": 4, "layers": 2, "image": 32, "patch": 8, "joint": 24,
         "text_mlp": 0, "vision_mlp": 0, "context": 40} | sizes  # fmt: skip
    config = CLIPConfig(
        text_config={
            "vocab_size": vocab_size, "hidden_size": s["text"], "num_hidden_layers": s["layers"],
            "intermediate_size": s["text_mlp"] or 4 * s["text"], "hidden_act": act,
            "num_attention_heads": s["heads"], "max_position_embeddings": s["context"],
            "bos_token_id": vocab_size - 2, "eos_token_id": vocab_size - 1,
        },
        vision_config={
            "hidden_size": s["vision"], "intermediate_size": s["vision_mlp"] or 4 * s["vision"],
            "num_hidden_layers": s["layers"], "num_attention_heads": s["heads"],
            "image_size": s["image"], "patch_size": s["patch"], "hidden_act": act,
        },
        projection_dim=s["joint"],
    )  # fmt: skip
    torch.manual_seed(seed)
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1:
                p.normal_(std=p.shape[-1] ** -0.5 if "position" not in name else 0.3)
            elif "norm" in name or "bias" in name:
                p.add_(torch.randn_like(p) * 0.2)
        model.logit_scale.fill_(4.1)
    return model


def openai_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A `transformers` state dict under OpenAI's names, written out by hand."""
    out: dict[str, Tensor] = {"logit_scale": weights["logit_scale"]}
    out["text_projection"] = weights["text_projection.weight"].T
    out["visual.proj"] = weights["visual_projection.weight"].T
    text, image = "text_model.embeddings.", "vision_model.embeddings."
    out["token_embedding.weight"] = weights[text + "token_embedding.weight"]
    out["positional_embedding"] = weights[text + "position_embedding.weight"]
    out["visual.class_embedding"] = weights[image + "class_embedding"]
    out["visual.conv1.weight"] = weights[image + "patch_embedding.weight"]
    out["visual.positional_embedding"] = weights[image + "position_embedding.weight"]
    for kind in ("weight", "bias"):
        out[f"ln_final.{kind}"] = weights[f"text_model.final_layer_norm.{kind}"]
        out[f"visual.ln_pre.{kind}"] = weights[f"vision_model.pre_layrnorm.{kind}"]
        out[f"visual.ln_post.{kind}"] = weights[f"vision_model.post_layernorm.{kind}"]
        for tower, prefix in (("text_model", ""), ("vision_model", "visual.")):
            layer = 0
            while (here := f"{tower}.encoder.layers.{layer}.") + "mlp.fc1.bias" in weights:
                there = f"{prefix}transformer.resblocks.{layer}."
                out[f"{there}attn.in_proj_{kind}"] = torch.cat(
                    [weights[f"{here}self_attn.{x}_proj.{kind}"] for x in "qkv"]
                )
                for theirs, ours in (
                    ("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"),
                    ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"),
                ):  # fmt: skip
                    out[f"{there}{theirs}.{kind}"] = weights[f"{here}{ours}.{kind}"]
                layer += 1
    return {k: v.detach().clone().contiguous() for k, v in out.items()}


def open_clip_config(config) -> dict:
    """``open_clip_config.json`` for a `transformers` configuration."""
    t, v = config.text_config, config.vision_config
    model = {
        "embed_dim": config.projection_dim,
        "vision_cfg": {
            "image_size": v.image_size, "layers": v.num_hidden_layers, "width": v.hidden_size,
            "patch_size": v.patch_size, "head_width": v.hidden_size // v.num_attention_heads,
            "mlp_ratio": v.intermediate_size / v.hidden_size,
        },
        "text_cfg": {
            "context_length": t.max_position_embeddings, "vocab_size": t.vocab_size,
            "width": t.hidden_size, "heads": t.num_attention_heads, "layers": t.num_hidden_layers,
            "mlp_ratio": t.intermediate_size / t.hidden_size,
        },
    }  # fmt: skip
    if t.hidden_act == "quick_gelu":
        model["quick_gelu"] = True
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    return {"model_cfg": model, "preprocess_cfg": {"mean": mean, "std": std}}


class Tree(nn.Module):
    """A module tree whose state dict has the given names; for writing TorchScript archives."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        groups: dict[str, dict[str, Tensor]] = {}
        for name, value in weights.items():
            head, _, rest = name.partition(".")
            if rest:
                groups.setdefault(head, {})[rest] = value
            elif value.is_floating_point():
                self.register_parameter(head, nn.Parameter(value))
            else:
                self.register_buffer(head, value)
        for head, inner in groups.items():
            self.add_module(head, Tree(inner))

    def forward(self, x: Tensor) -> Tensor:
        return x
