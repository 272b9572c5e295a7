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
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import onnxruntime

from simprompt.clip.preprocess import Preprocess
from simprompt.data.images import SUFFIXES, is_image, read_image
from simprompt.deploy.export.runtime.bpe import Vocabulary
from simprompt.errors import SimpromptError
from simprompt.terminal import visible

Array = npt.NDArray[np.float32]

HERE = Path(__file__).resolve().parent
BATCH = 32


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
            self.card = json.loads((folder / "export.json").read_text(encoding="utf-8"))
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
        given = self.card["preprocess"]
        self.preprocess = Preprocess(
            given["size"], tuple(given["mean"]), tuple(given["std"]), given["interpolation"],
            given["resize_mode"],
        )  # fmt: skip
        self.text: dict[str, Any] | None = self.card["text"]
        if self.text:
            self.words = Vocabulary(folder / "vocabulary.json")
            self.encoder = self._session(folder / "text.onnx")

    def _session(self, path: Path) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(
            str(path), self.options, providers=["CPUExecutionProvider"]
        )

    def pixels(self, images: Sequence[Any]) -> Array:
        """float32 [N, 3, S, S] of images as `read_image` takes them: (value / 255 - mean) / std.

        Raises:
            ImageError: one that cannot be read, named.
        """
        size = self.preprocess.size
        x = np.empty((len(images), 3, size, size), np.float32)
        for row, image in zip(x, images, strict=True):
            picture = self.preprocess.crop(read_image(image, upright=self.card["upright"]))
            row[:] = np.asarray(picture).transpose(2, 0, 1)
        x /= np.float32(255)
        x -= np.array(self.preprocess.mean, np.float32)[:, None, None]
        x /= np.array(self.preprocess.std, np.float32)[:, None, None]
        return x

    def probabilities(self, images: Sequence[Any], classes: Sequence[str] | None = None) -> Array:
        """Probabilities [N, C] of images; each row sums to 1.

        Args:
            images: paths, bytes of files, open files, Pillow images or arrays.
            classes: names to choose from, any; None: those of the export.

        Raises:
            SimpromptError: an image that cannot be read, names that the text side cannot encode.
        """
        text = None if classes is None else self.text_features(classes)
        parts = [
            self.answer(self.pixels(images[i : i + BATCH]), text)
            for i in range(0, len(images), BATCH)
        ]
        count = len(self.classes if classes is None else classes)
        return np.concatenate(parts) if parts else np.zeros((0, count), np.float32)

    def answer(self, pixels: Array, text: Array | None = None) -> Array:
        """Probabilities [N, C] of pixels [N, 3, S, S] over text features [C, E], or the classes."""
        probabilities: Array
        probabilities, features = self.image.run(["probabilities", "features"], {"pixels": pixels})
        if text is None:
            return probabilities
        logits = np.float32(self.card["scale"]) * features @ text.T
        powers: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: Array = powers / powers.sum(axis=1, keepdims=True)
        return shares

    def text_features(self, names: Sequence[str]) -> Array:
        """Text features [C, E] of length one of class names behind the learned prompt.

        Raises:
            SimpromptError: no names, a name that is too long, or an export without a text side.
        """
        if not self.text:
            raise SimpromptError(f"This export answers for its own classes alone: "
                                 f"{self.card['no_text']}")  # fmt: skip
        if not names:
            raise SimpromptError("Give at least one class name to choose from.")
        inputs = {}
        for graph_input, rule in self.text["inputs"].items():
            rows = [self._row(name, rule) for name in names]
            width = max(len(row) for row in rows)
            ids = np.full((len(rows), width), self.words.eot, np.int64)  # nothing reads past EOT
            for row, given in zip(ids, rows, strict=True):
                row[: len(given)] = given
            inputs[graph_input] = ids
        features: Array = self.encoder.run(["features"], inputs)[0]
        return features

    def _row(self, name: str, rule: dict[str, Any]) -> list[int]:
        words = rule["template"].replace("{}", name.replace("_", " "))
        row = [*rule["before"], *self.words.encode(words), self.words.eot]
        assert self.text is not None
        if len(row) > (most := self.text["context_length"]):
            raise SimpromptError(
                f"The prompt of the class {name!r} takes {len(row)} tokens, but this model reads "
                f"{most}. Shorten the name."
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


def read_names(path: Path) -> list[str]:
    """Class names, one a line; blank lines and lines that begin with # are skipped."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


class Parser(argparse.ArgumentParser):
    """One whose complaints about arguments, which may be names of files, are no orders."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, harmlessly, and end with 2."""
        super().error(visible(message))


def main(arguments: Sequence[str] | None = None, folder: Path = HERE) -> int:
    """Print one line an image; 1 if an image could not be read, 2 if nothing could be done."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("images", nargs="+", help="image files, or folders of them")
    parser.add_argument("--classes", type=Path, help="file of names to choose from, one a line")
    parser.add_argument("--class", action="append", dest="names", metavar="NAME", help="one name")
    parser.add_argument("--top", type=int, default=1, help="print the K likeliest classes")
    parser.add_argument(
        "--unknown", metavar="P", help='below this probability "none of these"; auto: as calibrated'
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--int8", action="store_true", help="the tower with 8-bit weights")
    given = parser.parse_args(arguments)
    try:
        predictor = Predictor(folder, given.int8)
        names = [*(read_names(given.classes) if given.classes else []), *(given.names or [])]
        # a threshold has the exported classes among its candidates, as `simprompt predict` has
        asked = {name.replace("_", " ").lower() for name in names}
        rest = [c for c in predictor.classes if c.replace("_", " ").lower() not in asked]
        others = rest if names and given.unknown else []
        text = predictor.text_features([*names, *others]) if names else None
        limit = given.unknown or 0.0
        limit = predictor.card["unknown"] if limit == "auto" else float(limit)
    except (SimpromptError, OSError, ValueError) as error:
        print(visible(error), file=sys.stderr)
        return 2
    names, failed = names or predictor.classes, 0
    for path in files(given.images):
        try:
            row = predictor.answer(predictor.pixels([path]), text)[0]
        except SimpromptError as error:
            print(visible(error), file=sys.stderr)
            failed = 1
            continue
        certainty = row[: len(names)].max()
        row = row[: len(names)] / row[: len(names)].sum() if others else row
        best = np.argsort(-row, kind="stable")[: max(1, given.top)]
        answers = [{"class": names[i], "probability": round(float(row[i]), 6)} for i in best]
        known = bool(certainty >= limit)
        if given.json:
            content = {"image": str(path), "known": known, "answers": answers}
            print(visible(json.dumps(content, ensure_ascii=False)))
        else:
            said = ", ".join(f"{a['class']} {a['probability']:.4f}" for a in answers)
            print(visible(f"{path}: {said}" if known else f"{path}: none of these; {said}"))
    return failed


if __name__ == "__main__":
    sys.exit(main())
