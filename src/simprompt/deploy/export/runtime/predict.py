"""Classify images with an exported prompt. Needs onnxruntime, NumPy and Pillow, nothing else.

    python predict.py picture.png more_pictures/
    python predict.py picture.png --class cat --class "red panda"
    python predict.py picture.png --classes names.txt --top 3 --json

Without names it chooses among the classes that the prompt was exported with. In Python:

    from predict import Predictor
    predictor = Predictor()
    predictor.probabilities(["picture.png"])                   # [1, C], C = len(predictor.classes)
    predictor.probabilities(["picture.png"], ["cat", "dog"])   # [1, 2], any names
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import onnxruntime

from simprompt.clip.preprocess import Preprocess
from simprompt.clip.same_text import (
    check_apart,
    class_names,
    new_names,
    prompt_text,
    unread_warning,
)
from simprompt.data.image_files import SUFFIXES
from simprompt.data.images import is_image, is_one, read_image
from simprompt.data.names import read_names
from simprompt.deploy.export.runtime.bpe import Vocabulary
from simprompt.errors import SimpromptError
from simprompt.utils.files.regular import read_text
from simprompt.utils.terminal import printable, visible

Array = npt.NDArray[np.float32]

HERE = Path(__file__).resolve().parent
BATCH = 32
NONE = "none of these"


class Predictor:
    """An exported folder, ready to answer.

    Args:
        folder: where `export.json` lies.
        int8: take the image tower with 8-bit weights, if it was exported.
        threads: of each graph; 0 leaves it to onnxruntime.

    Raises:
        SimpromptError: no such folder, or no 8-bit tower in it.
    """

    def __init__(self, folder: str | Path = HERE, int8: bool = False, threads: int = 0) -> None:
        folder = Path(folder)
        try:
            self.card = json.loads(read_text(folder / "export.json"))
        except OSError as error:
            raise SimpromptError(
                f"{folder} is no exported prompt: {error}. Give a folder that `simprompt export` "
                "wrote."
            ) from error
        name = self.card["int8" if int8 else "image"]
        if name is None:
            raise SimpromptError(
                f"{folder} has no image tower with 8-bit weights; export again with --int8."
            )
        self.classes: list[str] = self.card["classes"]
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.image = self._session(folder / name)
        settings = self.card["preprocess"]
        self.preprocess = Preprocess(
            settings["size"], tuple(settings["mean"]), tuple(settings["std"]),
            settings["interpolation"],
            settings["resize_mode"],
        )  # fmt: skip
        self.text: dict[str, Any] | None = self.card["text"]
        if self.text:
            self.words = Vocabulary(folder / "vocabulary.json")
            self.encoder = self._session(folder / "text.onnx")

    def _session(self, path: Path) -> onnxruntime.InferenceSession:
        try:
            return onnxruntime.InferenceSession(
                str(path), self.options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has its own
            raise SimpromptError(
                f"{path} cannot be loaded by onnxruntime {onnxruntime.__version__}: {error}. Take "
                f"onnxruntime {self.card.get('onnxruntime', '1.18')} or newer, or export again."
            ) from error

    def pixels(self, images: Sequence[Any]) -> Array:
        """float32 [N, 3, S, S] of images as `read_image` takes them: (value / 255 - mean) / std.

        Raises:
            ImageError: one that cannot be read, named.
        """
        size = self.preprocess.size
        x = np.empty((len(images), 3, size, size), np.float32)
        for row, image in zip(x, images, strict=True):
            picture = self.preprocess.crop(
                read_image(image, upright=self.card.get("upright", True))
            )
            row[:] = np.asarray(picture).transpose(2, 0, 1)
        x /= np.float32(255)
        x -= np.array(self.preprocess.mean, np.float32)[:, None, None]
        x /= np.array(self.preprocess.std, np.float32)[:, None, None]
        return x

    def probabilities(self, images: Any, classes: Sequence[str] | None = None) -> Array:
        """Probabilities [N, C] of images; each row sums to 1.

        Args:
            images: one image or many, each a path, the bytes of a file, an open file, a Pillow
                image or an array; one image is a list of one.
            classes: names to choose from, any; None: those of the export.

        Raises:
            SimpromptError: an image that cannot be read, no list of names, two that are one text
                for the model, or names that the text side cannot encode.
        """
        images = [images] if is_one(images) else list(images)
        text = None
        if classes is not None:
            classes = class_names(classes)
            text = self.text_to_choose_from(classes)
        chunks = [
            self.answer(self.pixels(images[i : i + BATCH]), text)
            for i in range(0, len(images), BATCH)
        ]
        count = len(self.classes if classes is None else classes)
        return np.concatenate(chunks) if chunks else np.zeros((0, count), np.float32)

    def answer(self, pixels: Array, text: Array | None = None) -> Array:
        """Probabilities [N, C] of pixels [N, 3, S, S] over text features [C, E], or the classes."""
        probabilities, features = self.outputs(pixels)
        return probabilities if text is None else self.shares(features, text)

    def outputs(self, pixels: Array) -> tuple[Array, Array]:
        """(probabilities [N, C] of the classes, features [N, E]) of pixels [N, 3, S, S]."""
        probabilities, features = self.image.run(["probabilities", "features"], {"pixels": pixels})
        return probabilities, features

    def shares(self, features: Array, text: Array) -> Array:
        """Probabilities [N, C] of image features [N, E] over text features [C, E]."""
        logits = np.float32(self.card["scale"]) * features @ text.T
        powers: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Array = powers / powers.sum(axis=1, keepdims=True)
        return probabilities

    def text_to_choose_from(self, names: Sequence[str]) -> Array:
        """`text_features` of names that the model can tell apart.

        Raises:
            SimpromptError: as `text_features`, or two names that are one text for the model.
        """
        if self.text:
            check_apart(names, self.words)
        return self.text_features(names)

    def text_features(self, names: Sequence[str]) -> Array:
        """Text features [C, E] of length one of class names behind the learned prompt.

        Raises:
            SimpromptError: no list of names, a name that is too long, or an export without a text
                side.
        """
        names = class_names(names, "names")
        if not self.text:
            raise SimpromptError(f"This export answers for its own classes alone: "
                                 f"{self.card['no_text']}")  # fmt: skip
        inputs = {}
        for graph_input, rule in self.text["inputs"].items():
            rows = [self._row(name, rule) for name in names]
            width = max(len(row) for row in rows)
            ids = np.full((len(rows), width), self.words.eot, np.int64)  # nothing reads past EOT
            for row, ids_of_row in zip(ids, rows, strict=True):
                row[: len(ids_of_row)] = ids_of_row
            inputs[graph_input] = ids
        features: Array = self.encoder.run(["encode"], inputs)[0]
        return features

    def _row(self, name: str, rule: dict[str, Any]) -> list[int]:
        words = rule["template"].replace("{}", prompt_text(name))
        row = [*rule["before"], *self.words.encode(words), self.words.eot]
        assert self.text is not None
        if len(row) > (limit := self.text["context_length"]):
            raise SimpromptError(
                f"The prompt of the class {name!r} takes {len(row)} tokens, but this model reads "
                f"{limit}. Shorten the name."
            )
        return row


def files(arguments: Sequence[str]) -> Iterator[Path]:
    """The images that are meant: files, and what lies below folders."""
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            below = (p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            yield from sorted(p for p in below if p.suffix.lower() in SUFFIXES or is_image(p))
        else:
            yield path


class Parser(argparse.ArgumentParser):
    """One whose complaints about arguments, which may be names of files, are no orders."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, harmlessly, and end with 2."""
        super().error(visible(message))


def main(arguments: Sequence[str] | None = None, folder: Path = HERE) -> int:
    """Print one row per image, an image that cannot be read with its error.

    Returns:
        0, or 2 if nothing could be done or no image could be read.
    """
    for stream in (sys.stdout, sys.stderr):
        # a name or a path may hold characters that the output's encoding lacks
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    parser = Parser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("images", nargs="+", help="image files, or folders of them")
    parser.add_argument("--classes", type=Path, help="file of names to choose from, one a line")
    parser.add_argument("--class", action="append", dest="names", metavar="NAME", help="one name")
    parser.add_argument("--top", type=int, default=1, help="print the K likeliest classes")
    parser.add_argument(
        "--reject-below",
        "--unknown",
        dest="unknown",
        metavar="P",
        help='below this probability "none of these"; auto: as calibrated',
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--int8", action="store_true", help="the tower with 8-bit weights")
    options = parser.parse_args(arguments)
    try:
        predictor = Predictor(folder, options.int8)
        names = [*(read_names(options.classes) if options.classes else []), *(options.names or [])]
        limit = _limit(options.unknown, predictor)
        # a threshold has the exported classes among its candidates, as `simprompt predict` has
        unfitted = new_names(predictor.classes, names) if names and options.unknown else ()
        candidates = [*names, *unfitted] or predictor.classes
        if options.unknown and len(candidates) < 2:
            raise SimpromptError(
                "--reject-below needs a second name to compare with; give more names."
            )
        text = predictor.text_to_choose_from(class_names(candidates)) if names else None
        for sentence in unread_warning(names, predictor.words) if names else ():
            print(visible(sentence), file=sys.stderr)
    except (SimpromptError, OSError, ValueError) as error:
        print(visible(error), file=sys.stderr)
        return 2
    try:
        return _print_rows(predictor, options, names or predictor.classes, text, limit)
    except BrokenPipeError:  # as after `| head`
        # what is left in the buffer has no reader; Python would complain of it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _limit(unknown: str | None, predictor: Predictor) -> float:
    """The probability below which an image is none of the classes.

    Raises:
        SimpromptError: `unknown` is neither "auto" nor a number from 0 to 1.
    """
    if unknown == "auto":
        return float(predictor.card["unknown"])
    try:
        limit = float(unknown or 0)
    except ValueError:
        limit = -1.0
    if not 0 <= limit <= 1:
        raise SimpromptError(
            f"--reject-below takes a number from 0 to 1, or auto; got {unknown!r}."
        )
    return limit


def _print_rows(
    predictor: Predictor,
    given: argparse.Namespace,
    names: Sequence[str],
    text: Array | None,
    limit: float,
) -> int:
    count = unreadable = 0
    for path in files(given.images):
        count += 1
        try:
            probabilities, features = predictor.outputs(predictor.pixels([path]))
        except SimpromptError as error:
            unreadable += 1
            if given.json:
                content: dict[str, Any] = {"image": str(path), "error": str(error)}
                print(visible(json.dumps(content, ensure_ascii=False)))
            else:
                print(f"{printable(path)}\t-\t{printable(error)}")
            continue
        row = probabilities[0] if text is None else predictor.shares(features, text)[0]
        certainty = row[: len(names)].max()
        if text is not None and len(names) < len(text):
            row = predictor.shares(features, text[: len(names)])[0]
        order = np.argsort(-row, kind="stable")[: max(1, given.top)]
        is_known = bool(certainty >= limit)
        if given.json:
            answers = [{"class": names[i], "probability": round(float(row[i]), 6)} for i in order]
            content = {"image": str(path), "known": is_known, "answers": answers}
            print(visible(json.dumps(content, ensure_ascii=False)))
        else:
            cells = [str(path), *([] if is_known else [NONE])]
            cells += [f"{names[i]} {100 * row[i]:.1f} %" for i in order]
            print("\t".join(map(printable, cells)))
    sys.stdout.flush()
    if not count:
        print(f"There are no images in {visible(', '.join(given.images))}.", file=sys.stderr)
        return 2
    if unreadable:
        print(f"{unreadable} of {count} images could not be read.", file=sys.stderr)
    return 2 if unreadable and unreadable == count else 0


if __name__ == "__main__":
    sys.exit(main())
