"""`simprompt learn`: your own images, and names of classes you have no image of."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simprompt.cli.options import Json, Template, placed, with_options
from simprompt.utils.options import AnswerOptions, ImageOptions, MethodOptions, ModelOptions
from simprompt.utils.terminal import say

if TYPE_CHECKING:
    from simprompt.workflow import LearnedFolder


@with_options
def learn(
    images: Annotated[str, typer.Argument(help="A folder of class folders, a table, or hf:NAME")],
    model: ModelOptions,
    method: MethodOptions,
    reading: ImageOptions,
    answer: AnswerOptions,
    new_classes: Annotated[
        Path | None, typer.Option(help="File of class names without images, one per line")
    ] = None,
    new_images: Annotated[
        str | None,
        typer.Option(
            "--new-test-images",
            help="Labelled test images of the new classes; nothing is learned from them",
        ),
    ] = None,
    template: Template = None,
    seed: Annotated[
        int, typer.Option(help="Random seed (held-out split, few-shot sample, training)")
    ] = 1,
    calibrated: Annotated[
        bool,
        typer.Option(
            "--calibrate/--no-calibrate",
            help="Fit a temperature and a rejection threshold; trains a second time on part of "
            "the shots",
        ),
    ] = True,
    out: Annotated[Path, typer.Option(help="Output folder")] = Path("learned"),
    json_: Json = False,
) -> None:
    """Learn from your images, evaluate on held-out ones, and save what answers best."""
    from dataclasses import fields

    from simprompt.cli import warn
    from simprompt.data.names import read_names
    from simprompt.utils.progress import progress_shown
    from simprompt.workflow import Reporter, learn_folder

    model = placed(model)
    flat = {
        field.name: getattr(group, field.name)
        for group in (model, method, reading, answer)
        for field in fields(group)
    }
    with progress_shown(json_):
        outcome = learn_folder(
            images,
            out,
            new_classes=read_names(new_classes) if new_classes else (),
            new_images=new_images,
            template=template,
            seed=seed,
            calibrated=calibrated,
            reporter=Reporter((lambda _: None) if json_ else say, lambda one: warn.tell([one])),
            **flat,
        )
    if json_:
        say(json.dumps(outcome.result, indent=2, ensure_ascii=False))
    else:
        _print(outcome)


def _print(done: LearnedFolder) -> None:
    result, out = done.result, done.out
    count = result["test_images"]
    own_candidates = f"your {len(result['classes'])} classes"
    if result["predicted"] != result["contenders"]:
        new_candidates = f"{len(result['new_classes'])} new ones"
        say(
            f"correct on {count} held-out images, among {own_candidates} and {new_candidates}, "
            "as `predict` answers:"
        )
        _print_rows(result["predicted"])
    if result["contenders"]:
        say(f"correct on {count} held-out images, among {own_candidates}, with 95 % intervals:")
        _print_rows(result["contenders"])
    for choice, row in result["accuracy"].items():
        if "images of new classes" in choice:
            accuracies = ", ".join(f"{name} {value:.1f} %" for name, value in row.items())
            say(f"correct {choice}: {accuracies}")
    if result["trained_with_new_names"]:
        say("SAR was trained with the names of the new classes; it saw no image of them.")
    for sentence in result["verdict"]:
        say(sentence)
    if result["take"]:
        say(f"  {command_with(sys.argv[1:], result['take'], out)}")
    if result["new_classes"] and not any("of new classes" in key for key in result["accuracy"]):
        say(
            "Accuracy on the new classes was not measured; pass --new-test-images FOLDER to "
            "measure it."
        )
    if done.calibration:
        say(done.calibration.effect)
        say(done.calibration.rejection)
    if done.used_val:
        use = "fitted this temperature and threshold" if done.calibration else "were not used"
        say(f"The val images {use}; they chose nothing else.")
    if result["confusions"]:
        say("Most frequent confusions (true -> predicted):")
    for pair in result["confusions"][:3]:
        say(f"  {pair['truth']} -> {pair['answer']}  {pair['count']}  e.g. {pair['examples'][0]}")
    if result["refit"]:
        say(
            f"What is saved was learned once more from all {result['saved_from_images']} images; "
            "--no-refit saves what was measured."
        )
    say(
        f"{result['seconds']} seconds. {out / 'report.html'} shows what was right and wrong. The "
        f"prompt is in {result['prompt']}; use it with"
    )
    say(f"  simprompt predict {result['prompt']} FOLDER")
    say(f"  simprompt serve {result['prompt']}")


OF_A_METHOD = ("--method", "--sar", "--recipe", "--set", "--regulariser", "--out")
OF_NEW_NAMES = ("--new-classes", "--new-test-images")
"""Options that another method does not take over."""


def command_with(words: Sequence[str], method: str, out: Path) -> str:
    """The command of these words with another method, for a shell; its output stands beside.
    Names without images are left out where that method knows its own classes alone."""
    from simprompt import methods

    without = OF_A_METHOD if methods.find(method).new_classes else (*OF_A_METHOD, *OF_NEW_NAMES)
    kept, dropped = ["simprompt"], False
    for word in words:
        if dropped:
            dropped = False
        elif word in without:
            dropped = True
        elif word.partition("=")[0] not in without:
            kept.append(word)
    return shlex.join([*kept, "--method", method, "--out", f"{out}-{method}"])


def _print_rows(rows: list[dict[str, Any]]) -> None:
    say("  method          accuracy  95 % CI    macro accuracy")
    for row in rows:
        interval = f"[{row['low']:.0f}, {row['high']:.0f}]"
        say(f"  {row['name']:14} {row['accuracy']:7.1f} %  {interval:9}  {row['macro']:12.1f} %")
