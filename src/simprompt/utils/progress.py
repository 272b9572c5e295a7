"""How far a long task is: the library tells, a command shows.

Code that encodes or checks many images calls `report_progress`. Nothing is shown until
a command, a sweep or a worker process says so with `listening`.
"""

from __future__ import annotations

import io
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from simprompt.utils.terminal import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

Listener = Callable[[str, int, int], None]
"""Told (what is made, how many are done, how many there are): with 0 done at the start, now and
then, and with all done at the end."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def report_progress(what: str, done: int, total: int) -> None:
    """Say how far a task is, to whoever listens."""
    listener = _listener.get()
    if listener is not None:
        listener(what, done, total)


def has_listener() -> bool:
    """Whether what is told now is heard."""
    return _listener.get() is not None


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """What is told in here is told to `listener`, and to nobody else."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


class Line(NamedTuple):
    """One thing that is made, and how far it is."""

    text: str
    done: int
    total: int
    before: int  # done when the line began
    since: float  # when it began, in seconds

    def pace(self, now: float) -> str:
        """The mean rate since the start, and the time for what is left."""
        rate = (self.done - self.before) / (now - self.since) if now > self.since else 0.0
        return pace(rate, self.total - self.done)


class ProgressDisplay:
    """Lines of progress, one for each thing that is made, the oldest first; shown to nobody."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}

    def tell(self, what: str, done: int, total: int) -> None:
        """A `Listener`: a line that begins anew with 0 done and goes when all are done."""
        if done == 0:
            self.drop(what)
        self.show(what, what, done, total)
        if done >= total:
            self.drop(what)

    def show(self, name: str, text: str, done: int, total: int) -> None:
        """Write `text` and how far it is on the line of this name, which stays."""
        now = time.perf_counter()
        before, since = self.lines[name][3:] if name in self.lines else (done, now)
        self.lines[name] = Line(text, done, total, before, since)
        self.draw(name, now)

    def drop(self, name: str) -> None:
        """Take the line of this name away, if it is there."""
        self.lines.pop(name, None)

    def draw(self, name: str, now: float) -> None:
        """The line of this name has changed."""


class ProgressLog(ProgressDisplay):
    """A plain line on stderr every ten seconds, for a log file: what is made in all, and the part
    of it that was told last."""

    EVERY = 10.0  # seconds

    def __init__(self) -> None:
        super().__init__()
        self._last = time.perf_counter()

    def draw(self, name: str, now: float) -> None:
        """Say it, if nothing was said for a while."""
        if now - self._last < self.EVERY or self.lines[name].done == self.lines[name].before:
            return
        self._last = now
        texts = []
        for line_name in dict.fromkeys([next(iter(self.lines)), name]):
            line = self.lines[line_name]
            texts.append(f"{line.text}: {line.done:,} of {line.total:,} {line.pace(now)}".rstrip())
        print(visible("; ".join(texts)), file=sys.stderr, flush=True)


class ProgressBars(ProgressDisplay):
    """Bars in a terminal."""

    def __init__(self, bars: Progress) -> None:
        super().__init__()
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def draw(self, name: str, now: float) -> None:
        """Move the bar."""
        line = self.lines[name]
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task("", pace="")
        # Rich's own rate looks back 30 seconds, too short for two large batches
        self._bars.update(
            self._tasks[name],
            description=visible(line.text),
            completed=line.done,
            total=line.total,
            pace=line.pace(now),
        )

    def drop(self, name: str) -> None:
        """Take the bar away, if it is there."""
        super().drop(name)
        if name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))


class NotebookBars(ProgressBars):
    """The same in the output of a notebook's cell, where Rich shows nothing without ipywidgets."""

    EVERY = 0.2  # seconds

    def __init__(self, bars: Progress) -> None:
        super().__init__(bars)
        self._shown: Any = None  # what IPython changes in place
        self._last = -math.inf

    def draw(self, name: str, now: float) -> None:
        """Move the bar, and draw all anew if they were not for a while."""
        super().draw(name, now)
        if now - self._last >= self.EVERY or self.lines[name].done >= self.lines[name].total:
            self._display()

    def drop(self, name: str) -> None:
        """Take the bar away, if it is there."""
        super().drop(name)
        if self._shown is not None:
            self._display()

    def _display(self) -> None:
        from IPython.display import display
        from rich.console import Console

        page = io.StringIO()
        Console(file=page, force_jupyter=False, color_system=None, width=100).print(
            self._bars.get_renderable()
        )
        bundle = {"text/plain": page.getvalue().rstrip()}
        if self._shown is None:
            self._shown = display(bundle, raw=True, display_id=True)
        else:
            self._shown.update(bundle, raw=True)
        self._last = time.perf_counter()


def pace(rate: float, left: int) -> str:
    """A rate (1/s) and the time for what is left: "3.1/s, 0:02:10 left"; empty for rate 0."""
    if not rate:
        return ""
    rate_text = f"{rate:,.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
    return f"{rate_text}, {timedelta(seconds=round(left / rate))} left"


@contextmanager
def progress_shown(quiet: bool = False, lines: bool = True) -> Iterator[ProgressDisplay]:
    """What is told in here is shown on stderr unless `quiet`: as bars in a terminal or a notebook,
    elsewhere, with `lines`, as a plain line every ten seconds."""
    from rich.console import Console

    console = Console(stderr=True)
    board = ProgressLog() if lines and not quiet else ProgressDisplay()
    with ExitStack() as stack:
        if not quiet and (console.is_jupyter or sys.stderr.isatty()):
            bars = stack.enter_context(_bars(console))
            board = NotebookBars(bars) if console.is_jupyter else ProgressBars(bars)
        with listening(board.tell):
            yield board


def _bars(console: Console) -> Progress:
    """Rich's bars; in a notebook it is `NotebookBars` that shows them."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console.quiet = console.is_jupyter
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[pace]}"),
        console=console,
        redirect_stdout=False,  # what a command prints stays on stdout
        disable=console.is_jupyter,
    )
