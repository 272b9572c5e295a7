"""Image features computed once, kept on disk, shared by every run.

The image tower is frozen, so an image's feature depends on three things only: the image, the
weights, and the preprocessing. A *store* is a folder named after what `identity` says of the last
two and of where images come from; it holds shards, files that map items to features. Shards are
written whole and renamed into place, so a store is valid at every moment and an interrupted
extraction goes on where it stopped. Of several processes that want the same images one computes
them, and the others wait for it. A shard carries a checksum, which is looked at when it is first
read; one that is damaged is deleted, said in a warning, and made again.

::

    <cache>/features/<model>-<digest>/<dataset>-<key>/0f3a....safetensors

Two kinds of features are kept: of the test-time crop (`image_features`), and of M augmented views
of each training image (`view_features`): CoOp's random resized crop and flip, drawn once and
reused instead of drawn afresh every epoch. What a run used is for the run to say.
"""

from __future__ import annotations

import json
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from simprompt.checkpoint import interval
from simprompt.clip.model import CLIP
from simprompt.clip.packed import packed
from simprompt.clip.transformer import overflow
from simprompt.config import Training
from simprompt.data.dataset import Split
from simprompt.devices import moved
from simprompt.errors import SimpromptError, check_count
from simprompt.files.fetch import cache_dir, not_kept
from simprompt.files.locks import alone
from simprompt.files.marks import Mark, mark_of
from simprompt.files.parsed import json_value
from simprompt.files.regular import WEIGHTS, check_regular
from simprompt.files.whole import WriteError, checksum, remove_abandoned, replacing
from simprompt.identity import features_folder, item_keys
from simprompt.memory import MemoryShortError, Sparing, advice
from simprompt.pixels import Images, Pixels
from simprompt.progress import tell
from simprompt.schedule import epochs_and_steps
from simprompt.stopping import asked, at_a_good_moment, check

if TYPE_CHECKING:
    from simprompt.methods.base import PromptLearner

CHUNK = 16
"""Images that a CPU encodes at a time on one thread, always so many, the last ones filled up. The
order of sums, and so the last bits of a feature, depends on the number of threads and of rows of a
product: with both fixed an image has the same feature whoever computes it, in whatever company."""
SHARD = 1024
"""A shard is closed after so many images, or when a checkpoint would be due."""
UNREADABLE = (SafetensorError, OSError, ValueError)
"""What opening a damaged shard raises."""


def image_features(
    clip: CLIP,
    split: Split,
    *,
    batch: int | None = None,
    cache: str | Path | None = None,
    natural: bool = False,
) -> Tensor:
    """Features of the images of a split as the model sees them at test time.

    Args:
        clip: its preprocessing, image tower and device are used.
        split: N images. Only those that no earlier run has seen are loaded.
        batch: images encoded at a time, a multiple of `CHUNK` on a CPU, where each thread takes a
            chunk; None: a chunk a thread, or 64. On a CPU neither it nor the number of threads
            changes a bit.
        cache: folder of the cache; default `fetch.cache_dir`. A split without a ``source`` has no
            name to be kept under: its features are computed anew.
        natural: at the length the tower gave them, which is how they are kept; not normalised.

    Every batch of newly computed images is told to `progress.tell`.

    Returns:
        float32 [N, E], rows L2-normalised unless `natural`, on the CPU.

    Raises:
        SimpromptError: an image that cannot be read or whose features are not finite, named.
    """
    features = _features(clip, split, 0, 0, batch, cache).squeeze(1)
    return features if natural else F.normalize(features, dim=-1)


def view_features(
    clip: CLIP,
    split: Split,
    views: int = 8,
    *,
    seed: int = 0,
    batch: int | None = None,
    cache: str | Path | None = None,
    natural: bool = False,
) -> Tensor:
    """Features of ``views`` augmented views of every image (see `Preprocess.augment`).

    View m of an item is the same in every run with the same ``seed``, however many views are
    asked for and in whatever order images come.

    Returns:
        float32 [N, views, E], L2-normalised unless ``natural``, on the CPU.
    """
    if views < 1:
        raise SimpromptError(f"An image needs at least 1 view, got views={views}.")
    features = _features(clip, split, views, seed, batch, cache)
    return features if natural else F.normalize(features, dim=-1)


def kept_in(clip: CLIP, split: Split, views: int = 0) -> str:
    """``in PLACE``, where the features of all these images lie, or ``not kept``."""
    store, keys = Store(store_folder(clip, split, views)), set(item_keys(split))
    return f"in {store.folder}" if store.known(sorted(keys)) >= keys else "not kept"


def images_of(learner: PromptLearner[Any], split: Split) -> Iterator[Tensor]:
    """What the learner takes of the images as the model sees them at test time, in parts: cached
    features [N, E], or batches [b, 3, S, S] of pixels for a live tower, read as they are taken.

    Raises:
        SimpromptError: an image that cannot be read, named.
    """
    if not learner.live_images:
        return iter((image_features(learner.clip, split, natural=learner.natural),))
    return Pixels(learner.clip.preprocess, split).in_order(f"images of {_name(split)}")


def training_views(
    learner: PromptLearner[Any], shots: Split, training: Training, seed: int
) -> Images:
    """The views that training draws from: features [N, M, E], or pixels [N, M, 3, S, S] for a live
    tower, which are read as they are needed.

    `training.views` None: the test-time crop, M = 1. A number: that many augmented views, the
    same in every run. "live": one fresh view for each epoch, in order, by the run's seed.
    """
    clip, natural = learner.clip, learner.natural
    views, seed = training.views, seed if training.views == "live" else 0
    if views == "live":
        views, _ = epochs_and_steps(len(shots), training)
    if learner.live_images:
        return Pixels(clip.preprocess, shots, views, seed, keep=training.views != "live")
    if views is None:
        return image_features(clip, shots, natural=natural)[:, None]
    return view_features(clip, shots, views, seed=seed, natural=natural)


def _features(
    clip: CLIP,
    split: Split,
    views: int,
    seed: int,
    batch: int | None,
    cache: str | Path | None,
) -> Tensor:
    if batch is not None:
        check_count(batch, "batch")
    keys = item_keys(split)
    if not keys:
        return torch.zeros(0, max(views, 1), clip.embed_dim)
    if not split.source:
        return _complete(clip, split, keys, None, views, seed, batch)
    store = Store(store_folder(clip, split, views, seed, cache))
    if store.known(keys) >= set(keys):
        return store.gather(keys)
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        not_kept(store.folder, error)
        return _complete(clip, split, keys, None, views, seed, batch)
    with store.filling():
        return _complete(clip, split, keys, store, views, seed, batch)


def _complete(
    clip: CLIP,
    split: Split,
    keys: Sequence[str],
    store: Store | None,
    views: int,
    seed: int,
    batch: int | None,
) -> Tensor:
    """The features of all rows; those that the store does not have are computed and put in."""
    known = store.known(keys) if store else set()
    first_row = {key: row for row, key in reversed(list(enumerate(keys)))}
    missing = sorted(row for key, row in first_row.items() if key not in known)
    fresh: dict[str, Tensor] = {}
    here: dict[str, Tensor] = {}  # what could not be kept
    kept_at, every = time.perf_counter(), interval()
    done = 0
    kind = "views" if views else "features"
    what = f"image {kind} of {_name(split)}"
    if missing:
        tell(what, 0, len(missing))
    with at_a_good_moment():
        try:
            for part in _encode(clip, split, missing, views, seed, batch):
                rows = missing[done : done + len(part)]
                fresh.update(zip((keys[r] for r in rows), part, strict=True))
                done += len(part)
                now = time.perf_counter()
                tell(what, done, len(missing))
                full = len(fresh) >= SHARD or now - kept_at > every or asked()
                if full or done == len(missing):
                    if not (store and not here and _keep(store, fresh)):
                        here |= fresh
                    fresh, kept_at = {}, now
                check()
        except MemoryShortError:
            if store and fresh and not here:
                _keep(store, fresh)
            raise
    if store is None:
        return torch.stack([here[key] for key in keys])
    rest = [key for key in keys if key not in here]
    there = dict(zip(rest, store.gather(rest), strict=True)) if here and rest else {}
    return torch.stack([(here | there)[key] for key in keys]) if here else store.gather(keys)


def _keep(store: Store, features: dict[str, Tensor]) -> bool:
    """Put features into a store; where that cannot be, a warning says so."""
    try:
        store.add(features)
    except WriteError as error:
        not_kept(store.folder, error)
        return False
    return True


def _name(split: Split) -> str:
    return split.origin.dataset if split.origin else "images"


def _encode(
    clip: CLIP, split: Split, rows: Sequence[int], views: int, seed: int, batch: int | None
) -> Iterator[Tensor]:
    """Features [b, max(views, 1), E] of these rows as they leave the tower; `batch` views are
    encoded at a time."""
    on_cpu, count = clip.device.type == "cpu", torch.get_num_threads()
    batch = batch or (max(64, CHUNK * count) if on_cpu else 64)
    batch = -(-batch // CHUNK) * CHUNK if on_cpu else batch
    m, done = max(views, 1), 0  # views of an image, and encoded ones of all
    dtype = next(clip.visual.parameters()).dtype
    tower = packed(clip.visual) if rows else clip.visual
    pixels = Pixels(clip.preprocess, split.take(rows), views or None, seed)
    rest = torch.zeros(0, clip.embed_dim)  # of an image whose views are not all encoded
    spared = Sparing(
        f"Encoding images {batch} at a time",
        advice(clip.device.type, "a smaller batch (`simprompt features --batch N` beforehand)"),
    )

    def encoded(x: Tensor) -> Tensor:
        with torch.no_grad():
            return tower(moved(x, clip.device)).float().cpu()

    with _in_chunks(encoded, count) if on_cpu else nullcontext(encoded) as encode:
        for x in pixels.in_order(most=batch, even=not on_cpu):
            features = spared(partial(encode, x))
            wrong = (~features.isfinite()).any(-1).nonzero().flatten().tolist()
            if wrong:
                item = pixels.split.items[(done + wrong[0]) // m]
                remedy = overflow("it", dtype) or ": leave the image out, or take another model"
                raise SimpromptError(
                    f"The features of the image {item!r} hold NaN or infinity, as the image tower "
                    f"of {clip.name} gives them{remedy}."
                )
            done += len(features)
            rest = torch.cat([rest, features])
            whole = len(rest) // m
            if whole:
                yield rest[: whole * m].unflatten(0, (whole, m))
            rest = rest[whole * m :]


@contextmanager
def _in_chunks(
    encode: Callable[[Tensor], Tensor], threads: int
) -> Iterator[Callable[[Tensor], Tensor]]:
    """`encode` of many images, `CHUNK` at a time, each chunk on one thread of torch's."""

    def chunks(x: Tensor) -> Iterator[Tensor]:
        for part in x.split(CHUNK):
            short = CHUNK - len(part)
            yield torch.cat([part, part[-1:].expand(short, *part.shape[1:])]) if short else part

    if threads == 1:
        yield lambda x: torch.cat([encode(part) for part in chunks(x)])[: len(x)]
        return
    try:
        # torch counts threads by thread: those of the pool have one each
        single = partial(torch.set_num_threads, 1)
        with ThreadPoolExecutor(threads, initializer=single) as pool:

            def together(x: Tensor) -> Tensor:
                tasks = [pool.submit(copy_context().run, encode, part) for part in chunks(x)]
                return torch.cat([task.result() for task in tasks])[: len(x)]

            yield together
    finally:
        torch.set_num_threads(threads)  # else threads that begin later would have one


def store_folder(
    clip: CLIP, split: Split, views: int = 0, seed: int = 0, cache: str | Path | None = None
) -> Path:
    """The folder that holds these features, whether or not it exists yet."""
    root = Path(cache) if cache is not None else cache_dir()
    return root / "features" / features_folder(clip, split, views, seed)


def _checksum(features: Tensor) -> str:
    flat = features.contiguous().reshape(-1).view(torch.uint8)
    return checksum(flat.numpy().data)


MOST_CHECKED = 1 << 16
_checked: set[tuple[str, Mark]] = set()
"""Path and mark of the shards whose checksum this process has seen to be right; emptied where
there are too many, after which shards are checked once more."""


def _items(metadata: dict[str, str] | None) -> list[str]:
    """The keys of the items in a shard, by row; ValueError if they are not there."""
    try:
        keys = json_value((metadata or {})["items"])
    except KeyError:
        raise ValueError("it does not say which images it is of") from None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("it does not say which images it is of")
    return keys


class Store:
    """A folder of shards, each a safetensors file: features [n, views, E], not normalised, the n
    items' keys, and the checksum of the features."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._where: dict[str, tuple[Path, int]] = {}
        self._mapped: dict[Path, Tensor] = {}
        self._bad: set[Path] = set()
        self._look()

    def _look(self) -> None:
        """Learn of the shards that are there; what they hold is checked when it is asked for."""
        for path in sorted({*self.folder.glob("*.safetensors")} - self._bad):
            try:
                check_regular(path, WEIGHTS)
                with safe_open(str(path), "pt") as shard:
                    keys = _items(shard.metadata())
            except FileNotFoundError:  # another process found it damaged
                continue
            except UNREADABLE as error:
                self._drop(path, f"cannot be read ({error})")
                continue
            for row, key in enumerate(keys):
                self._where.setdefault(key, (path, row))

    @contextmanager
    def filling(self) -> Iterator[None]:
        """One at a time of all that extend this store; what others have added is known inside."""
        with alone(self.folder):  # where nothing can be locked an image may be computed twice
            remove_abandoned(self.folder)
            self._look()
            yield

    def known(self, keys: Sequence[str]) -> set[str]:
        """Those of these keys whose features are there and undamaged."""
        while paths := {self._where[k][0] for k in keys if k in self._where} - {*self._mapped}:
            for path in paths:
                if damage := self._check(path):
                    self._drop(path, damage)
            if paths & self._bad:
                self._look()  # others may have what it had
        return {key for key in keys if key in self._where}

    def _check(self, path: Path) -> str | None:
        """Map a shard; what is wrong with it, if it is not what was written."""
        try:
            mark = mark_of(path)
            with safe_open(str(path), "pt") as shard:  # maps the file; copies what is indexed
                features = shard.get_tensor("features")
                written = shard.metadata()
                rows = len(_items(written))
        except UNREADABLE as error:
            return f"cannot be read ({error})"
        stamp = str(path), mark
        if stamp not in _checked:
            if features.dim() != 3 or len(features) != rows:
                return f"holds {len(features)} rows of features for {rows} images"
            if _checksum(features) != written.get("checksum"):
                return "is not what was written"
            if not torch.isfinite(features.sum()):
                return "holds features that are not finite numbers"
            if len(_checked) >= MOST_CHECKED:
                _checked.clear()
            _checked.add(stamp)
        self._mapped[path] = features
        return None

    def _drop(self, path: Path, damage: str) -> None:
        """Forget and delete a damaged shard."""
        warnings.warn(
            f"The image features in {path} are damaged: it {damage}. They are made again.",
            stacklevel=4,
        )
        self._bad.add(path)
        self._where = {key: at for key, at in self._where.items() if at[0] != path}
        with suppress(OSError):  # it stays where it cannot be deleted, and is never believed
            path.unlink()

    def add(self, features: dict[str, Tensor]) -> None:
        """Keep these features, each [views, E], as one shard."""
        keys, rows = list(features), torch.stack(list(features.values()))
        path = self.folder / f"{uuid.uuid4().hex}.safetensors"
        metadata = {"items": json.dumps(keys), "checksum": _checksum(rows)}
        with replacing(path) as partial:
            save_file({"features": rows}, str(partial), metadata=metadata)
        self._where.update({key: (path, row) for row, key in enumerate(keys)})

    def gather(self, keys: Sequence[str]) -> Tensor:
        """Features [N, views, E] of these keys, copied out of the memory-mapped shards.

        Raises:
            KeyError: one that is not `known`.
        """
        self.known(keys)
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for row, key in enumerate(keys):
            path, at = self._where[key]
            wanted.setdefault(path, []).append((row, at))
        out: Tensor | None = None
        for path, pairs in wanted.items():
            to, at_rows = (torch.tensor(column) for column in zip(*pairs, strict=True))
            part = self._mapped[path][at_rows]
            if out is None:
                out = part.new_empty(len(keys), *part.shape[1:])
            out[to] = part
        if out is None:
            raise ValueError("no keys")
        return out
