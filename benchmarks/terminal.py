"""docs/terminal.svg: commands as a reader would type them, and what they answered.

    python benchmarks/terminal.py FOLDER 'simprompt learn my_photos/ ...' 'simprompt predict ...'

They are run in FOLDER, in turn; the picture holds what they wrote to a pipe.
"""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

PICTURE = Path(__file__).parents[1] / "docs" / "terminal.svg"
WIDTH = 104


def drawn(folder: Path, commands: list[str]) -> str:
    """The picture, as SVG that fetches nothing."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), color_system="truecolor",
                      force_terminal=True)  # fmt: skip
    for command in commands:
        console.print(Text.assemble(("$ ", "green"), (command, "bold")))
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(command)], cwd=folder, encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        console.print(Text(done.stdout.rstrip()))
        console.print()
    made = console.export_svg(title="simprompt", theme=MONOKAI, unique_id="simprompt")
    return re.sub(r"\s*@font-face \{[^}]*\}", "", made)


def main() -> None:
    """Command line."""
    folder, *commands = sys.argv[1:]
    PICTURE.write_text(drawn(Path(folder), commands), encoding="utf-8")


if __name__ == "__main__":
    main()
