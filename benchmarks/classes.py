"""Time and memory of a CoOp step against the number of classes, 10 to 20,000.

Names have ImageNet's lengths. Time should grow with the tokens of all names and memory should stop
growing where the classes are cut into chunks (`simprompt.clip.text.ACTIVATIONS`). The reference
runs up to 100 classes; beyond, its time and memory are multiplied from there.

    python benchmarks/classes.py --threads 1 --sizes 20000     # one step of 20,000 classes, no more
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from common import IMAGENET_TOKENS, Names, Row, arguments, emit, prepare
from step import REFERENCE_CLASSES, Case, measure

SIZES = (10, 100, 500, 1000, 5000, 20000)
LARGE = 5000  # from here on one step is measured, and no warm-up before it


def rows(options: argparse.Namespace) -> Iterator[Row]:
    known: Row | None = None  # with as many classes as the reference runs with
    for n in options.sizes:
        case = Case(f"coop, {n} classes", base=n, novel=0, counts=IMAGENET_TOKENS)
        if options.case and options.case not in case.name:
            continue
        alone = argparse.Namespace(**vars(options))
        alone.no_reference = options.no_reference or n > REFERENCE_CLASSES
        (row,) = measure([case], alone, 0 if n >= LARGE else options.repeats)
        if n == REFERENCE_CLASSES:
            known = row
        elif n > REFERENCE_CLASSES and known and known.reference and known.reference_peak_mb:
            row.reference, row.reference_scale = known.reference, n / REFERENCE_CLASSES
            row.reference_peak_mb = known.reference_peak_mb * row.reference_scale
            row.note = f"reference scaled from {REFERENCE_CLASSES} classes"
        names = Names(IMAGENET_TOKENS)
        tokens = sum(len(names.encode(f"{name}.")) + 1 for name in Names.make(n))  # 1 is EOT
        row.more |= {"name_tokens": tokens, "us_a_token": 1e6 * row.ours.median / tokens}
        yield row


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--no-reference", action="store_true", help="ours alone")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="classes")
    given = parser.parse_args()
    prepare(given)
    emit(rows(given), given, "A step against the number of classes")
