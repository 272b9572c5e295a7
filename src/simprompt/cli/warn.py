"""What runs warn of, on stderr."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from simprompt.utils.terminal import say

if TYPE_CHECKING:
    from simprompt.experiments.result_file import RunResult

MOST = 5


def tell(notes: Iterable[str]) -> None:
    """What is to be said of a model or a dataset, a line each."""
    for note in notes:
        say(f"simprompt: {note}", err=True)


def show(results: Iterable[RunResult]) -> None:
    """The warnings of these runs, the most frequent first; in colour in a terminal.

    Red is what makes a run unfit for a result: its novel names saw the new classes.
    """
    from rich.console import Console

    from simprompt.novel.names import STUDY_ONLY
    from simprompt.utils.terminal import markup

    counts = Counter(w for r in results for w in r.get("warnings") or ())
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    # of equally frequent ones the grave first
    ranked = sorted(counts, key=lambda w: (-counts[w], STUDY_ONLY not in w, w))
    for warning in ranked[:MOST]:
        style = "bold red" if STUDY_ONLY in warning else "yellow"
        console.print(markup(f"Warning: {warning}"), style=style)
    if len(ranked) > MOST:
        console.print(f"... and {len(ranked) - MOST} more warnings in the runs")
