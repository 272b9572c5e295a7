"""`simprompt learn`: your own images, and names of classes you have no image of."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simprompt.cli.options import (
    Device,
    Dtype,
    ImageColumn,
    ImageSize,
    Json,
    LabelColumn,
    Method,
    Names,
    Recipe,
    Set,
    SplitColumn,
    checked,
    placed,
    sar_choices,
)
from simprompt.utils.terminal import say

if TYPE_CHECKING:
    from simprompt.config import RunConfig
    from simprompt.data.dataset import Split, View
    from simprompt.data.own_images.folder import OwnImages
    from simprompt.prompt.prompt import Prompt


def learn(
    images: Annotated[str, typer.Argument(help="A folder of class folders, a table, or hf:NAME")],
    new_classes: Annotated[
        Path | None, typer.Option(help="Names of classes without images, one a line")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A name from `simprompt models list`, or a path; default: photos where the images "
            "are no drawings and the extra of that name is installed, else icons"
        ),
    ] = None,
    method: Method = None,
    sar: Annotated[
        str | None,
        typer.Option(help="off, on, or a weight; default: on where the method learns text"),
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(
            help="At most this many images a class to learn from; default: the recipe's, or 16",
            min=1,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the held-out images, the draw, the training")] = 1,
    names: Names = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    split_column: SplitColumn = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="A hand-crafted prompt that suits your images; default: the recipe's, or "
            "'a photo of a {}.'"
        ),
    ] = None,
    set_: Set = None,
    recipe: Recipe = None,
    tokenizer: Annotated[str | None, typer.Option(help="A tokenizer file or folder")] = None,
    image_size: ImageSize = None,
    device: Device = None,
    dtype: Dtype = "float32",
    calibrated: Annotated[
        bool,
        typer.Option(
            "--calibrate/--no-calibrate",
            help="Learn once more without part of the images, so that probabilities mean something",
        ),
    ] = True,
    new_images: Annotated[
        str | None,
        typer.Option(help="Images of new classes, to measure on and not to learn from"),
    ] = None,
    strict: Annotated[
        bool, typer.Option(help="Stop if a file is not used, or a class not tested")
    ] = False,
    out: Annotated[Path, typer.Option(help="Where the prompt is kept")] = Path("learned"),
    json_: Json = False,
) -> None:
    """Learn a prompt from your images; it then tells your classes and the new ones apart."""
    from simprompt import methods, recipes
    from simprompt.cli import warn
    from simprompt.clip import domain
    from simprompt.clip.catalogue import EMBEDDED
    from simprompt.clip.hub import load_clip
    from simprompt.clip.same_text import check_apart, unread_warning
    from simprompt.config import DEFAULT_TEMPLATE
    from simprompt.data.dataset import View, check_learnable
    from simprompt.data.names import read_names
    from simprompt.data.own_images import folder
    from simprompt.errors import SimpromptError
    from simprompt.experiments.result_file import UNFINISHED
    from simprompt.experiments.run_key import KEY
    from simprompt.novel.sources import filled_up
    from simprompt.prompt import baselines, diagnostics
    from simprompt.prompt.calibration import calibrate
    from simprompt.prompt.learn import keeping_last_good, prepare, train_alone
    from simprompt.recipes import plan
    from simprompt.report import own as page
    from simprompt.utils.checkpoint import Checkpoint
    from simprompt.utils.files.atomic import check_folder, write_json, write_text
    from simprompt.utils.files.owned import replacing_owned
    from simprompt.utils.progress import progress_shown, report_progress

    started = time.perf_counter()
    if out.exists() and not out.is_dir():
        raise SimpromptError(f"--out takes a folder; {out} is a file.")
    method = method or recipes.method_of(recipe)
    host = methods.find(method)
    (choice,) = sar_choices(sar or ("on" if host.text_moves else "off"), ("off", "on"))
    if (new_classes or new_images) and not host.new_classes:
        option = "--new-classes" if new_classes else "--new-images"
        raise SimpromptError(
            f"{method} tells apart the classes it has images of and no others: leave {option} out, "
            "or take a prompt method such as coop."
        )
    where = placed(device, dtype)

    if model or tokenizer:
        checked(model or domain.ICONS, tokenizer)

    def configured(model: str) -> RunConfig:
        return plan.own(
            images, model, method, seed, sar=choice, shots=shots, settings=set_ or [],
            recipe=recipe, template=given_template, image_size=image_size, **where,
        )  # fmt: skip

    given_template, free = template, not (model or tokenizer or image_size)
    config = configured(model or domain.ICONS)
    template = config.template or DEFAULT_TEMPLATE
    wanted = read_names(new_classes) if new_classes else []
    check_folder(out, keep=False)
    with progress_shown(json_):
        own = folder.load(
            images,
            names=names,
            image_column=image_column,
            label_column=label_column,
            split_column=split_column,
            new_classes=wanted,
            template=template,
            strict=strict,
            seed=seed,
        )
        unseen = None
        if new_images:  # every image of them is measured on, however their classes are split
            unseen = replace(folder.load(new_images, template=template, seed=seed), untested=())
    known = View(own.dataset, "known", own.known)
    if len(own.known) < 2:
        check_learnable(known.classnames, len(own.dataset.train), images)
    if unseen:
        baselines.check_unseen(unseen, own)
    if not json_:
        _describe(own, known, unseen)
    clip = load_clip(model or domain.ICONS, tokenizer=tokenizer, image_size=image_size, **where)
    draw = known.few_shot(config.training.shots, seed)
    far = domain.unlike_share(clip, draw)
    if free and far > domain.MANY and EMBEDDED[domain.PHOTOS].installed:
        clip, config = load_clip(domain.PHOTOS, **where), configured(domain.PHOTOS)
        draw = known.few_shot(config.training.shots, seed)
        far = domain.unlike_share(clip, draw)
        if not json_:
            say(
                f"These look like photographs, so the model is {domain.PHOTOS}; --model names "
                "another."
            )
    check_apart(own.dataset.classnames, clip.tokenizer)
    warn.tell([*clip.notes, *unread_warning(own.dataset.classnames, clip.tokenizer)])

    unlike = domain.unlike_warning(clip, far)
    warnings = [unlike] if unlike else []
    warn.tell(warnings)
    with progress_shown(json_):
        novel = None
        if config.sar and own.new_classes:
            novel = filled_up(
                own.new_classes, config.sar, clip, known.classnames, draw.origin, seed=seed
            )

        trainings: list[Checkpoint] = []

        def learned(shots: Split) -> Prompt:
            what = "calibration" if trainings else "the prompt"
            ready = prepare(
                clip, shots, config.method, config.sar, options=config.options,
                training=config.training, template=template, novel=novel, seed=seed,
            )  # fmt: skip
            key = ready.key()
            kept = Checkpoint(out / UNFINISHED / f"{key[:KEY]}.safetensors", [key])
            trainings.append(kept)
            return train_alone(ready, partial(report_progress, f"epochs learned for {what}"), kept)

        if (out / "prompt").exists() and not json_:
            say(f"{out / 'prompt'} is there already and will be replaced; --out names another.")
        with keeping_last_good(out / "last-good"):
            prompt = learned(draw)
        prompt.card["new_classes"] = list(own.new_classes)
        prompt.save(out / "prompt")  # whatever fails from here on, it is not lost
        calibration = None
        if calibrated:
            calibration = calibrate(prompt, draw, learned, val=known.val, seed=seed)
        beside, failed = baselines.train_baselines(clip, draw, template, seed, config.method)
        measured = baselines.compare(prompt, beside, known, own, unseen)
    if unlearned := diagnostics.only_warmed_up(prompt):
        failed = [unlearned, *failed]
    warn.tell(failed)
    prompt.card["metrics"] = measured["accuracy"]
    place = prompt.save(out / "prompt")
    result = {
        "prompt": str(place),
        "classes": list(known.classnames),
        "new_classes": list(own.new_classes),
        "model": clip.source["name"],
        "training_images": len(draw),
        "test_images": len(known.test),
        "trained_with_new_names": bool(novel and own.new_classes),
        **where,
        "unlike_the_model": round(far, 3),
        "warnings": [*warnings, *failed],
        **measured,
        "calibration": calibration.model_dump(mode="json") if calibration else None,
        **own.facts(),
        "new_images": unseen.facts() if unseen else None,
        "seconds": round(time.perf_counter() - started, 1),
    }
    with replacing_owned(out, "result.json") as results:
        write_json(results / "result.json", result)
        write_text(results / "wrong.csv", baselines.as_csv(measured))
        page.write(result, known.test, results / "report.html")
    for kept in trainings:
        kept.remove()
    if json_:
        say(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        _print(result, out, known.val is not None)


def _describe(own: OwnImages, known: View, unseen: OwnImages | None) -> None:
    from simprompt.data.names import odd_names, says_nothing

    names = known.classnames
    data = own.dataset
    odd = [name for name in odd_names(names) if not says_nothing(name)]  # of these a note warns
    if odd:
        say(
            f"Look at these class names, which nobody would say: {', '.join(map(repr, odd[:10]))}"
            f"{', ...' if len(odd) > 10 else ''}. Better ones (--names) raise the accuracy."
        )
    plain = [name for name in names if name not in odd]
    shown = ", ".join(plain[:40]) + (", ..." if len(plain) > 40 else "")
    say(f"{len(names)} classes: {shown}")
    if own.new_classes:
        say(f"{len(own.new_classes)} new classes without images")
    say(f"{len(data.train):,} images to learn from, {len(data.test):,} held out")
    for line in own.told():
        say(line)
    if unseen:
        count = sum(unseen.facts()["images"].values())
        say(f"{count} images of {len(unseen.known)} new classes to measure on")
        for line in unseen.told():
            say(f"  {line}")


def _print(result: dict[str, Any], out: Path, val: bool) -> None:
    from simprompt.prompt.storage import Calibration

    count = result["test_images"]
    alone = f"your {len(result['classes'])} classes"
    if result["predicted"] != result["contenders"]:
        new = f"{len(result['new_classes'])} new ones"
        say(f"correct on {count} held-out images, among {alone} and {new}, as `predict` answers:")
        _print_rows(result["predicted"])
    if result["contenders"]:
        say(f"correct on {count} held-out images, among {alone}, with 95 % intervals:")
        _print_rows(result["contenders"])
    for choice, row in result["accuracy"].items():
        if "images of new classes" in choice:
            shown = ", ".join(f"{name} {value:.1f} %" for name, value in row.items())
            say(f"correct {choice}: {shown}")
    if result["trained_with_new_names"]:
        say("SAR was trained with the names of the new classes; it saw no image of them.")
    for sentence in result["verdict"]:
        say(sentence)
    if result["new_classes"] and not any("of new classes" in key for key in result["accuracy"]):
        say("How well it knows the new classes was not measured; --new-images FOLDER measures it.")
    if found := result["calibration"]:
        calibration = Calibration.model_validate(found)
        say(calibration.effect)
        say(calibration.rejection)
    if val:
        use = "fitted this temperature and threshold" if found else "were not used"
        say(f"The val images {use}; they chose nothing else.")
    for pair in result["confusions"][:3]:
        say(f"{pair['count']} x {pair['truth']} taken for {pair['answer']}: {pair['examples'][0]}")
    say(
        f"{result['seconds']} seconds. {out / 'report.html'} shows what was right and wrong. The "
        f"prompt is in {result['prompt']}; use it with"
    )
    say(f"  simprompt predict {result['prompt']} FOLDER")
    say(f"  simprompt serve {result['prompt']}")


def _print_rows(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        say(
            f"  {row['name']:14} {row['accuracy']:5.1f} % [{row['low']:.0f}, {row['high']:.0f}]   "
            f"over classes (macro) {row['macro']:5.1f} %"
        )
