"""How far a long task is: the library tells, a command shows.

Whoever encodes or checks many images calls `tell` and does not know who listens. Nobody does until
a command, a sweep or a worker process says so with `listening`.
"""

from __future__ import annotations

import io
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from simprompt.terminal import visible

if TYPE_CHECKING:
    from rich.progress import Progress, Task, TaskID

Listener = Callable[[str, int, int], None]
"""Told (what is made, how many are done, how many there are): with 0 done at the start, now and
then, and with all done at the end."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def tell(what: str, done: int, total: int) -> None:
    """Say how far a task is, to whoever listens."""
    listener = _listener.get()
    if listener is not None:
        listener(what, done, total)


def somebody_listens() -> bool:
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


class Board:
    """Lines of progress, one for each thing that is made: how much of it, how fast, time left."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._lines: dict[str, tuple[TaskID, int, float]] = {}  # task, done and time at the start

    @property
    def lines(self) -> Sequence[Task]:
        """What is shown now, the oldest first."""
        return self._bars.tasks

    def tell(self, what: str, done: int, total: int) -> None:
        """A `Listener`: a line that begins anew with 0 done and goes when all are done."""
        if done == 0:
            self._drop(what)
        self.show(what, what, done, total)
        if done >= total:
            self._drop(what)

    def show(self, line: str, text: str, done: int, total: int) -> None:
        """Write `text` and how far it is on the line of this name, which stays."""
        now = time.perf_counter()
        if line not in self._lines:
            task = self._bars.add_task(visible(text), total=total, completed=done, pace="")
            self._lines[line] = (task, done, now)
        task, before, since = self._lines[line]
        # The mean since the start: Rich looks back 30 seconds, too short for two large batches.
        rate = (done - before) / (now - since) if now > since else 0.0
        self._bars.update(
            task,
            description=visible(text),
            completed=done,
            total=total,
            pace=pace(rate, total - done),
        )

    def _drop(self, line: str) -> None:
        if line in self._lines:
            self._bars.remove_task(self._lines.pop(line)[0])


def pace(rate: float, left: int) -> str:
    """A rate (1/s) and the time for what is left: "3.1/s, 0:02:10 left"; empty for rate 0."""
    if not rate:
        return ""
    shown = f"{rate:,.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
    return f"{shown}, {timedelta(seconds=round(left / rate))} left"


class Cell(Board):
    """The same in the output of a notebook's cell, where Rich shows nothing without ipywidgets."""

    EVERY = 0.2  # seconds

    def __init__(self, bars: Progress) -> None:
        super().__init__(bars)
        self._shown: Any = None  # what IPython changes in place
        self._last = -math.inf

    def show(self, line: str, text: str, done: int, total: int) -> None:
        """Write `text` and how far it is on the line of this name, which stays."""
        super().show(line, text, done, total)
        if time.perf_counter() - self._last >= self.EVERY or done >= total:
            self._draw()

    def _drop(self, line: str) -> None:
        super()._drop(line)
        if self._shown is not None:
            self._draw()

    def _draw(self) -> None:
        from IPython.display import display
        from rich.console import Console

        page = io.StringIO()
        Console(file=page, force_jupyter=False, color_system=None, width=100).print(
            self._bars.get_renderable()
        )
        drawn = {"text/plain": page.getvalue().rstrip()}
        if self._shown is None:
            self._shown = display(drawn, raw=True, display_id=True)
        else:
            self._shown.update(drawn, raw=True)
        self._last = time.perf_counter()


class Lines:
    """A plain line now and then, for a log file."""

    EVERY = 10.0  # seconds

    def __init__(self) -> None:
        self._since: dict[str, tuple[int, float]] = {}  # done and time at the start
        self._last = time.perf_counter()

    def tell(self, what: str, done: int, total: int) -> None:
        """A `Listener`."""
        now = time.perf_counter()
        before, since = self._since.setdefault(what, (done, now))
        if done > before and now - self._last >= self.EVERY:
            self._last = now
            rate = (done - before) / (now - since) if now > since else 0.0
            line = f"{what}: {done:,} of {total:,} {pace(rate, total - done)}"
            print(visible(line.rstrip()), file=sys.stderr, flush=True)
        if done >= total:
            self._since.pop(what, None)


@contextmanager
def watched(quiet: bool = False, lines: bool = True) -> Iterator[Board]:
    """What is told in here is shown on stderr unless `quiet`: as bars in a terminal or a notebook,
    elsewhere, with `lines`, as a plain line every ten seconds."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("{task.fields[pace]}"),
    )  # fmt: skip
    console = Console(stderr=True)
    in_cell = console.is_jupyter and not quiet
    off = quiet or in_cell or not sys.stderr.isatty()
    console.quiet = off
    with Progress(
        *columns,
        console=console,
        redirect_stdout=False,  # what a command prints stays on stdout
        disable=off,
    ) as bars:
        shown = Cell(bars) if in_cell else Board(bars)
        plain = off and lines and not quiet and not in_cell
        with listening(Lines().tell if plain else shown.tell):
            yield shown
