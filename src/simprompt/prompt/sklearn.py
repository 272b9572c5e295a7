"""A prompt as scikit-learn's users know classifiers: `fit`, `predict`, `predict_proba`, `score`.

    classifier = simprompt.PromptClassifier(method="coop", sar=0.4, new_classes=["zebra"])
    classifier.fit(paths, labels)
    classifier.predict(others)          # a label that was learned, or "zebra"

It keeps scikit-learn's conventions and does not need scikit-learn: it can be cloned, searched with
`GridSearchCV`, put at the end of a `Pipeline`. Settings inside a setting are reached with two
underscores: `sar__weight`, `training__lr`.
"""

from __future__ import annotations

import inspect
import json
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simprompt import methods, recipes
from simprompt.clip import domain
from simprompt.clip.domain import ICONS
from simprompt.clip.hub import is_named
from simprompt.clip.model import CLIP
from simprompt.clip.same_text import check_apart, class_names, repeated
from simprompt.config import DEFAULT_TEMPLATE, SAR, Training
from simprompt.data.labels import check_labels
from simprompt.data.split import Origin, Split
from simprompt.errors import SimpromptError
from simprompt.novel.run_names import filled_up
from simprompt.prompt import storage
from simprompt.prompt.choice import Choice, choose
from simprompt.prompt.learn import prepare_run, train_alone
from simprompt.prompt.loading import load_prompt
from simprompt.prompt.sklearn_input import (
    GivenImages,
    Labels,
    as_column,
    as_images,
    as_weights,
    check_label_names,
    join_labels,
    repeated_rows,
)
from simprompt.prompt.suited import clip_of, suited_clip
from simprompt.recipes import plan
from simprompt.recipes.plan import AUTO, is_auto
from simprompt.utils.cache import Lock
from simprompt.utils.files.atomic import write_json
from simprompt.utils.files.owned import check_owned, current, replacing_owned
from simprompt.utils.files.parsing import json_value
from simprompt.utils.files.regular import read_text

FORMAT = 1  # of a saved classifier
CARD = "classifier.json"

_ADDING = Lock()  # of all classifiers: an attribute would be one that scikit-learn does not know


class PromptClassifier:
    """A classifier of images that learns a prompt, and answers with names it never saw as well.

    Thread-safe once fitted: `predict`, `predict_proba` and `score` answer many threads at once, and
    `add_classes` changes the answers of calls that begin later. `fit` is not thread-safe.

    Args:
        model: a name of `simprompt list models`, a path, or a CLIP; "auto" or None takes "photos"
            where the images that `fit` gets are no drawings and the extra of that name is
            installed, else "icons", as `simprompt learn` does.
        method: a method of `simprompt list methods`; "auto" the best of several for the images, as
            `simprompt learn` does; None takes "auto", or, with settings of a prompt (`sar`,
            `recipe`, `options`, `training`), the recipe's method or CoOp.
        sar: False or None, True (the recipe's), a weight, or settings, as in `simprompt.learn`;
            "auto" is True for a method whose text moves.
        new_classes: names of classes without images; they are candidates of every prediction, and
            SAR takes them for its novel names.
        recipe, options, training, template: as in `simprompt.learn`.
        names: label -> class name, for labels that say nothing, such as numbers. scikit-learn
            replaces labels by numbers in some of its functions; see `fit`.
        upright: turn photos as their EXIF orientation says.
        seed: of the initialisation, the batches and SAR's draws.

    Attributes:
        classes_: [C] labels that `fit` saw, sorted, then the new classes in their order.
        prompt_: the learned `Prompt`.
        choice_: what "auto" chose, and from what (`prompt.choice.Choice`); None where the method
            was named.
    """

    _estimator_type = "classifier"
    choice_: Choice | None

    def __init__(
        self,
        model: str | CLIP | None = AUTO,
        method: str | None = None,
        sar: bool | float | str | Mapping[str, Any] | SAR | None = AUTO,
        new_classes: Sequence[str] = (),
        *,
        recipe: str | None = None,
        options: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        template: str | None = None,
        names: Mapping[Any, str] | None = None,
        upright: bool = True,
        seed: int = 1,
    ) -> None:
        self.model, self.method, self.sar, self.new_classes = model, method, sar, new_classes
        self.recipe, self.options, self.training = recipe, options, training
        self.template, self.names, self.upright, self.seed = template, names, upright, seed

    # ---- what scikit-learn asks of an estimator

    @classmethod
    def _parameters(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments it was made with; `deep`: those inside dictionaries as `sar__weight`."""
        values = {name: getattr(self, name) for name in self._parameters()}
        if deep:
            for name, value in [*values.items()]:
                if isinstance(value, Mapping) and name != "names":
                    values |= {f"{name}__{key}": inner for key, inner in value.items()}
        return values

    def set_params(self, **values: Any) -> PromptClassifier:
        """Set arguments; `sar__weight=0.1` changes one setting and leaves the others.

        Raises:
            SimpromptError: an argument that there is not.
        """
        for name in sorted(values, key=lambda one: "__" in one):  # whole settings come first
            outer, _, inner = name.partition("__")
            if outer not in self._parameters() or (
                inner and outer not in ("sar", "options", "training")
            ):
                raise SimpromptError(
                    f"PromptClassifier has no argument {name!r}; it has "
                    f"{', '.join(self._parameters())}, and sar__..., options__..., training__...."
                )
            if not inner:
                setattr(self, outer, values[name])
                continue
            nested = getattr(self, outer)
            if isinstance(nested, SAR):
                nested = nested.model_dump(exclude_defaults=True)
            elif (
                outer == "sar" and isinstance(nested, float | int) and not isinstance(nested, bool)
            ):
                nested = {"weight": nested}
            elif not isinstance(nested, Mapping):
                nested = {}
            setattr(self, outer, {**nested, inner: values[name]})
        return self

    def __repr__(self) -> str:
        start = inspect.signature(type(self).__init__).parameters
        shown = [
            f"{name}={value!r}"
            for name, value in self.get_params(deep=False).items()
            if value is not start[name].default and value != start[name].default
        ]
        return f"PromptClassifier({', '.join(shown)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=False, three_d_array=True, string=True),
            non_deterministic=False,
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "prompt_")

    # ---- learning and answering

    def fit(
        self, X: Iterable[Any], y: Iterable[Any], sample_weight: Iterable[float] | None = None
    ) -> PromptClassifier:
        """Learn the prompt from all of these images.

        cross_val_predict(method="predict_proba"), VotingClassifier and StackingClassifier give
        `fit` the numbers of the sorted labels instead of the labels: for these set
        ``names=dict(enumerate(sorted(set(labels))))``. OneVsRestClassifier gives 0 and 1 for each
        class in turn, and is not supported; this class tells any number of classes apart itself.

        Args:
            X: paths or pictures, as `Prompt.predict` takes them; an array [N, H, W, 3]; or a table
                with one column of paths or pictures, such as a DataFrame or an array [N, 1].
            y: as many labels; what they are called is `names`, or they themselves as text.
            sample_weight: as many numbers from 0, all whole multiples of the smallest that is not
                0: an image with twice the weight counts as two, one with 0 is left out.

        Raises:
            SimpromptError: lengths differ, fewer than two classes, an image that cannot be read,
                a missing value or another value that is no label (with its row), a label that is
                a new class, too, labels that say nothing to the model, or weights that are no such
                multiples.
        """
        arguments, automatic = self._arguments()
        images, listed_labels = as_images(X), as_column(y, "y")
        labels = np.asarray(listed_labels)
        if labels.ndim != 1 or len(labels) != len(images):
            raise SimpromptError(
                f"fit() needs one label an image: {len(images)} images, labels of shape "
                f"{list(labels.shape)}."
            )
        check_labels(listed_labels)
        if sample_weight is not None:
            rows = repeated_rows(sample_weight, len(images))
            images, labels = [images[row] for row in rows], labels[rows]
        class_values, numbers = np.unique(labels, return_inverse=True)
        if len(class_values) < 2:
            raise SimpromptError(
                f"fit() needs images of at least two classes; there are {len(class_values)}."
            )
        if self.names is not None and not isinstance(self.names, Mapping):
            raise SimpromptError(
                "names has to be a dictionary, label -> class name, such as {0: 'cat'}; got "
                f"{self.names!r:.100}."
            )
        called = [self._name(label) for label in class_values.tolist()]
        new_names_list = list(class_names(self.new_classes, "new_classes", empty=True))
        loader = GivenImages(images, self.upright)
        plain = Split(loader.items, tuple(numbers.tolist()), tuple(called), loader)
        if repeated([*called, *new_names_list]):  # in every model; said before an image is read
            check_apart([*called, *new_names_list], clip_of(ICONS).tokenizer)
        free = self.model is None or is_auto(self.model)
        clip = suited_clip(plain) if free else clip_of(self.model)  # type: ignore[arg-type]
        if unlike := domain.unlike_warning(clip, domain.unlike_share(clip, plain)):
            warnings.warn(unlike, stacklevel=2)
        check_label_names(class_values.tolist(), called, self.names or {}, clip)
        check_apart([*called, *new_names_list], clip.tokenizer)
        config = plan.for_learn("", clip.source["name"], arguments, source=plan.OWN_SOURCE)
        template = config.template or DEFAULT_TEMPLATE
        config = config.model_copy(update={"template": template})
        origin = Origin("given images", "1", (template,), tuple(new_names_list))
        shots = replace(plain, origin=origin)
        self.choice_ = None
        if automatic:
            self.choice_ = choose(clip, shots, template, self.seed, bool(new_names_list))
            config = config.model_copy(update={"options": self.choice_.options})
        novel = None
        if config.sar and new_names_list:
            novel = filled_up(
                new_names_list, config.sar, clip, called, shots.origin, seed=self.seed
            )
        prepared = prepare_run(clip, shots, config, novel)
        self.prompt_ = train_alone(prepared)
        self.prompt_.card["new_classes"] = new_names_list
        self.classes_ = join_labels(class_values, new_names_list)
        self._called = [*called, *new_names_list]
        return self

    def _arguments(self) -> tuple[plan.LearnArguments, bool]:
        """(the settings to learn with; whether the predictor is chosen).

        Raises:
            SimpromptError: "auto" with settings of a prompt.
        """
        settings = {name: getattr(self, name) for name in ("recipe", "options", "training")}
        given = [name for name, value in settings.items() if value is not None]
        given += [] if is_auto(self.sar) else ["sar"]
        if is_auto(self.method) and given:
            raise SimpromptError(
                f'PromptClassifier(method="auto") chooses its settings itself, and {given[0]} is '
                'one of a prompt: leave it out, or name the method, such as method="coop".'
            )
        automatic = is_auto(self.method) or (self.method is None and not given)
        method = plan.ANSWER if automatic else self.method
        sar: Any = self.sar
        if is_auto(sar):
            sar = methods.find(method or recipes.method_of(self.recipe)).text_moves
        return (
            plan.LearnArguments(
                method, sar, self.recipe, self.options, self.training, self.template, self.seed
            ),
            automatic,
        )

    def add_classes(self, names: Sequence[str]) -> PromptClassifier:
        """From now on choose among these names as well; nothing is learned again.

        Raises:
            SimpromptError: not fitted, or a name that is there already.
        """
        self._fitted()
        new_names_list = list(class_names(names, "names"))
        with _ADDING:
            check_apart([*self._called, *new_names_list], self.prompt_.clip.tokenizer)
            # classes first: a thread that reads the names before has a label for each of them
            self.classes_ = join_labels(self.classes_, new_names_list)
            self._called = [*self._called, *new_names_list]
            self.prompt_.card["new_classes"] = [
                *self.prompt_.card.get("new_classes", []),
                *new_names_list,
            ]
        return self

    def predict_proba(self, X: Iterable[Any]) -> npt.NDArray[np.float32]:
        """Probabilities [N, C] in the order of `classes_`."""
        self._fitted()
        called = self._called
        answers = self.prompt_.predict(as_images(X), called, upright=self.upright)
        rows = [answer.probabilities for answer in answers]
        return np.asarray(rows, dtype=np.float32).reshape(len(rows), len(called))

    def predict(self, X: Iterable[Any]) -> Labels:
        """The likeliest label of each image, [N]."""
        columns = self.predict_proba(X).argmax(1)
        labels: Labels = self.classes_[columns]
        return labels

    def score(
        self, X: Iterable[Any], y: Iterable[Any], sample_weight: Iterable[float] | None = None
    ) -> float:
        """The share of these images whose label is right, in [0, 1]; weighted where told so."""
        right = self.predict(X) == np.asarray(as_column(y, "y"))
        if sample_weight is None:
            return float(np.mean(right))
        return float(np.average(right, weights=as_weights(sample_weight, len(right))))

    # ---- keeping

    def save(self, folder: str | Path) -> Path:
        """Write the prompt, its classes and all arguments; nothing is pickled.

        Raises:
            SimpromptError: not fitted, or an argument or label that is no plain value.
        """
        self._fitted()
        folder = Path(folder)
        arguments = self.get_params(deep=False)
        for key in ("sar", "training"):
            if isinstance(arguments[key], SAR | Training):
                arguments[key] = arguments[key].model_dump(mode="json")
        free = self.model is None or is_auto(self.model)
        if isinstance(self.model, CLIP) or not (free or is_named(str(self.model))):
            arguments["model"] = None  # the prompt's card says which, by its digest
        arguments["names"] = [*self.names.items()] if self.names else None
        arguments["new_classes"] = list(self.new_classes)
        value = {
            "format": FORMAT,
            "arguments": arguments,
            "classes": self.classes_.tolist(),
            "called": self._called,
            "kind": self.classes_.dtype.str,
            "model": "arguments" if free or arguments["model"] else "card",
        }
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise SimpromptError(
                f"The classifier cannot be saved: its labels and arguments have to be texts, "
                f"numbers, lists and dictionaries ({error})."
            ) from None
        check_owned(folder, CARD, "classifier")
        with replacing_owned(folder, CARD) as partial:
            self.prompt_.save(partial / "prompt")
            write_json(partial / CARD, value)
        return folder

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        model: str | Path | CLIP | None = None,
        tokenizer: str | Path | None = None,
        device: str = "cpu",
    ) -> PromptClassifier:
        """Read what `save` wrote.

        A CLIP that was given to the constructor is loaded with the image size, tokenizer and dtype
        that it had.

        Args:
            model, tokenizer: of a checkpoint that has moved since, as `simprompt.load_prompt` takes
                them; or a CLIP.
            device: where the model is loaded, as `load_clip` takes it.

        Raises:
            SimpromptError: it is not there, damaged, or of a newer format; or the model is not
                found, or not the one that the prompt was learned on.
        """
        location = current(folder, CARD)
        try:
            value = json_value(read_text(location / CARD))
            if value["format"] > FORMAT:
                raise ValueError(f"format {value['format']} is newer than this program's {FORMAT}")
            arguments = value["arguments"]
            arguments["names"] = dict(arguments["names"]) if arguments["names"] else None
            if not isinstance(arguments["model"], str | None):
                raise TypeError("its model is no name")
            classifier = cls(**arguments)
            kind = np.dtype(value["kind"])
            classifier.classes_ = np.asarray(value["classes"], dtype=kind)
            classifier._called = [str(name) for name in value["called"]]
            if len(classifier._called) != len(classifier.classes_):
                raise ValueError("as many classes as names were expected")
        except Exception as error:  # as many kinds as there are ways to damage a file
            raise SimpromptError(
                f"{folder} is not a saved classifier: {error}. Give the folder that "
                "PromptClassifier.save wrote."
            ) from None
        card = storage.read(location / "prompt")[1]
        if isinstance(model, CLIP):
            classifier.prompt_ = load_prompt(location / "prompt", model)
        else:
            classifier.prompt_ = load_prompt(
                location / "prompt",
                model=model,
                tokenizer=tokenizer,
                device=device,
                dtype=card.get("model_dtype") or "float32",
            )
        if value.get("model") == "card":
            classifier.model = classifier.prompt_.clip
        return classifier

    def _fitted(self) -> None:
        if not hasattr(self, "prompt_"):
            raise _not_fitted("This PromptClassifier has learned nothing yet; call fit first.")

    def _name(self, label: Any) -> str:
        """The class name of a label."""
        renamed = self.names or {}
        return str(renamed.get(label, renamed.get(str(label), label)))


def _not_fitted(message: str) -> SimpromptError:
    """Our error, which is scikit-learn's as well for a program that uses scikit-learn."""
    if "sklearn" not in sys.modules:
        return SimpromptError(message)
    from sklearn.exceptions import NotFittedError

    kind: type[SimpromptError] = type("NotFittedError", (SimpromptError, NotFittedError), {})
    return kind(message)
