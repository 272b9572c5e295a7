"""The command line: parses, calls the library, prints. One module per verb.

The verbs' modules import nothing heavy until they run, so `--help` answers at once.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import shlex
import signal
import sys
import traceback
import warnings
from contextlib import suppress
from importlib import import_module

import typer

from simprompt.cli.examples import shown
from simprompt.cli.former import current
from simprompt.utils import signals
from simprompt.utils.terminal import say, visible

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Prompt learning for CLIP that keeps working on classes it never saw.",
)

# in the order of --help
VERBS = {
    "Your images": ("learn", "predict", "add", "serve", "explain", "export"),
    "Experiments": ("demo", "run", "tune", "study", "report"),
    "Data and models": ("list", "show", "download", "check", "encode", "novel-names"),
    "System": ("doctor",),
}

for _panel, _verbs in VERBS.items():
    for _verb in _verbs:
        _name = _verb.replace("-", "_")
        _module = import_module(f"simprompt.cli.{_name}")
        _command = getattr(_module, _name, None) or getattr(_module, f"{_name}_")
        app.command(_verb, epilog=shown(_verb), rich_help_panel=_panel)(_command)


def _version(wanted: bool) -> None:
    if wanted:
        from simprompt._version import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", is_eager=True, callback=_version
    ),
    debug: bool = typer.Option(
        False, "--debug", help="Show where in the code an error arose.", envvar="SIMPROMPT_DEBUG"
    ),
) -> None:
    """Prompt learning for CLIP that keeps working on classes it never saw."""
    global _debug
    _debug = debug


_debug = False
_words: list[str] = []  # what follows `simprompt`; a benchmark's script sets sys.argv to its own


def _one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Our own warnings speak of files and runs; where in the code they arose helps nobody."""
    prefix = "" if category is UserWarning else f"{filename}:{lineno}: {category.__name__}: "
    return visible(f"simprompt: {prefix}{message}\n")


def main() -> None:
    """Entry point: our own errors, and what a disk refuses, become one paragraph and exit code 2,
    warnings one line, a signal one sentence and exit code 130 or 143. Anything else is a bug of
    ours: exit code 3."""
    from simprompt.errors import SimpromptError

    global _words
    _words = sys.argv[1:]
    # OpenMP's threads wait asleep: awake, they take the cores from each other wherever something
    # else computes, too, and training is ten times slower. It is read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    warnings.formatwarning = _one_line
    for stream in (sys.stdout, sys.stderr):
        # a file's name may hold what cannot be printed
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    # Pillow's doubts about EXIF and large pictures; the library leaves filters as they are
    warnings.filterwarnings("ignore", module=r"PIL\b")
    try:
        with signals.catch_signals(last_words=_stopped_in_a_step):
            app(current(_words))
    except SimpromptError as error:
        _show_trace()
        say(f"simprompt: {error}", err=True)
        sys.exit(2)
    except signals.Stopped as stopped:
        _say_stopped(stopped.number, stopped.kept)
        _leave(signals.exit_code(stopped.number))
    except OSError as error:
        _show_trace()
        prefix = f"{error.filename}: " if error.filename else ""
        reason = f"{prefix}{error.strerror or error}"
        say(
            f"simprompt: {reason}. Choose another place, or mend this one; what was finished is "
            "kept.",
            err=True,
        )
        sys.exit(2)
    except Exception as error:
        from simprompt.utils import memory

        _show_trace()
        if memory.is_out_of_memory(error):
            say(f"simprompt: {memory.explained(error)} What was finished is kept.", err=True)
            sys.exit(2)
        say(_bug(error), err=True)
        sys.exit(3)


def _show_trace() -> None:
    if _debug:
        say(traceback.format_exc(), err=True)


def _bug(error: Exception) -> str:
    from simprompt._version import __version__

    again = shlex.join(["simprompt", "--debug", *_words])
    return (
        f"simprompt: This is a fault of simprompt {__version__}, not yours: "
        f"{type(error).__name__}: {error}. What was finished is kept. Please report it, with what "
        f"this shows: {again}"
    )


def _leave(code: int) -> None:
    """End at once: all is kept and closed, and to take torch down by the book takes a second more,
    or, on a busy machine, many."""
    for process in multiprocessing.active_children():
        process.kill()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # who read it is gone
            stream.flush()
    os._exit(code)


def _say_stopped(number: int, kept: str = "") -> None:
    name, again = signal.Signals(number).name, shlex.join(["simprompt", *_words])
    kept = kept or "all that was finished"
    say(f"simprompt: Stopped by {name}. Kept: {kept}. To go on: {again}", err=True)


def _stopped_in_a_step(number: int) -> None:
    _say_stopped(number, "all that was finished, and what was in work as it was a minute ago")
    _leave(signals.exit_code(number))
