"""JSON and YAML from outside as plain values, with one kind of error for all that can be wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

DEEPEST = 64
"""Levels of lists and objects in each other that a file may have; ours have six. Whatever walks
values, prints or compares them goes down level by level, and Python ends that at a thousand."""
LONGEST_YAML = 20_000
"""Characters; the reader is slow, and recipes have a few hundred."""


def json_value(text: str | bytes) -> Any:
    """What a JSON text says. A name may hold halves of surrogate pairs: files are named in bytes.

    Raises:
        ValueError: no JSON, too deep, or a number of thousands of digits.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    _check_depth(value)
    return value


def yaml_value(text: str) -> Any:
    """What a YAML text says, without references: a few lines of them make a value without end.

    Raises:
        ValueError: no YAML, too long or too deep, with references, or a date that there is not.
    """
    import yaml

    opens = (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken,
             yaml.BlockSequenceStartToken, yaml.BlockMappingStartToken)  # fmt: skip
    closes = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)
    if len(text) > LONGEST_YAML:
        raise ValueError(f"it has {len(text):,} characters, {LONGEST_YAML:,} are read at most")
    try:
        level = 0
        for token in yaml.scan(text, yaml.SafeLoader):
            if isinstance(token, yaml.AliasToken):
                raise ValueError(f"it refers to *{token.value}; write the value out")
            level += isinstance(token, opens) - isinstance(token, closes)
            if level > DEEPEST:  # for each level the reader looks at all those above
                raise ValueError(_too_deep())
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError(_too_deep()) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        # the library lets them out for scalars that look like a number or a date and are none
        raise ValueError(f"a value in it cannot be read ({error})") from None
    _check_depth(value)
    return value


def first_complaint(error: ValidationError) -> str:
    """What a pydantic model says first of values from outside: ``is wrong at 'shots': ...``."""
    first_error = error.errors(include_url=False)[0]
    location = ".".join(map(str, first_error["loc"]))
    if first_error["type"] == "missing":
        return f"lacks {location!r:.200}"
    return f"is wrong at {location!r:.200}: {first_error['msg'][0].lower()}{first_error['msg'][1:]}"


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ValueError(_too_deep())


def _too_deep() -> str:
    return f"more than {DEEPEST} lists and objects stand in each other"
