"""Our tokenizer -> the `vocabulary.json` that `runtime.bpe` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simprompt.clip.tokenizer import EOT, SOT, Tokenizer
from simprompt.deploy.export.runtime.bpe import Vocabulary

# What a text is cut into: OpenAI's rule, with or without the marks, and the icon CLIP's.
_UNICODE = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
PIECES = {
    _UNICODE: False,
    rf"<\|startoftext\|>|<\|endoftext\|>|{_UNICODE}": False,
    r"[a-z]+|[0-9]|[^\sa-z0-9]+": True,
}  # -> whether letters are a-z alone

SAMPLES = ("tree's", "t-shirt", "café au lait", "boeing 737-800", "rock'n'roll", "3½ (new)", "猫")


def write(tokenizer: Tokenizer, names: Sequence[str], path: Path) -> str | None:
    """Write `path`, and read it back: the names must give the same ids.

    Returns:
        Why this tokenizer cannot be written in that form; None if it is written.
    """
    if not hasattr(tokenizer, "fast"):
        return (
            "its tokenizer is a compiled library here; name OpenAI's vocabulary as a file "
            "with --tokenizer where the prompt is learned."
        )
    data = vocabulary(json.loads(tokenizer.fast.to_str()))
    if data is None:
        return "its tokenizer is not CLIP's byte-pair encoding."
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    again = Vocabulary(path)
    for text in (*names, *SAMPLES):
        if again.encode(text) != tokenizer.encode(text):
            path.unlink()
            return f"its tokenizer cuts {text!r} in a way that plain byte-pair encoding does not."
    return None


def vocabulary(fast: dict[str, Any]) -> dict[str, Any] | None:
    """What `Vocabulary` needs of a `tokenizer.json`; None if that is not enough."""
    model, before = fast["model"], fast["pre_tokenizer"] or {}
    steps = before.get("pretokenizers", [before])
    patterns = [step["pattern"].get("Regex") for step in steps if step.get("type") == "Split"]
    rules = fast["normalizer"] or {}
    normalisers = {step.get("type") for step in rules.get("normalizers", [rules])} - {None}
    if (
        model.get("type") != "BPE"
        or model.get("end_of_word_suffix") != "</w>"
        or model.get("continuing_subword_prefix")
        or model.get("byte_fallback")
        or [step.get("type") for step in steps] != ["Split", "ByteLevel"]
        or patterns[0] not in PIECES
        or not normalisers <= {"NFC", "Replace", "Lowercase"}
        or {token["content"] for token in fast["added_tokens"]} - {SOT, EOT}
    ):
        return None
    merges = [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
    unknown = model.get("unk_token")
    return {
        "ids": model["vocab"] | {t["content"]: t["id"] for t in fast["added_tokens"]},
        "merges": merges,
        "unknown": None if unknown is None else model["vocab"][unknown],
        "ascii": PIECES[patterns[0]],
        "nfc": "NFC" in normalisers,
    }
