"""`export`: one folder, whole or not there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from simprompt._version import __version__
from simprompt.clip.hub import public_name
from simprompt.clip.same_text import all_known, check_apart, class_names
from simprompt.deploy.export import graph, head, readme, standalone, text, words
from simprompt.deploy.export.image import ImageSide, traceable
from simprompt.errors import SimpromptError
from simprompt.methods.base import PromptLearner, TextForm
from simprompt.prompt.prompt import Prompt
from simprompt.utils.files.owned import check_owned, replacing_owned

KINDS = ("onnx", "head", *head.LIBRARIES)
CARD = "export.json"
FORMAT = 1


def export(
    prompt: Prompt,
    out: str | Path,
    to: str = "onnx",
    classes: Sequence[str] | None = None,
    *,
    int8: bool = False,
    check: str | Path | None = None,
) -> dict[str, Any]:
    """Write a prompt and its class names as a folder for programs without simprompt.

    Args:
        prompt: in float32 on the CPU.
        out: the folder; an earlier export there is replaced.
        to: "onnx": image and text graphs that run with onnxruntime, NumPy and Pillow; "open_clip",
            "transformers" or "head": class embeddings and a `torch.nn.Linear` for image features.
        classes: the names; None: those that the prompt was learned on and its new ones.
        int8: for "onnx", also the image tower with 8-bit weights.
        check: with int8, images on which the two towers are compared; see `check.images`.

    Returns:
        The card that is written to `export.json`: model, method, classes, preprocessing, files,
        largest differences to PyTorch, and what `check` measured.

    Raises:
        SimpromptError: a prompt that cannot be exported this way and why, names that are the same,
            a folder that holds something else, or a package that is not installed.
    """
    if to not in KINDS:
        raise SimpromptError(f"A prompt is exported to {', '.join(KINDS)}; got {to!r}.")
    if to != "onnx" and (int8 or check):
        raise SimpromptError(f"int8 and check belong to the ONNX export, not to {to!r}.")
    if check and not int8:
        raise SimpromptError("check compares the 8-bit tower with the other; ask for int8 as well.")
    learner, clip = prompt.learner, prompt.clip
    if clip.device.type != "cpu" or {clip.text.dtype, _dtype(clip.visual)} != {torch.float32}:
        raise SimpromptError("Only a prompt on the CPU in float32 is exported; load it so.")
    names = distinct(learner, prompt.classes if classes is None else classes)
    pixels = clip.preprocess
    card: dict[str, Any] = {
        "format": FORMAT,
        "simprompt": __version__,
        "to": to,
        "model": public_name(clip.source["name"]),
        "method": prompt.card.get("method", "a method of its own"),
        "classes": list(names),
        "scale": clip.scale / learner.temperature,
        # a threshold means nothing without the classes that it was fitted among
        "unknown": prompt.unknown if all_known(prompt.known, names) else 0.0,
        "width": clip.embed_dim,
        "upright": prompt.card.get("upright", True),
        "preprocess": {
            "size": pixels.size, "mean": list(pixels.mean), "std": list(pixels.std),
            "interpolation": pixels.interpolation, "resize_mode": pixels.resize_mode,
        },
    }  # fmt: skip
    if to == "onnx":
        graph.require()
        with _folder(Path(out)) as folder:
            _graphs(learner, names, card, folder, int8, check)
            _finish(card, readme.of_graphs(card), folder)
        return card
    model = None if to == "head" else head.library_name(clip, to)
    head_files = head.head(learner, names)
    with _folder(Path(out)) as folder:
        head.write(head_files, clip, folder)
        _finish(card, readme.of_head(head_files, card, to, model), folder)
    return card


def distinct(learner: PromptLearner[Any], names: Sequence[str]) -> tuple[str, ...]:
    """The names, one line each.

    Raises:
        SimpromptError: as `class_names` and `check_apart`.
    """
    one_line = tuple(" ".join(name.split()) for name in class_names(names))
    check_apart(one_line, learner.clip.tokenizer)
    return one_line


def _graphs(
    learner: PromptLearner[Any], names: Sequence[str], card: dict[str, Any], folder: Path,
    int8: bool, check: str | Path | None,
) -> None:  # fmt: skip
    from simprompt.deploy.export import check as measure

    clip = learner.clip
    card["onnxruntime"] = graph.OLDEST_RUNTIME
    card["image"], card["int8"] = "image.onnx", "image-int8.onnx" if int8 else None
    standalone.write(folder)
    size = card["preprocess"]["size"]
    pixels = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    batch = torch.export.Dim("batch")
    side = ImageSide(learner, names)
    with traceable(clip):
        differences = {
            "image": graph.write(side, {"pixels": pixels}, [{0: batch}],
                                 ["probabilities", "features"], folder / card["image"])
        }  # fmt: skip
    card["no_text"] = card["text"] = None
    form = learner.no_text_graph() or learner.text_form()
    if isinstance(form, TextForm):
        card["no_text"] = words.write(clip.tokenizer, names, folder / "vocabulary.json")
        if card["no_text"] is None:
            differences["text"] = _text_graph(learner, form, names, card, folder)
    else:
        card["no_text"] = form
    card["differences"] = differences
    if int8:
        graph.quantise(folder / card["image"], folder / card["int8"], "features")
        card["check"] = None
        if check:
            images = measure.images(check, names)
            _write_card(card, folder)  # for the `Predictor` that answers
            card["check"] = measure.compare(folder, images)


def _text_graph(
    learner: PromptLearner[Any],
    form: TextForm,
    names: Sequence[str],
    card: dict[str, Any],
    folder: Path,
) -> float:
    """Write `text.onnx`, and look at what it makes of the names with the shipped tokenizer."""
    from simprompt.deploy.export.runtime.predict import Predictor

    side = text.TextSide(learner, form)
    limit = learner.clip.config.text.context_length
    card["text"] = {
        "context_length": limit,
        "inputs": {name: rule.as_json() for name, rule in side.rules.items()},
    }
    count = torch.export.Dim("names")
    inputs = {
        name: torch.tensor([[*rule.before, side.eot, side.eot]] * 3)
        for name, rule in side.rules.items()
    }
    axes = [{0: count, 1: torch.export.Dim(f"length_of_{name}", max=limit)} for name in inputs]
    graph.write(side, inputs, axes, ["encode"], folder / "text.onnx")
    _write_card(card, folder)
    with torch.no_grad():
        expected = learner.text_features(learner.prompts(names))
    worst = float(abs(Predictor(folder).text_features(names) - expected.numpy()).max())
    if not worst <= graph.TOLERANCE:
        raise SimpromptError(
            f"The text side is not exported: its features of the class names differ from "
            f"PyTorch's by {worst:.1e}, more than {graph.TOLERANCE:.0e}. Take another version of "
            "onnxruntime, or --to linear for the bare class embeddings."
        )
    return worst


def _finish(card: dict[str, Any], text: str, folder: Path) -> None:
    (folder / "README.md").write_text(text, encoding="utf-8")
    _write_card(card, folder)


def _write_card(card: dict[str, Any], folder: Path) -> None:
    content = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
    (folder / CARD).write_text(content, encoding="utf-8")


def _dtype(module: torch.nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A folder to fill, whose files replace an earlier export in `out` when the block ends.

    Raises:
        SimpromptError: `out` is a file, or a folder with other files and no export.
    """
    check_owned(out, CARD, "export")
    with replacing_owned(out, CARD) as partial:
        yield partial
