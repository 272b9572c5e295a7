"""Load a saved prompt, and check that the model is the one it was learned on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from simprompt import methods
from simprompt.clip import fingerprint
from simprompt.clip.hub import is_named, load_clip, remember, remembered
from simprompt.clip.layouts.common import not_finite
from simprompt.clip.model import CLIP
from simprompt.clip.same_text import (
    class_names,
)
from simprompt.config import parse
from simprompt.errors import SimpromptError, check_argument
from simprompt.features.digests import of_model
from simprompt.methods import code_digests
from simprompt.prompt import storage
from simprompt.prompt.prompt import Prompt
from simprompt.utils.devices import DTYPES
from simprompt.utils.gradients import frozen_mode


@frozen_mode()
def load_prompt(
    path: str | Path,
    clip: CLIP | None = None,
    *,
    model: str | Path | None = None,
    tokenizer: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: str = "float32",
) -> Prompt:
    """Read what `Prompt.save` or `simprompt run` wrote.

    A card names its model by a name of `simprompt list models`, a repository of the hub, or, of a
    checkpoint at a path, by the path's last part and a digest. A path in a card is never opened: a
    prompt may come from anywhere. The checkpoint is `model`, or where the user who reads the prompt
    last had a model of this digest.

    Args:
        path: what `prompt.storage.read` takes: a folder, a file, or ``"hf://user/repo[@revision]"``.
        clip: the model; None loads it.
        model, tokenizer: a name or path of the model instead of the card's, and a tokenizer file
            instead of the model's own, as `load_clip` takes them.
        device, dtype: where and how the model is loaded, as `load_clip` takes them.

    Raises:
        SimpromptError: a file is missing or not a saved prompt, of a newer format, what it holds
            is not finite, the model is not found, or not the one that the prompt was learned on.
    """
    check_argument(path, str | Path, "load_prompt()", "a path, or hf://user/repository")
    check_argument(clip, CLIP | None, "load_prompt()", 'a CLIP, such as load_clip("icons")')
    try:
        state, card, location = storage.read(path)
    except SimpromptError:
        raise
    except (OSError, ValueError) as error:  # a name that no file can have
        raise SimpromptError(f"There is no prompt {str(path)!r:.200}: {error!s:.200}.") from None
    method, options = card["method"], card["options"]
    names, template, seed = card["classnames"], card["template"], card["seed"]
    if name := not_finite(state):
        raise SimpromptError(
            f"The prompt {location} cannot be used: its {name} holds NaN or infinity. Learn it "
            "again."
        )
    for key in ("classnames", "new_classes"):
        class_names(
            card.get(key, ()), f"{key} in the card of {location}", empty=key != "classnames"
        )
    if clip is None:
        source = model_source(card, location, model, tokenizer)
        clip = load_clip(
            source["model"],
            tokenizer=source["tokenizer"],
            image_size=card.get("image_size"),
            device=device,
            dtype=dtype,
        )
    _check_model(card, clip, location)
    if model is not None and card.get("model_digest") == of_model(clip):
        remember(card["model_digest"], clip)
    learner_class = methods.find(method)
    _check_code(card, location)
    config = parse(learner_class.Config, options, f"Settings of {method} in the card of {location}")
    learner = learner_class(clip, names, template, config, seed)
    try:
        learner.load_state_dict(state)
    except RuntimeError as error:
        raise SimpromptError(
            f"The prompt {location} was learned for the model {card['model']} and does not fit "
            f"{clip.name}: {error}."
        ) from None
    return Prompt(learner, card)


def model_source(
    card: Mapping[str, Any],
    where: str,
    model: str | Path | None = None,
    tokenizer: str | Path | None = None,
) -> dict[str, Any]:
    """``{"model": ..., "tokenizer": ...}`` for `load_clip`: what the user gives, else where the
    user had a model of the card's digest, else the card's model if its name is public.

    Args:
        where: the prompt, for the message.

    Raises:
        SimpromptError: the user has to give the model or the tokenizer.
    """
    source = remembered(card.get("model_digest") or "") if model is None else None
    if source:
        return source if tokenizer is None else {**source, "tokenizer": tokenizer}
    digest = f" (digest {card['model_digest'][:12]})" if card.get("model_digest") else ""
    if model is None and not is_named(card["model"]):
        raise SimpromptError(
            f"The prompt {where} was learned on the checkpoint {card['model']!r}{digest}, which "
            "has no public name. Give its path with --model PATH, in Python with "
            "load_prompt(..., model=PATH); that it is the same model is checked."
        )
    if tokenizer is None and model is None and card.get("tokenizer"):
        raise SimpromptError(
            f"The prompt {where} was learned on the model {card['model']!r}{digest} with the "
            f"tokenizer file {card['tokenizer']!r}. Give its path with --tokenizer PATH, in Python "
            "with load_prompt(..., tokenizer=PATH); that it is the same is checked."
        )
    return {"model": model or card["model"], "tokenizer": tokenizer}


def _check_model(card: Mapping[str, Any], clip: CLIP, where: str) -> None:
    """Whether this is the CLIP that a prompt was learned on, where the card says which.

    A model may be loaded in another type than the prompt was learned in. Then the digests in
    float32 are compared, or the model is rounded to the prompt's type and compared in that.

    Raises:
        SimpromptError: it is another one, be it of the same sizes.
    """
    stated = card.get("model_digest")
    if stated is None:
        return
    digests = _digest_like(card, clip)
    if digests is None:
        warnings.warn(
            f"The prompt {where} was learned in {card.get('model_dtype')} and {clip.name} is "
            f"loaded in {dtype_name(clip)}, so they cannot be compared. Load it with "
            'dtype="float32" to have it checked.',
            stacklevel=3,
        )
        return
    ours, theirs = digests
    if ours == theirs:
        return
    raise SimpromptError(
        f"The prompt {where} was learned on the model {card['model']} with the digest "
        f"{theirs[:12]}, and {clip.name} has {ours[:12]}: other weights, another "
        "tokenizer or preprocessing. Its accuracy there is unknown. Give the model that it was "
        "learned on (--model, --tokenizer), or learn it again on this one."
    )


def _check_code(card: Mapping[str, Any], where: str) -> None:
    """Warn where a method of the user's own is not the code that the prompt was learned with."""
    stated = card.get("method_code")
    if not isinstance(stated, Mapping):
        return
    now = code_digests(card["method"], card["options"])
    changed = [n for n in stated if methods.own_file(n) and now.get(n) != stated[n]]
    if changed:
        warnings.warn(
            f"The prompt {where} was learned with other code of the method {', '.join(changed)} "
            f"than {methods.own_file(changed[0])} holds now: its answers may be others. Learn it "
            "again, or bring that code back.",
            stacklevel=3,
        )


def _digest_like(card: Mapping[str, Any], clip: CLIP) -> tuple[str, str] | None:
    """(digest of this model, digest in the card) that can be compared; None for none."""
    stated, dtype = str(card["model_digest"]), card.get("model_dtype")
    if dtype == dtype_name(clip):
        return of_model(clip), stated
    origin = fingerprint.of_origin(clip)
    stated_origin = stated if dtype == "float32" else card.get("model_origin")
    if origin and stated_origin:
        return origin, str(stated_origin)
    if dtype_name(clip) == "float32" and dtype in DTYPES:
        number = getattr(torch, dtype)
        ours = fingerprint.of_clip(clip, number)
        if ours != stated and fingerprint.of_clip(clip, number, rounded_scale=True) == stated:
            return stated, stated
        return ours, stated
    return None


def dtype_name(clip: CLIP) -> str:
    """The type of a model's weights, such as "float32"."""
    return str(clip.text.token_embedding.weight.dtype).removeprefix("torch.")
