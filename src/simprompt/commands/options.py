"""Options that several commands share: one name, one meaning, one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout")]
Model = Annotated[str, typer.Option(help="A name from `simprompt models list`, or a path")]
Recipe = Annotated[str | None, typer.Option(help="A named recipe, or a YAML file")]
TokenizerFile = Annotated[Path | None, typer.Option(help="A tokenizer file, for a bare OpenAI .pt")]
Workers = Annotated[int, typer.Option(help="Processes, one run each; 0 takes one a core")]
BatchRuns = Annotated[
    str, typer.Option(help="auto: train seeds and SAR settings of a task together; or off")
]
RayAddress = Annotated[
    str | None, typer.Option(help="Address of a Ray cluster: auto, ray://HOST:PORT, local")
]
