"""A learned prompt as files: what was learned, its card, and a page that says what it is.

::

    my_prompt/
      prompt.safetensors   what was learned, some kilobytes
      card.json            how, on what, for which CLIP (by digest), with which results
      README.md            the same for a reader, with the hub's metadata

A run keeps the first two as `prompt.safetensors` and `prompt.json` in its own folder. Both are read
from a path, and from the hub as ``hf://user/repo`` or ``hf://user/repo@revision``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, ValidationError
from safetensors.torch import load, save_file
from torch import Tensor

from simprompt.clip.hub import public_name
from simprompt.config import Settings
from simprompt.errors import SimpromptError, install
from simprompt.utils.files.atomic import checksum, replacing, write_json, write_text
from simprompt.utils.files.hub import hub_file, newest, record
from simprompt.utils.files.owned import CHECKSUMS, FORMER, check_owned, current, replacing_owned
from simprompt.utils.files.parsing import first_complaint, json_value
from simprompt.utils.files.regular import PROMPT, is_folder, is_there, read_bytes, read_text

FORMAT = 2
"""Of a card. 2: the model's digest is in it; 1: it is not."""


Text = InstanceOf[str]
"""Any text, also with halves of surrogate pairs: what is only shown may come from a file name."""


class Calibration(Settings):
    """What `calibration` found, as a prompt's card keeps it."""

    model_config = ConfigDict(strict=True)

    temperature: float = Field(gt=0, description="probabilities are softmax(log p / T)")
    images: int = Field(ge=0, description="held-out images that it was fitted on")
    source: Text = Field(description="where these come from: shots set aside, or val")
    ece_before: float = Field(description="calibration error on them, percent, at T = 1")
    ece_after: float = Field(description="and at the temperatures of other classes' images")
    confidence_before: float | None = Field(None, description="mean probability, percent, at T = 1")
    confidence: float | None = Field(
        None, description="and at the temperatures of other classes' images"
    )
    right: float | None = Field(None, description="percent of the held-out images that are right")
    right_interval: list[float] = Field([], description="its 95% interval, over classes")
    unknown: float = Field(ge=0, le=1, description='below this probability: "none of these"')
    known_kept: float = Field(description="percent above it of images of classes that chose none")
    unknown_refused: float = Field(
        description="percent below it of these, with their own class taken from the candidates"
    )
    known_kept_interval: list[float] = Field([], description="its 95% interval, over classes")
    unknown_refused_interval: list[float] = Field([], description="its 95% interval, over classes")
    among: list[str] = Field([], description="the names it was fitted among; [] in older cards")

    @property
    def effect(self) -> str:
        """How far the probabilities can be trusted, in a sentence."""
        images_text = f"{self.images} calibration images ({self.source})"
        if self.confidence is None or self.confidence_before is None or self.right is None:
            return (
                f"Calibration error on {images_text}: {self.ece_before:.1f} % before temperature "
                "scaling, "
                f"{self.ece_after:.1f} % after (T = {self.temperature:.2f})."
            )
        right = f"{self.right:.1f} % of the answers are right{interval(self.right_interval)}"
        if self.temperature == 1:
            return (
                f"Probabilities are as learned (T = 1). On {images_text} they average "
                f"{self.confidence:.1f} %, and {right}."
            )
        change = "softened" if self.temperature > 1 else "sharpened"
        return (
            f"Probabilities were {change} (T = {self.temperature:.2f}). On {images_text} they "
            "average "
            f"{self.confidence:.1f} % instead of {self.confidence_before:.1f} %, and {right}."
        )

    @property
    def rejection(self) -> str:
        """What the threshold is expected to do on images that fitting did not see."""
        if not self.unknown:
            return (
                "No rejection threshold: the calibration images do not tell known classes from "
                "unknown ones, so `predict --reject-below auto` refuses nothing."
            )
        kept_interval, refused = (
            interval(self.known_kept_interval),
            interval(self.unknown_refused_interval),
        )
        return (
            f"Rejection threshold {self.unknown:.2f} (predict --reject-below auto). Estimates for "
            f"other images: it keeps {self.known_kept:.0f} %{kept_interval} of images of these "
            "classes and "
            f"refuses {self.unknown_refused:.0f} %{refused} of images of similar other classes."
        )


def interval(values: Sequence[float]) -> str:
    """ " [46, 96]", or nothing where there is none."""
    return " [{:.0f}, {:.0f}]".format(*values) if len(values) == 2 else ""


class Card(BaseModel):
    """What is read again of a card; the rest of it is for readers."""

    # pydantic before 2.10 warns of a field such as `model_digest`: it keeps `model_` for itself
    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())

    format: int = 1
    method: str
    options: dict[str, Any]
    model: str
    tokenizer: str | None = None
    image_size: int | None = None
    classnames: list[str]
    new_classes: list[str] = []
    template: str
    seed: int
    model_digest: str | None = None
    upright: bool = True
    sar: dict[str, Any] | None = None
    calibration: Calibration | None = None
    dataset: Text | None = None
    shots: int | None = None
    novel: list[Text] | None = None
    metrics: dict[Text, dict[Text, float]] | None = None


WEIGHTS, CARD, PAGE = "prompt.safetensors", "card.json", "README.md"
HUB_ADDRESS = re.compile(r"hf:[\\/]+(.*)", re.DOTALL)
"""An address of the hub, also one that went through a `Path`, which leaves one slash."""


def write(folder: str | Path, state: Mapping[str, Tensor], card: Mapping[str, Any]) -> Path:
    """Write a prompt's folder, all three files or none. A prompt that is there is replaced, and
    other files in the folder stay; see `utils.files.owned`.

    Raises:
        SimpromptError: it cannot be written, or the folder holds other files and no prompt.
    """
    folder = Path(folder)
    check_owned(folder, CARD, "prompt")
    with replacing_owned(folder, CARD) as partial:
        write_text(partial / PAGE, page(public(card)))
        write_files(partial / WEIGHTS, partial / CARD, state, card)
    return folder


def write_files(
    weights: Path, card_file: Path, state: Mapping[str, Tensor], card: Mapping[str, Any]
) -> None:
    """Write what was learned, and the card with its checksum; see `public`."""
    card = public(card)
    with replacing(weights) as partial:
        save_file(dict(state), str(partial))
    write_json(card_file, {**card, "checksum": checksum(weights.read_bytes())})


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """(what was learned, card, where it was found).

    The card's model and tokenizer are names: of a path, which cards of earlier releases have, the
    last part is left.

    Args:
        path: a folder that `write`, `simprompt learn` or `simprompt run` wrote; one of the two
            files in it, with or without its suffix; or ``hf://user/repo[@revision]``.

    Raises:
        SimpromptError: not there, not a prompt, damaged, or of a newer format.
    """
    before = None
    for _ in range(TRIES):
        weights, card_file = _find(str(path))
        now = (card_file, _stamp(card_file))
        try:
            return _read(path, weights, card_file)
        except SimpromptError:
            # another process may have replaced the prompt in between
            if now == before and not (card_file.parent / FORMER).exists():
                raise
        before = now
        time.sleep(PAUSE)
    return _read(path, *_find(str(path)))


TRIES, PAUSE = 20, 0.01  # seconds


def _stamp(file: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced."""
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


def _read(
    path: str | Path, weights: Path, card_file: Path
) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    try:
        card = json_value(read_text(card_file))
        card.pop(CHECKSUMS, None)
        stated_checksum, form = card.pop("checksum", None), card.get("format", 1)
        if isinstance(form, int) and form > FORMAT:
            raise SimpromptError(
                f"The prompt {path} is of format {form}, and this release of simprompt reads up to "
                f"{FORMAT}. Update simprompt."
            )
        contents = read_bytes(weights, PROMPT)
        if stated_checksum and checksum(contents) != stated_checksum:
            raise ValueError("the weights are not those that the card was written with")
        Card(**card)
        for key in ("model", "tokenizer"):
            if card.get(key):
                card[key] = public_name(card[key])
        return load(contents), card, str(weights)
    except SimpromptError:
        raise
    except ValidationError as error:
        raise SimpromptError(
            f"The card {card_file} is not a prompt's: it {first_complaint(error)}. Give the folder "
            "that `simprompt learn`, `simprompt run` or Prompt.save wrote."
        ) from None
    except Exception as error:  # as many kinds as there are ways to damage a file
        raise SimpromptError(
            f"{weights} with its card {card_file} is not a saved prompt: {error}. Give the folder "
            "that `simprompt learn`, `simprompt run` or Prompt.save wrote."
        ) from None


def _find(path: str) -> tuple[Path, Path]:
    if match := HUB_ADDRESS.fullmatch(path):
        repo, _, revision = match[1].replace("\\", "/").partition("@")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
            raise SimpromptError(f"{path} names no repository; write hf://user/repo[@revision].")
        branch = revision or "main"
        commit = newest(repo, CARD, branch)  # both files of one version
        weights, card = (hub_file(repo, name, commit) for name in (WEIGHTS, CARD))
        record(repo, branch, commit)
        return weights, card
    at = Path(path)
    if is_folder(at):
        if not _holds_card(at) and _holds_card(at / "prompt"):
            at = at / "prompt"  # what `learn` or PromptClassifier.save wrote
        at = current(at, CARD)
        card_name = CARD if (at / CARD).exists() else "prompt.json"
        return at / WEIGHTS, at / card_name
    if at.name in (WEIGHTS, CARD) and _holds_card(at.parent):
        at = current(at.parent, CARD)
        return at / WEIGHTS, at / CARD
    stem = path.removesuffix(".safetensors").removesuffix(".json")
    weights, card = Path(f"{stem}.safetensors"), Path(f"{stem}.json")
    if not (is_there(at) or is_there(weights) or is_there(card)):
        raise SimpromptError(
            f"There is no saved prompt {path}. Give the folder that `simprompt learn`, `simprompt "
            "run` or Prompt.save wrote."
        )
    return weights, card


def location(path: str | Path) -> Path:
    """The folder of a prompt on this computer, for `write`; see `read`."""
    at = Path(path)
    if is_folder(at) and not _holds_card(at) and _holds_card(at / "prompt"):
        return at / "prompt"
    if _holds_card(at):
        return at
    raise SimpromptError(
        f"{path} is not a folder that `simprompt learn` or Prompt.save wrote, so it is not written "
        "again. Say with --out where the new prompt goes."
    )


def _holds_card(folder: Path) -> bool:
    return (current(folder, CARD) / CARD).is_file()


def page(card: Mapping[str, Any]) -> str:
    """README.md: the card for a reader, with the metadata that a hub reads."""
    name = card["method"] + (" with SAR" if card.get("sar") else "")
    takes = (
        "any names, those it was learned on and others"
        if _any_name(card["method"])
        else ("the names it was learned on, and no others")
    )
    model, classes, new_names = card["model"], card["classnames"], card.get("new_classes") or []
    digest = card.get("model_digest") or "unknown"
    lines = [
        "---",
        "library_name: simprompt",
        "pipeline_tag: zero-shot-image-classification",
        "tags: [clip, prompt-learning, image-classification]",
        "---",
        "",
        f"# {_plain(name)} for {_plain(model)}",
        "",
        f"A prompt learned with simprompt from {_plain(card.get('shots') or 'a few')} images of "
        f"{len(classes)} classes. It classifies images among {takes}.",
        "",
        "```python",
        "import simprompt",
        "",
        'prompt = simprompt.load_prompt("THIS_FOLDER")  # or hf://user/repo',
        'prompt.predict("image.jpg")',
        "```",
        "",
        f"- Classes: {_names(classes)}",
    ]
    if new_names:
        trained = set(new_names) <= set(card.get("novel") or ())
        training_note = "; SAR was trained with their names" if trained else ""
        lines.append(
            f"- New classes, of which it has seen no image{training_note}: {_names(new_names)}"
        )
    lines.append(f"- Model: {_plain(model)}, digest {_plain(digest[:12])}")
    lines.append(f"- Hand-crafted prompt: {_plain(card['template'])}")
    if card.get("dataset"):
        lines.append(f"- Images: {_plain(card['dataset'])}")
    if names := card.get("novel"):
        provenance = _plain(json.dumps(card.get("novel_provenance"), ensure_ascii=False))
        lines.append(f"- Novel names that SAR saw: {len(names)}, {provenance}")
    for group, row in (card.get("metrics") or {}).items():
        metrics_text = ", ".join(f"{key} {value:.1f} %" for key, value in row.items())
        lines.append(f"- Correct on held-out images, {_plain(group)}: {_plain(metrics_text)}")
    if fitted := card.get("calibration"):
        calibration = Calibration.model_validate(fitted)
        lines += [f"- {_plain(calibration.effect)}", f"- {_plain(calibration.rejection)}"]
    lines += ["", "Everything else is in `card.json`.", ""]
    return "\n".join(lines)


def _any_name(method: str) -> bool:
    """Whether a method takes names that it was not learned on."""
    from simprompt import methods  # which needs torch's models; a card is read without them

    return methods.find(method).new_classes


def _names(names: list[str], most: int = 50) -> str:
    ellipsis = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(_plain, names[:most])) + ellipsis


def _plain(text: object) -> str:
    """A text that Markdown takes for nothing else."""
    printable = "".join(sign if sign.isprintable() else " " for sign in str(text))
    return re.sub(r"([\\`*_~$&\[\]<>#|!])", r"\\\1", printable)


def push(prompt: str | Path, repo: str, *, private: bool = False, token: str | None = None) -> str:
    """Upload a prompt to the hub; returns where it is now.

    Args:
        prompt: what `read` takes.
        repo: ``"user/repo"``; made where it is not there yet.
        token: None takes what `huggingface_hub` knows.

    Raises:
        SimpromptError: no prompt there, a card with a path of this computer in it, no such account,
            no connection.
    """
    state, card, _ = read(prompt)  # nothing that cannot be read is shared
    weights, card_file = _find(str(prompt))
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise SimpromptError(f"push needs huggingface_hub: {install('hub')}.") from None
    from simprompt.utils.files.hub_requests import endpoint

    stored_card = json_value(card_file.read_text(encoding="utf-8"))
    if path := absolute_path(stored_card):
        raise SimpromptError(
            f"The card {card_file} names {path}, a path of this computer, which is not for others "
            f"to see. Write it without: simprompt.load_prompt({str(prompt)!r}).save(...), or edit "
            "the card; then push that folder."
        )
    api = HfApi(endpoint=endpoint(), token=token)
    with TemporaryDirectory() as scratch:
        folder = weights.parent
        if card_file.name != CARD:  # the two files of a run
            folder = write(Path(scratch) / "prompt", state, card)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo,
                folder_path=str(folder),
                allow_patterns=[WEIGHTS, CARD, PAGE],
                commit_message="A prompt learned with simprompt",
            )
        except Exception as error:  # its errors and the network's are many
            message = " ".join(str(error).split())[:500]
            raise SimpromptError(
                f"The prompt could not be pushed to {repo}: {message}. Log in with `hf auth "
                "login`, and look at the name of the repository."
            ) from error
    return str(commit)


_ABSOLUTE = re.compile(r"(?:~?[\\/]|[A-Za-z]:[\\/]|file:).*[\\/].*", re.DOTALL)
_NAMES = ("classnames", "new_classes", "novel", "template", CHECKSUMS)
"""Keys of a card whose texts are shown as they are, whatever they look like."""


def public(card: Mapping[str, Any]) -> dict[str, Any]:
    """A card without the paths of this computer: of each its last part is left."""
    return {key: value if key in _NAMES else _public(value) for key, value in card.items()}


def _public(value: Any) -> Any:
    if isinstance(value, str):
        prefix = "file:" if value.startswith("file:") else ""
        last_segment = re.split(r"[\\/]", value.rstrip("\\/"))[-1]
        return f"{prefix}{last_segment}" if _ABSOLUTE.fullmatch(value) else value
    if isinstance(value, Mapping):
        return {key: _public(inner) for key, inner in value.items()}
    return [_public(inner) for inner in value] if isinstance(value, list | tuple) else value


def absolute_path(card: Mapping[str, Any]) -> str | None:
    """A text in a card that is a path of the computer it was written on, if there is one."""
    values = [value for key, value in card.items() if key not in _NAMES]
    while values:
        value = values.pop()
        if isinstance(value, str) and _ABSOLUTE.fullmatch(value):
            return value
        if isinstance(value, Mapping):
            values += value.values()
        elif isinstance(value, list | tuple):
            values += value
    return None
