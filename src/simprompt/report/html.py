"""The pages' common ground: everything that enters one is escaped, and nothing in it may run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from simprompt.utils.terminal import visible

HERE = Path(__file__).parent

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser allows a page: its own styles and the pictures in it; no script, no request."""


def _finished(value: Any) -> Any:
    """What an expression of a template gives, without marks that turn the text around it."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def environment() -> jinja2.Environment:
    """Where templates of this folder are found; `head.html` has what all begin with."""
    environment_ = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finished,
    )
    environment_.globals["policy"] = POLICY
    environment_.globals["css"] = Markup((HERE / "page.css").read_text(encoding="utf-8"))
    return environment_
