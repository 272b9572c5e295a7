"""`simprompt predict`: which class each image is of."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simprompt.cli.options import with_options
from simprompt.errors import SimpromptError
from simprompt.utils.options import CandidateOptions, PromptModelOptions, RowOptions
from simprompt.utils.terminal import say, visible

if TYPE_CHECKING:
    from simprompt.data.own_images.rows import Unused
    from simprompt.prompt.prompt import Prompt


@with_options
def predict(
    prompt: Annotated[
        str, typer.Argument(help="A saved prompt: learned/prompt, or hf://USER/NAME")
    ],
    images: Annotated[
        list[str], typer.Argument(help="Files, folders, patterns; - reads paths from stdin")
    ],
    candidates: CandidateOptions,
    rows_form: RowOptions,
    model: PromptModelOptions,
    top: Annotated[int, typer.Option(help="Number of likeliest classes to print", min=1)] = 1,
    reject_below: Annotated[
        str | None,
        typer.Option(
            help='Probability below which the answer is "none of these"; the classes of the prompt '
            "are candidates as well. auto: the threshold that `learn` fitted"
        ),
    ] = None,
    copy_to: Annotated[
        Path | None,
        typer.Option(help="Copy each image into a folder named after its class in this folder"),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if an input file is ignored or unreadable")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass", min=1)] = 32,
) -> None:
    """Classify images, one row each; an unreadable image gets a row with the reason."""
    from simprompt.clip.same_text import unread_warning
    from simprompt.data.image_files import ImageError
    from simprompt.data.names import read_names
    from simprompt.deploy import files
    from simprompt.prompt.loading import load_prompt
    from simprompt.utils.progress import progress_shown, report_progress

    form = rows_form.form
    if candidates.classes and candidates.class_:
        raise SimpromptError("--classes and --class say the same thing: leave one of them out.")
    if copy_to and copy_to.exists() and not copy_to.is_dir():
        raise SimpromptError(f"--copy-to takes a folder; {copy_to} is a file.")
    paths, unused = files.listed(images, sys.stdin)
    _report_unused(unused, strict)
    loaded = load_prompt(prompt, model=model.model, tokenizer=model.tokenizer)
    names = candidates.class_ or loaded.classes
    if candidates.classes:
        names = read_names(candidates.classes)
    limit = _limit(reject_below, loaded, names)
    for sentence in unread_warning(names, loaded.clip.tokenizer):
        say(f"simprompt: {sentence}", err=True)
    certain = reject_below is not None
    unread_count = 0

    def rows() -> Iterator[files.Row]:
        nonlocal unread_count
        task_name = "images classified"
        report_progress(task_name, 0, len(paths))
        predictions = loaded.stream_with_errors(paths, names, batch=batch_size, certain=certain)
        for count, (path, prediction) in enumerate(zip(paths, predictions, strict=True), start=1):
            unread_count += isinstance(prediction, ImageError)
            row = files.row_of(path, prediction, names, min(top, len(names)), limit)
            if copy_to:
                files.copy_to(copy_to, row)
            yield row
            if count % batch_size == 0 or count == len(paths):
                report_progress(task_name, count, len(paths))

    with progress_shown(quiet=sys.stdout.isatty()):  # rows and a bar would overwrite each other
        for text in files.texts(rows(), form, min(top, len(names))):
            sys.stdout.write(text)
    sys.stdout.flush()
    if unread_count:
        _report_unread(unread_count, len(paths), strict)


def _report_unused(unused: Sequence[Unused], strict: bool) -> None:
    """Say which files of the folders are no images that can be classified.

    Raises:
        SimpromptError: there are some that are not the operating system's, and `strict`.
    """
    from simprompt.data.own_images.rows import SYSTEM, lines_of

    for line in lines_of(unused):
        say(line, err=True)
    if strict and (missed := [entry for entry in unused if entry.reason != SYSTEM]):
        raise SimpromptError(
            f"{len(missed)} files in the folders given are not used; the first: {missed[0]} "
            "Without --strict they are left out."
        )


def _report_unread(count: int, total: int, strict: bool) -> None:
    """Say how many images could not be read.

    Raises:
        SimpromptError: all of them, or `strict`.
    """
    sentence = f"{count} of {total} images could not be read."
    if count == total:
        raise SimpromptError(f"{sentence} The rows say why.")
    if strict:
        raise SimpromptError(f"{sentence} Their rows say why; without --strict that is no error.")
    say(sentence, err=True)


def _limit(text: str | None, prompt: Prompt, names: Sequence[str]) -> float:
    """The threshold; says on stderr what it is compared with where that is not what is printed."""
    if text is None:
        return 0.0
    extra = len(prompt.judged_among(names)) - len(names)
    if extra:
        say(
            f"For --reject-below the {extra} other classes of the prompt are candidates as "
            "well; the printed probabilities are among the names asked for.",
            err=True,
        )
    if text == "auto":
        prompt.check_threshold(names)
        if not prompt.unknown:
            say(
                "The prompt's threshold is 0: on the images set aside nothing told known from "
                "unknown.",
                err=True,
            )
        elif unfitted := [name for name in names if name not in prompt.known]:
            suffix = f" and {len(unfitted) - 1} others" if len(unfitted) > 1 else ""
            say(
                f"The threshold was fitted without the name {visible(unfitted[0])!r}{suffix}: "
                "more of "
                "their images may be refused than `learn` printed.",
                err=True,
            )
        return prompt.unknown
    try:
        if 0 <= float(text) <= 1:
            return float(text)
    except ValueError:
        pass
    raise SimpromptError(f"--reject_below takes a number from 0 to 1, or auto; got {text!r}.")
