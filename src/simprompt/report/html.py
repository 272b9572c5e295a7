"""The pages' common ground: everything that enters one is escaped, and nothing in it may run."""

from __future__ import annotations

from pathlib import Path

import jinja2
from markupsafe import Markup

HERE = Path(__file__).parent

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser allows a page: its own styles and the pictures in it; no script, no request."""


def environment() -> jinja2.Environment:
    """Where templates of this folder are found; `head.html` has what all begin with."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    made.globals["policy"] = POLICY
    made.globals["css"] = Markup((HERE / "page.css").read_text(encoding="utf-8"))
    return made
