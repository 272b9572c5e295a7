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

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from simprompt.clip.model import CLIP
from simprompt.clip.packed import packed
from simprompt.clip.transformer import overflow
from simprompt.data.split import Split
from simprompt.errors import SimpromptError, check_count
from simprompt.features.digests import features_folder, item_keys
from simprompt.features.pixels import Pixels
from simprompt.features.store import Store
from simprompt.utils.checkpoint import interval
from simprompt.utils.devices import to_device
from simprompt.utils.files.atomic import WriteError
from simprompt.utils.files.cache_folders import cache_dir, not_kept
from simprompt.utils.memory import MemoryShortError, OOMRetry, advice
from simprompt.utils.progress import report_progress
from simprompt.utils.signals import defer_signals, raise_if_stopped, stop_requested

if TYPE_CHECKING:
    from simprompt.methods.base import PromptLearner

CHUNK = 16
"""Images that a CPU encodes at a time on one thread, always so many, the last ones filled up. The
order of sums, and so the last bits of a feature, depends on the number of threads and of rows of a
product: with both fixed an image has the same feature whoever computes it, in whatever company."""
SHARD = 1024
"""A shard is closed after so many images, or when a checkpoint would be due."""


def image_features(
    clip: CLIP,
    split: Split,
    *,
    batch: int | None = None,
    cache: str | Path | None = None,
    unnormalized: bool = False,
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
        unnormalized: at the length the tower gave them, which is how they are kept; not normalised.

    Every batch of newly computed images is told to `utils.progress.report_progress`.

    Returns:
        float32 [N, E], rows L2-normalised unless `unnormalized`, on the CPU.

    Raises:
        SimpromptError: an image that cannot be read or whose features are not finite, named.
    """
    features = _features(clip, split, 0, 0, batch, cache).squeeze(1)
    return features if unnormalized else F.normalize(features, dim=-1)


def view_features(
    clip: CLIP,
    split: Split,
    views: int = 8,
    *,
    seed: int = 0,
    batch: int | None = None,
    cache: str | Path | None = None,
    unnormalized: bool = False,
) -> Tensor:
    """Features of ``views`` augmented views of every image (see `Preprocess.augment`).

    View m of an item is the same in every run with the same ``seed``, however many views are
    asked for and in whatever order images come.

    Returns:
        float32 [N, views, E], L2-normalised unless ``unnormalized``, on the CPU.
    """
    if views < 1:
        raise SimpromptError(f"An image needs at least 1 view, got views={views}.")
    features = _features(clip, split, views, seed, batch, cache)
    return features if unnormalized else F.normalize(features, dim=-1)


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
    if learner.image_input == "pixels":
        return Pixels(learner.clip.preprocess, split).in_order(f"images of {_name(split)}")
    unnormalized = learner.image_input == "unnormalized"
    return iter((image_features(learner.clip, split, unnormalized=unnormalized),))


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
    stored = store.known(keys) if store else set()
    first_row = {key: row for row, key in reversed(list(enumerate(keys)))}
    missing = sorted(row for key, row in first_row.items() if key not in stored)
    fresh: dict[str, Tensor] = {}
    computed: dict[str, Tensor] = {}  # what could not be kept
    kept_at, every = time.perf_counter(), interval()
    count = 0
    kind = "views" if views else "features"
    task_name = f"image {kind} of {_name(split)}"
    if missing:
        report_progress(task_name, 0, len(missing))
    with defer_signals():
        try:
            for chunk in _encode(clip, split, missing, views, seed, batch):
                rows = missing[count : count + len(chunk)]
                fresh.update(zip((keys[r] for r in rows), chunk, strict=True))
                count += len(chunk)
                now = time.perf_counter()
                report_progress(task_name, count, len(missing))
                full = len(fresh) >= SHARD or now - kept_at > every or stop_requested()
                if full or count == len(missing):
                    if not (store and not computed and _keep(store, fresh)):
                        computed |= fresh
                    fresh, kept_at = {}, now
                raise_if_stopped()
        except MemoryShortError:
            if store and fresh and not computed:
                _keep(store, fresh)
            raise
    if store is None:
        return torch.stack([computed[key] for key in keys])
    stored_keys = [key for key in keys if key not in computed]
    from_store = (
        dict(zip(stored_keys, store.gather(stored_keys), strict=True))
        if computed and stored_keys
        else {}
    )
    return (
        torch.stack([(computed | from_store)[key] for key in keys])
        if computed
        else store.gather(keys)
    )


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
    pending = torch.zeros(0, clip.embed_dim)  # of an image whose views are not all encoded
    retry = OOMRetry(
        f"Encoding images {batch} at a time",
        advice(clip.device.type, "a smaller batch (`simprompt encode --batch-size N` beforehand)"),
    )

    def encoded(x: Tensor) -> Tensor:
        with torch.no_grad():
            return tower(to_device(x, clip.device)).float().cpu()

    with _in_chunks(encoded, count) if on_cpu else nullcontext(encoded) as encode:
        for x in pixels.in_order(most=batch, even=not on_cpu):
            features = retry(partial(encode, x))
            wrong = (~features.isfinite()).any(-1).nonzero().flatten().tolist()
            if wrong:
                item = pixels.split.items[(done + wrong[0]) // m]
                remedy = overflow("it", dtype) or ": leave the image out, or take another model"
                raise SimpromptError(
                    f"The features of the image {item!r} hold NaN or infinity, as the image tower "
                    f"of {clip.name} gives them{remedy}."
                )
            done += len(features)
            pending = torch.cat([pending, features])
            image_count = len(pending) // m
            if image_count:
                yield pending[: image_count * m].unflatten(0, (image_count, m))
            pending = pending[image_count * m :]


@contextmanager
def _in_chunks(
    encode: Callable[[Tensor], Tensor], threads: int
) -> Iterator[Callable[[Tensor], Tensor]]:
    """`encode` of many images, `CHUNK` at a time, each chunk on one thread of torch's."""

    def chunks(x: Tensor) -> Iterator[Tensor]:
        for chunk in x.split(CHUNK):
            short = CHUNK - len(chunk)
            yield torch.cat([chunk, chunk[-1:].expand(short, *chunk.shape[1:])]) if short else chunk

    if threads == 1:
        yield lambda x: torch.cat([encode(part) for part in chunks(x)])[: len(x)]
        return
    try:
        # torch counts threads by thread: those of the pool have one each
        single = partial(torch.set_num_threads, 1)
        with ThreadPoolExecutor(threads, initializer=single) as pool:

            def together(x: Tensor) -> Tensor:
                tasks = [pool.submit(copy_context().run, encode, chunk) for chunk in chunks(x)]
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
