"""Text -> token ids, with OpenAI's cleaning rule in front of the model's own BPE."""

from __future__ import annotations

import html
import re
from pathlib import Path

SOT, EOT = "<|startoftext|>", "<|endoftext|>"


def clean(text: str) -> str:
    """Mended mojibake, HTML entities undone twice, single spaces, lower case (OpenAI's rule)."""
    import ftfy  # here: costs start-up time that `--help` should not pay

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip().lower()


class Tokenizer:
    """A BPE read from a `tokenizer.json` in the format of the `tokenizers` library."""

    def __init__(self, path: str | Path) -> None:
        from tokenizers import Tokenizer as Fast

        self.path = Path(path)
        self.fast = Fast.from_file(str(path))
        sot, eot = self.fast.token_to_id(SOT), self.fast.token_to_id(EOT)
        if sot is None or eot is None:
            raise ValueError(f"{path} has no {SOT} and {EOT} tokens")
        self.sot: int = sot
        self.eot: int = eot

    def encode(self, text: str) -> list[int]:
        """Ids of `text` without start and end marks; what follows a first EOT is cut off."""
        ids: list[int] = self.fast.encode(clean(text), add_special_tokens=False).ids
        return ids[: ids.index(self.eot)] if self.eot in ids else ids

    def decode(self, ids: list[int]) -> str:
        return self.fast.decode(ids, skip_special_tokens=False)
