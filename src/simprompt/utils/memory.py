"""How much memory this process took since a mark; and what is done where memory runs out: once
more in smaller pieces, said in a warning, then an error that says what to do.
"""

from __future__ import annotations

import contextlib
import gc
import re
import sys
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from simprompt.errors import SimpromptError

if TYPE_CHECKING:
    from torch import Tensor


def reset_peak() -> None:
    """Start a new measurement, where the system can forget its old peak (Linux)."""
    with contextlib.suppress(OSError):  # elsewhere the peak is that of the whole process
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_mb() -> float:
    """Largest resident memory in MB since `reset_peak`, or since the process began."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    try:
        import resource
        import sys
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def limit_mb() -> float:
    """Memory that this process may use at most, in MB: the machine's or its container's; NaN
    where the system does not say."""
    limits = []
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemTotal:"):
                limits.append(int(line.split()[1]) / 1024)
    except OSError:
        pass
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup 2, cgroup 1
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            limits.append(int((Path("/sys/fs/cgroup") / name).read_text(encoding="utf-8")) / 2**20)
    return min(limits, default=float("nan"))


PIECES = 4
"""Into how many pieces a batch is cut when it is tried again."""

T = TypeVar("T")

# what torch and its libraries say that raise a plain RuntimeError: of the CPU (Linux, Windows), of
# Metal, of cuBLAS and cuDNN, of C++
_SAID = re.compile(
    r"can't allocate memory|not enough memory: you tried to allocate|out of memory"
    r"|_STATUS_ALLOC_FAILED|std::bad_alloc"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the machine or its GPU had no memory left."""
    if isinstance(error, MemoryError | MemoryShortError):  # NumPy's and Pillow's are the former
        return True
    return isinstance(error, RuntimeError) and _SAID.search(str(error)) is not None


def advice(device: str = "", *first: str) -> str:
    """What to do where memory does not suffice; `first` is what helps most."""
    cpu = ", --device cpu" if device not in ("", "cpu") else ""
    return (
        f"Take {', '.join([*first, 'a smaller model'])}, or a machine with more memory; fewer "
        f"--workers{cpu} or --dtype bfloat16 help where the command has them."
    )


class MemoryShortError(SimpromptError):
    """Memory ran out, and what could be done about it was not enough.

    Attributes:
        why: what the library said whose memory ran out.
    """

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


class OOMRetry:
    """Work that is done once more, cut into pieces, where memory runs out; what follows is cut from
    the start.

    The towers do the cutting: they ask `pieces`, or hand what they do to `chunked`. Results are
    the same up to the order of floating-point sums. Such work may be part of other such work: it
    begins whole, so that what a training step remembers of frozen features does not depend on how
    the step was cut; where it cannot be done, the work around it is tried again.

    Args:
        what: is done, with its article; for messages.
        advice: what to do if memory does not suffice even so.
        pieces: 1, or `PIECES` where memory ran out before.
    """

    def __init__(self, what: str, advice: str, pieces: int = 1) -> None:
        self.what, self.advice, self.pieces = what, advice, pieces
        self.cuttable = False  # whether something of what the work did could be cut

    def __call__(self, work: Callable[[], T], undo: Callable[[], object] = lambda: None) -> T:
        """What `work` gives.

        Args:
            undo: puts back what work that was broken off has changed.

        Raises:
            MemoryShortError: memory ran out twice, or once in what cannot be cut.
        """
        self.cuttable = False
        token = _under_way.set(self)
        try:
            finished, output, why = self._try(work, undo)
            if not finished and self.pieces == 1 and self.cuttable:
                warnings.warn(
                    f"{self.what} ran out of memory ({why}): it is done again in smaller pieces, "
                    "and so is what follows. That is slower, and sums may differ in their last "
                    "digits.",
                    stacklevel=3,
                )
                self.pieces = PIECES
                finished, output, why = self._try(work, undo)
            if not finished:
                addition = ", also in smaller pieces" if self.pieces > 1 else ""
                addition = addition if self.cuttable else ", and cannot be cut into smaller pieces"
                raise MemoryShortError(
                    f"{self.what} ran out of memory{addition} ({why}). {self.advice}", why
                )
            return output[0]
        finally:
            _under_way.reset(token)

    def _try(self, work: Callable[[], T], undo: Callable[[], object]) -> tuple[bool, list[T], str]:
        """Whether the work was done, what it gave, and why it was not done."""
        try:
            return True, [work()], ""
        except (MemoryError, MemoryShortError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            why = said(error)
        # the error is gone, and with it the frames that hold what the work had computed
        undo()
        _give_back()
        return False, [], why


_under_way: ContextVar[OOMRetry | None] = ContextVar("under_way", default=None)


def pieces(rows: int) -> int:
    """Into how many pieces to cut so many rows of a batch: 1, but where memory ran out."""
    work = _under_way.get()
    if work is None or rows < 2:
        return 1
    work.cuttable = True
    return min(work.pieces, rows)


def chunked(encode: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """``encode(*rows)`` for tensors [B, ...] whose rows do not know of each other; where memory ran
    out, piece by piece, each computed again for the backward pass."""
    if _under_way.get() is None:  # an exporter that follows it need not know B
        return encode(*rows)
    n = pieces(len(rows[0]))
    if n == 1:
        return encode(*rows)
    import torch
    from torch.utils.checkpoint import checkpoint

    def one(*part: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return encode(*part)
        output: Tensor = checkpoint(encode, *part, use_reentrant=False, preserve_rng_state=False)
        return output

    return torch.cat([one(*part) for part in zip(*(x.tensor_split(n) for x in rows), strict=True)])


def explained(error: BaseException) -> str:
    """What to say of memory that ran out where nothing could be done about it."""
    return f"Memory ran out ({said(error)}). {advice('some', 'a smaller batch')}"


def said(error: BaseException) -> str:
    """The first sentence of what an error of memory says."""
    if isinstance(error, MemoryShortError):
        return error.why
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.split(r"\.\s", lines[0])[0].rstrip(".")


def _give_back() -> None:
    """Let a GPU have back what the work that was broken off had reserved."""
    torch = sys.modules.get("torch")
    gc.collect()  # autograd's graphs may be circles
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif torch is not None and torch.backends.mps.is_available():
        torch.mps.empty_cache()
