"""A model name -> a CLIP. Today: the icon CLIP that ships with the package, and its own layout."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import resources
from pathlib import Path

from safetensors.torch import load_file, save_file

from simprompt.clip.model import CLIP, CLIPConfig
from simprompt.clip.text import TextConfig
from simprompt.clip.tokenizer import Tokenizer
from simprompt.clip.vision import VisionConfig
from simprompt.errors import SimpromptError

EMBEDDED = {"icons": "a 48-pixel ViT trained on openly licensed icons; ships with the package"}


def config_from_dict(values: dict) -> CLIPConfig:
    """The inverse of `dataclasses.asdict` for a `CLIPConfig` that went through JSON."""
    vision = dict(values["vision"])
    vision["stem"] = tuple((int(c), int(s)) for c, s in vision.get("stem", ()))
    rest = {k: v for k, v in values.items() if k not in ("text", "vision")}
    for key in ("mean", "std"):
        if key in rest:
            rest[key] = tuple(rest[key])
    return CLIPConfig(TextConfig(**values["text"]), VisionConfig(**vision), **rest)


def save(clip: CLIP, folder: str | Path, stem: str = "model") -> None:
    """Write our own layout: `{stem}.safetensors`, `{stem}.json`; the tokenizer is not copied."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(clip.state_dict(), str(folder / f"{stem}.safetensors"))
    (folder / f"{stem}.json").write_text(json.dumps(asdict(clip.config), indent=2) + "\n")


def load(folder: str | Path, stem: str = "model", name: str | None = None) -> CLIP:
    """Read our own layout; weights of any float type become float32."""
    folder = Path(folder)
    config = config_from_dict(json.loads((folder / f"{stem}.json").read_text()))
    clip = CLIP(config, Tokenizer(folder / "tokenizer.json"), name or stem)
    weights = load_file(str(folder / f"{stem}.safetensors"))
    clip.load_state_dict({key: value.float() for key, value in weights.items()})
    return clip


def load_clip(name: str) -> CLIP:
    """The CLIP called `name`.

    Raises:
        SimpromptError: no model of that name.
    """
    if name in EMBEDDED:
        with resources.as_file(resources.files("simprompt.clip") / "embedded") as folder:
            return load(folder, stem=name, name=name)
    raise SimpromptError(
        f"There is no model called {name!r}. Known: {', '.join(EMBEDDED)}; "
        "`simprompt models list` describes them."
    )
