"""Time and memory of a CoOp step against the number of classes, 10 to 20,000.

Names have ImageNet's lengths. Time should grow with the tokens of all names and memory should stop
growing where the classes are cut into chunks (`simprompt.clip.text.ACTIVATIONS`). The reference
runs up to 100 classes; beyond, its time and memory are multiplied from there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from common import IMAGENET_TOKENS, Row, arguments, emit, prepare
from step import Case, measure

SIZES = (10, 100, 500, 1000, 5000, 20000)


def rows(options: argparse.Namespace) -> Iterator[Row]:
    for n in SIZES:
        if n > options.most:
            break
        case = Case(f"coop, {n} classes", base=n, novel=0, counts=IMAGENET_TOKENS)
        (row,) = measure([case], options, repeats=1 if n >= 5000 else options.repeats)
        row.more["ms_a_class"] = 1e3 * row.ours.median / n
        yield row


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--no-reference", action="store_true", help="ours alone")
    parser.add_argument("--most", type=int, default=20000, help="classes at most")
    given = parser.parse_args()
    prepare(given)
    emit(rows(given), given, "A step against the number of classes")
