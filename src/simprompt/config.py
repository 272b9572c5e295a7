"""What a run is: frozen, typed, validated. Nothing here imports torch.

A `RunConfig` says what is to be run, by names. What a run is by content, and the key that it is
kept under, are in `simprompt.experiments.run_key`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from simprompt.errors import SimpromptError, did_you_mean
from simprompt.utils.devices import NAMES

DEFAULT_TEMPLATE = "a photo of a {}."  # the hand-crafted prompt where nothing says another


def check_template(template: str) -> str:
    """A hand-crafted prompt, which has a place for the class name.

    Raises:
        SimpromptError: it has none.
    """
    if "{}" not in template:
        raise SimpromptError(
            "A hand-crafted prompt needs {} in the place of the class name, such as "
            f"'a photo of a {{}}.'; got {template!r:.200}."
        )
    return template


def _validated_template(template: str) -> str:
    try:
        return check_template(template)
    except SimpromptError as error:  # which pydantic does not know
        raise ValueError("needs {} in the place of the class name") from error


Template = Annotated[str, AfterValidator(_validated_template)]
"""A hand-crafted prompt, such as "a photo of a {}."."""


@dataclass(frozen=True)
class Neutral:
    """Marks a setting: with this value a run is what it was before the setting existed, so it is
    left out of the run's key. `flag: Annotated[bool, Neutral(False)] = False`.

    Every setting that is added needs it, or None as such a value; otherwise all results are made
    again. It is not the default: where a default changes, this stays, and the key of runs with the
    new default moves.
    """

    value: Any


class Settings(BaseModel):
    """Base of all settings: immutable; an unknown key is an error, and so is what is no number.

    Names and values of earlier releases are read as the present ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    former: ClassVar[Mapping[str, str]] = {}  # name in earlier releases -> name
    former_values: ClassVar[Mapping[str, Mapping[Any, Any]]] = {}  # name -> {former value: value}

    @classmethod
    def renamed(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings by their present names and values.

        Raises:
            ValueError: one under both its names.
        """
        current: dict[str, Any] = {}
        for key, value in values.items():
            name = cls.former.get(key, key)
            if name in current or (name != key and name in values):
                raise ValueError(f"{key} is called {name} now: leave one of them out")
            value_map = cls.former_values.get(name, {})
            current[name] = value_map.get(value, value) if isinstance(value, str) else value
        return current

    @model_validator(mode="before")
    @classmethod
    def _from_former(cls, values: Any) -> Any:
        return cls.renamed(values) if isinstance(values, Mapping) else values


class SAR(Settings):
    """Similarity Alignment Regularisation as the paper has it; the formulas are in `simprompt.sar`.

    The temperature, which the paper leaves open, is printed with every result, as all settings are.
    """

    former: ClassVar[Mapping[str, str]] = {
        "sample": "classes_per_step",
        "columns": "compare_with",
        "diagonal": "include_self",
        "direction": "kl",
        "redraw": "resample",
    }
    former_values: ClassVar[Mapping[str, Mapping[Any, Any]]] = {
        "include_self": {"in": True, "out": False}
    }

    weight: float = Field(0.4, ge=0, description="lambda, the weight of the SAR loss")
    temperature: float = Field(0.01, gt=0, description="tau of the rows; tune it with the weight")
    classes_per_step: int = Field(64, ge=2, description="K, classes drawn from base + novel")
    novel: str = Field("bundled", description="source of the novel names")
    novel_count: int = Field(200, ge=0, description="number of novel names")
    keep_overlap: bool = Field(False, description="keep novel names that are true new classes")
    regulariser: str | None = Field(
        None, description="another regulariser in the place of SAR, see `simprompt list`"
    )


class SARPlus(SAR):
    """SAR and what is beyond the paper: other forms of its loss, other teachers, anchors.

    The formulas are in `simprompt.regularisers.sar_plus`. With the defaults it is the paper's SAR.
    """

    compare_with: Literal["sample", "all"] = Field(
        "sample", description="classes that a row compares with: the K drawn ones, or all"
    )
    every: Annotated[int, Neutral(1)] = Field(
        1, ge=1, description="n: the loss of every n-th step alone, n times as heavy"
    )
    include_self: bool = Field(False, description="keep a class's similarity to itself")
    kl: Literal["teacher", "learned"] = Field(
        "teacher", description="first argument: KL(teacher || learned) or KL(learned || teacher)"
    )
    draw: Literal["base+novel", "novel"] = Field("base+novel", description="classes to draw from")
    resample: Literal["step", "once"] = Field("step", description="draw at each step, or once")
    teacher: Literal["template", "ensemble", "name", "sentence", "average"] = Field(
        "template", description="text whose similarities are the target"
    )
    teacher_decay: float = Field(0.99, ge=0, lt=1, description="decay of the teacher average")
    anchor: Literal["none", "absolute", "cross-modal"] = Field(
        "none", description="a term that holds text in place, which relations alone do not"
    )
    anchor_weight: float = Field(1.0, ge=0, description="weight of the anchor")
    anchor_on: Literal["novel", "base", "base+novel"] = Field(
        "novel", description="drawn classes that the anchor holds"
    )

    def plain(self) -> SAR:
        """The same as the paper's SAR where nothing beyond it is asked for; else itself."""
        beyond = SARPlus.model_fields.keys() - SAR.model_fields.keys()
        if any(getattr(self, name) != SARPlus.model_fields[name].default for name in beyond):
            return self
        return SAR(**{name: getattr(self, name) for name in SAR.model_fields})


class Training(Settings):
    """SGD with momentum unless the method says otherwise; see `training.schedule`."""

    former_values: ClassVar[Mapping[str, Mapping[Any, Any]]] = {"views": {"live": "random"}}

    shots: int = Field(16, ge=1, description="training images per class")
    lr: float = Field(2e-3, gt=0, description="learning rate after the warm-up epoch")
    epochs: int = Field(50, ge=1, description="passes over the training images")
    max_steps: int | None = Field(
        None, ge=1, description="at most so many steps: whole epochs, or a part of the first"
    )
    batch_size: int = Field(32, ge=1, description="images per step")
    label_smoothing: Annotated[float, Neutral(0.0)] = Field(
        0.0, ge=0, lt=1, description="share of a label that is spread over all classes"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(5e-4, ge=0, description="weight decay of SGD")
    warmup_lr: float = Field(1e-5, ge=0, description="learning rate of the first epoch")
    schedule: Literal["cosine", "squared cosine"] = Field(
        "cosine", description="decay of the learning rate, per epoch"
    )
    views: Annotated[int, Field(ge=1)] | Literal["random"] | None = Field(
        None,
        description="crop of a training image: none, the test-time crop; M, one of M augmented "
        "views kept on disk; random, a fresh augmented crop each epoch (as published)",
    )


def counted(settings: BaseModel) -> dict[str, Any]:
    """The settings that change numbers, as plain JSON: without None and what is `Neutral`."""
    values = settings.model_dump(mode="json", exclude_none=True)
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if any(isinstance(m, Neutral) and _is_same(m.value, value) for m in field.metadata):
            values.pop(name, None)
        elif isinstance(value, BaseModel):
            values[name] = counted(value)
    return values


def _is_same(a: object, b: object) -> bool:
    return type(a) is type(b) and a == b  # False is not 0


OWN_IMAGES = ("names", "image_column", "label_column", "split_column")
"""Settings of a run that say how somebody's own images are read."""


class RunConfig(Settings):
    """One training run and its test: what, on what, how, with which seed."""

    protocol: Literal["base-to-new", "generalised", "few-shot", "cross-dataset", "domain-shift"] = (
        "base-to-new"
    )
    model: str = "icons"
    tokenizer: str | None = Field(None, description="a tokenizer file, where the model has none")
    image_size: int | None = Field(
        None, ge=1, description="pixels the model is used at; None: its own"
    )
    dataset: str
    targets: tuple[str, ...] | None = Field(
        None, description="datasets to test on; None: the protocol's own for this dataset"
    )
    method: str = "coop"
    options: dict[str, Any] = Field(default_factory=dict, description="the method's own settings")
    sar: SerializeAsAny[SARPlus | SAR] | None = None
    training: Training = Training()
    template: Template | None = Field(
        None, description="hand-crafted prompt; None: the dataset's own"
    )
    template_set: str | None = Field(
        None,
        description="whose hand-crafted prompts the field's datasets take, such as kgcoop; None: "
        "the dataset's own",
    )
    max_test_per_class: int | None = Field(None, ge=1)
    seed: int = 1
    names: str | None = Field(None, description="a file of names for the folders of own images")
    image_column: str | None = Field(None, description="of own images in a table")
    label_column: str | None = Field(None, description="of own images in a table")
    split_column: str | None = Field(None, description="of own images in a table")
    threads: int = Field(1, ge=1, description="same seed and threads, same bits on a CPU")
    device: Annotated[str, Neutral("cpu")] = Field(
        "cpu", pattern=f"^({NAMES})$", description="where it is computed: cpu, cuda, cuda:N, mps"
    )
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], Neutral("float32")] = Field(
        "float32", description="of the frozen towers; what is learned is float32"
    )

    @field_validator("sar")
    @classmethod
    def _plain(cls, sar: SAR | None) -> SAR | None:
        """The same settings in two classes would be two runs."""
        return sar.plain() if isinstance(sar, SARPlus) else sar

    @property
    def own(self) -> dict[str, str]:
        """How somebody's own images are read, as `folder.load` takes it."""
        values = {name: getattr(self, name) for name in OWN_IMAGES}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def label(self) -> str:
        """Name of the method as tables print it."""
        return f"{self.method}+{self.sar.regulariser or 'sar'}" if self.sar else self.method

    @property
    def handle(self) -> str:
        """Twelve hex digits that stand for exactly these settings, as a dictionary's key.

        Of the names in them, not of what these name, and only within a process: what a run is, by
        content, and its key are in `simprompt.experiments.run_key`.
        """
        values = self.model_dump(mode="json", exclude_none=True)
        text = json.dumps(without_defaults(values, COMPUTED), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


COMPUTED = ("device", "dtype")
"""How a run is computed. Where nothing else is said these do not count, so that runs are the same
ones that they were before there was a choice."""


def without_defaults(values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A run's values without those of `names` that are as `RunConfig` has them."""
    fields = RunConfig.model_fields
    return {k: v for k, v in values.items() if k not in names or v != fields[k].default}


S = TypeVar("S", bound=Settings)


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by the names that `--set` takes: {"sar": {"weight": 1}} -> {"sar.weight": 1}."""
    named: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            named |= flat(value, f"{prefix}{key}.")
        else:
            named[prefix + key] = value
    return named


def parse(kind: type[S], values: dict[str, Any], where: str) -> S:
    """The settings of `values`, with pydantic's complaints as one paragraph.

    Raises:
        SimpromptError: naming every setting that is wrong and the ones that exist.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = []
        for e in error.errors():
            path = ".".join(str(p) for p in e["loc"] if not _is_kind(p))
            if e["type"] == "extra_forbidden":
                fields = _fields(kind, e["loc"][:-1])
                level = path.rpartition(".")[0]
                problems.append(
                    f"there is no setting {path!r}. "
                    f"{did_you_mean(str(e['loc'][-1]), fields)}Settings "
                    f"{f'of {level}' if level else 'here'}: {', '.join(fields) or 'none'}"
                )
            else:
                message = e["msg"].removeprefix("Value error, ")
                message = f"{message[0].lower()}{message[1:]}"
                problems.append(f"{path!r} {message} (got {e['input']!r:.200})")
        raise SimpromptError(f"{where}: {'; '.join(dict.fromkeys(problems))}.") from None


def _is_kind(part: int | str) -> bool:
    """Whether a part of pydantic's path names a class of a union, not a setting."""
    return isinstance(part, str) and part[:1].isupper()


def _fields(kind: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """The settings at a place inside `kind`."""
    for step in path:
        if _is_kind(step):
            continue
        field = kind.model_fields.get(str(step))
        kinds = field and [
            k
            for k in (field.annotation, *get_args(field.annotation))
            if isinstance(k, type) and issubclass(k, BaseModel)
        ]
        if not kinds:
            return []
        kind = kinds[0]
    return list(kind.model_fields)
