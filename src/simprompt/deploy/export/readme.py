"""The README.md of an exported folder: what is in it and the lines that use it."""

from __future__ import annotations

from typing import Any

from simprompt.deploy.export.head import Head

OPEN_CLIP = """\
import open_clip, torch
from PIL import Image, ImageOps
from safetensors.torch import load_file

model, _, preprocess = open_clip.create_model_and_transforms("{model}")
head = torch.nn.Linear({e}, {c})
head.load_state_dict(load_file("head.safetensors"))
names = open("classes.txt", encoding="utf-8").read().splitlines()
picture = {picture}.convert("RGB")
with torch.no_grad():
    features = model.eval().encode_image(preprocess(picture)[None])
    probabilities = head(torch.nn.functional.normalize(features, dim=-1)).softmax(-1)[0]
print(names[probabilities.argmax()], probabilities.max().item())
"""

TRANSFORMERS = """\
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from transformers import CLIPImageProcessor, CLIPModel

model = CLIPModel.from_pretrained("{model}").eval()
processor = CLIPImageProcessor.from_pretrained("{model}")
head = torch.nn.Linear({e}, {c})
head.load_state_dict(load_file("head.safetensors"))
names = open("classes.txt", encoding="utf-8").read().splitlines()
picture = {picture}.convert("RGB")
with torch.no_grad():
    pixels = processor(picture, return_tensors="pt").pixel_values
    features = model.visual_projection(model.vision_model(pixels).pooler_output)
    probabilities = head(torch.nn.functional.normalize(features, dim=-1)).softmax(-1)[0]
print(names[probabilities.argmax()], probabilities.max().item())
"""

PLAIN = """\
import numpy as np

def probabilities(features):
    \"\"\"[N, C] of image features [N, {e}] of {clip}, of any length.\"\"\"
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    logits = features @ weight.T + bias
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)

from safetensors.numpy import load_file
head = load_file("head.safetensors")
weight, bias = head["weight"], head["bias"]
"""

FINGERPRINT = """\
pixels = torch.linspace(-1, 1, 3 * {size} * {size}).view(1, 3, {size}, {size})
expected = load_file("classes.safetensors")["fingerprint"]
with torch.no_grad():
    features = {encode}
assert torch.cosine_similarity(features[0], expected, dim=0) > 0.999, "another model"
"""

ENCODE = {
    "open_clip": "model.encode_image(pixels)",
    "transformers": "model.visual_projection(model.vision_model(pixels).pooler_output)",
}


def of_head(made: Head, card: dict[str, Any], to: str, model: str | None) -> str:
    """Of a head for `to`: "open_clip", "transformers", or "head" for any program.

    Args:
        model: what that library calls the model; None where only the user can know.
    """
    code = {"open_clip": OPEN_CLIP, "transformers": TRANSFORMERS, "head": PLAIN}[to]
    source_model = model or f"YOUR COPY OF {card['model']}"
    picture = 'Image.open("picture.png")'
    if card["upright"]:
        picture = f"ImageOps.exif_transpose({picture})"
    e, c = made.linear.in_features, made.linear.out_features
    lines = [
        f"# A head of {c} classes for {card['model']}",
        "",
        f"Made by simprompt {card['simprompt']} from a prompt learned with {card['method']}. The "
        "layer takes image features of length 1 of that model, and the softmax of its output is "
        "what the prompt answers.",
        "",
        "```python",
        code.format(model=source_model, e=e, c=c, clip=card["model"], picture=picture).rstrip(),
        "```",
        "",
    ]
    if to != "head":
        how = "" if model else (
            f"Put in the name under which {to} loads the same weights as {card['model']}. "
        )  # fmt: skip
        code = FINGERPRINT.format(size=card["preprocess"]["size"], encode=ENCODE[to])
        lines += [
            f"{how}Whether a model is the one that the head was made for, its feature of these "
            "pixels says:",
            "",
            "```python",
            code.rstrip(),
            "```",
            "",
        ]
    lines += [
        "| file | what it holds |",
        "|---|---|",
        f"| `head.safetensors` | `weight` [{c}, {e}], the logit scale in it, and `bias` [{c}] |",
        "| `classes.txt` | the class names, in order |",
        "| `classes.npz`, `classes.safetensors` | "
        + ("`embeddings` [C, E] of length 1, " if made.embeddings is not None else "")
        + "`logit_scale`, `fingerprint`; the npz the `names` as well |",
        "",
        _preprocessing(card),
    ]
    return "\n".join(lines)


def of_graphs(card: dict[str, Any]) -> str:
    """Of a folder of ONNX graphs."""
    size, c, e = card["preprocess"]["size"], len(card["classes"]), card["width"]
    lines = [
        f"# {c} classes with {card['model']}, as ONNX",
        "",
        f"Made by simprompt {card['simprompt']} from a prompt learned with {card['method']}. It "
        "runs with onnxruntime, NumPy and Pillow alone. The oldest onnxruntime that was tried is "
        f"{card['onnxruntime']}; up to 1.18 it needs NumPy below 2.",
        "",
        "```console",
        "$ pip install onnxruntime numpy pillow",
        "$ python predict.py picture.png",
        *(["$ python predict.py picture.png --class cat --class dog"] if card["text"] else []),
        "```",
        "",
        "```python",
        "from predict import Predictor",
        'print(Predictor().probabilities(["picture.png"]))  # [1, ' + str(c) + "]",
        "```",
        "",
        "| file | input | output |",
        "|---|---|---|",
        f"| `{card['image']}` | `pixels` float32 [batch, 3, {size}, {size}] | `probabilities` "
        f"[batch, {c}], `features` [batch, {e}] of length 1 |",
    ]
    if card["int8"]:
        lines.append(f"| `{card['int8']}` | the same | the same, with 8-bit weights in the tower |")
    if card["text"]:
        inputs = " and ".join(f"`{name}`" for name in card["text"]["inputs"])
        lines += [
            f"| `text.onnx` | {inputs}, int64 [names, length] | `features` [names, {e}] of "
            "length 1 |",
            "",
            f"Probabilities over any names: softmax of {card['scale']:.6g} times the image "
            "features times the text features. An input's row is `before`, the token ids of "
            "`template` with the name for {} (by `vocabulary.json`), and the end mark, which also "
            "fills a row up; `export.json` holds `before` and `template`. Ids from the "
            "vocabulary's size on are the learned prompt.",
        ]
    else:
        lines += ["", f"There is no text side for other names: {card['no_text']}"]
    if card["int8"] and card["check"]:
        lines += ["", _eight_bits(card["check"])]
    lines += [
        "",
        f"The largest difference to PyTorch was {max(card['differences'].values()):.1e} when this "
        f"was written. The weights in it stay under the licence of {card['model']}.",
        "",
        _preprocessing(card),
    ]
    return "\n".join(lines)


def _eight_bits(measured: dict[str, Any]) -> str:
    text = (
        f"With 8-bit weights {measured['agreement']:.1f} % of {measured['images']} images got the "
        f"same answer, and no probability moved by more than {measured['largest_difference']:.3f}"
    )
    if "accuracy" in measured:
        correct = measured["accuracy"]
        text += f"; {correct['int8']:.1f} % were correct, {correct['float']:.1f} % with floats"
    return f"{text}."


def _preprocessing(card: dict[str, Any]) -> str:
    p = card["preprocess"]
    size, how = p["size"], p["interpolation"]
    turned = "turned upright as its EXIF says" if card["upright"] else "left as it is stored"
    mode, _, scaled = p["resize_mode"].partition(":")
    scaled = scaled or size
    if mode == "squash":
        crop_text = f"both sides are scaled to {scaled} pixels ({how}, Pillow)"
        if scaled != size:
            crop_text += (
                f", and the middle {size} x {size} are cut out, offsets rounded half to even"
            )
    else:
        crop_text = (
            f"the short side is scaled to {scaled} pixels and the long one to the whole number "
            f"below {scaled} x long / short ({how}, Pillow), and the middle {size} x {size} are "
            "cut out, offsets rounded half to even"
        )
    mean, std = (", ".join(f"{v:.8g}" for v in p[key]) for key in ("mean", "std"))
    return (
        "## Pixels\n\n"
        "An image becomes 8-bit RGB (the first frame; transparent pictures are laid on white, or "
        f"on grey where their ink is nearly white), {turned}; {crop_text}; then "
        f"(value / 255 - mean) / std by channel, mean {mean}, std {std}, channels first.\n"
    )
