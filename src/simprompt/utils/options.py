"""Options that belong together, for the command line and for Python alike.

A command takes a group as one parameter, and `cli.options.with_options` turns its fields into
options; a function takes the same fields as keywords through `group_options`. So an option is
declared once, with its help text, and reaches both. Nothing heavy is imported here.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from simprompt.errors import SimpromptError, did_you_mean

T = TypeVar("T")


def option(
    default: Any, help: str, *flags: str, minimum: int | None = None, setting: str | None = None
) -> Any:
    """A field of a group.

    Args:
        flags: spellings on the command line; none: the field's name with hyphens.
        minimum: of a number.
        setting: in `MethodOptions`, the key of `--set` that the option stands for, such as
            "training.shots"; None leaves the setting as it is.
    """
    metadata = {"help": help, "flags": flags, "min": minimum, "setting": setting}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ModelOptions:
    """The CLIP, and where it computes."""

    model: str | None = option(
        None, "CLIP model: a name from `simprompt list models`, or a path. Default: icons"
    )
    tokenizer: str | None = option(None, "Tokenizer file or folder, for a model without one")
    image_size: int | None = option(
        None, "Image size in pixels; positional embeddings are interpolated", minimum=1
    )
    device: str | None = option(None, "cpu, cuda, cuda:N, mps or auto (a GPU if there is one)")
    dtype: str = option("float32", "Type of the frozen encoders: float32, bfloat16 or float16")

    @property
    def loading(self) -> dict[str, Any]:
        """The keywords of `clip.hub.load_clip`."""
        return {
            "tokenizer": self.tokenizer,
            "image_size": self.image_size,
            "device": self.device or "cpu",
            "dtype": self.dtype,
        }

    @property
    def run_settings(self) -> dict[str, Any]:
        """The same as keywords of `config.RunConfig`: a path holds in every worker's folder."""
        tokenizer = str(Path(self.tokenizer).resolve()) if self.tokenizer else None
        return {**self.loading, "tokenizer": tokenizer}


@dataclass(frozen=True)
class PromptModelOptions:
    """The CLIP of a saved prompt, where its card alone does not lead to it."""

    model: str | None = option(
        None,
        "Model of the prompt, where its card names a checkpoint that is not found: a path, or a "
        "name from `simprompt list models`. Its digest is checked",
    )
    tokenizer: str | None = option(None, "Tokenizer file of that model, if it took one")


@dataclass(frozen=True)
class CandidateOptions:
    """The class names among which a saved prompt chooses."""

    classes: Path | None = option(
        None, "File of candidate class names, one per line. Default: the prompt's"
    )
    class_: list[str] | None = option(None, "One candidate class name; repeatable", "--class")


@dataclass(frozen=True)
class RowOptions:
    """The form of the rows that `simprompt predict` prints."""

    csv: bool = option(False, "Rows with commas, a header first", "--csv")
    json: bool = option(False, "One JSON list", "--json")
    jsonl: bool = option(False, "One JSON object a line", "--jsonl")

    @property
    def form(self) -> str:
        """The form that is chosen, or text.

        Raises:
            SimpromptError: several are chosen.
        """
        forms = [field.name for field in dataclasses.fields(self) if getattr(self, field.name)]
        if len(forms) > 1:
            raise SimpromptError(f"One form at a time: --{' and --'.join(forms)} were given.")
        return forms[0] if forms else "text"


@dataclass(frozen=True)
class ImageOptions:
    """How your own images are read; see `data.own_images.folder.load`."""

    rename: Path | None = option(
        None,
        "File that renames classes: one `folder = class name` per line; equal names are merged",
        "--rename",
    )
    image_column: str | None = option(None, "Column of paths or images in a table")
    label_column: str | None = option(None, "Column of labels in a table")
    split_column: str | None = option(None, "Column of train, val, test in a table")
    strict: bool = option(False, "Fail if an input file is ignored or unreadable", "--strict")

    @property
    def reading(self) -> dict[str, Any]:
        """The keywords of `data.own_images.folder.load`, and those of `config.RunConfig`."""
        names = None if self.rename is None else str(Path(self.rename).resolve())
        return {
            "names": names,
            "image_column": self.image_column,
            "label_column": self.label_column,
            "split_column": self.split_column,
        }

    @property
    def first_set(self) -> str | None:
        """The command-line spelling of the first option that says how to read, if one is set."""
        flags = {"names": "--rename"}
        for name, value in self.reading.items():
            if value is not None:
                return flags.get(name, f"--{name.replace('_', '-')}")
        return None


@dataclass(frozen=True)
class RecipeOptions:
    """Settings by name or one by one."""

    recipe: str | None = option(
        None,
        "Recipe: a name or a YAML file. Default: METHOD@MODEL if there is one; published: the "
        "settings of the method's authors",
    )
    settings: list[str] | None = option(
        None, "One setting as key=value, such as training.lr=0.01; repeatable", "--set"
    )


@dataclass(frozen=True)
class MethodOptions(RecipeOptions):
    """What is trained."""

    method: str | None = option(
        None,
        "Method, see `simprompt list methods`. Default: the recipe's, or coop; `learn` takes auto, "
        "the best of several for your images, unless settings of a prompt are given",
    )
    sar: str | None = option(None, "SAR: off, on, both (where several runs are made), or a weight")
    regulariser: str | None = option(
        None,
        "Regulariser in the place of SAR, see `simprompt list regularisers`",
        setting="sar.regulariser",
    )
    shots: int | None = option(
        None,
        "Training images per class. Default: the recipe's, or 16",
        minimum=1,
        setting="training.shots",
    )

    @property
    def key_values(self) -> list[str]:
        """The settings of `--set` as key=value."""
        settings: Any = self.settings or []
        if isinstance(settings, Mapping):  # Python may give a dictionary
            settings = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        return list(settings)

    @property
    def option_values(self) -> dict[str, tuple[str, Any]]:
        """The settings that have options of their own: option and value by key."""
        values = {}
        for field in dataclasses.fields(self):
            key, value = field.metadata["setting"], getattr(self, field.name)
            if key is not None and value not in (None, ""):
                flags = field.metadata["flags"] or (f"--{field.name.replace('_', '-')}",)
                values[key] = (flags[0], value)
        return values


@dataclass(frozen=True)
class AnswerOptions:
    """What `simprompt learn` sets aside, and what it learns at the end."""

    hold_out: float = option(
        0.25,
        "Part of each class's images that is set aside to test on, where there is no test split; "
        "0: none",
    )
    refit: bool | None = option(
        None,
        "Learn what is saved once more from all images, once it was measured. Default: with auto, "
        "where the images that were set aside are not a test split of yours",
        "--refit/--no-refit",
    )


@dataclass(frozen=True)
class Execution:
    """How many runs are made."""

    workers: int = option(1, "Processes, one run each; 0: one per core", minimum=0)
    train_together: bool = option(
        False, "Train seeds and SAR settings of a task in one text batch", "--train-together"
    )
    ray: str | None = option(None, "Address of a Ray cluster: auto, ray://HOST:PORT, local")
    tracker: list[str] | None = option(None, "Also log to tensorboard or mlflow; repeatable")


@dataclass(frozen=True)
class ChoiceOptions:
    """How `simprompt tune` chooses among settings, and on which images."""

    metric: str = option("h", "Score: base, new or h of the pseudo-new split")
    one_se: bool = option(
        False,
        "One-standard-error rule: among the settings level with the best, the highest new",
        "--one-se",
    )
    per_dataset: bool = option(False, "Also choose for each dataset alone", "--per-dataset")
    all_base_images: bool = option(
        False,
        "Use all labelled images of base classes, not the shots of each seed",
        "--all-base-images",
    )
    random_halves: bool = option(
        False,
        "Another half of the base classes plays the new ones for each seed",
        "--random-halves",
    )


@dataclass(frozen=True)
class NovelOptions:
    """The classes that a list of novel names is for, and how it is made."""

    dataset: str | None = option(None, "Dataset of the base classes, such as icons/animals")
    base: Path | None = option(
        None, "File of base classes: one per line, or JSON", "--base-classes"
    )
    new: Path | None = option(
        None, "File of the real new classes, where they are known", "--new-classes"
    )
    count: int | None = option(None, "Number of names. Default: 200")
    seed: int = option(0, "Random seed of sources that draw")
    llm_model: str | None = option(None, "Model of the source llm. Default: $SIMPROMPT_LLM_MODEL")
    model: str = option("icons", "CLIP model that measures")
    template: str | None = option(None, "Template with {}. Default: the dataset's")


def group_options(values: Mapping[str, Any], *groups: type[Any]) -> list[Any]:
    """One object of each group, made of keywords.

    Raises:
        SimpromptError: a keyword that is in none of them.
    """
    fields = {field.name: group for group in groups for field in dataclasses.fields(group)}
    for name in values:
        if name not in fields:
            raise SimpromptError(
                f"There is no option {name!r}. {did_you_mean(name, sorted(fields))}Options: "
                f"{', '.join(sorted(fields))}."
            )
    return [
        group(**{name: value for name, value in values.items() if fields[name] is group})
        for group in groups
    ]
