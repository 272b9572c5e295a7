"""A text file, whatever its encoding, as text.

UTF-8 with or without a byte order mark, UTF-16 and UTF-32 with one, UTF-16 of mostly Latin letters
without one; any other file is read as cp1252, as Windows writes it.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from simprompt.errors import SimpromptError
from simprompt.utils.files.regular import read_bytes

MOST_BYTES = 16 << 20
"""Of a file of names: a million names of sixteen letters."""

_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16",
}  # fmt: skip


def text_of(path: Path) -> str:
    """The text of a file.

    Raises:
        SimpromptError: not there, not a regular file, not readable, larger than `MOST_BYTES`, or
            not text.
    """
    try:
        data = read_bytes(path, MOST_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise SimpromptError(f"{path} cannot be read: {reason}. Check the path.") from None
    try:
        text, encoding = decoded(data)
    except ValueError as error:
        raise SimpromptError(f"{path}{error}. Save it as UTF-8.") from None
    if encoding == "cp1252":
        warnings.warn(
            f"{path.name} is not UTF-8; it was read as cp1252, as Windows writes it.", stacklevel=2
        )
    return text


def decoded(data: bytes) -> tuple[str, str]:
    """(the text of these bytes, the encoding that was taken).

    Raises:
        ValueError: not text; the message goes on behind a file's name.
    """
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "")
    if not encoding and b"\0" in data[:1000]:  # text of Latin letters has a zero in each pair
        encoding = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
    for choice in [encoding] if encoding else ["utf-8", "cp1252"]:
        try:
            text = data.decode(choice)
            break
        except UnicodeDecodeError as error:
            failure = error
    else:
        if encoding:
            raise ValueError(
                f" is not a text file: it begins like {encoding.upper()}, but byte "
                f"{failure.start} does not fit"
            )
        line = data.count(b"\n", 0, failure.start) + 1
        raise ValueError(
            f", line {line}: neither UTF-8 nor cp1252 (byte 0x{data[failure.start]:02x})"
        )
    if "\0" in text:
        raise ValueError(" is not a text file")
    return text, choice
