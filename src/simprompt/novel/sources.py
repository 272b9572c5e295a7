"""Where novel class names come from: one function a source, and `novel_names` over all of them.

A source is a function from a `Request` (base classes, topic, n, seed, and what some sources need
besides) to an `Offer`: names in order of preference, as many as it has, and how they came about.
It need not clean, count or compare anything: `novel_names` does that for all sources alike.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simprompt.clip.same_text import class_names
from simprompt.data.names_file import names_in
from simprompt.errors import SimpromptError
from simprompt.novel.names import (
    EARLIER,
    IS_BASE,
    IS_HIDDEN,
    IS_NEW,
    Dropped,
    NovelList,
    NovelNameError,
    clean_name,
    clean_names,
    name_key,
)
from simprompt.novel.nouns import noun_list
from simprompt.novel.spec import Part, parse_spec, share
from simprompt.utils.files.parsing import json_value
from simprompt.utils.files.text import text_of

if TYPE_CHECKING:
    from torch import Tensor


DEFAULT_COUNT = 200  # the paper's number of novel classes a dataset

# Domain-shift datasets share ImageNet's classes, and so its list.
SAME_CLASSES = {
    "imagenetv2": "imagenet",
    "imagenet_v2": "imagenet",
    "imagenet_sketch": "imagenet",
    "imagenet_a": "imagenet",
    "imagenet_r": "imagenet",
}


@dataclass(frozen=True)
class Request:
    """What a source is asked.

    Attributes:
        base: names of the base classes, which the names are to be related to.
        topic: what the classes are, in words, such as `dog and cat breeds`.
        n: how many names are wanted; a source may offer more.
        seed: for sources that draw.
        dataset: the task's name, for `bundled`.
        new: the real new classes, for `oracle` alone.
        avoid: base classes and names of earlier sources, so that a source does not offer them.
        encode: names to L2-normalised text embeddings `[n, E]`, for `vocabulary`.
        store: the folder where `llm` keeps its lists; None for the default one.
        settings: the settings in the specification's brackets.
    """

    base: tuple[str, ...]
    topic: str = ""
    n: int = DEFAULT_COUNT
    seed: int = 0
    dataset: str = ""
    new: tuple[str, ...] | None = None
    avoid: tuple[str, ...] = ()
    encode: Callable[[Sequence[str]], Tensor] | None = None
    store: Path | None = None
    settings: dict[str, str] = field(default_factory=dict)

    def setting(self, name: str, default: Any) -> Any:
        """A setting as the type of its default; a value that does not fit is an error."""
        if name not in self.settings:
            return default
        value = self.settings[name]
        try:
            return type(default)(value) if default is not None else value
        except ValueError:
            raise NovelNameError(
                f"The setting {name}={value!r} is not {_ARTICLE[type(default)]}. Give one like "
                f"{name}={default}."
            ) from None


_ARTICLE: dict[type, str] = {int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class Offer:
    """What a source answers: names in order of preference, and their provenance."""

    names: Iterable[object]
    provenance: dict[str, Any]
    leaks: bool = False


def bundled(request: Request) -> Offer:
    """The list that ships with the package for this dataset, or a seeded part of it."""
    value = bundled_list(request.dataset)
    names = list(value["names"])
    if request.n < len(names):
        # The lists stand in groups of meaning; their head would be one corner of the topic.
        names = random.Random(request.seed).sample(names, len(names))
    fields = ("dataset", "date", "provenance")
    return Offer(names, {key: value[key] for key in fields if key in value})


def from_file(request: Request) -> Offer:
    """Your own names: a text file with one a line (# starts a comment) or JSON (see `read_file`).

    Names that cannot be used are an error that lists them, unless `file[skip=yes]` is set: the
    file is yours to mend.
    """
    path = Path(request.settings["path"])
    names = read_file(path)
    if request.setting("skip", "no") != "yes":
        refused = []
        for name in names:
            try:
                clean_name(name)
            except NovelNameError as error:
                refused.append(str(error))
        if refused:
            refused_text = "; ".join(refused[:20]) + ("; ..." if len(refused) > 20 else "")
            raise NovelNameError(
                f"{path} holds {len(refused)} names that cannot be used: {refused_text}. Mend or "
                "delete "
                f"them, or write file[skip=yes]:{path} to leave them out."
            )
    return Offer(names, {"file": path.name, **_origin(path)})


def _origin(path: Path) -> dict[str, Any]:
    """The provenance in a JSON file, which goes on with the names."""
    if path.suffix.lower() != ".json":
        return {}
    value = json_value(text_of(path))
    origin = value.get("provenance") if isinstance(value, dict) else None
    return {} if origin is None else {"origin": origin}


def random_nouns(request: Request) -> Offer:
    """The paper's control: nouns drawn at random, whatever the base classes are.

    Setting `pool`: `common` (default; nouns that WordNet's tagged corpora use at least once) or
    `all`.
    """
    pool = request.setting("pool", "common")
    if pool not in ("common", "all"):
        raise NovelNameError(f"random-nouns has no pool {pool!r}. Use pool=common or pool=all.")
    nouns = noun_list(minimum_count=1 if pool == "common" else 0)
    shuffled = random.Random(request.seed).sample(nouns, len(nouns))
    return Offer(
        shuffled,
        {"vocabulary": "nouns of WordNet 3.0", "pool": pool, "size": len(nouns),
         "seed": request.seed},
    )  # fmt: skip


def oracle(request: Request) -> Offer:
    """The real new classes themselves. For study only: a result made with it is not a result."""
    if not request.new:
        raise NovelNameError(
            "The source oracle needs the real new classes, and none were given. Use it in a "
            "study on a dataset whose new classes are known."
        )
    names = random.Random(request.seed).sample(request.new, len(request.new))
    return Offer(names, {"note": "the real new classes, for study only"}, leaks=True)


def none(request: Request) -> Offer:
    """No novel names: the regulariser sees the base classes alone."""
    return Offer([], {})


def _elsewhere(module: str, function: str) -> Callable[[Request], Offer]:
    """A source in its own module, imported when it is first used."""

    def source(request: Request) -> Offer:
        offer: Offer = getattr(import_module(f"simprompt.novel.{module}"), function)(request)
        return offer

    return source


SOURCES: dict[str, Callable[[Request], Offer]] = {
    "bundled": bundled,
    "file": from_file,
    "random-nouns": random_nouns,
    "oracle": oracle,
    "none": none,
    "llm": _elsewhere("llm", "llm"),
    "wordnet": _elsewhere("wordnet", "wordnet"),
    "vocabulary": _elsewhere("vocabulary", "vocabulary"),
}

SETTINGS: dict[str, tuple[str, ...]] = {
    "file": ("path", "skip"),
    "random-nouns": ("pool",),
    "llm": ("model", "url", "temperature", "timeout", "max_calls", "draw"),
    "wordnet": ("distance", "depth"),
    "vocabulary": ("pool", "synonyms"),
}


def novel_names(
    spec: str,
    base: Sequence[str],
    *,
    topic: str = "",
    n: int | None = None,
    seed: int = 0,
    dataset: str = "",
    new: Sequence[str] | None = None,
    hidden: Sequence[str] = (),
    keep_overlap: bool = False,
    encode: Callable[[Sequence[str]], Tensor] | None = None,
    count_tokens: Callable[[str], int] | None = None,
    max_tokens: int = 77,
    store: Path | None = None,
) -> NovelList:
    """Names of novel classes from one source or a mixture.

    Args:
        spec: `bundled`, `file:PATH`, `llm`, `wordnet`, `vocabulary`, `random-nouns`, `oracle` or
            `none`, each with optional settings and count, joined by `+`:
            `bundled:150+wordnet[depth=6]:50`.
        base: the base classes; none of them will be in the list.
        topic: what the classes are, in words; by default the dataset's name.
        n: at most this many names; by default 200, or the sum of the spec's counts.
        seed: for sources that draw.
        dataset: the task's name, such as `icons/animals` or `dtd`; `bundled` needs it.
        new: the real new classes where they are known. Exact matches are taken out of the list
            and recorded; no source but `oracle` sees them.
        hidden: names that must not be in the list whatever its source and `keep_overlap` say:
            the classes that nobody may see while settings are chosen.
        keep_overlap: leave the exact matches in, as the paper does; they are recorded all the
            same.
        encode: names to L2-normalised text embeddings `[n, E]`, for `vocabulary`.
        count_tokens: tokens of a name in its prompt; names over `max_tokens` are left out.
        max_tokens: the text tower's context length.
        store: the folder of the lists `llm` made; by default the user's cache.

    Returns:
        The list; shorter than `n` where the sources have no more.

    Raises:
        NovelNameError: a specification that does not read, a source without what it needs, or a
            list with no names left.
    """
    for role, listed_names in (("base", base), ("new", new or ()), ("hidden", hidden)):
        class_names(listed_names, role, empty=True)
    spec_parts = _read_spec(spec)
    n = _count(spec_parts, n)
    dataset = dataset or ""
    gathering = _Gathering(
        Request(
            base=tuple(base), topic=topic or topic_of(dataset), n=n, seed=seed, dataset=dataset,
            new=None if new is None else tuple(new), encode=encode, store=store,
        ),
        tuple(hidden), keep_overlap, count_tokens, max_tokens,
    )  # fmt: skip
    for spec_part, wanted_count in zip(spec_parts, share(spec_parts, n), strict=True):
        gathering.add(spec_part, wanted_count)
    is_wanted = any(spec_part.source != "none" for spec_part in spec_parts)
    return gathering.novel_list(spec, is_wanted)


def _read_spec(spec: str) -> list[Part]:
    """The parts of a specification, with settings that their sources have."""
    spec_parts = parse_spec(spec, SOURCES)
    for spec_part in spec_parts:
        allowed = SETTINGS.get(spec_part.source, ())
        for name in spec_part.settings:
            if name not in allowed:
                raise NovelNameError(
                    f"{spec_part.source} in the novel names {spec!r} has no setting {name!r}. It "
                    f"has {', '.join(allowed) or 'none'}."
                )
    return spec_parts


def _count(spec_parts: Sequence[Part], n: int | None) -> int:
    """How many names are wanted: `n`, else what the specification says."""
    if n is None:
        counts = [spec_part.count for spec_part in spec_parts]
        n = DEFAULT_COUNT if None in counts else sum(count or 0 for count in counts)
    if n < 1:
        raise NovelNameError(f"{n} novel names were asked for. Ask for at least 1, or use `none`.")
    return n


@dataclass
class _Gathering:
    """The names that the sources gave so far.

    Attributes:
        request: what all sources are asked; of `new` only `oracle` hears.
    """

    request: Request
    hidden: tuple[str, ...]
    keep_overlap: bool
    count_tokens: Callable[[str], int] | None
    max_tokens: int
    names: list[str] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    provenance: list[dict[str, Any]] = field(default_factory=list)
    leaks: bool = False

    def add(self, spec_part: Part, count: int) -> None:
        """Ask one source for `count` names, and keep those that can be used."""
        is_oracle = spec_part.source == "oracle"
        request = replace(
            self.request, n=count, new=self.request.new if is_oracle else None,
            avoid=(*dict.fromkeys(self.names), *self.request.base), settings=spec_part.settings,
        )  # fmt: skip
        offer = SOURCES[spec_part.source](request)
        good, left_out = clean_names(
            offer.names, exclude=self._excluded(is_oracle), limit=count,
            count_tokens=self.count_tokens, max_tokens=self.max_tokens,
        )  # fmt: skip
        self.names += good
        self.dropped += left_out
        self.leaks |= offer.leaks
        self.provenance.append(
            {"source": spec_part.source, "asked": count, "got": len(good), **offer.provenance}
        )

    def _excluded(self, is_oracle: bool) -> dict[str, str]:
        """Names that may not be taken now, and why."""
        exclude = dict.fromkeys(self.names, EARLIER)
        if not self.keep_overlap and not is_oracle:
            exclude |= dict.fromkeys(self.request.new or (), IS_NEW)
        exclude |= dict.fromkeys(self.request.base, IS_BASE)
        return exclude | dict.fromkeys(self.hidden, IS_HIDDEN)

    def novel_list(self, spec: str, is_wanted: bool) -> NovelList:
        """The list; `is_wanted` is False where the only source is `none`."""
        if not self.names and is_wanted:
            reasons = sorted({item.reason for item in self.dropped}) or ["the source offered none"]
            raise NovelNameError(
                f"No name is left of the novel names {spec!r}: {'; '.join(reasons[:5])}. Use "
                "another source, or mix one in with +."
            )
        real = {name_key(name) for name in self.request.new or ()}
        matching = [item.name for item in self.dropped if item.reason == IS_NEW]
        matching += [name for name in self.names if name_key(name) in real]
        return NovelList(
            names=tuple(self.names),
            source=spec,
            provenance=(
                self.provenance[0] if len(self.provenance) == 1 else {"parts": self.provenance}
            ),
            requested=self.request.n if is_wanted else 0,
            dropped=tuple(self.dropped),
            overlap=tuple(matching),
            leaks=self.leaks,
        )


def check_source(spec: str, dataset: str) -> None:
    """Whether a source can be asked for novel names, before any image is read.

    Args:
        spec: as `novel_names` takes it.
        dataset: the task's name, for `bundled`.

    Raises:
        NovelNameError: the specification cannot be read, there is no bundled list for the dataset,
            or the file of names cannot be used.
    """
    for spec_part in parse_spec(spec, SOURCES):
        if spec_part.source == "bundled":
            bundled_list(dataset)
        elif spec_part.source == "file":
            from_file(Request((), settings=spec_part.settings))


def bundled_list(dataset: str) -> dict[str, Any]:
    """A bundled list as it stands in the package: `names`, `date`, `provenance`, `exact_overlap`.

    Raises:
        NovelNameError: no list for this dataset, with the datasets that have one.
    """
    path = _bundled_files().get(_bundled_name(dataset))
    if path is None:
        raise NovelNameError(
            f"There are no bundled novel names for {repr(dataset) if dataset else 'this dataset'}. "
            f"There are lists for {', '.join(bundled_datasets())}. Take another source: "
            "random-nouns, wordnet and vocabulary need nothing but the base classes, file:PATH has "
            "your own names, and llm asks a language model."
        )
    value: dict[str, Any] = json_value(path.read_text(encoding="utf-8"))
    return value


def topic_of(dataset: str) -> str:
    """What a dataset is about: its bundled list says so, else its name does."""
    path = _bundled_files().get(_bundled_name(dataset))
    topic = json_value(path.read_text(encoding="utf-8")).get("topic") if path else None
    return str(topic or dataset.rpartition("/")[2].partition("@")[0].replace("_", " "))


def bundled_datasets() -> list[str]:
    """The datasets with a bundled list."""
    return sorted(_bundled_files())


def _bundled_name(dataset: str) -> str:
    name = re.split("[@:]", dataset.strip().lower())[0].replace("-", "_")  # without a domain
    return SAME_CLASSES.get(name, name)


@cache
def _bundled_files() -> dict[str, Path]:
    folder = Path(str(resources.files("simprompt.novel") / "lists"))
    files = {}
    for path in folder.rglob("*.json"):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name.startswith("icons-"):
            name = name.replace("-", "/", 1)
        files[name.replace("-", "_")] = path
    return files


def read_file(path: Path) -> list[str]:
    """The names of a file; `data.names_file` has the forms that it may have.

    Raises:
        NovelNameError: as `names_file.names_in`.
    """
    try:
        return names_in(path, check=False)  # `clean_name` judges them
    except SimpromptError as error:
        raise NovelNameError(str(error)) from None
